"""Ridge regression on people: effects that are in few features, and effects that are in all."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from brainstage.models.coordinates import FewPeople, fit_line

PEOPLE, FEATURES = 48, 4000
NO_DIRECTIONS = np.zeros((0, FEATURES), np.float32)


def auroc(effect, focal_share):
    """Return the mean AUROC on other people of lines fitted to draws of people with and without an effect."""
    scores = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels = np.arange(2 * PEOPLE) % 2
        rows = rng.normal(size=(len(labels), FEATURES)) + labels[:, None] * effect
        rows = (rows / np.sqrt(FEATURES)).astype(np.float32)
        line = fit_line(FewPeople(rows[:PEOPLE], NO_DIRECTIONS), labels[:PEOPLE].astype(float), focal_share)
        scores.append(roc_auc_score(labels[PEOPLE:], line(rows[PEOPLE:])))
    return float(np.mean(scores))


def test_an_effect_in_few_features_is_seen_with_a_share_for_few():
    effect = np.zeros(FEATURES)
    effect[:4] = 1.8
    assert auroc(effect, 0.0) < 0.8
    assert auroc(effect, 0.5) > 0.95


def test_a_weak_effect_in_all_features_is_seen_without_one():
    """So the patient model chooses between the two."""
    effect = np.full(FEATURES, 0.1)
    assert auroc(effect, 0.0) > 0.85 > auroc(effect, 0.5)


def test_without_an_effect_both_are_at_chance():
    assert auroc(np.zeros(FEATURES), 0.5) == pytest.approx(0.5, abs=0.1)


def test_directions_change_nothing_with_a_share_for_few_too():
    rng = np.random.default_rng(0)
    labels = np.arange(PEOPLE) % 2
    rows = (rng.normal(size=(PEOPLE, FEATURES)) / np.sqrt(FEATURES)).astype(np.float32)
    moved = np.zeros((1, FEATURES), np.float32)
    moved[0, :50] = 0.2
    targets = labels.astype(float)
    apart = [fit_line(FewPeople(rows, known), targets, 0.5).spread(moved) for known in (NO_DIRECTIONS, moved)]
    assert apart[1] < 0.2 * apart[0]
