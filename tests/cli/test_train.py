"""From data to runs and their figures."""

import json

import pytest

from brainstage.cli.shared import ExitCode
from brainstage.core.config import TrainConfig
from brainstage.core.run import RunFolder
from brainstage.datasets.splits import make_splits
from brainstage.models.recipes import load_recipe
from helpers import TINY, run_cli

SHORT = [f"--set={name}={json.dumps(value)}" for name, value in {**TINY, "epochs": 1, "train_rows": 96}.items()]
TWO_FOLDS = ["--recipe", "patient", "--set", "folds=2", "--set", "repeats=1"]


def test_train_saves_an_evaluated_run_that_names_its_protocol(tmp_path, phantom_folder):
    arguments = ["--data", phantom_folder, "--name", "a", "--out", tmp_path, "--json", *SHORT]
    code, out, _ = run_cli("train", *arguments)
    assert code == ExitCode.DONE
    report = json.loads(out)
    assert report["run"] == str(tmp_path / "a")
    assert report["protocol"] == "official"
    assert report["leakage"]["status"] == "leaky"
    assert report["synthetic"] == "synthetic: says nothing about real brains"
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["overall"] == report["overall"]


def test_evaluate_shows_the_figures_of_a_run(trained):
    code, out, _ = run_cli("evaluate", trained.path)
    assert code == ExitCode.DONE
    assert "synthetic: says nothing about real brains · test · 102 slices · protocol official · leaky" in " ".join(
        out.split()
    )
    assert "never a diagnosis" in out


def test_compare_reads_finished_runs(trained):
    code, out, _ = run_cli("compare", trained.path, trained.predictions, "--json")
    assert code == ExitCode.DONE
    assert len(json.loads(out)["candidates"]) == 2


@pytest.fixture
def splits_file(tmp_path, phantom):
    splits = make_splits(phantom, load_recipe("patient", folds=2, repeats=1, seed=7))
    splits.save(tmp_path / "splits.json")
    return tmp_path / "splits.json"


def test_train_under_the_patient_protocol_trains_one_fold_and_says_so(tmp_path, phantom_folder, splits_file):
    common = ["--data", phantom_folder, "--out", tmp_path / "runs", *TWO_FOLDS]
    first = run_cli("train", *common, "--name", "first")
    assert first.code == ExitCode.DONE, first.err
    assert first.out.startswith("One fold of 2: fold 0. `brainstage cross-validate` trains all.\n")
    second = run_cli("train", *common, "--name", "second", "--fold", "1", "--splits", splits_file)
    assert second.code == ExitCode.DONE, second.err
    assert "One fold of" not in second.out
    for number, outcome in enumerate((first, second)):
        assert f"protocol patient, fold {number} of 2 · " in " ".join(outcome.out.split())
    runs = [RunFolder(tmp_path / "runs" / name) for name in ("first", "second")]
    assert [TrainConfig.from_json(run.config).fold for run in runs] == [0, 1]
    asked, used = (json.loads(file.read_text()) for file in (splits_file, runs[1].splits))
    assert used["folds"] == asked["folds"]
    assert json.loads(runs[0].splits.read_text())["folds"] != asked["folds"]


def test_cross_validate_joins_all_folds_of_a_splits_file(tmp_path, phantom_folder, splits_file):
    arguments = ["--data", phantom_folder, "--out", tmp_path, "--name", "all", "--recipe", "patient"]
    code, out, err = run_cli("cross-validate", *arguments, "--splits", splits_file, "--json")
    assert code == ExitCode.DONE, err
    report = json.loads(out)
    assert sum(report["people"].values()) == 16
    run = RunFolder(tmp_path / "all")
    assert sorted(folder.name for folder in run.folds.iterdir()) == ["00", "01", "everyone"]
    assert (run.path / "patient_metrics.json").is_file()
    for page in ("claim.md", "tripod.md"):
        assert "protocol patient · clean" in (run.path / page).read_text(encoding="utf-8")
    asked, used = (json.loads(file.read_text()) for file in (splits_file, run.splits))
    assert used["folds"] == asked["folds"]


def test_a_recipe_is_a_file_too(tmp_path, phantom_folder):
    settings = {**TINY, "epochs": 1, "train_rows": 96, "seed": 3}
    (tmp_path / "mine.toml").write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    )
    arguments = ["--data", phantom_folder, "--out", tmp_path, "--name", "a"]
    code, _, err = run_cli("train", "--recipe", tmp_path / "mine.toml", *arguments)
    assert code == ExitCode.DONE, err
    assert TrainConfig.from_json(tmp_path / "a" / "train_config.json").seed == 3
