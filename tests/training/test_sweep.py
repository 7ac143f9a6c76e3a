import json
import signal
import subprocess
import sys
import time

import optuna
import pytest

from brainstage.core.errors import ConfigError, RunError
from brainstage.models.recipes import load_recipe
from brainstage.training.sweep import Factor, _retry_stopped_trials, sweep
from brainstage.training.train import train

RATES = Factor("learning_rate", (3e-3, 1e-2, 1e-4))
STEPS = Factor("gradient_accumulation", (1, 2))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def probe(vit_folder):
    return load_recipe("linear-probe", backbone=str(vit_folder), epochs=2, train_rows=128)


def test_each_trial_is_what_the_run_alone_is(phantom, probe, tmp_path):
    found = sweep(phantom, probe, [RATES], out=tmp_path)
    assert len(found.trials) == 3
    for trial in found.trials:
        run = train(phantom, probe.replace(learning_rate=trial["learning_rate"]), out=tmp_path)
        lines = [json.loads(line) for line in run.history.read_text().splitlines()]
        kept = max(lines, key=lambda line: line["validation_accuracy"])
        assert trial["epoch"] == kept["epoch"]
        for figure in ("loss", "accuracy", "weighted_f1", "macro_f1"):
            assert trial[figure] == pytest.approx(kept[f"validation_{figure}"], abs=1e-6)
    assert [trial["loss"] for trial in found.trials] == sorted(trial["loss"] for trial in found.trials)
    assert found.best.learning_rate == found.trials[0]["learning_rate"]
    assert found.title.startswith("synthetic: says nothing about real brains · sweep · validation")
    assert json.loads((found.folder / "sweep.json").read_text())["trials"] == list(found.trials)


def test_one_factor_at_a_time_keeps_the_others(phantom, probe, tmp_path):
    base = probe.replace(learning_rate=3e-3)
    found = sweep(phantom, base, [RATES, STEPS], out=tmp_path)
    tried = {(trial["learning_rate"], trial["gradient_accumulation"]) for trial in found.trials}
    assert tried == {(3e-3, 1), (1e-2, 1), (1e-4, 1), (3e-3, 2)}
    assert len(found.trials) == 4
    assert {trial["learning_rate"] for trial in found.of(STEPS)} == {3e-3}
    lowest = min(found.of(STEPS), key=lambda trial: trial["loss"])
    assert found.chosen["gradient_accumulation"] == lowest["gradient_accumulation"]


def test_a_grid_tries_every_combination_of_any_network(phantom, tiny, tmp_path):
    factors = [Factor("epochs", (1, 2)), Factor("mirror", (True, False))]
    found = sweep(phantom, tiny.replace(train_rows=64), factors, method="grid", out=tmp_path)
    assert {(trial["epochs"], trial["mirror"]) for trial in found.trials} == {
        (e, m) for e in (1, 2) for m in (True, False)
    }


def test_tpe_searches_a_range_and_stops_what_falls_behind(phantom, probe, tmp_path):
    config = probe.replace(epochs=6, train_rows=64)
    factor = Factor("learning_rate", (1e-6, 1e-1), is_range=True)
    found = sweep(phantom, config, [factor], method="tpe", trials=14, out=tmp_path)
    assert len(found.trials) == 14
    assert all(1e-6 <= trial["learning_rate"] <= 1e-1 for trial in found.trials)
    assert any(trial["state"] == "pruned" for trial in found.trials)
    assert found.trials[0]["state"] == "complete"


def test_after_a_kill_no_trial_is_lost_or_run_twice(phantom_folder, probe, tmp_path):
    script = (
        "from brainstage.datasets.sources import load_slices\n"
        "from brainstage.core.config import TrainConfig\n"
        "from brainstage.training.sweep import Factor, _retry_stopped_trials, sweep\n"
        "from pathlib import Path\n"
        f"config = TrainConfig.from_json(Path({str(tmp_path / 'config.json')!r}))\n"
        f"factor = Factor('learning_rate', {tuple(1e-3 * n for n in range(1, 7))!r})\n"
        f"slices = load_slices({str(phantom_folder)!r})\n"
        f"sweep(slices, config, [factor], name='s', out={str(tmp_path)!r}, resume=True)\n"
    )
    (tmp_path / "config.json").write_text(probe.replace(epochs=20).to_json())
    process = subprocess.Popen([sys.executable, "-c", script])
    database = f"sqlite:///{tmp_path}/s/sweep.db"
    while process.poll() is None and done(database) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = done(database)
    assert 2 <= before < 6
    subprocess.run([sys.executable, "-c", script], check=True)
    trials = optuna.load_study(study_name="s", storage=database).trials
    complete = [trial.params["learning_rate"] for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(complete) == pytest.approx([1e-3 * n for n in range(1, 7)])
    assert sum(trial.state.name == "FAIL" for trial in trials) <= 1  # the one that was killed


def test_a_trial_that_was_killed_before_its_first_step_is_queued_once():
    study = optuna.create_study()
    study.enqueue_trial({"epochs": 2})
    study.tell(study.ask().number, state=optuna.trial.TrialState.FAIL)  # a process took it and died
    for _ in range(2):
        _retry_stopped_trials(study)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    assert study.ask().suggest_int("epochs", 1, 9) == 2


def test_a_search_that_goes_on_draws_other_values(phantom, probe, tmp_path):
    factor = Factor("learning_rate", (1e-4, 1e-1), is_range=True)
    for trials in (2, 4):
        found = sweep(phantom, probe, [factor], method="tpe", trials=trials, name="s", out=tmp_path, resume=True)
    assert len({trial["learning_rate"] for trial in found.trials}) == 4


def done(database):
    try:
        trials = optuna.load_study(study_name="s", storage=database).trials
    except Exception:  # not there yet
        return 0
    return sum(trial.state.name == "COMPLETE" for trial in trials)


def test_machines_share_a_storage(phantom, probe, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    first = sweep(phantom, probe, [STEPS], name="s", out=tmp_path / "one", storage=address)
    second = sweep(phantom, probe, [STEPS], name="s", out=tmp_path / "two", storage=address, resume=True)
    assert [trial["trial"] for trial in first.trials] == [
        trial["trial"] for trial in second.trials
    ]  # nothing again


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("learning_rate=1e-4,5e-5", (1e-4, 5e-5)),
        ("schedule=linear,cosine", ("linear", "cosine")),
        ("mirror=true,false", (True, False)),
    ],
)
def test_what_is_varied_is_read(text, values):
    assert Factor.parse(text) == Factor(text.partition("=")[0], values)
    assert Factor.parse("learning_rate=1e-5..1e-2") == Factor("learning_rate", (1e-5, 1e-2), is_range=True)


@pytest.mark.parametrize(
    "text", ["learning_rate", "learning_rate=", "=1,2", "learning_rate=1", "learning_rate=1..2..3"]
)
def test_what_is_not_a_factor_is_told(text):
    with pytest.raises(ConfigError, match="expected FIELD=VALUE,VALUE or FIELD=LOW..HIGH"):
        Factor.parse(text)


@pytest.mark.parametrize(
    ("factor", "changes", "says"),
    [
        (Factor("learning_rat", (1, 2)), {}, "did you mean 'learning_rate'"),
        (Factor("learning_rate", (1e-3, "much")), {}, "expected float, not 'much'"),
        (Factor("fold", (0, 1)), {}, "decides who is judged and cannot be varied"),
        (Factor("learning_rate", (1e-3, 1e-2), is_range=True), {}, "a range needs --trials"),
        (RATES, {"validation_share": 0}, "set --validation-share above 0"),
        (Factor("model", ("network", "patient")), {}, "the patient model has none"),
    ],
)
def test_a_sweep_that_cannot_be_is_told_before_it_begins(factor, changes, says, phantom, probe, tmp_path):
    with pytest.raises(ConfigError, match=says):
        sweep(phantom, probe.replace(**changes), [factor], out=tmp_path)
    assert not list(tmp_path.glob("sweep*"))


def test_another_sweep_of_the_same_name_is_refused(phantom, probe, tmp_path):
    sweep(phantom, probe, [STEPS], name="s", out=tmp_path)
    with pytest.raises(RunError, match="go on with --resume or take another --name"):
        sweep(phantom, probe, [STEPS], name="s", out=tmp_path)
    with pytest.raises(ConfigError, match="begun with another vary; take another --name"):
        sweep(phantom, probe, [RATES], name="s", out=tmp_path, resume=True)
    with pytest.raises(RunError, match="storage host/db: cannot be opened"):
        sweep(phantom, probe, [STEPS], name="t", out=tmp_path, storage="nothing://user:secret@host/db")
