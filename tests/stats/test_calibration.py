"""Temperatures, prediction sets and their meaning in words."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainstage.stats.calibration import (
    Calibration,
    CalibrationParameters,
    apply_temperature,
    conformal_threshold,
    describe_set,
    in_set,
    mean_by_person,
)


def drawn(rng, people, temperature=1.0):
    """Return the scores of a network that is overconfident by a temperature, and stages drawn from their truth."""
    probabilities = rng.dirichlet((1.5, 1.2, 0.8, 0.3), people)
    labels = (rng.random((people, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=3)
    return apply_temperature(probabilities, 1 / temperature), labels


def stacks(rng, people, slices):
    """Return scores (people, slices, 4) of a network whose slices differ much, and people's stages."""
    labels = rng.choice(4, people, p=(0.4, 0.3, 0.2, 0.1))
    logits = 2.5 * np.eye(4)[labels] + rng.normal(0, 1, (people, 4))
    logits = logits[:, None] + rng.normal(0, 2.5, (people, slices, 4))
    scores = np.exp(logits)
    return scores / scores.sum(axis=2, keepdims=True), labels


def coverage(parameters, scores, labels):
    """Return the share of people whose stage is in the set of the mean over their slices."""
    means = apply_temperature(scores, parameters.temperature).mean(axis=1)
    return in_set(means, np.full(len(labels), parameters.conformal_threshold), ordered=True)[
        np.arange(len(labels)), labels
    ].mean()


def test_a_temperature_undoes_overconfidence():
    scores, labels = drawn(np.random.default_rng(0), 4000, temperature=3.0)
    fitted = Calibration.fit(scores, labels, np.arange(4000))
    assert fitted.people == 4000
    assert list(fitted.by_slices) == [1]
    assert fitted.for_slices(1).temperature == pytest.approx(3.0, rel=0.1)


def test_temperature_and_threshold_come_from_different_people():
    scores, _ = drawn(np.random.default_rng(6), 40)
    labels = np.zeros(40, dtype=np.int64)
    fitted = Calibration.fit(scores, labels, np.arange(40))
    held_out = np.zeros(40)
    for part in range(5):
        inside = np.arange(40) % 5 == part
        others = Calibration.fit(scores[~inside], labels[~inside], np.arange(32)).for_slices(1)
        held_out[inside] = apply_temperature(scores[inside], others.temperature)[:, 0]
    parameters = fitted.for_slices(1)
    assert parameters.conformal_threshold == pytest.approx(conformal_threshold(held_out), abs=1e-4)
    own = conformal_threshold(apply_temperature(scores, parameters.temperature)[:, 0])
    assert parameters.conformal_threshold != pytest.approx(own, abs=1e-3)


def test_few_slices_are_not_calibrated_as_whole_stacks_are():
    rng = np.random.default_rng(7)
    scores, labels = stacks(rng, 300, 32)
    people = np.repeat(np.arange(300), 32)
    fitted = Calibration.fit(scores.reshape(-1, 4), np.repeat(labels, 32), people)
    assert list(fitted.by_slices) == [1, 2, 4, 8, 16, 32]
    new, truth = stacks(rng, 2000, 32)
    for count in (1, 2, 5, 32):
        assert 0.87 < coverage(fitted.for_slices(count), new[:, :count], truth) < 0.94, count
    assert coverage(fitted.for_slices(32), new[:, :2], truth) < 0.84
    assert fitted.for_slices(31) == fitted.by_slices[16]


def test_calibration_can_be_fitted_to_the_numbers_of_slices_at_hand():
    scores, labels = stacks(np.random.default_rng(8), 40, 12)
    rows = scores.reshape(-1, 4), np.repeat(labels, 12), np.repeat(np.arange(40), 12)
    assert list(Calibration.fit(*rows).by_slices) == [1, 2, 4, 8]
    assert list(Calibration.fit(*rows, counts=[5, 100]).by_slices) == [1, 4, 8]
    twice = [np.concatenate([part, part]) for part in rows]
    networks = np.repeat([0, 1], 480)
    repeated = Calibration.fit(*twice, networks)
    assert repeated.people == 40
    assert list(repeated.by_slices) == [1, 2, 4, 8]


@pytest.mark.parametrize("people", [12, 40, 160])
def test_sets_hold_the_stage_of_nine_of_ten_new_people(people):
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        seen, labels = drawn(rng, people)
        threshold = conformal_threshold(seen[np.arange(people), labels])
        new, truth = drawn(rng, 50)
        held.append(in_set(new, np.full(50, threshold), ordered=True)[np.arange(50), truth].mean())
    # of n people each has the same chance to be the hardest: k of n + 1 places
    exact = np.ceil((people + 1) * 0.9) / (people + 1)
    assert np.mean(held) == pytest.approx(exact, abs=0.015) or np.mean(held) > exact  # gaps are filled, so more


def test_too_few_people_rule_nothing_out():
    assert conformal_threshold(np.full(8, 0.9)) == 0
    assert conformal_threshold(np.linspace(0.1, 0.9, 9)) == pytest.approx(0.1)


def test_people_predicted_several_times_do_not_count_as_more_people():
    once = np.random.default_rng(2).random(20)
    assert conformal_threshold(np.tile(once, 5), people=20) == conformal_threshold(once)
    assert conformal_threshold(np.tile(once[:8], 5), people=8) == 0


@given(arrays(np.float64, (5, 4), elements=st.floats(0.001, 1)), arrays(np.float64, (5,), elements=st.floats(0, 1)))
def test_a_set_is_a_run_of_stages_with_the_likeliest(values, threshold):
    probabilities = values / values.sum(axis=1, keepdims=True)
    inside = in_set(probabilities, threshold, ordered=True)
    for row, values in zip(inside, probabilities, strict=True):
        assert row[values.argmax()]
        assert np.diff(np.flatnonzero(row)).max(initial=1) == 1
    assert (inside[probabilities >= threshold[:, None]]).all()


def test_where_stages_have_no_known_order_a_set_has_gaps():
    probabilities, threshold = np.array([[0.5, 0.1, 0.4]]), np.array([0.3])
    assert in_set(probabilities, threshold, ordered=False).tolist() == [[True, False, True]]
    assert in_set(probabilities, threshold, ordered=True).tolist() == [[True, True, True]]


def test_the_mean_of_a_persons_slices():
    means = mean_by_person(np.array([[0.2, 0.8], [1.0, 0.0], [0.4, 0.6]]), np.array([0, 1, 0]))
    np.testing.assert_allclose(means, [[0.3, 0.7], [1.0, 0.0]])


def test_a_calibration_is_read_as_it_was_written_and_damage_is_reported(tmp_path):
    written = Calibration(20, {1: CalibrationParameters(1.5, 0.2), 2: CalibrationParameters(0.8, 0.15)})
    written.save(tmp_path)
    assert Calibration.open(tmp_path) == written
    assert Calibration.open(tmp_path / "none") is None
    file = tmp_path / "calibration.json"
    content = json.loads(file.read_text())
    for damaged in ({}, {"1": {"temperature": -1, "conformal_threshold": 0.5}}, {"2": content["by_slices"]["2"]}):
        file.write_text(json.dumps(content | {"by_slices": damaged}))
        with pytest.raises(ValueError, match="calibration.json"):
            Calibration.open(tmp_path)


def test_sets_in_words():
    names = ["Non", "Very Mild", "Mild", "Moderate"]
    population = "the 200 of a study"
    assert describe_set(names[:2], 4, population) == (
        "Among people like the 200 of a study, not ruled out: Non, Very Mild"
    )
    assert describe_set(names, 4, population) == "Among people like the 200 of a study, no stage is ruled out"
