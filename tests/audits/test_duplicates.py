"""Copies of one picture are found, whatever was done to them; pictures of neighbouring levels are not copies."""

import numpy as np
import pytest

from brainstage.audits.duplicates import WAYS, copy_slice, find_copies
from brainstage.core.errors import BrainstageError
from brainstage.datasets.phantom import draw_head


@pytest.fixture(scope="module")
def heads():
    return [one for number in range(12) for one in draw_head(number % 4, number, seed=3)]


def test_no_copies_in_a_cohort(heads):
    assert np.array_equal(find_copies(heads), np.arange(len(heads)))


def test_planted_copies_are_found_and_nothing_else(heads):
    rng = np.random.default_rng(1)
    originals = rng.permutation(len(heads))[:150]
    copies = [copy_slice(heads[row], WAYS[number % len(WAYS)], rng) for number, row in enumerate(originals)]
    shown = find_copies([*heads, *copies])
    assert (shown[len(heads) :] == originals).mean() >= 0.99
    assert (shown[: len(heads)] != np.arange(len(heads))).mean() <= 0.01


def test_exact_copies_share_a_number_in_tiny_data():
    pictures = [np.full((8, 8), grey, dtype=np.uint8) for grey in (1, 2, 1)]
    assert find_copies(pictures).tolist() == [0, 1, 0]
    assert find_copies([]).tolist() == []


def test_pictures_of_another_shape_with_the_same_bytes_are_not_exact_copies():
    flat = np.arange(16, dtype=np.uint8)
    assert find_copies([flat.reshape(4, 4), flat.reshape(2, 8)]).tolist() == [0, 1]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_not_the_same_bytes(heads, way):
    copy = copy_slice(heads[40], way, np.random.default_rng(0))
    assert copy.dtype == np.uint8
    assert not np.array_equal(copy, heads[40])


def test_blank_pictures_do_no_harm(heads):
    blank = [np.zeros((128, 128), dtype=np.uint8), np.full((64, 64), 255, dtype=np.uint8)]
    shown = find_copies([*heads, *blank])
    assert np.array_equal(shown[: len(heads)], np.arange(len(heads)))


def test_an_unknown_way_is_refused(heads):
    with pytest.raises(BrainstageError, match="melted"):
        copy_slice(heads[0], "melted", np.random.default_rng(0))
