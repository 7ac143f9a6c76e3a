import re
import shutil

import pytest
from PIL import Image

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.parallel import Processes
from brainstage.datasets.splits import make_splits
from brainstage.models.recipes import load_recipe
from brainstage.report.results import write_comparison
from brainstage.report.study_page import write_study
from brainstage.studies.study import candidate, compare_candidates, run_study
from helpers import TINY, save_backbone, small_vit, without_pictures


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def other_folder(tmp_path):
    return save_backbone(tmp_path / "other", small_vit(layers=1))


@pytest.fixture
def small(monkeypatch):
    """Make the study ask fewer questions."""
    from brainstage.studies import study
    from brainstage.training.sweep_trials import Factor

    monkeypatch.setattr(
        study, "REPORT_FACTORS", (Factor("learning_rate", (1e-4, 1e-3)), Factor("weight_decay", (0.01, 0.1)))
    )


def test_candidates_of_all_three_kinds_have_the_same_rows(few, vit_folder, tmp_path, monkeypatch):
    from brainstage.models import recipes

    settings = {"compact": TINY, "fine-tune": {"backbone": str(vit_folder), "epochs": 1}}
    monkeypatch.setattr(
        "brainstage.studies.study.load_recipe",
        lambda name, **changes: recipes.load_recipe(name, **{**settings.get(name, {}), **changes}),
    )
    names = [str(vit_folder), "fine-tune", "compact"]
    found = compare_candidates(few, names, tmp_path, train_rows=64, epochs=1)
    beside = compare_candidates(few, names, tmp_path / "beside", workers=Processes(2), train_rows=64, epochs=1)
    figures = ([(one.name, one.evaluation.to_dict()) for one in each.candidates] for each in (found, beside))
    assert next(figures) == next(figures)
    assert {one.name for one in found.candidates} == {vit_folder.name, "fine-tune", "compact"}
    assert all(one.seconds is not None and one.parameters for one in found.candidates)
    write_comparison(found, tmp_path)
    assert Image.open(tmp_path / "comparison.png").width > 800
    again = compare_candidates(few, names, tmp_path, train_rows=64, epochs=1)  # finished runs are kept
    assert [one.seconds for one in again.candidates] == [one.seconds for one in found.candidates]
    with pytest.raises(ConfigError, match="train_rows 64, not 65"):
        compare_candidates(few, names, tmp_path, train_rows=65, epochs=1)
    with pytest.raises(ConfigError, match="was started with .*, not compact, fine-tune; name the same"):
        compare_candidates(few, ["compact", "fine-tune"], tmp_path, train_rows=64, epochs=1)
    with pytest.raises(DataError, match="started with different data"):
        compare_candidates(few.with_labels(few.labels[::-1]), names, tmp_path, train_rows=64, epochs=1)


@pytest.mark.parametrize("as_reported", [True, False])
def test_a_study_tells_all_in_one_page(as_reported, few, vit_folder, other_folder, tmp_path, small):
    said = []
    shutil.copytree(other_folder, fine_tuned := tmp_path / "Alzheimer_classification_model")
    names = [str(vit_folder), str(fine_tuned if as_reported else other_folder)]
    changes = {} if as_reported else {"epochs": 1}
    found = run_study(few, names, as_reported=as_reported, name="s", out=tmp_path, say=said.append, **changes)
    page = write_study(found, ["brainstage", "study", "a b"]).read_text()
    assert "never a diagnosis" in page
    assert "synthetic: says nothing about real brains" in page
    assert found.comparison.verdict in page.replace("&#39;", "'")
    assert few.data_hash in page
    assert "brainstage study &#39;a b&#39;" in page
    assert page.count("data:image/png;base64,") >= 4
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # nothing is fetched
    assert "http" not in without_pictures(page)
    assert ("chosen on the test slices" in page) == as_reported
    assert ("had been fine-tuned on this very dataset by its author" in page) == as_reported
    assert page.count("nearest training slice") >= 4  # candidates, trials, the final model's two scores
    assert found.comparison.leader.evaluation.split == ("test" if as_reported else "validation")
    [fold] = make_splits(few, TrainConfig.from_json(found.final.config)).folds
    assert found.comparison.leader.evaluation.slices == len(fold.test if as_reported else fold.validation)
    assert len(said) == 4
    again = run_study(few, names, as_reported=as_reported, name="s", out=tmp_path, resume=True, **changes)
    assert again.sweep.trials == found.sweep.trials
    with pytest.raises(RunError, match="go on with --resume"):
        run_study(few, names, as_reported=as_reported, name="s", out=tmp_path)
    with pytest.raises(ConfigError, match="started with different settings"):
        run_study(few, names, as_reported=not as_reported, name="s", out=tmp_path, resume=True)


def test_a_study_of_people_stays_within_one_fold(few, vit_folder, other_folder, tmp_path, small):
    names, changes = [str(vit_folder), str(other_folder)], {"epochs": 1, "protocol": "patient", "folds": 2}
    result = run_study(few, names, name="s", out=tmp_path, **changes)
    assert "test people of other folds" in result.comparison.title
    assert "test people of other folds" in result.sweep.title
    assert "protocol patient, fold 0 of 2 · clean" in result.evaluation.title
    assert "optimistic" not in result.evaluation.title  # its test people played no part in any choice


def test_what_fails_at_its_first_training_leaves_no_folder(few, vit_folder, tmp_path):
    broken = shutil.copytree(vit_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="not a usable model folder"):
        run_study(few, [str(broken), str(vit_folder)], name="s", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_candidate_is_a_recipe_or_a_backbone():
    assert candidate("compact", "linear-probe", seed=3).backbone is None
    assert candidate("a/b", "report").recipe == "report"
    with pytest.raises(ConfigError, match="two candidates or more"):
        compare_candidates(None, ["a/b", "c/b"], None)


def test_the_reports_recipe_has_the_settings_of_its_final_notebook():
    config = load_recipe("report")
    assert (config.frozen, config.optimizer, config.schedule) == (True, "adamw", "linear")
    assert (config.batch_size, config.epochs) == (4, 5)
    assert (config.learning_rate, config.weight_decay) == (1e-4, 0.005)
    assert (config.warmup_share, config.label_smoothing, config.max_shift, config.validation_share) == (0, 0, 0, 0)
    assert config.selection == "test"
