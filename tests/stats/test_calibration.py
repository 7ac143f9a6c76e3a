"""Temperatures, prediction sets and what they mean in words."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainstage.stats.calibration import Calibration, Fit, conformal_threshold, in_set, in_words, joined, softened


def drawn(rng, people, temperature=1.0):
    """Return probabilities of four stages, stages drawn from them, and what an overconfident network says."""
    probabilities = rng.dirichlet((1.5, 1.2, 0.8, 0.3), people)
    labels = np.array([rng.choice(4, p=row) for row in probabilities])
    return softened(probabilities, 1 / temperature), labels


def test_a_temperature_undoes_overconfidence():
    scores, labels = drawn(np.random.default_rng(0), 4000, temperature=3.0)
    found = Calibration.fit(scores, labels, np.arange(4000), 4000)
    assert found.slice.temperature == pytest.approx(3.0, rel=0.1)
    assert found.person == found.slice


@pytest.mark.parametrize("people", [12, 40, 160])
def test_sets_hold_the_stage_of_nine_of_ten_new_people(people):
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        seen, labels = drawn(rng, people)
        least = conformal_threshold(seen[np.arange(people), labels])
        new, truth = drawn(rng, 50)
        held.append(in_set(new, np.full(50, least))[np.arange(50), truth].mean())
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


@settings(deadline=None)
@given(arrays(np.float64, (5, 4), elements=st.floats(0.001, 1)), arrays(np.float64, (5,), elements=st.floats(0, 1)))
def test_a_set_is_a_run_of_stages_with_the_likeliest(values, least):
    probabilities = values / values.sum(axis=1, keepdims=True)
    inside = in_set(probabilities, least)
    for row, one in zip(inside, probabilities, strict=True):
        assert row[one.argmax()]
        assert np.diff(np.flatnonzero(row)).max(initial=1) == 1
    assert (inside[probabilities >= least[:, None]]).all()


def test_the_mean_of_a_persons_slices_is_calibrated_on_its_own():
    rng = np.random.default_rng(3)
    scores, labels = drawn(rng, 300)
    people = np.repeat(np.arange(300), 8)
    of_slices = softened(np.repeat(scores, 8, axis=0) * rng.uniform(0.2, 1, (2400, 4)), 0.3)
    found = Calibration.fit(of_slices, np.repeat(labels, 8), people, 300)
    assert found.slice.temperature != pytest.approx(found.person.temperature, rel=0.02)
    means = joined(softened(of_slices, found.person.temperature), people)
    held = in_set(means, np.full(300, found.person.conformal_threshold))[np.arange(300), labels].mean()
    assert 0.9 <= held < 0.96


def test_a_calibration_is_read_as_it_was_written_and_damage_is_told(tmp_path):
    written = Calibration(20, Fit(1.5, 0.2), Fit(0.8, 0.15))
    written.save(tmp_path)
    assert Calibration.open(tmp_path) == written
    assert Calibration.open(tmp_path / "none") is None
    file = tmp_path / "calibration.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"slice": {"temperature": -1, "conformal_threshold": 0.5}}))
    with pytest.raises(ValueError, match="calibration.json"):
        Calibration.open(tmp_path)


def test_sets_in_words():
    names = ["Non", "Very Mild", "Mild", "Moderate"]
    assert in_words(names[:1], 4) == "Non; the other stages are unlikely"
    assert in_words(names[:2], 4) == "cannot tell Very Mild from Non"
    assert in_words(names[1:], 4) == "cannot tell Very Mild, Mild and Moderate apart"
    assert in_words(names, 4) == "cannot tell the stages apart"
