"""Duplicates are found, however they were altered; slices of neighbouring levels are not duplicates."""

import numpy as np
import pytest

from brainstage.audits.duplicates import ALTERATIONS, alter_slice, find_duplicates
from brainstage.core.errors import BrainstageError


@pytest.fixture(scope="module")
def slices(heads):
    return list(heads[: 12 * 32])


def test_a_cohort_has_no_duplicates_and_blank_pictures_do_no_harm(slices):
    blank = [np.zeros((128, 128), dtype=np.uint8), np.full((64, 64), 255, dtype=np.uint8)]
    assert np.array_equal(find_duplicates([*slices, *blank]), np.arange(len(slices) + len(blank)))


def test_planted_duplicates_are_found_and_nothing_else(slices):
    rng = np.random.default_rng(1)
    many = 40  # a slice with far more duplicates than it has candidates
    originals = np.concatenate([rng.permutation(len(slices))[:150], np.full(80, many)])
    planted = [alter_slice(slices[row], ALTERATIONS[number % 5], rng) for number, row in enumerate(originals)]
    duplicate_of = find_duplicates([*slices, *planted])
    hit = duplicate_of[len(slices) :] == originals
    assert hit[:150].mean() >= 0.99
    assert hit[150:].all()
    assert (duplicate_of[: len(slices)] != np.arange(len(slices))).mean() <= 0.01


def test_exact_duplicates_share_a_number_in_tiny_data():
    pictures = [np.full((8, 8), grey, dtype=np.uint8) for grey in (1, 2, 1)]
    assert find_duplicates(pictures).tolist() == [0, 1, 0]
    assert find_duplicates([]).tolist() == []


def test_pictures_of_another_shape_with_the_same_bytes_are_not_exact_duplicates():
    flat = np.arange(16, dtype=np.uint8)
    assert find_duplicates([flat.reshape(4, 4), flat.reshape(2, 8)]).tolist() == [0, 1]


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_duplicate_is_not_the_same_bytes(slices, alteration):
    duplicate = alter_slice(slices[40], alteration, np.random.default_rng(0))
    assert duplicate.dtype == np.uint8
    assert not np.array_equal(duplicate, slices[40])


def test_an_unknown_alteration_is_refused(slices):
    with pytest.raises(BrainstageError, match="melted"):
        alter_slice(slices[0], "melted", np.random.default_rng(0))
