"""Trackers: any that ``Trainer`` knows and the user installed; it gets figures, and no path, weight or answer."""

import gc
import json
import sqlite3

import pytest
from transformers import TrainerCallback
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from brainstage.core.errors import ConfigError
from brainstage.models.recipes import load_recipe
from brainstage.training import tracking
from brainstage.training.cross_validation import cross_validate
from brainstage.training.tracking import TRACKERS, check_installed
from brainstage.training.train import train
from helpers import run_cli

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Recorder(TrainerCallback):
    """A tracker that keeps what it gets, talks, and fails where it is told to."""

    received: list = []  # noqa: RUF012
    fails_on = asks_on = None

    def _event(self, name, args, more):
        print("dashboard at http://127.0.0.1")
        if name == type(self).fails_on:
            raise ConnectionError("no route to tracker.example")
        if name == type(self).asks_on:
            input("API key: ")
        type(self).received.append((name, args.run_name, args.to_dict(), more))

    def on_train_begin(self, args, state, control, **more):
        self._event("begin", args, more)

    def on_log(self, args, state, control, **more):
        self._event("log", args, more)

    def on_save(self, args, state, control, **more):
        self._event("save", args, more)

    def on_train_end(self, args, state, control, **more):
        self._event("end", args, more)


@pytest.fixture
def recorder(monkeypatch):
    """Return the class of a tracker that takes the place of Weights & Biases."""
    kind = type("RecorderOfOneTest", (Recorder,), {"received": []})
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", kind)
    monkeypatch.setattr(tracking, "get_available_reporting_integrations", lambda: ["wandb"])
    return kind


@pytest.fixture
def short(tiny):
    return tiny.replace(epochs=2, train_rows=64)


def test_the_trackers_are_those_of_the_installed_transformers():
    assert set(TRACKERS) | {"flyte"} == set(INTEGRATION_TO_CALLBACK)
    assert {"tensorboard", "mlflow", "trackio", "wandb"} <= set(TRACKERS)


def test_tensorboard_writes_into_the_run(few, short, tmp_path):
    pytest.importorskip("tensorboard")
    run = train(few, short, name="a", out=tmp_path, track="tensorboard")
    events = list(run.tensorboard.iterdir())
    assert len(events) == 1
    assert b"eval/accuracy" in events[0].read_bytes()
    assert len(run.history.read_text().splitlines()) == 2


def test_a_tracker_gets_settings_and_figures_but_no_path_and_no_weights(few, short, tmp_path, recorder, capsys):
    run = train(few, short, name="first", out=tmp_path, track="wandb")
    events = [name for name, *_ in recorder.received]
    assert events[0] == "begin"
    assert events[-1] == "end"
    assert "save" not in events
    assert {run_name for _, run_name, *_ in recorder.received} == {"first"}
    assert all(more["model"] is None for *_, more in recorder.received)
    assert str(tmp_path) not in str(recorder.received)
    logged = [
        more["logs"]["eval_accuracy"] for *_, more in recorder.received if "eval_accuracy" in more.get("logs", {})
    ]
    history = [json.loads(line)["validation_accuracy"] for line in run.history.read_text().splitlines()]
    assert logged == history
    assert recorder.received[0][2]["learning_rate"] == short.learning_rate
    assert capsys.readouterr().out == ""


def test_a_tracker_that_wants_an_account_is_not_answered(few, short, tmp_path, recorder):
    recorder.asks_on = "begin"
    with pytest.raises(
        ConfigError, match=r"tracker wandb did not start \(.*\); set it up .*, or leave --track away"
    ):
        train(few, short, name="first", out=tmp_path / "runs", track="wandb")
    assert not (tmp_path / "runs").exists()


def test_a_tracker_that_is_lost_does_not_end_the_training(few, short, tmp_path, recorder):
    recorder.fails_on = "log"
    with pytest.warns(UserWarning, match="gets no more figures .*tracker.example.*history.jsonl") as caught:
        run = train(few, short, name="first", out=tmp_path, track="wandb")
    assert len([one for one in caught if "no more figures" in str(one.message)]) == 1
    assert run.finished
    assert len(run.history.read_text().splitlines()) == 2


@pytest.mark.parametrize("name", sorted({*TRACKERS} - {*get_available_reporting_integrations()}))
@pytest.mark.filterwarnings("error")
def test_a_tracker_that_is_not_there_is_one_sentence_with_what_to_do(name):
    """That it is the whole message: some callbacks of ``transformers`` leave a traceback when they are not made."""
    with pytest.raises(ConfigError) as caught:
        check_installed(name)
    gc.collect()
    todo = "start the training as a TrainJob" if name == "kubeflow" else "install it with: pip install "
    assert str(caught.value).startswith(f"tracker {name} is not available; {todo}")


def test_nothing_is_read_or_written_for_a_tracker_that_cannot_be_used(tiny, few, tmp_path):
    with pytest.raises(ConfigError, match="no tracker is called 'tensorbord'; did you mean 'tensorboard'"):
        train(few, tiny, out=tmp_path / "runs", track="tensorbord")
    patient = load_recipe("patient", protocol="patient")
    for fit in (train, cross_validate):
        with pytest.raises(
            ConfigError, match="fitted without epochs, so there is nothing for tensorboard to track"
        ):
            fit(few, patient, out=tmp_path / "runs", track="tensorboard")
    assert not (tmp_path / "runs").exists()


def test_the_help_says_that_figures_may_leave_the_machine():
    for command in ("train", "cross-validate"):
        said = " ".join(run_cli(command, "--help").out.split())
        assert "--track <tracker>" in said
        assert "may send the figures to another machine" in said


def test_trackio_keeps_the_figures_on_this_machine(few, short, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    train(few, short, name="first", out=tmp_path, track="trackio")
    content = b"".join(file.read_bytes() for file in (tmp_path / "trackio").rglob("*.db*"))
    assert b"eval/accuracy" in content
    assert str(tmp_path).encode() not in content


def test_mlflow_keeps_the_figures_in_the_store_that_it_is_given(few, short, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    train(few, short, name="first", out=tmp_path, track="mlflow")
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        assert store.execute("select name from runs").fetchall() == [("first",)]
        assert len(store.execute("select value from metrics where key = 'eval_accuracy'").fetchall()) == 2
        values = [value for (value,) in store.execute("select value from params")]
    assert values
    assert not any(str(tmp_path) in value for value in values)
