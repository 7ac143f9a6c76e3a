import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from brainstage.stats.ordinal import ProportionalOdds


def drawn(slope, thresholds, count=20_000, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(2, 3, count)
    above = expit(slope * scores[:, None] - np.array(thresholds))
    return scores, (rng.random((count, 1)) < above).sum(axis=1)


def test_the_odds_that_drew_the_stages_are_found():
    scores, labels = drawn(0.8, [0.5, 2.0, 4.0])
    found = ProportionalOdds(scores, labels, 4).predict(scores)
    above = expit(0.8 * scores[:, None] - np.array([0.5, 2.0, 4.0]))
    truth = -np.diff(np.c_[np.ones(len(scores)), above, np.zeros(len(scores))], axis=1)
    assert np.abs(found - truth).max() < 0.03


@given(st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=30)
def test_stages_add_up_and_a_higher_score_is_never_milder(classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 50)])
    odds = ProportionalOdds(rng.normal(0, 0.1, len(labels)) + labels, labels, classes)
    found = odds.predict(np.linspace(-3, classes + 3, 40))
    assert found.shape == (40, classes)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    assert (np.diff(found @ np.arange(classes)) > -1e-9).all()


def test_scores_that_tell_nothing_give_the_shares():
    labels = np.repeat([0, 1, 2], [50, 35, 15])
    found = ProportionalOdds(np.random.default_rng(1).permutation(100) * 1.0, labels, 3).predict(np.array([50.0]))
    assert found[0] == pytest.approx([0.5, 0.35, 0.15], abs=0.04)


def test_equal_scores_are_no_error():
    found = ProportionalOdds(np.zeros(10), np.repeat([0, 1], 5), 2).predict(np.zeros(1))
    assert found[0] == pytest.approx([0.5, 0.5], abs=0.01)
