import json
import shutil

import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTModel,
)

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.schema import STAGES
from brainstage.models.backbones import find_backbone, forward, linear, open_backbone, split_head
from helpers import save_backbone, small_vit

SMALL = {
    "vit": lambda: small_vit(),
    "swin": lambda: SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    ),
    "resnet": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    ),
}


@pytest.mark.parametrize("kind", SMALL)
def test_the_head_on_the_features_gives_the_scores_of_the_whole_network(kind, tmp_path):
    model = open_backbone(save_backbone(tmp_path, SMALL[kind]()), STAGES, seed=0)
    inputs = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    body, head = split_head(model)
    features = forward(body, bf16=False)(inputs.numpy())
    assert features.shape == (5, linear(model).in_features)
    with torch.inference_mode():
        torch.testing.assert_close(head(torch.from_numpy(features)), model(inputs).logits, atol=1e-5, rtol=0)
    assert model.config.id2label == dict(enumerate(STAGES))


def test_a_new_head_depends_on_the_seed_alone(vit_folder):
    heads = [open_backbone(vit_folder, STAGES, seed).classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (4, 32)


@pytest.mark.parametrize("labels", [sorted(STAGES), [f"LABEL_{number}" for number in range(4)]])
def test_a_head_for_these_classes_is_kept_in_their_order(labels, tmp_path):
    model = small_vit(labels)
    opened = open_backbone(save_backbone(tmp_path, model), STAGES, seed=0)
    rows = [sorted(STAGES).index(stage) for stage in STAGES]
    assert torch.equal(opened.classifier.weight, model.classifier.weight[rows])
    assert torch.equal(opened.classifier.bias, model.classifier.bias[rows])


def test_a_network_without_a_head_gets_one(tmp_path):
    settings = ViTConfig(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    bare = ViTModel(settings)  # as facebook/dino-vitb8 is
    opened = open_backbone(save_backbone(tmp_path, bare), STAGES, seed=0)
    assert opened.classifier.weight.shape == (4, 32)
    assert torch.equal(opened.vit.embeddings.cls_token, bare.embeddings.cls_token)


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])


def of_another_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def deeper_than_its_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (pickled, "pickled weights .* can run code and are not opened: name a revision"),
        (cut, "not a usable model folder"),
        (of_another_kind, "its architecture is llama, expected one of"),
        (deeper_than_its_weights, "not a usable model folder .no vit.layers.2"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "holds no preprocessor_config.json"),
        (lambda folder: (folder / "config.json").write_text("["), "not readable as JSON"),
    ],
)
def test_a_folder_that_is_no_backbone_is_told(damage, says, vit_folder, tmp_path):
    folder = shutil.copytree(vit_folder, tmp_path / "copy")
    damage(folder)
    with pytest.raises(DataError, match=says):
        open_backbone(find_backbone(str(folder)), STAGES, seed=0)


@pytest.mark.parametrize("name", ["vit", "../up", "a/../b", "a/b@../c", "a/b/c", "/etc/none"])
def test_names_that_are_neither_folder_nor_hub_id_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not a hub id like google/vit-base-patch16-224"):
        find_backbone(name)
