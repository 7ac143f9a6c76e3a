"""Nearest rows: exact among few, nearly all found in cells among many, and never of the query's own group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainstage.datasets.neighbours import Neighbours, most_similar, nearest
from brainstage.datasets.signatures import unit


@pytest.fixture
def in_cells(monkeypatch):
    monkeypatch.setattr("brainstage.datasets.neighbours.EXACT_LIMIT", 1000)


@pytest.fixture(scope="module")
def points():
    """Return 500 groups of eight neighbouring points."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(500, 40)), 8, axis=0)
    return unit((centres + 0.3 * rng.normal(size=centres.shape)).astype(np.float32))


@settings(max_examples=20)
@given(st.integers(2, 700), st.integers(1, 5), st.integers(0, 9))
def test_nearest_is_what_a_full_matrix_says(rows, count, seed):
    points = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    count = min(count, rows - 1)
    keys, similarity = nearest(points, points, count, same=True)
    full = points @ points.T
    np.fill_diagonal(full, -np.inf)
    assert np.allclose(similarity, -np.sort(-full, axis=1)[:, :count], atol=1e-5)
    assert np.allclose(np.take_along_axis(full, keys, axis=1), similarity, atol=1e-5)


def test_cells_find_nearly_all_that_a_full_search_finds(points, in_cells):
    keys, similarity = nearest(points, points, 5, same=True)
    exact, _ = Neighbours(points, exact=True).search(points, 5, groups=(np.arange(4000), np.arange(4000)))
    assert np.mean([np.isin(row, other).mean() for row, other in zip(keys, exact, strict=True)]) > 0.98
    assert (keys != np.arange(4000)[:, None]).all()
    assert np.allclose(similarity, (points[:, None] * points[keys]).sum(axis=-1), atol=1e-5)


def test_keys_of_the_own_group_are_no_neighbours(points, in_cells):
    groups = np.repeat(np.arange(500), 8)
    keys, similarity = Neighbours(points).search(points, 3, groups=(groups, groups))
    assert (groups[keys] != groups[:, None])[np.isfinite(similarity)].all()


def test_cells_give_the_same_twice(points, in_cells):
    for first, second in zip(nearest(points, points, 4), nearest(points, points, 4), strict=True):
        assert np.array_equal(first, second)


def test_most_similar_compares_whole_rows(points):
    queries, keys = np.arange(0, 4000, 16), np.arange(1, 4000, 2)
    position, similarity = most_similar(points.astype(np.float16), queries, keys)
    full = points[queries] @ points[keys].T
    assert (position == full.argmax(axis=1)).mean() > 0.98
    assert np.allclose(similarity, full.max(axis=1), atol=2e-3)
