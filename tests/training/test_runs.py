"""Runs as folders: what resuming one checks, what a failure leaves behind, what cross-validation joins."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.config import TrainConfig
from brainstage.core.errors import BrainstageError, ConfigError, DataError, RunError
from brainstage.core.run import RunFolder
from brainstage.datasets.splits import Splits, make_splits
from brainstage.evaluation.comparison import compare
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictor import Predictor
from brainstage.models import backbones
from brainstage.training.cross_validation import cross_validate
from brainstage.training.train import train


@pytest.fixture(scope="module")
def config(tiny):
    """Settings that train for an epoch on one of two folds of people."""
    return tiny.replace(epochs=1, protocol="patient", folds=2, validation_share=0.3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few, config):
    return train(few, config, name="finished", out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copied(finished, tmp_path):
    return RunFolder(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="module")
def crossed(tmp_path_factory, few, config):
    return cross_validate(few, config, name="crossed", out=tmp_path_factory.mktemp("runs"))


def test_a_run_is_taken_wherever_a_path_is(finished):
    assert Predictor.open(finished).hash == Predictor.open(finished.path).hash
    assert evaluate(finished).title == evaluate(str(finished.path)).title
    assert len(compare([finished, finished.path]).candidates) == 2


def test_a_finished_run_is_not_trained_again(finished, few, config):
    name, out = finished.path.name, finished.path.parent
    with pytest.raises(RunError, match="is finished; take another --name"):
        train(few, config, name=name, out=out)
    weights = finished.model / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert train(few, config, name=name, out=out, resume=True).finished
    assert weights.stat().st_mtime_ns == before


def other_settings(slices, config):
    return slices, config.replace(epochs=2), None


def other_data(slices, config):
    labels = list(slices.labels)
    labels[0] = next(name for name in slices.classes if name != labels[0])
    return slices.with_labels(labels), config, None


def other_splits(slices, config):
    splits = make_splits(slices, config)
    return slices, config, replace(splits, folds=splits.folds[::-1])


def other_order(slices, config):
    return replace(slices, classes=slices.classes[::-1]), config, None


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (other_order, DataError, "started with the classes in the order Non_Demented"),
        (other_settings, ConfigError, "started with different settings: epochs 1, not 2"),
        (other_data, DataError, "started with different data"),
        (other_splits, DataError, "started with different splits"),
    ],
)
@pytest.mark.parametrize("kind", ["finished", "crossed"])
def test_resuming_a_finished_run_with_something_else_is_refused(change, error, says, kind, request, few, config):
    run = request.getfixturevalue(kind)
    fit = train if kind == "finished" else cross_validate
    slices, settings, splits = change(few, config)
    with pytest.raises(error, match=says):
        fit(slices, settings, name=run.path.name, out=run.path.parent, splits=splits, resume=True)


def test_a_run_that_was_started_is_resumed_only_when_asked(few, config, tmp_path):
    (tmp_path / "a").mkdir()
    make_splits(few, config).save(tmp_path / "a" / "splits.json")
    (tmp_path / "a" / "train_config.json").write_text(config.to_json())
    with pytest.raises(RunError, match="was started; go on with --resume"):
        train(few, config, name="a", out=tmp_path)


def test_a_file_that_was_changed_is_named_when_the_run_is_opened(copied, few, config):
    weights = copied.model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    says = r"model.safetensors: was changed after the run finished \(its SHA-256 differs from manifest.json\)"
    for open_run in (
        Predictor.open,
        evaluate,
        RunFolder.open,
        lambda run: train(few, config, name=run.path.name, out=run.path.parent, resume=True),
    ):
        with pytest.raises(RunError, match=says):
            open_run(copied)


def test_a_file_that_was_removed_is_named_and_added_ones_are_not_checked(copied):
    (copied.path / "notes.txt").write_text("mine")
    assert evaluate(copied).slices
    copied.history.unlink()
    with pytest.raises(RunError, match=r"history.jsonl: was removed after the run finished"):
        RunFolder.open(copied)
    assert Predictor.open(copied)  # prediction reads the model alone


BACKBONE = {"optimizer": "adamw", "label_smoothing": 0.0, "max_shift": 0, "frozen": True}


def without_backbone(slices, config):
    return slices, replace_network(config, backbone="none", **BACKBONE)


def unreachable(slices, config):
    return slices, replace_network(config, backbone="org/none", **BACKBONE)


def unsplittable(slices, config):
    return slices, config.replace(folds=50)


def of_one_class(slices, config):
    labels = [label if label == "Non_Demented" else None for label in slices.labels]
    return replace(slices.with_labels(labels), classes=("Non_Demented",)), config


def unlabelled(slices, config):
    return replace(slices, classes=(*slices.classes, "Severe")), config


def replace_network(config, **changes):
    return TrainConfig(recipe="a", epochs=1, protocol=config.protocol, folds=config.folds, **changes)


@pytest.mark.parametrize("fit", [train, cross_validate])
@pytest.mark.parametrize("fault", [without_backbone, unreachable, unsplittable, unlabelled, of_one_class])
def test_a_run_that_fails_before_it_trained_leaves_no_folder(fault, fit, few, config, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "fetch", partial(backbones.fetch, endpoint="http://127.0.0.1:9"))
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))
    slices, settings = fault(few, config)
    with pytest.raises(BrainstageError):
        fit(slices, settings, name="a", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_failure_removes_neither_results_nor_other_runs(few, config, tmp_path):
    (tmp_path / "a").mkdir()  # made by the user
    with pytest.raises(DataError):
        train(few, config.replace(folds=50), name="a", out=tmp_path)
    assert (tmp_path / "a").is_dir()
    run = RunFolder(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt), run.claim(resume=False):
        (run.checkpoints / "checkpoint-1").mkdir(parents=True)
        raise KeyboardInterrupt
    assert run.checkpoints.is_dir()


def test_a_model_of_one_fold_says_which(finished, few, config, crossed):
    assert "protocol patient, fold 0 of 2 · clean" in evaluate(finished).title
    assert finished.read_manifest()["fold"] == "fold 0 of 2"
    assert "protocol patient · clean" in evaluate(crossed).title
    assert "fold" not in crossed.read_manifest()
    assert "fold 1 of 2" in evaluate(RunFolder(crossed.folds / "01")).title


def test_comparing_runs_on_one_folds_validation_people_says_what_that_makes_of_the_choice(finished):
    words = "chosen on validation people of fold 0 of 2, who are test people of other folds"
    comparison = compare([finished, finished], split="validation")
    assert words in comparison.title
    assert words in comparison.to_dict()["title"]
    assert words not in compare([finished, finished], split="test").title


def test_the_model_to_be_used_is_fitted_on_everyone(crossed, few):
    everyone = RunFolder(crossed.folds / "everyone")
    [fold] = Splits.load(everyone.splits, few).folds
    assert set(fold.train) == set(few.slice_ids)
    assert not fold.validation
    assert not len(pq.read_table(everyone.predictions))
    weights = "model/model.safetensors"
    manifest = crossed.read_manifest()
    assert manifest["fitted_on"] == f"everyone: {len(few)} slices of {len(set(few.patients))} people"
    assert manifest["files"][weights] == everyone.read_manifest()["files"][weights]


def test_a_joined_run_vouches_for_its_folds_by_their_manifests(crossed):
    files = set(crossed.read_manifest()["files"])
    assert {f"folds/{name}/manifest.json" for name in ("00", "01", "everyone")} <= files
    assert not [name for name in files if name.startswith("folds/") and not name.endswith("/manifest.json")]


def test_folds_of_a_file_are_trained_all(crossed, few, config, tmp_path):
    file = tmp_path / "splits.json"
    content = json.loads(crossed.splits.read_text())
    content["folds"] = content["folds"][::-1]  # as edited by hand
    file.write_text(json.dumps(content))
    one = train(few, config.replace(fold=1), splits=file, name="one", out=tmp_path)
    first = RunFolder(crossed.folds / "00")
    assert pq.read_table(one.predictions)["slice_id"] == pq.read_table(first.predictions)["slice_id"]
    run = cross_validate(few, config.replace(folds=5), splits=str(file), name="cv", out=tmp_path)
    assert len(json.loads(run.splits.read_text())["folds"]) == 2
    sides = [pq.read_table(table).select(["slice_id", "split"]) for table in (run.predictions, crossed.predictions)]
    assert sorted(sides[0].to_pylist(), key=str) == sorted(sides[1].to_pylist(), key=str)


def test_folds_that_do_not_fit_are_refused(few, config, tmp_path):
    official = make_splits(few, config.replace(protocol="official"))
    with pytest.raises(ConfigError, match="folds of protocol patient"):
        cross_validate(few, config, splits=official, out=tmp_path / "runs")
    with pytest.raises(DataError, match="not a readable splits file"):
        cross_validate(few, config, splits=tmp_path / "none.json", out=tmp_path / "runs")
    (tmp_path / "empty.json").write_text(json.dumps({"protocol": "patient", "seed": 0, "folds": []}))
    with pytest.raises(DataError, match="no folds"):
        train(few, config, splits=tmp_path / "empty.json", out=tmp_path / "runs")
    with pytest.raises(ConfigError, match="fold 3 of protocol patient"):
        train(few, config.replace(fold=3, folds=5), splits=make_splits(few, config), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_with_other_patients_is_not_resumed(few, tiny, tmp_path):
    config = tiny.replace(epochs=1, train_rows=32)
    train(few, config, name="a", out=tmp_path)
    column = few.rows.schema.get_field_index("patient_id")
    nobody = few.rows.set_column(column, "patient_id", pa.nulls(len(few), pa.string()))
    with pytest.raises(DataError, match="the data had other patients"):
        train(replace(few, rows=nobody), config, name="a", out=tmp_path, resume=True)


def exchanged(slices, one, other):
    """Return slices with two patients' ids exchanged."""
    column = slices.rows.schema.get_field_index("patient_id")
    others = {one: other, other: one}
    patients = [others.get(patient, patient) for patient in slices.patients]
    return replace(slices, rows=slices.rows.set_column(column, "patient_id", pa.array(patients)))


def test_a_run_whose_people_have_other_slices_now_is_not_resumed(crossed, few, config, tmp_path):
    shutil.copytree(crossed, tmp_path / "crossed")
    people = dict(zip(few.patients, few.labels, strict=True))
    one, other = [patient for patient, label in people.items() if label == few.labels[0]][:2]
    with pytest.raises(DataError, match="other slices were of the people of its folds"):
        cross_validate(exchanged(few, one, other), config, name="crossed", out=tmp_path, resume=True)


def test_a_class_that_some_fold_could_not_train_on_is_told_before_anything_is_trained(few, config, tmp_path):
    people = dict(zip(few.patients, few.labels, strict=True))
    alone, *rest = [patient for patient, label in people.items() if label == few.classes[1]]
    rows = [row for row, patient in enumerate(few.patients) if patient not in rest]
    fewer = replace(few, rows=few.rows.take(rows), images=[few.images[row] for row in rows])

    def tested_last(seed):
        folds = make_splits(fewer, config.replace(seed=seed, validation_share=0.0)).folds
        return any(fewer.patients[fewer.row_of[slice_id]] == alone for slice_id in folds[1].test)

    settings = config.replace(seed=next(filter(tested_last, range(20))), validation_share=0.0)
    with pytest.raises(DataError, match=f"class {few.classes[1]} has no slice in train"):
        cross_validate(fewer, settings, name="a", out=tmp_path)
    assert not (tmp_path / "a").exists()
