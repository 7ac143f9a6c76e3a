"""The head on cached features against the report's way: every image through the frozen network at every step."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments, ViTImageProcessorPil, pipeline

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError
from brainstage.datasets.splits import make_splits
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictor import Predictor
from brainstage.models.backbones import open_backbone
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import build_whole
from brainstage.training.probe import slice_features
from brainstage.training.train import train
from brainstage.training.trainer import fit_network


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def report(vit_folder) -> TrainConfig:
    return load_recipe("report", backbone=str(vit_folder), precision="fp32", learning_rate=3e-3, epochs=3)


class Pictures(torch.utils.data.Dataset):
    """The report's data set: each picture to RGB and through the image processor whenever it is asked for."""

    def __init__(self, slices, slice_ids, processor):
        self.rows = [slices.row_of[slice_id] for slice_id in slice_ids]
        self.slices, self.processor = slices, processor

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        picture = Image.fromarray(self.slices.images[self.rows[number]]).convert("RGB")
        pixels = self.processor(picture, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": int(self.slices.targets([self.rows[number]])[0])}


def the_reports_way(slices, config, folder, out):
    """Return the loss of each epoch in training and on test, and the probabilities of the test slices."""
    fold = make_splits(slices, config).folds[0]
    processor = ViTImageProcessorPil.from_pretrained(config.backbone)
    model = open_backbone(folder, slices.classes, config.seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("classifier")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out),
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            gradient_accumulation_steps=config.gradient_accumulation,
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            remove_unused_columns=False,
            use_cpu=True,
            disable_tqdm=True,
            seed=config.seed,
        ),
        train_dataset=Pictures(slices, fold.train, processor),
        eval_dataset=Pictures(slices, fold.test, processor),
        compute_metrics=lambda outcome: {
            "accuracy": float((outcome.predictions.argmax(1) == outcome.label_ids).mean())
        },
    )
    trainer.train()
    log = trainer.state.log_history
    losses = [[entry[key] for entry in log if key in entry] for key in ("loss", "eval_loss")]
    scores = torch.from_numpy(trainer.predict(trainer.eval_dataset).predictions).softmax(1)
    return losses, scores.numpy()


def scores_of(run):
    table = pq.read_table(run.predictions)
    return np.stack([table[name].to_numpy() for name in table.column_names if name.startswith("prob_")], axis=1)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_cached_features_give_what_the_frozen_network_gives_at_every_step(
    accumulation, few, vit_folder, report, tmp_path
):
    config = report.replace(gradient_accumulation=accumulation, learning_rate=1e-2)
    run = train(few, config, name="ours", out=tmp_path)
    (training, test), scores = the_reports_way(few, config, vit_folder, tmp_path / "plain")
    history = [json.loads(line) for line in run.history.read_text().splitlines()]
    np.testing.assert_allclose([line["train_loss"] for line in history], training, atol=1e-4)
    np.testing.assert_allclose([line["test_loss"] for line in history], test, atol=1e-4)
    np.testing.assert_allclose(scores_of(run), scores, atol=1e-4)
    assert max(training) - min(training) > 0.01  # it has learned something, so the epochs differ


def test_the_saved_network_gives_the_runs_predictions(few, report, tmp_path):
    run = train(few, report.replace(train_rows=64, test_rows=20), name="ours", out=tmp_path)
    ids = pq.read_table(run.predictions)["slice_id"].to_pylist()
    images = [few.images[few.row_of[slice_id]] for slice_id in ids]
    assert len(ids) == 20
    np.testing.assert_allclose(Predictor.open(run.path).predict_proba(images), scores_of(run), atol=1e-5)
    stock = pipeline("image-classification", model=str(run.model), top_k=4)
    answers = {answer["label"]: answer["score"] for answer in stock(Image.fromarray(images[0]).convert("RGB"))}
    assert [answers[name] for name in few.classes] == pytest.approx(scores_of(run)[0].tolist(), abs=1e-4)


def test_bf16_features_move_the_predictions_by_little(few, report, tmp_path):
    runs = [
        train(few, report.replace(precision=kind, train_rows=64, test_rows=50), name=kind, out=tmp_path)
        for kind in ("fp32", "bf16")
    ]
    exact, rounded = map(scores_of, runs)
    assert 0 < np.abs(exact - rounded).max() < 0.03
    manifests = [json.loads(run.manifest.read_text()) for run in runs]
    assert [manifest["features"] for manifest in manifests] == ["torch fp32", "torch bf16"]


def test_openvino_gives_the_same_features_and_keeps_its_8_bit_network(phantom, vit_folder, tmp_path):
    pytest.importorskip("openvino")
    model = open_backbone(vit_folder, phantom.classes, 0)
    ids = phantom.slice_ids[:150]

    def features(precision, engine, ids=ids):
        computed = slice_features(
            phantom,
            ids,
            vit_folder,
            model,
            precision=precision,
            engine=engine,
            training_ids=phantom.slice_ids[:100],
        )
        return np.stack(list(computed.values()))

    exact = features("fp32", "torch")
    np.testing.assert_allclose(features("fp32", "openvino"), exact, atol=1e-4)
    rounded = features("int8", "openvino", ids[:140])
    assert 0 < np.abs(rounded - exact[:140]).mean() < 0.1 * np.abs(exact).mean()
    kept = next((tmp_path / "cache").rglob("int8.xml")).stat().st_mtime_ns
    features("int8", "openvino")  # ten more slices, by the network that is there
    assert next((tmp_path / "cache").rglob("int8.xml")).stat().st_mtime_ns == kept


def test_8_bit_features_do_not_depend_on_what_is_in_the_cache(phantom, vit_folder, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    model = open_backbone(vit_folder, phantom.classes, 0)
    training, other = phantom.slice_ids[:40], phantom.slice_ids[200:220]

    def features(cache, ids):
        monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / cache))
        options = {"precision": "int8", "engine": "openvino", "training_ids": training}
        return slice_features(phantom, ids, vit_folder, model, **options)

    alone = features("new", training)
    features("used", other)
    after = features("used", training[::-1])
    for slice_id in training:
        np.testing.assert_array_equal(after[slice_id], alone[slice_id])


def test_an_engine_that_is_not_installed_is_told(phantom, report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r'pip install "brainstage\[openvino\]"'):
        train(phantom, report.replace(engine="openvino"), name="a", out=tmp_path)


def test_choosing_the_epoch_on_test_is_stamped_on_every_figure(few, report, tmp_path):
    run = train(few, report.replace(train_rows=64, epochs=1), name="ours", out=tmp_path)
    judged = evaluate(run)
    assert judged.title.endswith("epoch chosen on the test slices")
    assert judged.to_dict()["selection"] == "test"
    assert json.loads(run.manifest.read_text())["selection"] == "test"
    honest = report.replace(selection="validation", validation_share=0.1, train_rows=64, epochs=1)
    run = train(few, honest, name="honest", out=tmp_path)
    assert "chosen on" not in evaluate(run).title
    assert "validation_loss" in json.loads(run.history.read_text())


def test_the_reports_rows_are_drawn(phantom, report):
    whole = make_splits(phantom, report).folds[0]
    drawn = make_splits(phantom, report.replace(train_rows=200, test_rows=50)).folds[0]
    order = np.random.default_rng(42).permutation(len(whole.train))[:200]  # datasets: shuffle(seed=42).select(…)
    assert drawn.train == tuple(whole.train[row] for row in order)
    assert len(drawn.test) == 50
    assert set(drawn.test) < set(whole.test)


def test_every_weight_can_be_tuned(few, vit_folder, tmp_path):
    config = load_recipe("fine-tune", backbone=str(vit_folder), epochs=1, train_rows=96, test_rows=20)
    run = train(few, config, name="tuned", out=tmp_path)
    before, after = (open_backbone(folder, few.classes, 0).vit for folder in (vit_folder, run.model))
    assert not torch.equal(before.embeddings.cls_token, after.embeddings.cls_token)
    assert evaluate(run).slices == 20


def test_the_best_epoch_of_a_backbone_is_kept_whole(few, vit_folder, tmp_path):
    config = load_recipe("fine-tune", backbone=str(vit_folder), epochs=2, train_rows=96, learning_rate=1e-5)
    network, _, training, selecting = build_whole(few, make_splits(few, config).folds[0], config)
    trainer = fit_network(network, training, selecting, config, tmp_path)
    first, last = sorted(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.partition("-")[2]))
    assert trainer.state.best_model_checkpoint == str(first)  # the accuracies are equal
    kept = trainer.model.state_dict()
    saved, later = (load_file(folder / "model.safetensors") for folder in (first, last))
    assert kept.keys() == saved.keys()
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
    assert not any(torch.equal(later[name], saved[name]) for name in saved if "attention" in name)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": 64}, "image_size: a backbone brings its own"),
        ({"mirror": True}, "set max_shift=0, mirror=false and augment=none"),
        ({"precision": "int8"}, "int8 needs engine=openvino"),
        ({"engine": "openvino", "frozen": False}, "features of a frozen backbone only"),
        ({"backbone": None}, "no backbone to freeze"),
        ({"backbone": 3}, "backbone: expected str, not 3"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(changes, says, report):
    with pytest.raises(ConfigError, match=says):
        report.replace(**changes)
