"""Folds trained side by side: the same tables whether by this process, by others or on a cluster, and resumed."""

import os
import shutil

import pyarrow.parquet as pq
import pytest

from brainstage.core import parallel
from brainstage.core.cluster import open_cluster
from brainstage.core.errors import RunError
from brainstage.core.parallel import ONE_THREAD, Processes, run_tasks
from brainstage.core.run import RunFolder
from brainstage.core.slurm import WORKER_ENVIRONMENT
from brainstage.training.cross_validation import cross_validate

TABLES = ("predictions", "nearest_slice", "baseline")


def content(run):
    names = ("predictions", "nearest_slice", "baseline")
    weights = (run.model / "model.safetensors").read_bytes()
    return {name: pq.read_table(getattr(run, name)) for name in names}, weights


@pytest.fixture(scope="module")
def config(tiny):
    return tiny.replace(protocol="patient", folds=2)


@pytest.fixture(scope="module")
def here(few, config, tmp_path_factory):
    return cross_validate(few, config, name="here", out=tmp_path_factory.mktemp("runs"))


def test_folds_that_other_processes_go_on_with_are_those_of_this_process(few, config, here, tmp_path):
    stopped = RunFolder(shutil.copytree(here.path, tmp_path / "stopped"))
    stopped.manifest.unlink()
    for name in ("01", "everyone"):
        shutil.rmtree(stopped.folds / name)
    kept = (stopped.folds / "00" / "manifest.json").stat().st_mtime_ns
    cross_validate(few, config, name="stopped", out=tmp_path, workers=Processes(2), resume=True)
    assert content(stopped) == content(here)
    assert (stopped.folds / "00" / "manifest.json").stat().st_mtime_ns == kept
    assert not stopped.stored_slices.exists()


def test_folds_on_dask_are_those_of_this_process(few, config, here, dask, tmp_path):
    with open_cluster(dask) as workers:
        assert content(cross_validate(few, config, name="dask", out=tmp_path, workers=workers)) == content(here)


def test_folds_on_slurm_are_those_of_this_process(few, config, here, slurm_file, tmp_path):
    with open_cluster(str(slurm_file)) as workers:
        assert content(cross_validate(few, config, name="slurm", out=tmp_path, workers=workers)) == content(here)
        expected = ONE_THREAD | WORKER_ENVIRONMENT
        assert dict(run_tasks(os.getenv, expected, workers)) == expected


def test_a_fold_whose_process_is_killed_is_named(few, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "run_tasks", lambda _function, tasks, _workers: ((one, None) for one in tasks))
    config = tiny.replace(protocol="patient", folds=3)
    with pytest.raises(RunError, match=r"folds/00: the process that trained it was killed twice.*--resume"):
        cross_validate(few, config, name="killed", out=tmp_path, workers=Processes(2))
