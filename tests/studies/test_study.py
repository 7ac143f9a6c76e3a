import re

import pytest
from PIL import Image

from brainstage.core.errors import ConfigError, RunError
from brainstage.report.results import write_comparison
from brainstage.report.study_page import write_study
from brainstage.studies.study import candidate, compare_candidates, run_study
from helpers import TINY, save_backbone, small_vit


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
    from brainstage.training.sweep import Factor

    monkeypatch.setattr(
        study, "REPORT_FACTORS", (Factor("learning_rate", (1e-4, 1e-3)), Factor("weight_decay", (0.01, 0.1)))
    )


def test_candidates_of_all_three_kinds_have_the_same_rows(phantom, vit_folder, tmp_path, monkeypatch):
    from brainstage.models import recipes

    settings = {"compact": TINY, "fine-tune": {"backbone": str(vit_folder), "epochs": 1}}
    monkeypatch.setattr(
        "brainstage.studies.study.load_recipe",
        lambda name, **changes: recipes.load_recipe(name, **{**settings.get(name, {}), **changes}),
    )
    names = [str(vit_folder), "fine-tune", "compact"]
    found = compare_candidates(phantom, names, tmp_path, train_rows=96, epochs=1)
    assert {one.name for one in found.candidates} == {vit_folder.name, "fine-tune", "compact"}
    assert all(one.seconds is not None and one.parameters for one in found.candidates)
    write_comparison(found, tmp_path)
    assert Image.open(tmp_path / "comparison.png").width > 800
    again = compare_candidates(phantom, names, tmp_path, train_rows=96, epochs=1)  # finished runs are kept
    assert [one.seconds for one in again.candidates] == [one.seconds for one in found.candidates]


@pytest.mark.parametrize("as_reported", [True, False])
def test_a_study_tells_all_in_one_page(as_reported, phantom, vit_folder, other_folder, tmp_path, small):
    said = []
    names = [str(vit_folder), str(other_folder)]
    changes = {} if as_reported else {"epochs": 2}
    found = run_study(phantom, names, as_reported=as_reported, name="s", out=tmp_path, say=said.append, **changes)
    page = write_study(found, ["brainstage", "study", "a b"]).read_text()
    assert "never a diagnosis" in page
    assert "synthetic: says nothing about real brains" in page
    assert found.comparison.verdict in page.replace("&#39;", "'")
    assert phantom.data_hash in page
    assert "brainstage study &#39;a b&#39;" in page
    assert page.count("data:image/png;base64,") >= 4
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # nothing is fetched
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert ("chosen on the test slices" in page) == as_reported
    assert found.comparison.leader.evaluation.split == ("test" if as_reported else "validation")
    assert found.comparison.leader.evaluation.slices == (50 if as_reported else 41)
    assert len(said) == 4
    again = run_study(phantom, names, as_reported=as_reported, name="s", out=tmp_path, resume=True, **changes)
    assert again.sweep.trials == found.sweep.trials
    with pytest.raises(RunError, match="go on with --resume"):
        run_study(phantom, names, as_reported=as_reported, name="s", out=tmp_path)


def test_a_candidate_is_a_recipe_or_a_backbone():
    assert candidate("compact", "linear-probe", seed=3).backbone is None
    assert candidate("a/b", "report").recipe == "report"
    with pytest.raises(ConfigError, match="two candidates or more"):
        compare_candidates(None, ["a/b", "c/b"], None)
