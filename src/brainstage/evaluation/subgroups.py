"""The performance of a finished model in groups of people: by sex, by age, by site. Tables in, figures out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from brainstage.core.arrays import BoolArray, Float64Array
from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError
from brainstage.core.schema import Value
from brainstage.stats.metrics import DRAWS, FEW, Score
from brainstage.stats.validation import THRESHOLD, threshold_scores

NOT_KNOWN = "not known"
"""Name of the group of those whose covariate is not known."""
AGE_LIMITS = (65, 75, 85)
"""Years from which on the next age group begins."""
AGE_GROUPS = ("<65", "65–74", "75–84", "85 and older")
MOST_CODES = 10
"""Different numbers up to which a column holds codes, such as sites 1 to 7, of which each is a group."""


@dataclass(frozen=True)
class Subgroup:
    """The scores of a group of people.

    Attributes:
        column: The covariate.
        name: The group's value, or range of values.
        people: Number of people.
        scans: Number of their scans.
        positive_people: Number of people with a scan that has the outcome.
        scores: Those of :func:`brainstage.stats.validation.threshold_scores`.
        small: Whether fewer than 10 people have the outcome, or fewer than 10 do not: nothing can be claimed then.
    """

    column: str
    name: str
    people: int
    scans: int
    positive_people: int
    scores: dict[str, Score]
    small: bool


def subgroups(
    positive: BoolArray,
    probability: Float64Array,
    patients: Sequence[str],
    covariates: Mapping[str, Sequence[Value]],
    by: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Subgroup]:
    """Score each group of each column by itself; intervals draw its people.

    Text has a group for each value, and ages have those of :data:`AGE_GROUPS`. Other numbers have two, up to the
    median of the scans and above it; or a group for each value, where at most 10 different ones occur.

    Args:
        positive: Whether each scan has the outcome, bool of shape (n,).
        probability: Predicted probability of the outcome, float64 of shape (n,).
        patients: Person of each scan.
        covariates: Columns of n values, one a scan: text, or numbers (``age`` in years); None, NaN and empty text
            stand for values that are not known.
        by: The columns to group by.
        threshold: Probability from which on a scan is called positive.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        Groups that have scans, in the order of ``by`` and of the values; those not known come last.

    Raises:
        DataError: There is no such column.
    """
    for column in by:
        if column not in covariates:
            raise DataError(f"there is no column {column!r} to group by{did_you_mean(column, list(covariates))}")
    people = np.array(patients)
    score = partial(threshold_scores, threshold=threshold, draws=draws, seed=seed)
    return [
        Subgroup(
            column=column,
            name=name,
            people=_count(people[rows]),
            scans=int(rows.sum()),
            positive_people=_count(people[rows & positive]),
            scores=score(positive[rows], probability[rows], people[rows].tolist()),
            small=min(_count(people[rows & positive]), _count(people[rows & ~positive])) < FEW,
        )
        for column in by
        for name, rows in _groups(column, covariates[column]).items()
    ]


def _count(people: NDArray[np.str_]) -> int:
    """Return the number of different people."""
    return len(np.unique(people))


def _groups(column: str, values: Sequence[Value]) -> dict[str, BoolArray]:
    """Return which rows are in each group, bool of shape (n,), by the group's name, in order of the values."""
    known = [value for value in values if value is not None and value != "" and value == value]  # NaN != NaN
    text = any(isinstance(value, str) for value in known)
    name_of = _name_text(known) if text else _name_numbers(column, [float(value) for value in known])
    names = np.array([name_of.get(value, NOT_KNOWN) for value in values])
    groups = {name: names == name for name in [*dict.fromkeys(name_of.values()), NOT_KNOWN]}
    return {name: rows for name, rows in groups.items() if rows.any()}


def _name_text(values: Sequence[str | float]) -> dict[Value, str]:
    """Return the name of each value, sorted."""
    return {value: str(value) for value in sorted(set(values), key=str)}


def _name_numbers(column: str, values: Sequence[float]) -> dict[Value, str]:
    """Return the name of the group that each number belongs to, in ascending order."""
    numbers = sorted(set(values))
    if column == "age":
        return {age: AGE_GROUPS[bisect_right(AGE_LIMITS, age)] for age in numbers}
    if len(numbers) <= MOST_CODES:
        return {number: f"{number:.10g}" for number in numbers}
    median = float(np.median(values))
    low, high = f"up to {median:.4g} (median)", f"above {median:.4g} (median)"
    return {number: low if number <= median else high for number in numbers}
