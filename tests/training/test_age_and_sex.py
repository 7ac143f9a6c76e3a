"""What age and sex alone give, on the folds of the model: figures of scikit-learn, and what is said of gaps."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler

from brainstage.core.schema import PROB_PREFIX
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.models.recipes import load_recipe
from brainstage.stats.age_and_sex import age_and_sex
from brainstage.training import baselines
from brainstage.training.cross_validation import cross_validate
from helpers import run_cli

STAGES = ("CN", "MCI", "AD")


def cohort(people=40, lacking=()):
    """Return slices of people, a different number of each, whose age goes with the stage; some lack it."""
    rng, rows = np.random.default_rng(0), []
    for person in range(people):
        stage = person % 3
        about = {
            "label": STAGES[stage],
            "patient_id": f"p{person:02d}",
            "patient_id_source": "given",
            "age": None if person in lacking else float(60 + 6 * stage + rng.normal(0, 5)),
            "sex": "FM"[int(rng.random() < 0.3 + 0.2 * stage)],
        }
        rows += [about | {"slice_id": f"{person} {number}"} for number in range(1 + person % 4)]
    schema = pa.schema([*SLICE_SCHEMA, ("age", pa.float64()), ("sex", pa.string())])
    images = [np.zeros((4, 4), np.uint8)] * len(rows)
    return SliceTable(pa.Table.from_pylist(rows, schema=schema), images, STAGES)


def folds_of(slices, **changes):
    return make_splits(slices, load_recipe("patient", **{"folds": 3, "repeats": 2, **changes}))


def person_rows(slices, ids):
    """Return a row of each person."""
    return list({slices.patients[slices.row_of[one]]: slices.row_of[one] for one in ids}.values())


def test_each_fold_has_the_figures_of_scikit_learn():
    slices = cohort()
    splits = folds_of(slices)
    table, sentence = baselines.age_and_sex_baseline(slices, splits, {})
    assert sentence.startswith("Age and sex: logistic regression") and "not known" not in sentence
    age, sex = np.array(slices.covariates["age"]), np.array(slices.covariates["sex"]) == "M"
    columns = np.stack([age, age**2, sex], axis=1)
    for number, fold in enumerate(splits.folds):
        train = person_rows(slices, fold.train)  # each person once, whatever the number of slices
        scaler = StandardScaler().fit(columns[train])
        model = LogisticRegression(C=100, max_iter=1000).fit(
            scaler.transform(columns[train]), slices.targets(train)
        )
        rows = table.filter(pa.compute.equal(table["fold"], number))
        assert rows["slice_id"].to_pylist() == [*fold.validation, *fold.test]
        asked = columns[[slices.row_of[one] for one in rows["slice_id"].to_pylist()]]
        given = np.stack([rows[PROB_PREFIX + name].to_numpy() for name in STAGES], axis=1)
        np.testing.assert_allclose(given, model.predict_proba(scaler.transform(asked)), atol=1e-4)


def test_who_has_no_age_gets_the_shares_of_the_stages_and_is_counted():
    slices = cohort(lacking={3, 7})
    splits = folds_of(slices)
    table, sentence = baselines.age_and_sex_baseline(slices, splits, {})
    assert sentence.endswith("Of 2 of 40 people one is not known: they get the stages' shares.")
    row = next(row for row in table.to_pylist() if row["patient_id"] == "p07")
    train = slices.targets(person_rows(slices, splits.folds[row["fold"]].train))
    assert [row[PROB_PREFIX + name] for name in STAGES] == pytest.approx(np.bincount(train) / len(train), abs=1e-6)


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (cohort(lacking=range(30)), "both are known of 10 of 40 people; 20 people and 80% of all are needed"),
        (cohort(people=18), "both are known of 18 of 18 people; 20 people and 80% of all are needed"),
        (cohort(people=60, lacking=range(0, 30, 3)), None),
        (replace(cohort(), rows=cohort().rows.drop_columns(["sex"])), "the data have no column sex"),
        (replace(cohort(), rows=cohort().rows.drop_columns(["age", "sex"])), "no column age and no column sex"),
    ],
)
def test_a_row_that_would_say_little_is_left_out_with_the_reason(slices, reason):
    table, sentence = baselines.age_and_sex_baseline(slices, folds_of(slices), {})
    assert (table is None) == bool(reason)
    assert reason is None or (
        sentence.startswith("What age and sex alone give is not shown: ") and reason in sentence
    )


def test_a_stage_whose_ages_are_not_known_leaves_the_row_out():
    stage_of = [person % 10 for person in range(40)]
    slices = cohort(lacking=[person for person in range(40) if person % 10 == 0])
    rare = slices.with_labels([("AD" if stage_of[int(p[1:])] == 0 else "CN") for p in slices.patients])
    rare = replace(rare, classes=("CN", "AD"))
    table, sentence = baselines.age_and_sex_baseline(rare, folds_of(rare), {})
    assert table is None and "known of 36 of 40 people, and of nobody of one stage in the training set" in sentence


def test_sexes_and_ages_are_read_as_tables_write_them():
    columns = age_and_sex([70.0, "71", "89+", None, float("inf")], ["F", "male", 1.0, 2.0, "other"])
    np.testing.assert_array_equal(columns[:, 0], [70, 71, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(columns[:, 1], [4900, 5041, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(columns[:, 2], [0, 1, 1, 0, np.nan])


@pytest.fixture(scope="module")
def run(phantom, tmp_path_factory):
    """Return a run on people with ages, sexes and sites, whom the limit of the row would call too few."""
    people = sorted(set(phantom.patients))
    ages = [60.0 + 2 * people.index(patient) for patient in phantom.patients]
    rows = phantom.rows.append_column("age", pa.array(ages))
    rows = rows.append_column("sex", pa.array(["FM"[people.index(patient) % 2] for patient in phantom.patients]))
    by_stage = sorted(people, key=lambda one: phantom.labels[phantom.patients.index(one)])
    rows = rows.append_column("site", pa.array(["AB"[by_stage.index(one) % 2] for one in phantom.patients]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "KNOWN_PEOPLE", 10)
        config = load_recipe("patient", folds=2, repeats=1, group_by="site")
        return cross_validate(replace(phantom, rows=rows), config, out=tmp_path_factory.mktemp("runs"))


def test_the_row_stands_in_every_table_of_a_run(run):
    people, slices = evaluate_patients(run), evaluate(run)
    assert all(list(view.rows)[:3] == ["model", "always the largest", "age and sex"] for view in people.views)
    table = pq.read_table(run.age_and_sex)
    rows = table.filter(pa.compute.equal(table["split"], "test")).to_pylist()
    names = [name.removeprefix(PROB_PREFIX) for name in table.column_names if name.startswith(PROB_PREFIX)]
    likeliest = [max(names, key=lambda name, row=row: row[PROB_PREFIX + name]) for row in rows]
    accuracy = accuracy_score([row["label"] for row in rows], likeliest)
    assert slices.baselines["age_and_sex"].accuracy.value == pytest.approx(accuracy)
    assert "age_and_sex.parquet" in run.verify()
    code, out, _ = run_cli("evaluate", run.path, "--level", "patient")
    assert code == 0 and out.count(" age and sex ") == len(people.views) and out.count("Age and sex: logistic") == 1
    code, out, _ = run_cli("evaluate", run.path)
    assert code == 0 and "age and sex: accuracy" in out and out.count("Age and sex: logistic") == 1
    written = json.loads((run.path / "metrics.json").read_text())
    assert written["baselines"]["age_and_sex"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-6)


def test_what_was_grouped_stands_in_titles_and_files(run):
    sentence = "protocol patient · clean: no patient and no site on both sides"
    assert sentence in evaluate_patients(run).title and sentence in evaluate(run).title
    assert json.loads(run.splits.read_text())["grouped_by"] == "site"
    assert json.loads(run.config.read_text())["group_by"] == "site"
    assert run.read_manifest()["leakage"]["grouped_by"] == "site"


def test_a_run_without_ages_says_so_once(few, tmp_path):
    run = cross_validate(few, load_recipe("patient", folds=2, repeats=1), out=tmp_path)
    assert not run.age_and_sex.exists()
    code, out, _ = run_cli("evaluate", run.path, "--level", "patient")
    said = " ".join(out.split())
    assert code == 0 and said.count("the data have no column age and no column sex") == 1
    assert "A person is staged by the prediction from all slices together." in said
    assert "age_and_sex" not in evaluate(run).baselines
