import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import ConfigError, RunError
from brainstage.evaluation.slices import evaluate
from brainstage.models.recipes import load_recipe
from brainstage.training import sweep_storage, sweep_trials
from brainstage.training.cross_validation import cross_validate
from brainstage.training.sweep import sweep
from brainstage.training.sweep_storage import retry_stopped_trials
from brainstage.training.sweep_trials import Factor
from brainstage.training.train import train
from kills import complete_trials

RATES = Factor("learning_rate", (3e-3, 1e-2, 1e-4))
STEPS = Factor("gradient_accumulation", (1, 2))


@pytest.fixture(autouse=True)
def _one_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path_factory.getbasetemp() / "sweep-cache"))


@pytest.fixture
def probe(vit_folder):
    return load_recipe("linear-probe", backbone=str(vit_folder), epochs=2, train_rows=64)


def test_each_trial_is_what_the_run_alone_is(few, probe, tmp_path):
    result = sweep(few, probe, [RATES], out=tmp_path)
    assert len(result.trials) == 3
    for trial in result.trials:
        run = train(few, probe.replace(learning_rate=trial["learning_rate"]), out=tmp_path)
        lines = [json.loads(line) for line in run.history.read_text().splitlines()]
        kept = max(lines, key=lambda line: line["validation_accuracy"])
        assert trial["epoch"] == kept["epoch"]
        for figure in ("loss", "accuracy", "weighted_f1", "macro_f1"):
            assert trial[figure] == pytest.approx(kept[f"validation_{figure}"], abs=1e-6)
    assert [trial["loss"] for trial in result.trials] == sorted(trial["loss"] for trial in result.trials)
    assert result.best.learning_rate == result.trials[0]["learning_rate"]
    assert result.title.startswith("synthetic: says nothing about real brains · sweep · validation")
    assert json.loads((result.folder / "sweep.json").read_text())["trials"] == list(result.trials)


def test_one_factor_at_a_time_keeps_the_others(few, probe, tmp_path):
    base = probe.replace(learning_rate=3e-3)
    result = sweep(few, base, [RATES, STEPS], out=tmp_path)
    tried = {(trial["learning_rate"], trial["gradient_accumulation"]) for trial in result.trials}
    assert tried == {(3e-3, 1), (1e-2, 1), (1e-4, 1), (3e-3, 2)}
    assert len(result.trials) == 4
    assert {trial["learning_rate"] for trial in result.of(STEPS)} == {3e-3}
    lowest = min(result.of(STEPS), key=lambda trial: trial["loss"])
    assert result.chosen["gradient_accumulation"] == lowest["gradient_accumulation"]


def test_a_grid_tries_every_combination_of_any_network(few, tiny, tmp_path):
    factors = [Factor("epochs", (1, 2)), Factor("mirror", (True, False))]
    result = sweep(few, tiny.replace(train_rows=64), factors, method="grid", out=tmp_path)
    assert {(trial["epochs"], trial["mirror"]) for trial in result.trials} == {
        (e, m) for e in (1, 2) for m in (True, False)
    }


def test_tpe_searches_a_range_and_stops_what_falls_behind(few, probe, tmp_path):
    config = probe.replace(epochs=3, train_rows=32)
    factor = Factor("learning_rate", (1e-6, 1e-1), is_range=True)
    result = sweep(few, config, [factor], method="tpe", trials=12, out=tmp_path)
    assert len(result.trials) == 12
    assert all(1e-6 <= trial["learning_rate"] <= 1e-1 for trial in result.trials)
    assert any(trial["state"] == "pruned" for trial in result.trials)
    assert result.trials[0]["state"] == "complete"


def test_after_a_kill_no_trial_is_lost_or_run_twice(killed, few):
    before = complete_trials(killed.sweep / "sweep.db")
    assert 2 <= before < len(killed.factor.values)
    options = {"name": killed.sweep.name, "out": killed.sweep.parent, "resume": True}
    sweep(few, killed.sweep_config, [killed.factor], **options)
    trials = optuna.load_study(study_name="sweep", storage=f"sqlite:///{killed.sweep}/sweep.db").trials
    complete = [trial.params["learning_rate"] for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(complete) == pytest.approx(killed.factor.values)
    assert sum(trial.state.name == "FAIL" for trial in trials) <= 1  # the one that was killed


def test_a_trial_that_was_killed_before_its_first_step_is_queued_once():
    study = optuna.create_study()
    study.enqueue_trial({"epochs": 2})
    study.tell(study.ask().number, state=optuna.trial.TrialState.FAIL)  # a process took it and died
    for _ in range(2):
        retry_stopped_trials(study, alone=True)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    assert study.ask().suggest_int("epochs", 1, 9) == 2


def test_a_search_that_goes_on_draws_other_values(few, probe, tmp_path):
    factor = Factor("learning_rate", (1e-4, 1e-1), is_range=True)
    for trials in (2, 4):
        result = sweep(few, probe, [factor], method="tpe", trials=trials, name="s", out=tmp_path, resume=True)
    assert len({trial["learning_rate"] for trial in result.trials}) == 4


def test_machines_share_a_storage(few, probe, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    first = sweep(few, probe, [STEPS], name="s", out=tmp_path / "one", storage=address)
    second = sweep(few, probe, [STEPS], name="s", out=tmp_path / "two", storage=address, resume=True)
    assert [trial["trial"] for trial in first.trials] == [
        trial["trial"] for trial in second.trials
    ]  # nothing again


def test_a_trial_whose_machine_died_before_its_first_heartbeat_is_taken_up(few, probe, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(sweep_trials, "WAIT_SECONDS", 0.2)
    address = f"sqlite:///{tmp_path}/shared.db"
    first = sweep(few, probe, [STEPS], name="s", out=tmp_path / "one", storage=address)
    with closing(sqlite3.connect(tmp_path / "shared.db")) as database:  # as the machine would have left it
        database.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 1")
        database.execute("DELETE FROM trial_heartbeats")
        database.commit()
    second = sweep(few, probe, [STEPS], name="s", out=tmp_path / "two", storage=address, resume=True)
    assert [trial["loss"] for trial in second.trials] == [trial["loss"] for trial in first.trials]


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
        (Factor("fold", (0, 1)), {}, "decides which slices are judged and cannot be varied"),
        (Factor("learning_rate", (1e-3, 1e-2), is_range=True), {}, "a range needs --trials"),
        (RATES, {"validation_share": 0}, "set --validation-share above 0"),
        (Factor("model", ("network", "patient")), {}, "the patient model has none"),
    ],
)
def test_a_sweep_that_cannot_be_is_told_before_it_begins(factor, changes, says, few, probe, tmp_path):
    with pytest.raises(ConfigError, match=says):
        sweep(few, probe.replace(**changes), [factor], out=tmp_path)
    assert not list(tmp_path.glob("sweep*"))


def test_trials_are_ranked_by_the_cross_entropy_whatever_they_are_trained_on(few, probe, tmp_path):
    smoothing = Factor("label_smoothing", (0.0, 0.6))
    config = probe.replace(learning_rate=3e-2, epochs=3)
    result = sweep(few, config, [smoothing], out=tmp_path)
    for trial in result.trials:
        run = train(few, config.replace(label_smoothing=trial["label_smoothing"]), out=tmp_path)
        table = pq.read_table(run.predictions).to_pylist()
        loss = np.mean([-np.log(row[f"prob_{row['label']}"]) for row in table if row["split"] == "validation"])
        assert trial["loss"] == pytest.approx(loss, abs=1e-4)
    best = load_recipe(result.folder / "best.toml")
    assert config.train_rows > best.train_rows == best.test_rows == 0
    assert best.label_smoothing == result.chosen["label_smoothing"]


def test_what_was_chosen_on_one_fold_is_optimistic_on_the_others(few, probe, tmp_path):
    config = probe.replace(protocol="patient", folds=2, epochs=1, train_rows=0, validation_share=0.3)
    result = sweep(few, config, [STEPS], name="s", out=tmp_path)
    words = "chosen on validation people of fold 0 of 2, who are test people of other folds"
    assert words in result.title
    assert words in result.to_dict()["caution"]
    best = load_recipe(tmp_path / "s" / "best.toml")
    assert best.replace(recipe=config.recipe) == result.best
    same, other, redrawn = (
        evaluate(train(few, settings, out=tmp_path))
        for settings in (best, best.replace(fold=1), best.replace(seed=1, validation_share=0.0))
    )
    assert "fold 0 of 2" in same.title
    assert "optimistic" not in same.title
    for evaluation in (other, redrawn):
        assert "optimistic: the settings were tuned on these same people" in evaluation.title
    crossed = cross_validate(few, best, name="cv", out=tmp_path)
    assert "optimistic" in evaluate(crossed).title
    assert "optimistic" in crossed.read_manifest()
    untuned = evaluate(train(few, config, out=tmp_path))
    assert "optimistic" not in untuned.title


def test_another_sweep_of_the_same_name_is_refused(few, probe, tmp_path):
    sweep(few, probe, [STEPS], name="s", out=tmp_path)
    with pytest.raises(RunError, match="go on with --resume or take another --name"):
        sweep(few, probe, [STEPS], name="s", out=tmp_path)
    with pytest.raises(ConfigError, match="started with different settings; take another --name"):
        sweep(few, probe.replace(epochs=1), [STEPS], name="s", out=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="started with different --vary values; take another --name"):
        sweep(few, probe, [RATES], name="s", out=tmp_path, resume=True)
    with pytest.raises(RunError, match="storage host/db: cannot be opened"):
        sweep(few, probe, [STEPS], name="t", out=tmp_path, storage="nothing://user:secret@host/db")
    with pytest.raises(ConfigError, match="not a hub id"):
        sweep(few, probe.replace(backbone="none"), [STEPS], name="t", out=tmp_path)
    assert not (tmp_path / "t").exists()


def test_a_sweep_of_other_people_is_not_gone_on_with(few, probe, tmp_path):
    by_people = probe.replace(protocol="patient")
    sweep(few, by_people, [STEPS], name="s", out=tmp_path)
    names = sorted(set(few.patients))
    others = dict(zip(names, reversed(names), strict=True))  # as another file of --patients may name them
    column = few.rows.column_names.index("patient_id")
    renamed = few.rows.set_column(column, "patient_id", pa.array([others[name] for name in few.patients]))
    with pytest.raises(ConfigError, match="started with different splits; take another --name"):
        sweep(replace(few, rows=renamed), by_people, [STEPS], name="s", out=tmp_path, resume=True)


def test_the_choice_says_what_was_not_trained_together_and_what_would_do_as_well(few, probe, tmp_path):
    result = sweep(few, probe.replace(learning_rate=1e-4), [RATES, STEPS], out=tmp_path)
    trials = [
        {"learning_rate": 1e-4, "gradient_accumulation": 2, "loss": 0.1},
        {"learning_rate": 1e-2, "gradient_accumulation": 1, "loss": 0.2},
        {"learning_rate": 3e-3, "gradient_accumulation": 1, "loss": 0.2},
        {"learning_rate": 1e-4, "gradient_accumulation": 1, "loss": 0.3},
    ]
    assert replace(result, trials=tuple(trials)).choice == (
        "lowest loss of each setting by itself: learning_rate=0.01, gradient_accumulation=2; no trial had them all "
        "together; learning_rate 0.003 has the same loss"
    )
    together = {"learning_rate": 1e-2, "gradient_accumulation": 2, "loss": 0.05}
    assert replace(result, trials=(together, *trials)).choice.startswith("lowest loss: learning_rate=0.01, ")
