"""The same head under two patient ids, as happens when cohorts are joined or a person is entered twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from brainstage.datasets.neighbours import similar_in_other_groups
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.table import SliceTable

COMPARED_LEVELS = (0.25, 0.5, 0.75)
"""Where the levels that are compared lie between the lowest and the highest of the data."""
MIN_CORRELATION = 0.92
"""Correlation of the fine anatomy of a level from which on it may be one head's.

The middle one of the three levels' is at most 0.76 between two of the 200 people of the public dataset; for one
person's slab that is read from two positions it is 0.92 or more for 95 of 100 (``python benchmarks/cohort.py``).
Phantoms, which are one brain bent in many ways, have 0.91, so the limit is not lower.
"""
MIN_LEVELS = 2
"""Levels that have to agree."""
_CANDIDATES = 4


def same_heads(slices: SliceTable) -> dict[str, str]:
    """Return each person whose head is that of another person too, with the first of these people by name.

    Only slices with known levels (:attr:`SliceTable.levels`) can be compared, as those of cohorts are: of others
    nothing is returned. Labels are not looked at.
    """
    pairs = _pairs(slices)
    if not pairs:
        return {}
    names, numbers = np.unique([*pairs], return_inverse=True)
    left, right = numbers.reshape(-1, 2).T
    alike = coo_array((np.ones(len(left)), (left, right)), shape=(len(names), len(names)))
    _, head = connected_components(alike, directed=False)
    _, first = np.unique(head, return_index=True)  # names are sorted
    return {
        str(name): str(names[first[number]])
        for name, number in zip(names, head, strict=True)
        if name != names[first[number]]
    }


def _pairs(slices: SliceTable) -> set[tuple[str, str]]:
    """Return the pairs of people of whom two scans show the same head, each sorted."""
    agree: Counter[tuple[str, str]] = Counter()
    person_of: dict[str, str] = {}
    for rows in _compared(slices):
        scans = [str(slices.stacks[row]) for row in rows]
        people = [str(slices.patients[row]) for row in rows]
        person_of |= zip(scans, people, strict=True)
        agree.update(_alike(slices, rows, scans, people))
    alike = (pair for pair, levels in agree.items() if levels >= MIN_LEVELS)
    return {(min(people), max(people)) for pair in alike if (people := [person_of[scan] for scan in pair])}


def _compared(slices: SliceTable) -> Iterator[list[int]]:
    """Yield the rows of each compared level that belong to somebody, one for each scan."""
    known = sorted({level for level in slices.levels if level is not None})
    for level in sorted({known[round(place * (len(known) - 1))] for place in COMPARED_LEVELS if known}):
        rows = (row for row, its in enumerate(slices.levels) if its == level and slices.patients[row] is not None)
        yield list({slices.stacks[row]: row for row in rows}.values())


def _alike(slices: SliceTable, rows: list[int], scans: list[str], people: list[str]) -> set[tuple[str, str]]:
    """Return the pairs of scans of different people that look alike at a level, each sorted."""
    if len(set(people)) < 2:
        return set()
    pattern = describe_slices([slices.images[row] for row in rows]).pattern
    person = np.unique(people, return_inverse=True)[1]
    nearest, correlation = similar_in_other_groups(pattern, person, min(_CANDIDATES, len(rows) - 1))
    found = np.argwhere(correlation >= MIN_CORRELATION)
    pairs = ((scans[scan], scans[nearest[scan, place]]) for scan, place in found.tolist())
    return {(min(pair), max(pair)) for pair in pairs}
