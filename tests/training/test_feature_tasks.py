"""Features computed by several processes before trainings: none of the trainings computes any."""

from pathlib import Path

import pytest
from safetensors import safe_open

from brainstage.core import parallel
from brainstage.core.errors import RunError
from brainstage.core.parallel import Processes
from brainstage.datasets.splits import make_splits
from brainstage.datasets.stored import store_slices
from brainstage.models.features import features_folder
from brainstage.models.patient_features import patient_features
from brainstage.models.patient_model import PREDICTION_SEEDS
from brainstage.models.recipes import load_recipe
from brainstage.training import feature_tasks, patient, probe
from brainstage.training.cross_validation import cross_validate
from brainstage.training.feature_tasks import compute_features


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_tasks, "SLICES_A_TASK", 50)


def rows_in_cache():
    """Return the name of each row in the cache."""
    names = []
    for file in features_folder().glob("*/*.safetensors"):
        with safe_open(file, framework="numpy") as opened:
            names += [file.parent.name + name for name in opened.metadata()["slice_ids"].split('", "')]
    return names


@pytest.mark.parametrize(("recipe", "jobs"), [("patient", 2), ("linear-probe", 1)])
def test_folds_find_all_features_computed_and_each_once(few, vit_folder, tmp_path, monkeypatch, recipe, jobs):
    changes = {"backbone": str(vit_folder), "epochs": 1} if recipe == "linear-probe" else {}
    config = load_recipe(recipe, protocol="patient", folds=2, repeats=1, **changes)
    splits = make_splits(few, config)
    compute_features(few, store_slices(few, tmp_path / "slices"), config, splits.folds, Processes(jobs))
    rows = rows_in_cache()
    assert len(rows) == len(set(rows)) == len(few) * (2 if recipe == "patient" else 1)

    def compute_nothing(images, *_arguments):
        assert not len(images), "computed again"
        return patient_features(images, PREDICTION_SEEDS)  # of nobody, where all are trained on

    monkeypatch.setattr(patient, "patient_features", compute_nothing)
    monkeypatch.setattr(probe, "_network", compute_nothing)
    cross_validate(few, config, splits=splits, out=tmp_path / "runs")


def test_a_process_that_is_killed_is_named(few, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "run_tasks", lambda _function, tasks, _workers: ((one, None) for one in tasks))
    config = load_recipe("patient", folds=2, repeats=1)
    with pytest.raises(RunError, match="the process that computed features was killed twice"):
        compute_features(few, Path("slices"), config, make_splits(few, config).folds, Processes(2))
