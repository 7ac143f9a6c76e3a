import io
import json
import shutil
import tracemalloc
from contextlib import contextmanager
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from brainstage.core.errors import RunError
from brainstage.core.schema import read_metadata
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import slice_id
from brainstage.inference.predictions import predict_scans
from brainstage.inference.predictor import BATCH, Predictor
from brainstage.report.predictions import write_predictions
from brainstage.scans.discover import File, scans_of
from brainstage.scans.stack import training_stack
from brainstage.stats.calibration import Calibration, CalibrationParameters, apply_temperature
from helpers import encode, picture
from volumes import brain


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.open(trained.path)


@pytest.fixture
def copied(trained, tmp_path):
    """Return a copy of the trained run to break."""
    return shutil.copytree(trained.path, tmp_path / "copy")


def test_a_slice_gets_the_same_probabilities_alone_and_in_a_batch(predictor, phantom):
    images = phantom.images[: BATCH + 3]
    together = predictor.predict_proba(images)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[[0, -1]], predictor.predict_proba([images[0], images[-1]]), atol=1e-5)
    assert predictor.predict_proba([]).shape == (0, 4)


def test_each_prediction_belongs_to_its_image(predictor, phantom):
    pixels = [phantom.images[number] for number in range(150)]
    pixels[80] = picture(0, (128, 128))
    files = [File(str(i), partial(io.BytesIO, encode(image))) for i, image in enumerate(pixels)]
    files[70] = File("70", partial(io.BytesIO, b"text"))
    rows = predict_scans(predictor, scans_of(files)).rows
    assert [row["source"] for row in rows] == [str(number) for number in range(150)]
    assert [row["slice_id"] for row in rows if row["status"] != "failed"] == [
        slice_id(image) for number, image in enumerate(pixels) if number != 70
    ]
    assert (rows[70]["status"], rows[80]["status"]) == ("failed", "refused")
    assert rows[70]["reason"] == "70: not a JPEG, PNG, NIfTI, DICOM or parquet file; give or make one of these"
    assert rows[80]["reason"].startswith("80: does not look like the slices that the model was trained on")
    assert rows[70]["stage"] is rows[80]["stage"] is None
    assert all(row["stage"] for number, row in enumerate(rows) if number not in (70, 80))
    alone = predictor.predict_proba([pixels[149]])[0]
    assert [rows[149]["prob_" + name] for name in predictor.classes] == pytest.approx(alone.tolist(), abs=1e-5)


def truncated(run):
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def without_a_weight(run):
    weights = load_file(run / "model" / "model.safetensors")
    weights.pop("classifier.1.bias")
    save_file(weights, run / "model" / "model.safetensors")


def of_another_kind(run):
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncated, "not a usable model folder"),
        (without_a_weight, "classifier.1.bias"),
        (of_another_kind, "its architecture is gpt2, expected one of convnext"),
        (lambda run: (run / "model" / "config.json").unlink(), "holds no config.json"),
        (shutil.rmtree, "no such run"),
    ],
)
def test_a_damaged_model_is_refused_in_one_line(copied, damage, says):
    damage(copied)
    with pytest.raises(RunError, match=says) as raised:
        Predictor.open(copied)
    assert "\n" not in str(raised.value)


def test_slices_of_one_person_get_the_mean_of_a_networks_probabilities(predictor, phantom):
    alone = predictor.predict_proba(phantom.images[:4])
    joined = predictor.predict_proba(phantom.images[:4], ["a", None, "a", None])
    np.testing.assert_allclose(
        joined[[0, 2]], alone[[0, 2]].mean(axis=0, keepdims=True).repeat(2, axis=0), atol=1e-6
    )
    np.testing.assert_allclose(joined[[1, 3]], alone[[1, 3]], atol=1e-6)


def test_a_person_of_whom_most_slices_are_refused_is_refused(predictor, phantom):
    def scans(good, bad):
        images = [*phantom.images[:good], *(picture(seed, (128, 128)) for seed in range(bad))]
        return scans_of(File(str(i), partial(io.BytesIO, encode(image))) for i, image in enumerate(images))

    whole, *slices = predict_scans(predictor, scans(3, 2), one_person=True).rows
    assert (whole["status"], whole["slices"]) == ("predicted", 3)
    assert [row["status"] for row in slices] == ["predicted"] * 3 + ["refused"] * 2
    joined = predictor.predict_proba(phantom.images[:3], ["a"] * 3)[0]
    assert [whole["prob_" + name] for name in predictor.classes] == pytest.approx(joined.tolist(), abs=1e-5)
    whole, *_ = predict_scans(predictor, scans(2, 3), one_person=True).rows
    assert (whole["status"], whole["stage"]) == ("refused", None)
    assert "only 2 of 5 slices look like" in whole["reason"]


def test_a_folder_becomes_a_table_in_three_lines(tmp_path):
    from brainstage import Predictor, find_scans, predict_scans

    stack, _ = training_stack(brain((3, 3, 3)), "template")
    for level in range(8, 20, 4):
        (tmp_path / f"{level:02}.png").write_bytes(encode(stack[level]))

    scans = find_scans(tmp_path)
    predictions = predict_scans(Predictor.open(), scans)
    table = predictions.table

    assert table["status"].to_pylist() == ["predicted"] * 3
    assert set(table["stage"].to_pylist()) <= set(predictions.classes)
    about = read_metadata(table)
    assert about["notice"] == predictions.notice
    assert about["model"] == predictions.model
    assert (about["protocol"], about["leakage"]["status"]) == ("patient", "clean")
    write_predictions(predictions, tmp_path / "out.parquet")
    assert read_metadata(pq.read_table(tmp_path / "out.parquet")) == about
    assert find_scans(f"{tmp_path}/*.png")[0].name == scans[0].name


def test_a_run_that_cannot_refuse_says_so(copied):
    (copied / "model" / "out_of_distribution.safetensors").unlink()
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["files"]["model/out_of_distribution.safetensors"]  # as in a run that never had it
    (copied / "manifest.json").write_text(json.dumps(manifest))
    scans = scans_of([File("a", partial(io.BytesIO, encode(picture())))])
    predictions = predict_scans(Predictor.open(copied), scans)
    assert predictions.rows[0]["status"] == "predicted"
    assert "predicts a stage for any image" in predictions.notice


def test_pictures_are_not_kept_until_all_are_predicted(predictor):
    held, side, count = [], 1024, 16
    blob = encode(np.zeros((side, side), np.uint8))

    @contextmanager
    def measured(_description, _total):
        yield lambda _steps: held.append(tracemalloc.get_traced_memory()[0])

    scans = scans_of(File(str(number), partial(io.BytesIO, blob)) for number in range(count))
    tracemalloc.start()
    try:
        assert len(predict_scans(predictor, scans, progress=measured).rows) == count
    finally:
        tracemalloc.stop()
    assert held[-1] < count * side**2 / 2


def test_slices_of_people_in_the_training_set_are_counted(real_folder, phantom):
    training = load_slices(real_folder).images[:2]
    images = [*training, phantom.images[0]]
    scans = scans_of(File(str(i), partial(io.BytesIO, encode(image))) for i, image in enumerate(images))
    assert "2 of 3 slices show people in the model's training set" in predict_scans(Predictor.open(), scans).notice
    assert "training set; predictions" not in predict_scans(Predictor.open(), scans[2:]).notice


def test_scores_of_an_uncalibrated_network_are_called_scores(predictor, phantom):
    predictions = predict_scans(predictor, scans_of([File("a", partial(io.BytesIO, encode(phantom.images[0])))]))
    assert not predictions.to_dict()["calibrated"]
    assert "Scores, not probabilities" in predictions.notice
    assert predictions.rows[0]["words"] is None
    assert {predictions.rows[0]["in_set_" + name] for name in predictions.classes} == {None}


def test_a_calibrated_network_gives_probabilities_and_sets(copied, predictor, phantom):
    parameters = {1: CalibrationParameters(4.0, 0.21), 2: CalibrationParameters(2.0, 0.22)}
    Calibration(20, parameters).save(copied / "model")
    images = phantom.images[:3]
    scores = predictor.predict_proba(images)
    calibrated = Predictor.open(copied)
    np.testing.assert_allclose(calibrated.predict_proba(images), apply_temperature(scores, 4), atol=1e-6)
    prediction = calibrated.predict_features(calibrated.extract_features(images), ["a", "a", None])
    np.testing.assert_allclose(
        prediction.probabilities[0], apply_temperature(scores[:2], 2).mean(axis=0), atol=1e-6
    )
    np.testing.assert_allclose(prediction.conformal_threshold, [0.22, 0.22, 0.21])
    predictions = predict_scans(calibrated, scans_of([File("a", partial(io.BytesIO, encode(images[0])))]))
    [row] = predictions.rows
    for name in predictions.classes:
        assert row["in_set_" + name] or row["prob_" + name] < 0.21
    assert row["in_set_" + row["stage"]]
    assert row["words"]
    assert "nine of ten people" in " ".join(predictions.details)
    assert (row["stability"], row["spread"]) == (None, None)  # a network looks at the scan as it is alone
    (copied / "model" / "calibration.json").write_text("{}")
    with pytest.raises(RunError, match="not a usable model folder"):
        Predictor.open(copied)
