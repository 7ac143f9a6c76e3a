"""A training and a sweep that were killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import helpers
from brainstage.core.run import RunFolder
from brainstage.models.recipes import load_recipe
from brainstage.training.sweep_trials import Factor
from kills import VICTIMS, Killed, complete_trials, kill_when


@pytest.fixture(scope="session")
def killed(tmp_path_factory, phantom_folder, tiny, vit_folder):
    """Kill a training after its first checkpoints, and a sweep within its trials."""
    out = tmp_path_factory.mktemp("killed")
    factor = Factor("learning_rate", tuple(1e-3 * number for number in range(1, 13)))
    probe = load_recipe("linear-probe", backbone=str(vit_folder), epochs=10)
    (out / "run.json").write_text(tiny.replace(epochs=12).to_json())
    (out / "sweep.json").write_text(probe.to_json())
    code = VICTIMS.replace("RATES", repr(factor.values))
    command = [sys.executable, "-c", code, str(phantom_folder), str(out), str(Path(helpers.__file__).parent)]
    environment = {**os.environ, "BRAINSTAGE_CACHE": str(out / "cache")}
    run, sweep = RunFolder(out / "run"), out / "sweep"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        training, varying = map(int, process.stdout.readline().split())
        kill_when(lambda: len(list(run.checkpoints.glob("*/complete.json"))) >= 2, training, process)
        kill_when(lambda: complete_trials(sweep / "sweep.db") >= 2, varying, process)
    assert run.started
    assert not run.finished
    assert complete_trials(sweep / "sweep.db") < len(factor.values)
    return Killed(run, sweep, probe, factor)
