"""A finished model on people whom it has never seen: who is in it, every figure, and what must not be compared."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from bids_tree import write_bids
from brainstage.cohorts.prepare import prepare
from brainstage.core.errors import ConfigError, DataError, LeakageError, RunError
from brainstage.core.parallel import Processes
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.sources import load_slices
from brainstage.inference.predictor import Predictor
from brainstage.models.recipes import load_recipe
from brainstage.report.checklists import write_checklists
from brainstage.report.validation_facts import facts_of_validation
from brainstage.report.validation_page import write_validation
from brainstage.studies.external_validation import validate
from brainstage.training.cross_validation import cross_validate
from brainstage.training.train import train
from helpers import run_cli, without_pictures
from volumes import brain, with_skull, write_nifti


@pytest.fixture(scope="module")
def run(few, tmp_path_factory):
    return cross_validate(few, load_recipe("patient", folds=2, repeats=1), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def others(once):
    return load_slices(once("phantom-others", partial(write_phantom, patients=12, seed=7)))


@pytest.fixture(scope="module")
def result(run, others, tmp_path_factory):
    return validate(run.path, others, tmp_path_factory.mktemp("validation"))


@pytest.fixture(scope="module")
def cohort(once):
    def make(folder):
        bids = write_bids(folder / "bids", people=6, rows=["sub-50\t70\tF\tAD"])
        write_nifti(bids / "sub-05" / "anat" / "sub-05_T1w.nii.gz", with_skull(brain((4.0, 4.0, 4.0))))
        text = (bids / "participants.tsv").read_text().replace("sub-04\t64\tM\tMCI", "sub-04\t64\tM\tn/a")
        (bids / "participants.tsv").write_text(text)
        prepare(bids, folder / "cohort", skull="stripped", workers=Processes(1))

    return once("validation-cohort", make) / "cohort"


def test_every_labelled_person_is_predicted_as_the_predictor_does(run, others, result):
    assert result.people == result.scans == 12
    patient = sorted(set(others.patients))[3]
    rows = [row for row, one in enumerate(others.patients) if one == patient]
    expected = Predictor.open(run.path).predict_proba([others.images[row] for row in rows], [patient] * len(rows))[
        0
    ]
    found = next(row for row in result.predictions.to_pylist() if row["patient_id"] == patient)
    np.testing.assert_allclose([found[f"prob_{name}"] for name in others.classes], expected, atol=1e-6)


def test_figures_are_those_of_scikit_learn(result):
    rows = result.predictions.to_pylist()
    positive = np.array([row["label"] != "Non_Demented" for row in rows])
    probability = np.array([1 - row["prob_Non_Demented"] for row in rows])
    assert result.scores["auroc"].value == pytest.approx(roc_auc_score(positive, probability))
    assert result.scores["sensitivity"].value == pytest.approx(recall_score(positive, probability > 0.5))
    assert result.scores["specificity"].value == pytest.approx(recall_score(~positive, probability <= 0.5))
    assert result.positive_people == positive.sum()
    model = result.stages.views[0].rows["model"]["accuracy"].value
    classes = [name.removeprefix("prob_") for name in result.predictions.column_names if name.startswith("prob_")]
    likeliest = [max(classes, key=lambda name, row=row: row[f"prob_{name}"]) for row in rows]
    assert model == pytest.approx(
        np.mean([name == row["label"] for name, row in zip(likeliest, rows, strict=True)])
    )
    wrong = [one for one in result.misses if (one.probability > 0.5) != (one.label != "Non_Demented")]
    assert wrong == result.misses and result.stages.sets is not None


def test_people_whom_the_model_was_made_with_are_refused(run, few, others, real_folder, tmp_path):
    with pytest.raises(LeakageError, match=r"160 of 160 slices are in the data that .* was made with"):
        validate(run.path, few, tmp_path)
    with pytest.raises(LeakageError, match="no external validation"):
        validate("patient", load_slices(next(real_folder.rglob("test-*.parquet"))), tmp_path)
    assert not (tmp_path / "predictions.parquet").exists()
    assert validate(run.path, others, tmp_path).shared_ids == len(set(few.patients) & set(others.patients)) > 5


def test_training_people_of_a_single_fold_are_refused_and_a_model_without_its_run_does_not_know_them(
    few, tiny, others, tmp_path
):
    run = train(few, tiny.replace(protocol="patient", epochs=1), out=tmp_path)
    [fold] = json.loads(run.splits.read_text())["folds"][:1]
    seen = [row for row, one in enumerate(few.patients) if one in fold["train"]]
    part = replace(few, rows=few.rows.take(seen), images=[few.images[row] for row in seen])
    with pytest.raises(LeakageError, match=f"{len(seen)} of {len(seen)} slices are in the data"):
        validate(run.path, part, tmp_path / "seen")
    assert validate(run.path, others, tmp_path / "known").leakage["status"] == "clean"
    before = run.predictions.read_bytes()
    with pytest.raises(RunError, match="is a run, whose predictions would be replaced; give another folder"):
        validate(run.path, others, run.path)
    assert run.predictions.read_bytes() == before
    model = shutil.copytree(run.model, tmp_path / "published" / "model").parent
    shutil.copy(run.manifest, model)
    result = validate(model, others, tmp_path / "unknown")
    assert "leakage unknown: the model does not say which slices" in result.title
    assert facts_of_validation(model, result, others).disjoint.startswith("Slice: not known.")


def test_slices_that_splits_name_are_known_of_a_run_that_an_earlier_version_trained(trained, phantom, tmp_path):
    old = shutil.copytree(trained.path, tmp_path / "old")
    (old / "training_slices.parquet").unlink()
    [fold] = json.loads((old / "splits.json").read_text())["folds"]
    rows = [phantom.row_of[one] for one in fold["train"][:40]]
    part = replace(phantom, rows=phantom.rows.take(rows), images=[phantom.images[row] for row in rows])
    with pytest.raises(LeakageError, match="40 of 40 slices are in the data"):
        validate(old, part, tmp_path / "out")


def test_classes_of_other_names_are_compared_by_the_first_alone_or_by_a_mapping(cohort, tmp_path):
    slices = load_slices(cohort)
    alone = validate("patient", slices, tmp_path / "alone", cohort=cohort)
    assert alone.mapped is None and alone.stages is None and alone.first == "CN"
    mapping = {"CN": "Non_Demented", "MCI": "Very_Mild_Demented", "AD": "Mild_Demented"}
    mapped = validate("patient", slices, tmp_path / "mapped", class_map=mapping)
    assert mapped.first == "Non" and mapped.stages.people["Very_Mild_Demented"] == 1
    assert all(mapped.scores[name] == alone.scores[name] for name in ("auroc", "brier", "log_loss", "specificity"))
    for wrong, told in (
        ({"CN": "Non_Demented"}, "says nothing of AD, MCI"),
        ({**mapping, "CD": "Non_Demented"}, "--map CD=Non_Demented: no slice has that label; known: AD, CN, MCI"),
        ({**mapping, "CN": "Non_Dementd"}, "the model has no such class; did you mean 'Non_Demented'"),
    ):
        with pytest.raises(ConfigError, match=told):
            validate("patient", slices, tmp_path / "wrong", class_map=wrong)


def test_a_cohort_brings_its_flow_and_its_covariates(cohort, tmp_path):
    result = validate("patient", load_slices(cohort), tmp_path, cohort=cohort, by=["sex", "age"])
    assert ("not compared", "no label", 1) in result.flow and ("predicted", "", 4) in result.flow
    assert any(status == "refused" and "skull" in reason for status, reason, _ in result.flow)
    assert sum(count for *_, count in result.flow) == len(pq.read_table(cohort / "scans.parquet"))
    assert {(one.column, one.name): one.people for one in result.subgroups} == {
        ("sex", "F"): 2,
        ("sex", "M"): 2,
        ("age", "<65"): 4,
    }
    assert all(one.small for one in result.subgroups)
    assert result.with_covariates.auroc is None and "10" in result.with_covariates.reason
    with pytest.raises(DataError, match="site"):
        validate("patient", load_slices(cohort), tmp_path, cohort=cohort, by=["site"])


def test_nothing_to_compare_is_told(others, run, tmp_path):
    healthy = [label if label == "Non_Demented" else None for label in others.labels]
    with pytest.raises(DataError, match="all [0-9] scans are of Non_Demented, so nothing can be compared"):
        validate(run.path, others.with_labels(healthy), tmp_path)
    with pytest.raises(DataError, match="no slice has a label"):
        validate(run.path, others.with_labels([None] * len(others)), tmp_path)


def test_the_page_has_every_figure_with_its_protocol_and_the_notice(result, others, tmp_path):
    page = write_validation(result, others, tmp_path, ["brainstage", "validate", "run"]).read_text(encoding="utf-8")
    written = json.loads((tmp_path / "validation.json").read_text())
    assert (
        "never a diagnosis" in page
        and "says nothing about real brains" in page
        and "external validation · 12" in page
    )
    score = written["scores"]["auroc"]
    assert f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]" in page
    assert page.count("<figure>") == len(result.misses) and "http" not in without_pictures(page)
    assert {"calibration.png", "decision_curve.png"} <= {file.name for file in tmp_path.iterdir()}


@pytest.fixture(scope="module")
def checklists(cohort, tmp_path_factory):
    """Return the facts and both pages of the bundled model on a cohort."""
    folder, slices = tmp_path_factory.mktemp("checklists"), load_slices(cohort)
    result = validate("patient", slices, folder, cohort=cohort, by=["sex", "age"])
    facts = facts_of_validation("patient", result, slices)
    return result, facts, [page.read_text(encoding="utf-8") for page in write_checklists(facts, folder)]


def item(page, number):
    """Return the text of an item of a checklist."""
    return re.search(rf"^\*\*{number}\. .*?(?=^\*\*\d|^## |\Z)", page, re.MULTILINE | re.DOTALL)[0]


def test_checklists_say_nothing_of_a_training_that_was_not(checklists):
    _, _, pages = checklists
    for page in pages:
        numbers = re.findall(r"^\*\*(\d+[a-g]?)\. ", page, re.MULTILINE)
        assert len(numbers) == len(set(numbers)) == (44 if "CLAIM" in page else 52)
        for untrue in ("cross-validation", "splits.json", "folds' models", "is then fitted", "no patient on both"):
            assert untrue not in page, untrue
        assert "external validation · 4 people" in page and "never a diagnosis" in page


def test_checklists_have_the_flow_the_model_and_the_figures(checklists):
    result, facts, (claim, tripod) = checklists
    for section in (item(claim, 8), item(claim, 35), item(tripod, "20a")):
        assert "1 not compared (no label)" in section and "4 predicted" in section and "refused (" in section
    assert result.model in item(claim, 43) and result.model in item(tripod, 22)
    assert "Nobody of the cohort is trained on: all 4 people" in item(claim, 19)
    assert result.about["data_hash"] in item(claim, 19) and facts.data_hash in item(claim, 7)
    assert "nothing is refitted or recalibrated" in item(tripod, "12f") and "None (12f)" in item(tripod, 24)
    auroc = result.scores["auroc"]
    shown = f"{auroc.value:.3f} [{auroc.low:.2f}, {auroc.high:.2f}]"
    assert f"| AUROC | {shown} |" in claim and shown in item(claim, 33) and shown in item(tripod, "23a")
    assert "Slope" in item(claim, 38) and "Figures by sex and age" in item(tripod, "23b")
    assert "| sex: F (too few people for a claim) | 2 |" in claim
    rows = result.predictions.to_pylist()
    called = [row["cohort_label"] == "CN" and 1 - row["prob_Non_Demented"] >= 0.5 for row in rows]
    known = sum(row["cohort_label"] == "CN" for row in rows)
    assert f"| CN | {known - sum(called)} | {sum(called)} |" in item(claim, 39)
    assert "nothing can be claimed" in item(claim, 40) and "a comparison needs 10 of each" in item(claim, 40)
    assert "The labels are not the model's classes" in item(tripod, 26)


def test_participants_stand_by_stage_with_age_and_sex(checklists):
    result, _, (claim, tripod) = checklists
    healthy = [row for row in result.predictions.to_pylist() if row["cohort_label"] == "CN"]
    ages = [row["age"] for row in healthy]
    sexes = ", ".join(f"{sex} {count}" for sex in "FM" if (count := [row["sex"] for row in healthy].count(sex)))
    assert f"| CN | {len(healthy)} | {np.median(ages):.3g} ({min(ages):g} to {max(ages):g}) | {sexes} |" in claim
    assert "table of participants" in item(claim, 36) and "table of participants" in item(tripod, "20b")


def test_what_only_the_author_knows_stays_marked(checklists):
    _, _, (claim, tripod) = checklists
    for page, numbers in ((claim, (1, 7, 13, 14, 16, 18, 21, 44)), (tripod, ("5b", "8b", 16, 17, "18a", "20c"))):
        for number in numbers:
            assert "**for the author:**" in item(page, number), number


def test_a_model_whose_settings_are_not_at_hand_has_checklists_too(run, result, others, tmp_path):
    facts = facts_of_validation(run, result, others)
    assert "linear model of a person's slices" in facts.method.kind
    assert f"{result.shared_ids} people have ids" in facts.disjoint and facts.seed == 0
    copy = shutil.copytree(run.path, tmp_path / "copy")
    (copy / "train_config.json").unlink()
    facts = facts_of_validation(copy, result, others)
    assert "recipe patient" in facts.method.kind and "for the author" in facts.method.settings
    assert facts.seed is None
    assert "Seed" not in item(write_checklists(facts, tmp_path)[0].read_text(encoding="utf-8"), 25)


def test_the_command_prints_figures_or_json(cohort, tmp_path):
    arguments = ("validate", "patient", "--data", cohort, "--out", tmp_path / "out", "--by", "sex")
    code, out, _ = run_cli(*arguments)
    assert code == 0 and "external validation · 4 people" in out and "CN against any other" in out
    assert "never a diagnosis" in out and (tmp_path / "out" / "validation.html").is_file()
    assert (
        "External validation" in (tmp_path / "out" / "claim.md").read_text()
        and (tmp_path / "out" / "tripod.md").exists()
    )
    code, out, _ = run_cli(*arguments, "--json")
    assert code == 0 and json.loads(out)["people"] == 4
    code, _, err = run_cli(*arguments, "--map", "CN")
    assert code == 2 and "expected LABEL=NAME, e.g. CN=Non_Demented" in err
