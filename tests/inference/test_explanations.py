"""Maps of what moved a score: they find what is planted, follow the model, and show nothing for what is refused."""

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from brainstage.core.errors import ConfigError
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.inference import captum_methods
from brainstage.inference.attribution import attribute, default_method, outside, similarity_to_randomised
from brainstage.inference.captum_methods import blurred
from brainstage.inference.explanations import MAX_RANDOMISED_SIMILARITY, NOTICE, Explanations
from brainstage.inference.predictor import Predictor, SliceClassifier
from brainstage.models.engines.torch import TorchEngine
from brainstage.report.explanations import explain, overlay
from brainstage.scans.discover import File, find_scans, scans_of
from brainstage.scans.stack import training_stack
from helpers import encode, picture
from volumes import brain


class TopLeft(torch.nn.Module):
    """Speaks for its second class where the top left quarter has detail."""

    config = SimpleNamespace(model_type="resnet", id2label={0: "a", 1: "b"}, num_labels=2)

    def forward(self, pixels):
        quarter = pixels[:, 0, : pixels.shape[2] // 2, : pixels.shape[3] // 2]
        detail = quarter.diff(dim=1).abs().mean(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([-detail, detail], dim=1) * 3)


def slice_of_a_head(seed=0, side=64):
    """Return noise within a disc, black outside."""
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.where(rows**2 + columns**2 < 0.8, picture(seed, (side, side)) // 2 + 60, 0).astype(np.uint8)


def predictor_of(network, size=64, **about):
    return Predictor(SliceClassifier(TorchEngine(network.eval()), Preprocessing(size, None, 0.5, 0.5)), "", about)


def tiny(kind):
    torch.manual_seed(0)
    stages = {"num_labels": 4, "num_channels": 3, "image_size": 32}
    if kind == "vit":
        vit = ViTConfig(
            patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **stages
        )
        return ViTForImageClassification(vit).eval()
    if kind == "resnet":
        resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **stages)
        return ResNetForImageClassification(resnet).eval()
    swin = SwinConfig(patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, **stages)
    return SwinForImageClassification(swin).eval()


def test_occlusion_finds_what_the_score_hangs_on():
    image = slice_of_a_head()
    [found] = attribute(predictor_of(TopLeft()), [image], [None], 1, "occlusion")
    assert found.shape == image.shape
    quarter = np.abs(found[:32, :32]).sum() / np.abs(found).sum()
    assert quarter > 0.95
    assert found[:32, :32].sum() > 0  # detail there speaks for the stage
    [against] = attribute(predictor_of(TopLeft()), [image], [None], 0, "occlusion")
    assert against[:32, :32].sum() < 0


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_integrated_gradients_add_up_to_what_the_slice_adds_to_the_score(kind):
    network, preprocessing = tiny(kind), Preprocessing(32, None, (0.5,) * 3, (0.5,) * 3)
    images = [slice_of_a_head(seed, 32) for seed in range(2)]
    found = captum_methods._integrate(network, preprocessing, images, 2)
    side = 4 if kind == "vit" else 8
    assert found.shape == (2, side, side)
    with torch.no_grad():
        scores, smooth = (
            network(captum_methods._pixels(network, preprocessing, some)).logits[:, 2].numpy()
            for some in (images, [blurred(image) for image in images])
        )
    np.testing.assert_allclose(found.sum(axis=(1, 2)), scores - smooth, rtol=0.05, atol=1e-4)
    predictor = Predictor(SliceClassifier(TorchEngine(network), preprocessing), "", {})
    assert default_method(predictor) == "integrated-gradients"
    with pytest.raises(ConfigError, match="grad-cam: not right for this model; take integrated-gradients or occl"):
        attribute(predictor, images, [None, None], 0, "grad-cam")


def test_grad_cam_reads_a_layer_that_is_fine_enough(trained, phantom):
    predictor = Predictor.open(trained.path)
    assert default_method(predictor) == "grad-cam"
    network, preprocessing = predictor.network, predictor.preprocessing
    grid = captum_methods._grad_cam(network, preprocessing, phantom.images[:2], 0)
    assert grid.shape[0] == 2
    assert (grid >= 0).all()
    first, second = attribute(predictor, phantom.images[:2], [None] * 2, 0, "grad-cam")
    assert first.shape == phantom.images[0].shape
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_explaining_disturbs_nobody_who_predicts_with_the_model_meanwhile(kind):
    """Captum replaces what a layer returns by a hook, which another thread's forward pass would run into."""
    network = tiny(kind)
    predictor = Predictor(
        SliceClassifier(TorchEngine(network), Preprocessing(32, None, (0.5,) * 3, (0.5,) * 3)), "", {}
    )
    images = [slice_of_a_head(seed, 32) for seed in range(4)]
    method = default_method(predictor)

    def explained():
        return attribute(predictor, images, [None] * 4, 2, method)

    alone, expected = explained(), predictor.predict_proba(images)
    done = threading.Event()

    def predicted():
        predictions = []
        while not done.is_set() or not predictions:
            predictions.append(predictor.predict_proba(images))
        return predictions

    with ThreadPoolExecutor(3) as pool:
        predicting = [pool.submit(predicted) for _ in range(2)]
        try:
            explanations = [explained() for _ in range(10)]
        finally:
            done.set()
        predictions = [prediction for future in predicting for prediction in future.result()]
    for prediction in predictions:
        np.testing.assert_allclose(prediction, expected, atol=1e-5)
    for explanation in explanations:
        np.testing.assert_allclose(explanation, alone, atol=1e-5)


def test_a_map_comes_back_to_where_the_slice_was_cropped():
    cropped = Preprocessing(56, 0.875, 0.5, 0.5)
    found = cropped.undo(np.ones((7, 7), np.float32), (128, 128))
    assert found.shape == (128, 128)
    assert found[8:120, 8:120].min() > 0.4
    assert found[:7].max() == found[:, -7:].max() == 0
    whole = Preprocessing(56, None, 0.5, 0.5).undo(np.ones((7, 7), np.float32), (100, 80))
    assert whole.shape == (100, 80)
    assert whole.min() == 1


def test_the_share_outside_of_the_head():
    image = slice_of_a_head()
    inside = (image > 10).astype(np.float32)
    assert outside(inside, image) == 0
    assert outside(-np.ones_like(inside), image) == pytest.approx(1 - inside.mean(), abs=0.01)
    assert outside(np.zeros_like(inside), image) == 0


def test_a_blurred_slice_keeps_its_outline():
    image = slice_of_a_head()
    smooth = blurred(image)
    assert np.array_equal(smooth > 10, image > 10)
    assert smooth[image > 10].std() < image[image > 10].std() / 3
    assert smooth.mean() == pytest.approx(image.mean(), rel=0.02)


def test_pixels_without_attribution_stay_as_they_are():
    image = slice_of_a_head()
    map_ = np.zeros(image.shape, np.float32)
    map_[10, 10], map_[30, 30], map_[40, 40] = 1, 1, -1
    shown = overlay(image, map_, 1)
    grey = np.repeat(image[..., None], 3, axis=2)
    changed = (shown != grey).any(axis=2)
    assert set(zip(*np.nonzero(changed), strict=True)) == {(10, 10), (30, 30), (40, 40)}
    assert shown[30, 30, 0] > shown[30, 30, 2]  # red for
    assert shown[40, 40, 2] > shown[40, 40, 0]  # blue against


def test_maps_change_when_the_model_forgets(trained, phantom):
    predictor, images = Predictor.open(trained.path), phantom.images[:8]
    assert similarity_to_randomised(predictor, images, [None] * 8, 0, "grad-cam") < 0.8
    stubborn = SimpleNamespace(**{name: getattr(predictor, name) for name in ("network", "preprocessing")})
    stubborn.randomised = lambda _seed: predictor
    assert similarity_to_randomised(stubborn, images, [None] * 8, 0, "grad-cam") == pytest.approx(1)
    before = predictor.predict_proba(images)
    assert not np.allclose(predictor.randomised(0).predict_proba(images), before, atol=1e-3)
    np.testing.assert_array_equal(predictor.predict_proba(images), before)


def test_the_sanity_check_says_what_it_found():
    row = {"person": 1, "similarity_to_randomised": 0.9, "file": "001.png", "reason": None}
    assert "THEY DO NOT CHANGE" in Explanations([row], "grad-cam", "0", {}).sanity
    assert (
        "they change"
        in Explanations([row | {"similarity_to_randomised": MAX_RANDOMISED_SIMILARITY}], "grad-cam", "0", {}).sanity
    )
    assert Explanations([row | {"similarity_to_randomised": None}], "grad-cam", "0", {}).sanity is None


def test_pictures_at_their_own_size_and_none_for_what_is_refused(trained, phantom, tmp_path):
    good, photo = phantom.images[0], picture(1, (90, 120))
    files = {"good": encode(good), "photo": encode(photo), "text": b"text"}
    scans = scans_of(File(name, partial(io.BytesIO, content)) for name, content in files.items())
    found = explain(Predictor.open(trained.path), scans, tmp_path / "out", sanity=True)
    assert [row["status"] for row in found.rows] == ["predicted", "refused", "failed"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["001.png", "explanations.json"]
    assert Image.open(tmp_path / "out" / "001.png").size == good.shape[::-1]
    written = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert NOTICE in written["notice"]
    assert "never a diagnosis" in written["notice"]
    assert written["maps"][0]["similarity_to_randomised"] is not None
    assert 0 <= written["maps"][0]["outside"] <= 1
    assert len(found.reasons) == 2


def test_the_patient_model_explains_a_persons_slices_together(tmp_path):
    images = training_stack(brain((3, 3, 3)), "template")[0][10:12]
    predictor = Predictor.open()
    together = attribute(predictor, images, [10, 11], 0, "occlusion")
    alone = attribute(predictor, images[:1], [10], 0, "occlusion")
    assert together[0].shape == (128, 128)
    assert not np.array_equal(together[0], alone[0])
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    found = explain(predictor, find_scans([str(tmp_path / "0.png")]), tmp_path / "out")
    assert found.method == "occlusion"
    assert found.rows[0]["stage"] == predictor.classes[int(predictor.predict_proba(images[:1]).argmax())]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "tea-leaves"}, "tea-leaves: no such method; take one of grad-cam"),
        ({"method": "integrated-gradients"}, "not right for this model; take grad-cam or occlusion"),
        ({"stage": "Grim"}, "Grim: no such stage; the model has Non_Demented"),
    ],
)
def test_what_cannot_be_explained_is_said_before_any_work(trained, tmp_path, options, says):
    with pytest.raises(ConfigError, match=says):
        explain(Predictor.open(trained.path), [], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty; give a new folder"):
        explain(Predictor.open(trained.path), [], tmp_path)
