"""Sweeps by several processes: here, on a cluster; and two that share a PostgreSQL, one of them killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

import shared_sweep
from brainstage.core.cluster import open_cluster
from brainstage.core.errors import ConfigError
from brainstage.core.parallel import Processes
from brainstage.training.sweep import sweep
from brainstage.training.sweep_trials import Factor

RATES = Factor("learning_rate", (1e-2, 1e-3, 1e-4))


def trials(result):
    """Return the trials without what differs from run to run: their numbers and times."""
    kept = ("learning_rate", "epoch", "loss", "accuracy", "weighted_f1", "macro_f1", "state")
    return [{name: trial[name] for name in kept} for trial in result.trials]


@pytest.fixture(scope="module")
def here(few, tiny, tmp_path_factory):
    return sweep(few, tiny, [RATES], method="grid", out=tmp_path_factory.mktemp("here"))


def test_the_same_trials_by_processes_of_this_machine(few, tiny, here, tmp_path):
    result = sweep(few, tiny, [RATES], method="grid", out=tmp_path, workers=Processes(2))
    assert trials(result) == trials(here)
    assert result.best == here.best


def test_the_same_trials_on_a_cluster_with_a_database(few, tiny, here, database, dask, tmp_path):
    with open_cluster(dask) as workers:
        with pytest.raises(ConfigError, match="cannot share a file of SQLite; name a database with --storage"):
            sweep(few, tiny, [RATES], method="grid", out=tmp_path, workers=workers)
        result = sweep(few, tiny, [RATES], method="grid", name="c", out=tmp_path, storage=database, workers=workers)
    assert trials(result) == trials(here)
    assert result.best == here.best


def test_two_processes_share_a_study_and_one_is_killed(database, phantom_folder, tmp_path):
    def start(folder):
        command = [sys.executable, shared_sweep.__file__, str(tmp_path / folder), database, str(phantom_folder)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(shared_sweep.__file__).parent), *sys.path]),
        }
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    storage = optuna.storages.RDBStorage(database.replace("://", "+psycopg://", 1))

    def states():
        try:
            study = optuna.load_study(study_name="s", storage=storage)
        except KeyError:
            return []
        return [trial.state.name for trial in study.trials]

    first, second = start("one"), start("two")
    try:
        while not (states().count("COMPLETE") >= 2 and states().count("RUNNING") == 2):
            assert first.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
        first.kill()
        output, errors = second.communicate(timeout=300)
    finally:
        first.kill()
        second.kill()
    assert second.returncode == 0, errors
    assert output.split() == [str(len(shared_sweep.RATES.values))]
    assert first.wait() == -signal.SIGKILL
    study = optuna.load_study(study_name="s", storage=storage)
    complete = [trial.params["learning_rate"] for trial in study.trials if trial.state.name == "COMPLETE"]
    assert sorted(complete) == list(shared_sweep.RATES.values)  # each once
    assert [trial.state.name for trial in study.trials].count("RUNNING") == 0
