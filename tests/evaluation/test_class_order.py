"""Figures that depend on the order of the stages are given where that order is known, and nowhere else."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import cohen_kappa_score

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.schema import read_metadata, with_metadata
from brainstage.evaluation.comparison import compare
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.models.recipes import load_recipe
from brainstage.report.terminal.evaluations import show_evaluation, show_patient_evaluation
from brainstage.training.train import train

KNOWN = ("CN", "MCI", "LMCI", "AD")
UNKNOWN = ("green", "yellow", "orange", "red")
rng = np.random.default_rng(0)
LABELS = np.arange(80) % 4
PROBABILITIES = rng.dirichlet(np.ones(4), 80)


def write(folder, names, columns=None, **about):
    """Write predictions of 80 people; ``columns`` is the order of the probability columns."""
    table = {
        "slice_id": [str(number) for number in range(80)],
        "patient_id": [f"p{number}" for number in range(80)],
        "split": ["test"] * 80,
        "fold": [0] * 80,
        "label": [names[label] for label in LABELS],
        "model": ["m"] * 80,
    } | {f"prob_{name}": PROBABILITIES[:, names.index(name)] for name in columns or names}
    file = folder / "predictions.parquet"
    pq.write_table(with_metadata(pa.table(table), {"protocol": "patient", **about}), file)
    return file


def kappa(order=(0, 1, 2, 3)):
    places = np.argsort(order)
    return cohen_kappa_score(places[LABELS], places[PROBABILITIES.argmax(1)], weights="quadratic")


def test_columns_in_alphabetical_order_of_known_stages_are_judged_in_clinical_order(tmp_path):
    found = evaluate(write(tmp_path, KNOWN, sorted(KNOWN)))
    assert found.classes == KNOWN
    assert found.scores.overall["quadratic_kappa"].value == pytest.approx(kappa())
    assert [view.classes[0] for view in evaluate_patients(tmp_path / "predictions.parquet").views] == ["CN"] * 3


def test_without_a_known_order_nominal_figures_go_on_and_ordinal_ones_are_not_given(tmp_path, capsys):
    file = write(tmp_path, UNKNOWN)
    found, people = evaluate(file), evaluate_patients(file)
    assert found.scores.overall["accuracy"].value == (PROBABILITIES.argmax(1) == LABELS).mean()
    assert found.to_dict()["overall"]["quadratic_kappa"] == {"value": None, "low": None, "high": None}
    assert [view.name for view in people.views] == ["4 stages"]
    assert all(np.isnan(scores["quadratic_kappa"].value) for scores in people.views[0].rows.values())
    assert np.isnan(compare([file, file], split="test").candidates[1].behind["quadratic_kappa"].value)
    for show, evaluation in ((show_evaluation, found), (show_patient_evaluation, people)):
        show(evaluation)
        shown = capsys.readouterr().out
        assert "not given" in shown and "give --class-order" in " ".join(shown.split())
        assert "nan" not in shown
        assert evaluation.to_dict()["class_order_known"] is False


def test_an_order_that_is_given_is_used(tmp_path):
    file, order = write(tmp_path, UNKNOWN), ("green", "orange", "yellow", "red")
    assert evaluate(file, class_order=order).scores.overall["quadratic_kappa"].value == pytest.approx(
        kappa((0, 2, 1, 3))
    )
    people = evaluate_patients(file, class_order=order)
    assert [view.classes for view in people.views][1:] == [
        ("green", "orange", "yellow or red"),
        ("green", "any other"),
    ]
    with pytest.raises(DataError, match="but the data holds green, yellow, orange, red"):
        evaluate(file, class_order=("green", "red"))


def test_an_order_that_was_given_when_the_table_was_made_is_used(tmp_path):
    found = evaluate(write(tmp_path, UNKNOWN, ordered=True))
    assert found.scores.overall["quadratic_kappa"].value == pytest.approx(kappa())


def test_two_classes_have_no_order_to_know(tmp_path):
    table = pq.read_table(write(tmp_path, UNKNOWN)).select(["slice_id", "patient_id", "split", "fold", "model"])
    right = PROBABILITIES[:, 0]
    table = table.append_column("label", pa.array(np.where(LABELS < 2, "a", "b")))
    table = table.append_column("prob_a", pa.array(right)).append_column("prob_b", pa.array(1 - right))
    pq.write_table(table, tmp_path / "predictions.parquet")
    assert evaluate(tmp_path / "predictions.parquet", protocol="patient").scores.overall["quadratic_kappa"].value


@pytest.fixture(scope="module")
def coloured(phantom):
    """The phantom cohort under names of which no order is known."""
    names = dict(zip(phantom.classes, UNKNOWN, strict=True))
    return replace(phantom.with_labels([names[label] for label in phantom.labels]), classes=UNKNOWN, ordered=False)


def test_the_patient_model_is_refused_until_the_order_is_given(tmp_path, coloured):
    with pytest.raises(ConfigError, match="that of green, yellow, orange, red is not known; give --class-order"):
        train(coloured, load_recipe("patient"), name="a", out=tmp_path)


def test_a_run_says_whether_its_classes_stand_in_order(tmp_path, coloured, trained, tiny):
    assert read_metadata(pq.read_table(trained.predictions))["ordered"] is True
    run = train(coloured, tiny.replace(epochs=1), name="a", out=tmp_path)
    assert read_metadata(pq.read_table(run.predictions))["ordered"] is False
    assert not evaluate(run).ordinal
