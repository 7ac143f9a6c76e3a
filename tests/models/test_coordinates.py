"""Coordinates in which the ridge is fitted: the line is that of the features, however people are described."""

import numpy as np
import pytest

from brainstage.models.coordinates import FewPeople, Group, ManyPeople, fit_line, out_of_fold
from brainstage.models.ridge import RIDGE, FeatureScaling, RidgeLine

PEOPLE, NUMBERS, BLOCKS = 40, (5, 6), 5
TARGETS = np.random.default_rng(0).normal(size=PEOPLE)
FOLDS = [(np.flatnonzero(np.arange(PEOPLE) % 4 != k), np.flatnonzero(np.arange(PEOPLE) % 4 == k)) for k in range(4)]


def groups():
    """Return people in a few numbers, and the features that are linear functions of them."""
    rng = np.random.default_rng(1)
    return [
        Group(
            rng.normal(3, 2, (PEOPLE, count)).astype(np.float32),
            0.3 * rng.normal(size=(2, count)).astype(np.float32),
            [rng.normal(size=(count, 7)).astype(np.float32) for _ in range(BLOCKS)],
        )
        for count in NUMBERS
    ]


def both():
    """Return people in their numbers and by their features, and the features as either scales them."""
    parts, offset = groups(), [np.full((1, 14), block, np.float32) for block in range(BLOCKS)]

    def blocks(which):
        return [
            np.concatenate([getattr(group, which) @ group.blocks[number] for group in parts], axis=1)
            for number in range(BLOCKS)
        ]

    features = [block + base for block, base in zip(blocks("people"), offset, strict=True)]
    within = blocks("directions")
    scaling, many = FeatureScaling.of(features, within), ManyPeople(parts, offset)
    return many, FewPeople(scaling(features), scaling.directions(within)), many.scaling(features), scaling(features)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_many_people_get_the_line_that_few_get(share):
    many, few, features, expected_features = both()
    np.testing.assert_allclose(features, expected_features, atol=1e-5)
    line, expected_line = fit_line(many, TARGETS, share), fit_line(few, TARGETS, share)
    np.testing.assert_allclose(line(features), expected_line(features), atol=1e-5)
    held_out, expected = (out_of_fold(people, FOLDS, TARGETS, share) for people in (many, few))
    np.testing.assert_allclose(held_out, expected, atol=1e-5)


def test_few_people_get_the_line_of_their_features():
    features, directions = np.random.default_rng(4).normal(size=(PEOPLE, 200)), np.zeros((0, 200))
    people = FewPeople(features, directions)
    expected = RidgeLine.fit(features, TARGETS, directions)
    np.testing.assert_allclose(fit_line(people, TARGETS).weights, expected.weights, atol=1e-7)
    scores, _ = out_of_fold(people, FOLDS, TARGETS)
    for rest, held in FOLDS:
        of_rest = RidgeLine.fit(features[rest], TARGETS[rest], directions)
        np.testing.assert_allclose(scores[held], of_rest(features[held]), atol=1e-7)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)], ids=["primal", "dual"])
def test_both_forms_solve_the_same_equations(shape):
    rng = np.random.default_rng(2)
    features, targets, directions = (
        rng.normal(size=shape),
        rng.normal(size=shape[0]),
        rng.normal(size=(2, shape[1])),
    )
    line = RidgeLine.fit(features, targets, directions)
    centred = features - features.mean(axis=0)
    residual = targets - line(features)
    slope = centred.T @ residual - RIDGE * line.weights - len(features) * directions.T @ (directions @ line.weights)
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    assert residual.mean() == pytest.approx(0, abs=1e-12)


def test_a_person_who_is_there_twice_is_no_obstacle():
    rows = np.random.default_rng(3).normal(size=(PEOPLE, 200)) / 14
    rows[1:20] = rows[0]
    assert np.isfinite(fit_line(FewPeople(rows, np.zeros((0, 200))), TARGETS).weights).all()
