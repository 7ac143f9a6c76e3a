"""A training stopped by SIGTERM, and one that several processes share."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from transformers import Trainer

from brainstage.cli.shared import ExitCode
from brainstage.core.errors import ConfigError, OtherProcessError, RunError
from brainstage.core.run import RunFolder
from brainstage.core.sigterm import Terminated
from brainstage.models.recipes import load_recipe
from brainstage.training.processes import share_of_batch
from brainstage.training.train import train
from brainstage.training.trainer import _last_checkpoint
from helpers import TERMINAL, run_cli, save_backbone, small_vit
from together import terminate_in, two_processes


@pytest.fixture
def sigterm_as_before():
    """Take SIGTERM as before the test: a process that ends by it ignores more of them."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def dropout(tmp_path_factory):
    """Return settings of a backbone that draws random numbers in each step of its training."""
    model = small_vit()
    model.config.update({"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    folder = save_backbone(tmp_path_factory.mktemp("dropout"), model)
    return load_recipe("fine-tune", backbone=str(folder), epochs=2, batch_size=32, train_rows=320)


def weights(run):
    return load_file(run.model / "model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def scores(run):
    """Return the lines of the history without ``train_loss``, which is that of an epoch's steps since a resume."""
    lines = [json.loads(line) for line in run.history.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "train_loss"} for line in lines]


@pytest.mark.usefixtures("sigterm_as_before")
@pytest.mark.parametrize("steps", [(7,), (10, 13)], ids=["within an epoch", "at an epoch's end and again"])
@pytest.mark.parametrize("kind", ["network", "backbone with dropout"])
def test_a_run_stopped_by_sigterm_and_resumed_ends_as_if_never_stopped(
    kind, steps, phantom, tiny, dropout, tmp_path, monkeypatch
):
    config = tiny.replace(epochs=2, train_rows=320) if kind == "network" else dropout
    whole = train(phantom, config, name="whole", out=tmp_path)
    for step, since in zip(steps, (0, *steps), strict=False):
        with monkeypatch.context() as patch, pytest.raises(Terminated, match=f"checkpoint-{step} is saved"):
            patch.setattr(Trainer, "training_step", terminate_in(step - since))
            train(phantom, config, name="stopped", out=tmp_path, resume=True)
    run = train(phantom, config, name="stopped", out=tmp_path, resume=True)
    assert same(weights(run), weights(whole))
    assert scores(run) == scores(whole)
    assert len(scores(run)) == 2


@pytest.mark.usefixtures("sigterm_as_before")
def test_sigterm_before_the_first_step_leaves_nothing_behind(phantom_folder, tmp_path, monkeypatch):
    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr("brainstage.training.start.make_splits", stopped)
    code, out, err = run_cli("train", "--data", phantom_folder, "--name", "early", "--out", tmp_path / "runs")
    assert (code, out) == (ExitCode.TERMINATED, "")
    assert code == os.EX_TEMPFAIL
    assert err.startswith("Stopped by SIGTERM; finished work is kept.")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("recipe", "changes", "says"),
    [
        ("patient", {}, "the patient model is trained by one process; start it without torchrun"),
        ("linear-probe", {}, "the head of a frozen backbone is trained by one process"),
        ("compact", {"batch_size": 33}, "batch_size: 33 cannot be divided among 2 processes"),
    ],
)
def test_what_several_processes_cannot_share_is_refused_by_the_first(recipe, changes, says, monkeypatch):
    config = load_recipe(recipe, **changes)
    assert share_of_batch(config) == config.batch_size
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        share_of_batch(config)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(OtherProcessError):
        share_of_batch(config)


def test_other_commands_go_without_torchrun(tmp_path):
    launched = {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    code, out, err = run_cli("evaluate", tmp_path, RANK="0", **launched)
    assert (code, out) == (ExitCode.FAILED, "")
    assert err == "Error: several processes, as torchrun starts them, are for train; start evaluate without it\n"
    assert run_cli("evaluate", tmp_path, RANK="1", **launched) == (ExitCode.DONE, "", "")


@pytest.fixture(scope="module")
def together():
    with two_processes() as run:
        yield run


@pytest.fixture(scope="module")
def command(phantom_folder, vit_folder, tmp_path_factory):
    """Return a training on whole batches of 32, without dropout and batch normalisation."""
    settings = ("batch_size=32", "train_rows=320", "precision=fp32", "learning_rate=1e-3")
    common = ["--data", phantom_folder, "--out", tmp_path_factory.mktemp("runs"), "--quiet", "--json"]
    return [
        *("train", *common, "--recipe", "fine-tune", "--backbone", vit_folder, "--epochs", "2"),
        *(f"--set={setting}" for setting in settings),
    ]


@pytest.fixture(scope="module")
def runs(command):
    """Return the folder of the runs."""
    return command[command.index("--out") + 1]


@pytest.fixture(scope="module")
def shared(command, runs):
    """Return a run that two processes trained under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [*launcher, "-m", "brainstage", *map(str, command), "--name", "shared"]
    outcome = subprocess.run(program, capture_output=True, text=True, env=os.environ | TERMINAL, timeout=500)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["run"] == str(runs / "shared")  # printed once
    assert "Warning" not in outcome.stderr
    return RunFolder(runs / "shared")


def test_two_processes_train_what_one_does(shared, command, runs):
    assert run_cli(*command, "--name", "alone").code == ExitCode.DONE
    alone = RunFolder(runs / "alone")
    left, right = weights(shared), weights(alone)
    assert max(np.abs(left[name] - right[name]).max() for name in right) < 1e-4
    for line, expected in zip(scores(shared), scores(alone), strict=True):  # of 41 slices, each counted once
        assert line == pytest.approx(expected, abs=1e-4)
    tables = [pq.read_table(run.predictions).select(["slice_id", "split"]) for run in (shared, alone)]
    assert tables[0].equals(tables[1])
    assert shared.read_manifest()["processes"] == 2
    assert shared.read_manifest()["files"].keys() == alone.read_manifest()["files"].keys()


def test_two_processes_stop_at_one_step_and_go_on_as_if_never_stopped(shared, together, command, runs):
    run = RunFolder(runs / "stopped")
    first, second = together(*command, "--name", "stopped", step=13)  # the second gets the signal
    assert (first.code, second.code) == (ExitCode.TERMINATED, ExitCode.TERMINATED)
    assert first.err == (
        f"Stopped by SIGTERM; {run.checkpoints / 'checkpoint-13'} is saved. The same command with --resume "
        "--name NAME goes on with it.\n"
    )
    assert (first.out, second.out, second.err) == ("", "", "")
    with pytest.raises(RunError, match="was saved by 2 processes, and this training has 1 process; go on with as"):
        _last_checkpoint(run.checkpoints)
    first, second = together(*command, "--name", "stopped", "--resume")
    assert (first.code, second.code, second.out) == (ExitCode.DONE, ExitCode.DONE, ""), first.err
    assert same(weights(run), weights(shared))
    assert scores(run) == scores(shared)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--name", "shared"], "this run is finished; take another --name"),
        (["--name", "shared", "--resume", "--seed", "1"], "this run was started with different settings: seed"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_an_error_is_said_once(shared, together, command, changes, says):
    first, second = together(*command, *changes)
    assert first.code == ExitCode.FAILED
    assert says in first.err
    assert first.err.count("\n") == 1
    assert (first.out, *second) == ("", ExitCode.DONE, "", "")
