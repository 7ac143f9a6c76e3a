"""The patient protocol as a user meets it: everyone out of fold, joined by a stated rule, beside the baselines."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, roc_auc_score

from brainstage.core.errors import ConfigError, DataError, LeakageError, RunError
from brainstage.core.schema import CHOSEN_ON_TEST, STAGES, with_metadata
from brainstage.evaluation.comparison import compare
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictor import Predictor
from brainstage.report.results import write_patient_evaluation
from brainstage.report.terminal.evaluations import show_patient_evaluation
from brainstage.stats import metrics
from brainstage.stats.calibration import Calibration, apply_temperature
from brainstage.training.cross_validation import cross_validate


def predictions(
    tmp_path, people, probabilities, *, folds=None, split="test", slices=3, name="predictions.parquet", about=None
):
    """Write a prediction table in which each of a person's slices has the person's probabilities."""
    labels, ids = zip(*people, strict=True)
    rows = [(n, k) for n in range(len(people)) for k in range(slices)]
    table = {
        "slice_id": [f"{ids[n]} {k}" for n, k in rows],
        "patient_id": [ids[n] for n, _ in rows],
        "split": [split] * len(rows),
        "fold": [0 if folds is None else folds[n] for n, _ in rows],
        "label": [STAGES[labels[n]] for n, _ in rows],
        "model": ["m"] * len(rows),
    }
    table |= {f"prob_{stage}": [probabilities[n][k] for n, _ in rows] for k, stage in enumerate(STAGES)}
    clean = {"status": "clean", "sentence": "clean: no patient on both sides"}
    about = {"protocol": "patient", "leakage": clean} | (about or {})
    file = tmp_path / name
    pq.write_table(with_metadata(pa.table(table), about), file)
    return file


def cohort(seed=0, count=40):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 4, count))
    labels[:4] = range(4)
    probabilities = rng.dirichlet(np.ones(4), count)
    return [(int(label), f"p{n}") for n, label in enumerate(labels)], probabilities


def test_views_equal_scikit_learn_on_people(tmp_path):
    people, probabilities = cohort()
    found = evaluate_patients(predictions(tmp_path, people, probabilities))
    labels = np.array([label for label, _ in people])
    four, three, two = (view.rows["model"] for view in found.views)
    assert four["accuracy"].value == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    merged = np.c_[probabilities[:, :2], probabilities[:, 2:].sum(1)]
    kappa = cohen_kappa_score(np.minimum(labels, 2), merged.argmax(1), weights="quadratic")
    assert three["quadratic_kappa"].value == pytest.approx(kappa)
    assert two["auroc_ovr"].value == pytest.approx(roc_auc_score(labels > 0, 1 - probabilities[:, 0]))
    assert found.views[1].classes[2] == "Mild_Demented or Moderate_Demented"


def test_baselines_stand_in_every_view(tmp_path):
    people, probabilities = cohort()
    found = evaluate_patients(predictions(tmp_path, people, probabilities))
    shares = np.bincount([label for label, _ in people]) / len(people)
    for view in found.views:
        assert list(view.rows) == ["model", "always the largest", "shuffled labels"]
    assert found.views[0].rows["always the largest"]["accuracy"].value == pytest.approx(shares.max())
    assert found.views[0].rows["always the largest"]["auroc_ovr"].value == 0.5
    null = found.views[2].rows["shuffled labels"]["auroc_ovr"]
    assert null.value == pytest.approx(0.5, abs=0.02)
    assert null.low < 0.45
    assert null.high > 0.55


def test_repeats_are_averaged_and_do_not_count_as_new_people(tmp_path):
    people, probabilities = cohort(1)
    once = evaluate_patients(predictions(tmp_path, people, probabilities))
    twice = [
        predictions(tmp_path, people, probabilities, folds=[n] * len(people), name=f"{n}.parquet") for n in (0, 1)
    ]
    both = pa.concat_tables([pq.read_table(file) for file in twice])
    pq.write_table(both, tmp_path / "both.parquet")
    repeated = evaluate_patients(tmp_path / "both.parquet")
    assert repeated.repeats == 2
    assert repeated.title.startswith("test · 40 people × 2 · protocol patient · clean")
    assert repeated.views[0].rows["model"] == once.views[0].rows["model"]  # intervals too


def test_temperature_comes_from_validation_people_only(tmp_path):
    people, _ = cohort(2, 60)
    labels = np.array([label for label, _ in people])
    right = np.random.default_rng(3).random(60) < 0.6
    answer = np.where(right, labels, (labels + 1) % 4)
    sure = np.full((60, 4), 0.001)
    sure[np.arange(60), answer] = 0.997
    test = pq.read_table(predictions(tmp_path, people, sure))
    others = [(label, f"v{name}") for label, name in people]
    validation = pq.read_table(predictions(tmp_path, others, sure, split="validation", name="v.parquet"))
    pq.write_table(pa.concat_tables([test, validation]), tmp_path / "both.parquet")
    alone, helped = (
        evaluate_patients(tmp_path / "predictions.parquet"),
        evaluate_patients(tmp_path / "both.parquet"),
    )
    assert alone.temperatures == {0: 1.0}
    assert helped.temperatures[0] > 2
    assert helped.views[0].rows["model"]["log_loss"].value < alone.views[0].rows["model"]["log_loss"].value
    assert helped.views[0].rows["model"]["accuracy"] == alone.views[0].rows["model"]["accuracy"]


def test_sets_are_judged_on_people_that_they_were_not_fitted_to(tmp_path):
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet((2, 1.5, 1, 0.5), 400)
    people = [(int(rng.choice(4, p=row)), f"p{number}") for number, row in enumerate(probabilities)]
    halves = [("test", people[:200], probabilities[:200]), ("validation", people[200:], probabilities[200:])]
    tables = [
        pq.read_table(predictions(tmp_path, who, what, split=side, name=f"{side}.parquet"))
        for side, who, what in halves
    ]
    assert evaluate_patients(tmp_path / "test.parquet").sets is None
    pq.write_table(pa.concat_tables(tables), tmp_path / "both.parquet")
    found = evaluate_patients(tmp_path / "both.parquet")
    assert 0.84 < found.sets.coverage.value < 0.96
    assert found.sets.coverage.low < found.sets.coverage.value < found.sets.coverage.high
    assert sum(found.sets.shares.values()) == pytest.approx(1)
    assert found.calibration_error_if_perfect.low < found.views[0].rows["model"]["calibration_error"].value
    shifted = tables[0].append_column("conformal_threshold", pa.array([0.0] * len(tables[0])))
    pq.write_table(shifted, tmp_path / "own.parquet")
    own = evaluate_patients(tmp_path / "own.parquet")
    assert own.sets.coverage.value == 1
    assert own.sets.size.value == 4


def test_people_who_are_predicted_unequally_often_weigh_the_same(tmp_path):
    people, probabilities = cohort(5, 60)
    parts = []
    for fold, count in enumerate((60, 60, 20)):  # 20 people three times, 40 twice
        options = {"folds": [fold] * count, "split": "validation", "name": f"{fold}.parquet"}
        parts.append(predictions(tmp_path, people[:count], probabilities, **options))
    pq.write_table(pa.concat_tables(map(pq.read_table, parts)), tmp_path / "unequal.parquet")
    once = evaluate_patients(parts[0], split="validation")
    unequal = evaluate_patients(tmp_path / "unequal.parquet", split="validation")
    for name, score in once.views[0].rows["model"].items():  # intervals too
        assert vars(unequal.views[0].rows["model"][name]) == pytest.approx(vars(score)), name
    assert (unequal.fewest_repeats, unequal.repeats) == (2, 3)
    assert unequal.title.startswith("validation · 60 people × 2 to 3 ·")
    assert unequal.people == once.people


def test_a_fold_is_calibrated_on_the_people_of_the_other_folds(tmp_path):
    rng = np.random.default_rng(6)
    probabilities = rng.dirichlet((2, 1.5, 1, 0.5), 120)
    people = [(int(rng.choice(4, p=row)), f"p{number}") for number, row in enumerate(probabilities)]
    sure = apply_temperature(probabilities, 1 / 3)  # as an overconfident network scores them
    folds = (np.arange(120) % 3).tolist()
    tested = pq.read_table(predictions(tmp_path, people, sure, folds=folds))
    evaluation = evaluate_patients(tmp_path / "predictions.parquet")
    assert evaluation.calibrated_on == "people of the other folds"
    assert min(evaluation.temperatures.values()) > 2
    assert 0.85 < evaluation.sets.coverage.value < 0.97
    # nobody calibrates their own prediction: other labels in fold 0 leave its temperature as it is
    own = np.array(tested["fold"].to_pylist()) == 0
    changed = np.where(own, STAGES[3], np.array(tested["label"].to_pylist()))
    other = tested.set_column(tested.column_names.index("label"), "label", pa.array(changed.tolist()))
    pq.write_table(other, tmp_path / "changed.parquet")
    after = evaluate_patients(tmp_path / "changed.parquet").temperatures
    assert after[0] == evaluation.temperatures[0]
    assert after[1] != evaluation.temperatures[1]


def test_the_baseline_is_compared_by_the_names_of_people(tmp_path):
    people, probabilities = cohort(7)
    file = predictions(tmp_path, people, probabilities)
    table = pq.read_table(file)
    pq.write_table(table.take(np.arange(len(table))[::-1]), tmp_path / "baseline.parquet")
    rows = evaluate_patients(file).views[0].rows
    assert rows["linear baseline"] == rows["model"]
    renumbered = np.random.default_rng(0).permutation(len(people)) + 1000
    names = {f"p{n}": f"p{number}" for n, number in enumerate(renumbered)}  # another order, and other people
    other = table.set_column(1, "patient_id", pa.array([names[name] for name in table["patient_id"].to_pylist()]))
    pq.write_table(other, tmp_path / "baseline.parquet")
    with pytest.raises(DataError, match=r"baseline.parquet: predicts 40 people, of whom 0 are among the 40 people"):
        evaluate_patients(file)


def test_slices_without_a_label_are_left_out_of_people(tmp_path):
    people, probabilities = cohort(8)
    table = pq.read_table(predictions(tmp_path, people, probabilities))
    labels = [None, *table["label"].to_pylist()[1:]]
    unlabelled = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    pq.write_table(unlabelled, tmp_path / "unlabelled.parquet")
    evaluation = evaluate_patients(tmp_path / "unlabelled.parquet")
    assert (evaluation.unlabelled, sum(evaluation.people.values())) == (1, 40)


def test_it_is_said_how_slices_become_a_prediction_of_their_person(tmp_path):
    people, probabilities = cohort()
    file = predictions(tmp_path, people, probabilities)
    assert evaluate_patients(file).aggregation == "prediction from all slices together"
    table = pq.read_table(file)
    names = [name for name in table.column_names if name.startswith("prob_")]
    for name in names:  # of one slice of a person other probabilities, all the same
        column = table[name].to_pylist()
        table = table.set_column(table.column_names.index(name), name, [[1 / len(names), *column[1:]]])
    pq.write_table(table, file)
    assert evaluate_patients(file).aggregation == "mean of the slices' probabilities"
    single = predictions(tmp_path, people, probabilities, slices=1)
    assert evaluate_patients(single).aggregation == "mean of the slices' probabilities"


def test_a_person_without_scan_ids_has_one_scan_beside_people_with_several(tmp_path):
    people, probabilities = cohort(9)
    file = predictions(tmp_path, people, probabilities, slices=4)
    table = pq.read_table(file)
    who = table["patient_id"].to_pylist()
    scans = [f"{one} {row % 2}" if one in ("p0", "p1") else None for row, one in enumerate(who)]
    pq.write_table(table.append_column("scan_id", pa.array(scans, pa.string())), file)
    found = evaluate_patients(file)
    assert found.title.startswith("test · 40 people, 42 scans ·")
    assert sum(found.people.values()) == 40


def test_a_scan_of_two_patients_is_refused(tmp_path):
    file = predictions(tmp_path, *cohort(9))
    table = pq.read_table(file)
    pq.write_table(table.append_column("scan_id", pa.array(["v0"] * len(table))), file)
    with pytest.raises(DataError, match="scan v0 has slices of patients p0 and p1; give each"):
        evaluate_patients(file)


def test_what_chance_and_a_perfect_model_would_show_takes_no_scan_for_a_new_person(tmp_path):
    people, probabilities = cohort(10)
    file = predictions(tmp_path, people, probabilities)
    once, table = evaluate_patients(file), pq.read_table(file)
    scans = [f"{who} {row % 3}" for row, who in enumerate(table["patient_id"].to_pylist())]
    pq.write_table(table.append_column("scan_id", pa.array(scans)), file)  # three scans that are predicted alike
    found = evaluate_patients(file)
    assert found.title.startswith("test · 40 people, 120 scans ·")
    for name, score in once.views[0].rows["shuffled labels"].items():
        assert vars(found.views[0].rows["shuffled labels"][name]) == pytest.approx(vars(score)), name
    assert vars(found.calibration_error_if_perfect) == pytest.approx(vars(once.calibration_error_if_perfect))


def test_stages_with_few_people_are_named(tmp_path):
    people = [(0, f"a{n}") for n in range(12)] + [(1, f"b{n}") for n in range(12)] + [(3, "c0"), (3, "c1")]
    people += [(2, f"d{n}") for n in range(12)]
    found = evaluate_patients(predictions(tmp_path, people, np.full((38, 4), 0.25)))
    assert found.few == ["Moderate_Demented"]
    assert "2 people in Moderate_Demented" in found.caution


@pytest.mark.parametrize(
    ("about", "why"),
    [
        (
            {"optimistic": "the settings were tuned on these same people"},
            "the settings were tuned on these same people",
        ),
        ({"selection": "test"}, CHOSEN_ON_TEST),
    ],
)
def test_figures_of_people_who_played_a_part_are_optimistic_in_every_line(about, why, tmp_path):
    found = evaluate_patients(predictions(tmp_path, *cohort(), about=about))
    assert found.headline.startswith("optimistic: four stages ")
    assert f"optimistic: {why}" in found.title and found.to_dict()["optimistic"] == why


@pytest.mark.parametrize(
    ("split", "file"), [("test", "patient_metrics"), ("validation", "validation_patient_metrics")]
)
def test_each_side_has_its_own_file(split, file, tmp_path):
    found = evaluate_patients(predictions(tmp_path, *cohort(), split=split), split=split)
    written = write_patient_evaluation(found, tmp_path)
    assert written.stem == file and json.loads(written.read_text())["split"] == split


def test_what_cannot_be_judged_by_people_is_refused(tmp_path):
    people, probabilities = cohort()
    file = predictions(tmp_path, people, probabilities)
    table = pq.read_table(file)
    nobody = table.set_column(1, "patient_id", pa.array([None] * len(table), pa.string()))
    pq.write_table(nobody.replace_schema_metadata(None), tmp_path / "nobody.parquet")
    with pytest.raises(LeakageError, match="brainstage audit"):
        evaluate_patients(tmp_path / "nobody.parquet", protocol="official")
    two = [(0, "p0"), (1, "p0"), (0, "p1"), (1, "p2")]
    mixed = predictions(tmp_path, two, np.full((4, 4), 0.25), name="mixed.parquet")
    with pytest.raises(DataError, match="patient p0 has slices of more than one stage"):
        evaluate_patients(mixed)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(8, 40))
def test_score_repeats_of_one_repeat_is_score(seed, count):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, count)])
    probabilities = rng.dirichlet(np.ones(3), len(labels))
    one = metrics.score(labels, probabilities, "abc", draws=100)
    assert metrics.score_repeats(labels, [probabilities], draws=100) == one.overall


@pytest.fixture(scope="module")
def crossed(tmp_path_factory, phantom, tiny):
    config = tiny.replace(folds=3, repeats=2, epochs=1, validation_share=0.2)
    return cross_validate(phantom, config, name="cv", out=tmp_path_factory.mktemp("runs"))


def test_everyone_is_predicted_out_of_fold_in_every_repeat(crossed, phantom):
    table = pq.read_table(crossed.predictions).to_pandas()
    test = table[table["split"] == "test"]
    assert len(test) == 2 * len(phantom)
    assert (test.groupby("slice_id").size() == 2).all()
    assert sorted(test["fold"].unique()) == list(range(6))
    for fold, rows in table.groupby("fold"):
        tested = set(rows[rows["split"] == "test"]["patient_id"])
        assert tested.isdisjoint(rows[rows["split"] == "validation"]["patient_id"]), fold
    for file in (crossed.baseline, crossed.nearest_slice):
        baseline = pq.read_table(file).to_pandas()
        assert (baseline["slice_id"].to_numpy() == table["slice_id"].to_numpy()).all()


def test_a_crossed_run_is_judged_used_and_shown(crossed, phantom, capsys):
    found = evaluate_patients(crossed)
    assert "protocol patient · clean: no patient on both sides" in found.title
    assert found.title.startswith("synthetic: says nothing about real brains")
    rows = ["model", "always the largest", "nearest training slice", "linear baseline", "shuffled labels"]
    assert list(found.views[0].rows) == rows
    assert len(found.temperatures) == 6
    assert found.sets.coverage.value > 0.5
    shown = Calibration.open(crossed.model)
    assert shown.people == len(set(phantom.patients))
    assert Predictor.open(crossed.path).calibrated
    validation = evaluate_patients(crossed, split="validation")
    write_patient_evaluation(validation, crossed.path)
    assert "new_people" not in Predictor.open(crossed.path).about
    write_patient_evaluation(found, crossed.path)
    assert Predictor.open(crossed.path).about["new_people"] == found.headline
    show_patient_evaluation(found)
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert shown.startswith("synthetic, four stages ")
    json.dumps(found.to_dict(), allow_nan=False)
    assert evaluate(crossed).leakage_status == "clean"
    itself = compare([crossed, crossed]).candidates[1].behind
    assert all(set(vars(score).values()) <= {0} for score in itself.values())
    assert Predictor.open(crossed.path).predict_proba(phantom.images[:3]).shape == (3, 4)


def test_a_stopped_crossed_run_goes_on_where_it_was(crossed, phantom, tiny):
    config = tiny.replace(folds=3, repeats=2, epochs=1, validation_share=0.2)
    out = crossed.path.parent
    with pytest.raises(RunError, match="is finished"):
        cross_validate(phantom, config, name="cv", out=out)
    before = crossed.predictions.read_bytes()
    kept = (crossed.path / "folds/00/model/model.safetensors").stat().st_mtime_ns
    crossed.manifest.unlink()
    crossed.predictions.unlink()
    with pytest.raises(ConfigError, match="different settings"):
        cross_validate(phantom, config.replace(epochs=2), name="cv", out=out, resume=True)
    cross_validate(phantom, config, name="cv", out=out, resume=True)
    assert crossed.predictions.read_bytes() == before
    assert (crossed.path / "folds/00/model/model.safetensors").stat().st_mtime_ns == kept
