import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.splits import make_splits
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictor import Predictor
from brainstage.models.muon import orthogonal
from brainstage.models.network import build_model, folded, open_grey, to_rgb
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import ACQUISITIONS_OF_NETWORKS, prepare
from brainstage.training.train import train
from brainstage.training.trainer import COMPLETE, SliceDataset, _last_checkpoint
from helpers import picture


def weights(run):
    return load_file(run.model / "model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_a_run_holds_what_it_promises(trained):
    files = {path.relative_to(trained.path).as_posix() for path in trained.path.rglob("*") if path.is_file()}
    assert files - {".lock"} == {
        "model/config.json",
        "model/out_of_distribution.safetensors",
        "model/model.safetensors",
        "model/preprocessor_config.json",
        "train_config.json",
        "splits.json",
        "training_slices.parquet",
        "history.jsonl",
        "predictions.parquet",
        "nearest_training_slice.parquet",
        "metrics.json",
        "curves.png",
        "confusion_matrix.png",
        "manifest.json",
    }
    history = [json.loads(line) for line in trained.history.read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert {"train_loss", "validation_loss", "validation_accuracy", "validation_macro_f1"} <= set(history[0])


def test_mirrored_slices_are_turned_left_to_right():
    pixels = np.stack([picture(number, (32, 32)) for number in range(20)])
    common = pixels[None], np.arange(20), Preprocessing(32, 1.0), 0
    plain, mirroring = SliceDataset(*common), SliceDataset(*common, mirror=True)
    rows = list(range(5, 15))
    before, after = (data.__getitems__(rows)["pixel_values"] for data in (plain, mirroring))
    mirrored = mirroring.mirrored[rows]
    assert 0 < mirrored.sum() < 10
    assert torch.equal(after[mirrored], before[mirrored].flip(-1))
    assert torch.equal(after[~mirrored], before[~mirrored])


def test_an_epoch_shows_one_of_several_versions_of_a_slice():
    versions = np.stack([np.full((30, 32, 32), 10 * number, np.uint8) for number in range(3)])
    data = SliceDataset(versions, np.arange(30), Preprocessing(32, 1.0, mean=0.0, std=1 / 255), seed=0)
    rows = list(range(30))

    def shown(epoch):
        data.start_epoch(epoch)
        return data.__getitems__(rows)["pixel_values"][:, 0, 0, 0].round().tolist()

    first, second = shown(1), shown(2)
    assert set(first) == {0, 10, 20}
    assert first != second
    assert shown(1) == first  # a resumed training repeats it
    still = SliceDataset(versions, np.arange(30), data.preprocessing)
    assert set(still.__getitems__(rows)["pixel_values"].round().flatten().tolist()) == {0}


def test_networks_train_on_acquisitions(few, tiny, tmp_path):
    config = tiny.replace(augment="acquisitions", epochs=1)
    fold = make_splits(few, config).folds[0]
    _, training, selecting = prepare(few, fold, config)
    assert len(training.pixels) == 1 + ACQUISITIONS_OF_NETWORKS
    assert len(selecting.pixels) == 1
    plain, *acquired = training.pixels.astype(float)
    for version in acquired:
        assert 1 < np.abs(version - plain).mean() < 40
    run = train(few, config, name="run", out=tmp_path)
    assert not same(weights(run), weights(train(few, tiny.replace(epochs=1), name="plain", out=tmp_path)))
    with pytest.raises(ConfigError, match="augment=none"):
        load_recipe("report", augment="acquisitions")


def test_predictions_cover_validation_and_test_once(trained, phantom, tiny):
    table = pq.read_table(trained.predictions)
    fold = make_splits(phantom, tiny).folds[0]
    assert table["slice_id"].to_pylist() == [*fold.validation, *fold.test]
    assert set(table["split"].to_pylist()) == {"validation", "test"}


def test_golden_run_recognises_people_of_the_training_set(phantom, tmp_path):
    """The leak in one figure: 16 people on both sides are distinguished far better than by the largest stage."""
    config = load_recipe("compact", image_size=48, stage_channels=[16, 32, 64], epochs=12, batch_size=32)
    evaluation = evaluate(train(phantom, config, name="golden", out=tmp_path))
    assert evaluation.leakage_status == "leaky"
    assert evaluation.scores.overall["accuracy"].value > evaluation.baselines["majority"].accuracy.value + 0.25
    assert evaluation.scores.overall["auroc_ovr"].value > 0.8


def test_same_seed_same_weights(few, tiny, tmp_path):
    config = tiny.replace(epochs=1)
    first, again, other = (
        weights(train(few, config.replace(seed=seed), name=name, out=tmp_path))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert same(first, again)
    assert not same(first, other)


def test_the_epoch_of_best_validation_accuracy_is_kept(trained, phantom):
    history = [json.loads(line) for line in trained.history.read_text().splitlines()]
    validation = evaluate(trained, split="validation")
    best = max(line["validation_accuracy"] for line in history)
    assert validation.scores.overall["accuracy"].value == pytest.approx(best, abs=0.04)  # bf16 against fp32


def test_all_training_rows_can_be_used(few, tiny, tmp_path):
    run = train(few, tiny.replace(validation_share=0.0, epochs=1), name="all", out=tmp_path)
    assert set(pq.read_table(run.predictions)["split"].to_pylist()) == {"test"}
    assert "validation_loss" not in run.history.read_text()


def test_the_model_folder_opens_with_transformers_alone(trained, phantom):
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    classify = pipeline("image-classification", model=str(trained.model), top_k=None)
    ours = Predictor.open(trained.path).predict_proba(phantom.images[:5])
    for image, expected in zip(phantom.images[:5], ours, strict=True):
        theirs = {answer["label"]: answer["score"] for answer in classify(Image.fromarray(image))}
        assert [theirs[name] for name in phantom.classes] == pytest.approx(expected.tolist(), abs=1e-4)
    model = AutoModelForImageClassification.from_pretrained(trained.model)
    batch = AutoImageProcessor.from_pretrained(trained.model)(
        Image.fromarray(phantom.images[0]).convert("RGB"), return_tensors="pt"
    )
    assert model(**batch).logits.softmax(1)[0].tolist() == pytest.approx(ours[0].tolist(), abs=1e-4)


def test_nothing_in_a_run_is_a_pickle(trained):
    for path in trained.path.rglob("*"):
        if path.is_file():
            assert path.suffix in (".json", ".jsonl", ".parquet", ".png", ".safetensors", ".lock", "")
            assert not path.read_bytes().startswith((b"PK", b"\x80"))


def test_the_trained_saved_opened_and_folded_networks_are_one(tiny, tmp_path):
    model = build_model(tiny, ("a", "b", "c", "d"))
    grey = torch.randn(3, 1, 32, 32)
    model(grey)  # moves the batch normalisations away from doing nothing
    expected = model.eval()(grey).logits
    saved = to_rgb(model)
    saved.save_pretrained(tmp_path)
    opened = open_grey(tmp_path)
    for logits in (saved(grey.expand(-1, 3, -1, -1)).logits, opened(grey).logits, folded(opened)(grey).logits):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 16, 144), (1, 32, 8)])
def test_muon_makes_steps_of_even_size_in_every_direction(shape):
    rows, columns = shape[1:]
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape))) / max(1, rows / columns) ** 0.5
    assert 0.5 < values.min()
    assert values.max() < 1.3


def test_muon_computes_where_the_weights_are():
    weights = torch.empty(2, 16, 144, device="meta")  # stands for a GPU: no arithmetic, the same rules
    assert orthogonal(weights).device == weights.device


def test_a_class_missing_from_train_is_told(phantom, tiny, tmp_path):
    with pytest.raises(DataError, match="class Severe has no slice in train"):
        train(dataclasses.replace(phantom, classes=(*phantom.classes, "Severe")), tiny, name="a", out=tmp_path)


def test_splits_of_another_protocol_are_not_used(phantom, tiny, tmp_path):
    patient = make_splits(phantom, tiny.replace(protocol="patient", folds=2))
    with pytest.raises(
        ConfigError, match="protocol official was asked for, but the splits given have 2 of protocol pat"
    ):
        train(phantom, tiny, name="a", out=tmp_path, splits=patient)
    with pytest.raises(ConfigError, match="fold 3 of protocol patient"):
        train(phantom, tiny.replace(protocol="patient", fold=3), name="a", out=tmp_path, splits=patient)


def test_killed_and_resumed_ends_with_the_same_weights(killed, few, tmp_path):
    config = TrainConfig.from_json(killed.run.config)
    whole = train(few, config, name="whole", out=tmp_path)
    left = killed.run.path / ".model.left"  # what a kill within the writing of the model leaves
    (left / "model").mkdir(parents=True)
    (left / "model" / "model.safetensors").write_bytes(b"half")
    (killed.run.path / ".predictions.parquet.left.part").write_bytes(b"half")
    run = train(few, config, name=killed.run.path.name, out=killed.run.path.parent, resume=True)
    assert same(weights(whole), weights(run))
    assert whole.history.read_text() == run.history.read_text()
    assert {file.name for file in run.path.glob(".*")} <= {".lock"}
    assert not [name for name in run.read_manifest()["files"] if name.startswith(".")]


def test_a_half_written_checkpoint_is_never_picked(tmp_path):
    for step in (10, 20, 30):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
    import hashlib

    marker = json.dumps({"model.safetensors": hashlib.sha256(b"weights").hexdigest()})
    (tmp_path / "checkpoint-10" / COMPLETE).write_text(marker)
    (tmp_path / "checkpoint-20" / COMPLETE).write_text(marker)
    (tmp_path / "checkpoint-20" / "model.safetensors").write_bytes(b"weig")  # 30 has no marker at all
    assert Path(_last_checkpoint(tmp_path)).name == "checkpoint-10"
    assert not (tmp_path / "checkpoint-30").exists()
