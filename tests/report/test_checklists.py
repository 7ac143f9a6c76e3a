"""Reporting checklists of a cross-validated run: every item, figures with their verdict, nothing of the owner."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from brainstage.core.errors import LeakageError
from brainstage.core.run import RunFolder
from brainstage.core.schema import CHOSEN_ON_TEST, RESEARCH_NOTICE, SYNTHETIC_NOTICE
from brainstage.datasets.public import DATA_HASH
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.models.recipes import load_recipe
from brainstage.models.weights import BUNDLED, bundled_folder
from brainstage.report.checklists import PAGES, Origin, write_checklists
from brainstage.report.methods import describe_method
from brainstage.report.pages import plain
from brainstage.report.run_facts import facts_of_run
from brainstage.training.cross_validation import cross_validate

TRIPOD = (
    *("1", "2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a", "9b", "9c", "10"),
    *("11", "12a", "12b", "12c", "12d", "12e", "12f", "12g", "13", "14", "15", "16", "17", "18a", "18b", "18c"),
    *(
        "18d",
        "18e",
        "18f",
        "19",
        "20a",
        "20b",
        "20c",
        "21",
        "22",
        "23a",
        "23b",
        "24",
        "25",
        "26",
        "27a",
        "27b",
        "27c",
    ),
)
WHY = "the settings were tuned on these same people"


@pytest.fixture(scope="module")
def run(tmp_path_factory, few, tiny):
    return cross_validate(few, tiny.replace(folds=2, train_rows=0), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def evaluation(run):
    return evaluate(run)


@pytest.fixture(scope="module")
def people(run):
    return evaluate_patients(run)


@pytest.fixture(scope="module")
def facts(run, evaluation, people, few):
    return facts_of_run(run, evaluation, people, few)


def written(facts, folder):
    """Return the text of both pages, by name."""
    return {page.name: page.read_text(encoding="utf-8") for page in write_checklists(facts, folder)}


def item(page, number):
    """Return the text of an item."""
    return re.search(rf"^\*\*{number}\. .*?(?=^\*\*\d|^## |\Z)", page, re.MULTILINE | re.DOTALL)[0]


def test_each_item_stands_once_and_in_order(facts, tmp_path):
    pages = written(facts, tmp_path)
    numbers = {name: re.findall(r"^\*\*(\d+[a-g]?)\. ", page, re.MULTILINE) for name, page in pages.items()}
    assert numbers == {"claim.md": [str(number) for number in range(1, 45)], "tripod.md": [*TRIPOD]}
    for page in pages.values():
        assert all(
            len(item(page, number)) > 30 for number in re.findall(r"^\*\*(\d+[a-g]?)\. ", page, re.MULTILINE)
        )


def test_both_pages_say_what_they_are_of_and_that_it_is_no_diagnosis(facts, tmp_path):
    for page in written(facts, tmp_path).values():
        assert RESEARCH_NOTICE in page.partition("## Figures")[0] and SYNTHETIC_NOTICE in page
        assert "protocol patient · clean: no patient on both sides" in page
        assert "Retrospective" in page and "brainstage 0" in page and "torch 2" in page


def test_figures_counts_and_settings_are_those_of_the_run(facts, evaluation, people, run, tmp_path):
    figures = json.loads((run.path / "manifest.json").read_text())
    claim, tripod = written(facts, tmp_path).values()
    accuracy = people.views[0].rows["model"]["accuracy"]
    shown = f"{accuracy.value:.3f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"
    assert f"| model | {shown} |" in claim and shown in item(claim, 37) and shown in item(tripod, "23a")
    assert "Non_Demented 3 people (48 slices)" in item(claim, 35) and "Mild_Demented 2 people" in item(
        tripod, "20a"
    )
    assert "160 slices were found; of these 0 could not be read" in item(claim, 8)
    assert "Each trains on 4 people, tunes on 1" in item(claim, 19) and "no person is on two sides" in item(
        claim, 20
    )
    assert "`epochs` 3" in item(claim, 25) and f"{figures['parameters']:,} parameters" in item(claim, 22)
    counts = evaluation.scores.confusion[0].tolist()
    assert f"| Non_Demented | {' | '.join(map(str, counts))} |" in item(claim, 39)


def test_what_was_left_out_is_counted(run, evaluation, people, few):
    labels = [None, *few.labels[1:]]
    fewer: SliceTable = replace(few.with_labels(labels), unreadable=("a.png: damaged", "b.png: damaged"))
    exclusions = facts_of_run(run, evaluation, people, fewer).exclusions
    assert "162 slices were found; of these 2 could not be read, 0 were exact copies" in exclusions
    assert "1 had no label, 0 could not be given to a person" in exclusions


def test_slices_that_are_predicted_in_several_repeats_count_once(run, evaluation, people):
    twice = replace(people, repeats=2, fewest_repeats=2)
    assert "Non_Demented 3 people (24 slices)" in facts_of_run(run, evaluation, twice).people
    assert "Non_Demented 3 people," in facts_of_run(run, evaluation, replace(twice, fewest_repeats=1)).people


def test_what_only_the_author_knows_is_marked(facts, tmp_path):
    claim, tripod = written(replace(facts, origin=Origin()), tmp_path).values()
    for number in (1, 4, 7, 13, 14, 16, 18, 21, 33, 36, 44):
        assert "**for the author:**" in item(claim, number), number
    for number in ("3c", "5b", "8b", "17", "18a", "18d", "19", "20b", "27c"):
        assert "**for the author:**" in item(tripod, number), number
    assert "Nobody outside of these data was tested" in item(claim, 40)


def test_optimistic_figures_are_called_so_wherever_they_stand(run, evaluation, people, tmp_path):
    optimistic = facts_of_run(
        run,
        replace(evaluation, optimistic=WHY),
        replace(people, title=f"{people.title} · optimistic: {WHY}", optimistic=WHY),
    )
    claim, tripod = written(optimistic, tmp_path).values()
    for text in (
        *(item(claim, number) for number in (2, 32, 37, 38, 39, 40)),
        item(tripod, "23a"),
        item(tripod, 26),
    ):
        assert f"optimistic: {WHY}" in text
    for page in (claim, tripod):
        assert page.index(f"optimistic: {WHY}") < page.index("| model |")
    picked = facts_of_run(
        run,
        evaluation,
        replace(people, title=f"{people.title} · optimistic: {CHOSEN_ON_TEST}", optimistic=CHOSEN_ON_TEST),
    )
    claim = written(picked, tmp_path)["claim.md"]
    assert "optimistic: epoch chosen on the test slices" in item(claim, 37)
    assert CHOSEN_ON_TEST in item(claim, 40)


def test_what_was_chosen_inside_the_folds_stands_first(run, evaluation, people, tmp_path):
    score = {"value": 0.5125, "low": 0.25, "high": 0.75}
    nested = {"chosen inside the folds": dict.fromkeys(people.views[0].rows["model"], score)}
    for page in written(facts_of_run(run, evaluation, people, nested=nested), tmp_path).values():
        assert page.index("| chosen inside the folds | 0.512 [0.25, 0.75] |") < page.index("| model |")
        assert "Its figures: chosen inside the folds, protocol patient (no person on both sides): acc" in item(
            page, 2
        )


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_have_their_pages(name):
    folder = bundled_folder(name)
    manifest = RunFolder(folder).read_manifest()
    for page in (folder / file for file in PAGES):
        text = page.read_text(encoding="utf-8")
        first, _, rest = text.partition("| model |")
        assert "optimistic: " in first.partition("## Figures")[2] and "OASIS-1" in rest
        for figures in manifest.get("nested", {}).values():
            assert f"{figures['accuracy']['value']:.3f}" in first


def test_folds_with_a_person_on_two_sides_get_no_page(run, evaluation, people, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "copy"))
    splits = json.loads(copy.splits.read_text())
    splits["folds"][1]["train"].append(splits["folds"][1]["test"][0])
    copy.splits.write_text(json.dumps(splits))
    with pytest.raises(LeakageError, match="fold 1"):
        facts_of_run(copy, evaluation, people)


def test_a_page_holds_no_path_and_no_markup_of_others(facts, run, tmp_path):
    method = describe_method(load_recipe("linear-probe", backbone=str(tmp_path / "my-vit")), {}, "mean")
    assert "`my-vit`" in method.kind and str(tmp_path) not in str(method)
    assert plain("a|b <script>\n`c`") == "a b script c"
    assert str(run.path) not in "".join(written(facts, tmp_path).values())


def test_the_public_data_are_recognised_and_their_source_is_named(run, evaluation, people, tmp_path):
    assert RunFolder(bundled_folder("patient")).read_manifest()["data_hash"] == DATA_HASH
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "copy"))
    manifest = copy.read_manifest() | {"data_hash": DATA_HASH, "synthetic": False}
    copy.manifest.write_text(json.dumps(manifest))
    claim = written(facts_of_run(copy, evaluation, people), tmp_path)["claim.md"]
    assert "OASIS-1" in item(claim, 7) and "0, 0.5, 1 and 2" in item(claim, 14)
    assert "age or sex" in item(claim, 36)
