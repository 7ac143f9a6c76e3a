"""Scores of probabilities against labels, with bootstrap intervals. Arrays in, numbers out.

A bootstrap draw weighs the rows, and :mod:`brainstage.stats.weighted` scores many weightings at once: a thousand
draws cost a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from brainstage.core.arrays import Float64Array, IntArray
from brainstage.stats import weighted

DRAWS = 1000
WEIGHTS_AT_ONCE = 2**22
"""Most weights of rows, of some draws together, in memory at once: 34 MB, ten times that with their scores."""
LEVEL = 0.95
FEW = 10
"""People of a group below which no claim is made for it: the interval of a share of so few spans half of all."""


@dataclass(frozen=True)
class Score:
    """A score and its 95 % bootstrap interval. NaN where it is not defined (a class that does not occur)."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the score for a JSON file; None stands for NaN."""
        return {name: None if np.isnan(number) else round(number, 6) for name, number in vars(self).items()}


@dataclass(frozen=True)
class Scores:
    """The scores of a set of predictions.

    Attributes:
        overall: Score of each name in :data:`OVERALL`.
        by_class: For each class ``precision``, ``recall``, ``f1`` and ``auroc``.
        support: Number of slices of each class.
        confusion: Slices of each class (rows) predicted as each class (columns), int64 of shape (K, K).
    """

    overall: dict[str, Score]
    by_class: dict[str, dict[str, Score]]
    support: dict[str, int]
    confusion: IntArray


OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "weighted_f1",
    "macro_f1",
    "auroc_ovr",
    "quadratic_kappa",
    "log_loss",
    "calibration_error",
)


ORDINAL = ("quadratic_kappa",)
"""Scores that depend on the order of the classes."""


def without_ordinal(overall: Mapping[str, Score]) -> dict[str, Score]:
    """Return overall scores with NaN in place of those that depend on the order of the classes."""
    unknown = Score(np.nan, np.nan, np.nan)
    return {name: unknown if name in ORDINAL else value for name, value in overall.items()}


def score(
    labels: IntArray,
    probabilities: Float64Array,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Scores:
    """Judge class probabilities.

    Args:
        labels: Class numbers, int64 of shape (N,).
        probabilities: float64 of shape (N, K), in clinical order of the classes.
        classes: K class names.
        groups: Patient of each row, which the bootstrap then draws whole; None draws rows.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    point = _weighted(labels, probabilities, np.ones((1, len(labels))))
    sampled = [_weighted(labels, probabilities, weights) for weights in resamples(len(labels), groups, draws, seed)]
    spread = {name: np.concatenate([part[name] for part in sampled]) for name in point}
    scores = {name: intervals(point[name][0], spread[name]) for name in point}
    truth = weighted.one_hot(labels, len(classes))
    return Scores(
        overall={name: scores[name][0] for name in OVERALL},
        by_class={
            class_name: {name: scores[name][number] for name in ("precision", "recall", "f1", "auroc")}
            for number, class_name in enumerate(classes)
        },
        support={name: int((labels == number).sum()) for number, name in enumerate(classes)},
        confusion=weighted.confusion_matrices(probabilities, truth).astype(np.int64),
    )


def differences_from_leader(
    labels: IntArray,
    candidates: Sequence[Float64Array],
    leader: int,
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[dict[str, Score]]:
    """Return each overall score of the leader less that of every candidate, on the same rows.

    Every bootstrap draw weighs the rows alike for all candidates, so that what is hard for all does not widen an
    interval. The intervals of one score hold simultaneously for all pairs of candidates (the studentised maximum
    over the pairs; Romano and Wolf 2005, Econometrica 73, 1237). So they remain valid although the leader was
    picked on these rows: where all candidates are equally good, the chance that any interval excludes 0 is about 5
    %.

    Args:
        labels: Class numbers, int64 of shape (N,).
        candidates: Probabilities of each candidate, float64 of shape (N, K).
        leader: Number of the candidate that the others are compared with.
        groups: Patient of each row, which the bootstrap then draws whole; None draws rows.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        The differences of each candidate by name of the score; those of the leader itself are 0.
    """
    parts = chain([np.ones((1, len(labels)))], resamples(len(labels), groups, draws, seed))
    by_part = [[_weighted(labels, probabilities, weights) for probabilities in candidates] for weights in parts]
    scores = list(zip(*by_part, strict=True))
    differences: list[dict[str, Score]] = [{} for _ in candidates]
    for name in OVERALL:
        values = np.stack([np.concatenate([part[name][:, 0] for part in candidate]) for candidate in scores])
        margins = _simultaneous_margins(values[:, 1:])
        for number, difference in enumerate(values[leader, 0] - values[:, 0]):
            margin = margins[leader, number]
            bounds = float(difference - margin), float(difference + margin)
            differences[number][name] = Score(float(difference), *bounds)
    return differences


def _simultaneous_margins(values: Float64Array) -> Float64Array:
    """Return half the width of the interval of each pair's difference, (C, C), from draws of shape (C, draws)."""
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.size:
        return np.full((len(values), len(values)), np.nan)
    pairs = values[:, None] - values
    spread = pairs.std(axis=2)
    deviation = np.abs(pairs - pairs.mean(axis=2, keepdims=True))
    studentised = deviation / np.where(spread > 0, spread, np.inf)[..., None]  # equal candidates differ in no draw
    margins: Float64Array = np.quantile(studentised.max(axis=(0, 1)), LEVEL) * spread
    return margins


def score_repeats(
    labels: IntArray,
    repeats: Sequence[Float64Array],
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Score]:
    """Judge repeated predictions of the same people: the mean of each overall score over the repeats.

    The bootstrap draws people; each draw weighs all repeats alike, so that a repeat is not taken for new people.

    Args:
        labels: Class numbers of n people, or of their n scans, int64 of shape (n,).
        repeats: Probabilities of each repeat, float64 of shape (n, K).
        groups: The person of each; None where everyone stands for one.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    parts = chain([np.ones((1, len(labels)))], resamples(len(labels), groups, draws, seed))
    scores = [[_weighted(labels, repeat, weights) for repeat in repeats] for weights in parts]
    means = {name: [np.mean([repeat[name] for repeat in part], axis=0) for part in scores] for name in OVERALL}
    return {name: intervals(values[0][0], np.concatenate(values[1:]))[0] for name, values in means.items()}


def shuffled_labels(
    labels: IntArray,
    repeats: Sequence[Float64Array],
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Score]:
    """Score the same predictions with the labels of people shuffled: what a model scores by chance.

    A person's scans get the labels of another person's scans, in their order: scans of a person stay as alike as
    they are, and a stage that changes between sessions still does. People with equally many scans exchange labels
    (Winkler et al. 2015, NeuroImage 123, 253), since how often someone is scanned may depend on the stage. Where
    they are fewer than :data:`FEW`, those with the next number of scans join them; labels that are too many are
    then left out, and where they are too few they begin again.

    Args:
        labels: Class numbers of n people, or of their n scans, int64 of shape (n,).
        repeats: Probabilities of each repeat, float64 of shape (n, K).
        groups: The person of each; None where everyone stands for one.
        draws: Number of shuffles.
        seed: Seed of the shuffles.

    Returns:
        For each overall score the mean and the 95 % range over shuffles (Ojala and Garriga 2010, JMLR 11, 1833).
    """
    shuffles = labels[_exchanged(_person_of(len(labels), groups), draws, seed)]
    parts = [weighted.one_hot(shuffles[start : start + 100], repeats[0].shape[1]) for start in range(0, draws, 100)]
    scores = [[weighted.scores(repeat, weights) for repeat in repeats] for weights in parts]
    spread = {
        name: np.concatenate([np.mean([repeat[name] for repeat in part], axis=0) for part in scores])
        for name in OVERALL
    }
    return {name: intervals(np.nanmean(values, axis=0), values)[0] for name, values in spread.items()}


def _person_of(rows: int, groups: Sequence[str] | None) -> IntArray:
    """Return the number of each row's person, in order of appearance, int64 of shape (rows,)."""
    names = range(rows) if groups is None else groups
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def _exchanged(person: IntArray, draws: int, seed: int) -> IntArray:
    """Return the row whose label each row gets in each shuffle, int64 of shape (draws, rows).

    Args:
        person: Number of each row's person, from 0, int64 of shape (rows,).
        draws: Number of shuffles.
        seed: Seed of the shuffles.
    """
    rng = np.random.default_rng(seed)
    counts = np.bincount(person)
    first = np.cumsum(counts) - counts
    rows = np.argsort(person, kind="stable")  # those of a person follow each other
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows)) - np.repeat(first, counts)  # of a row among its person's
    givers = np.empty((draws, len(counts)), dtype=np.int64)
    alike = _alike(counts)
    for giver in givers:
        for people in alike:
            giver[people] = rng.permutation(people)
    of_row = givers[:, person]
    exchanged: IntArray = rows[first[of_row] + place % counts[of_row]]
    return exchanged


def _alike(counts: IntArray) -> list[IntArray]:
    """Return groups of people with equally many scans, or nearly so where fewer than FEW have as many.

    Args:
        counts: Number of scans of each person, int64 of shape (people,).

    Returns:
        The numbers of the people of each group, of :data:`FEW` people or more where there are so many.
    """
    alike: list[IntArray] = []
    for count in np.unique(counts):
        people = np.flatnonzero(counts == count)
        if alike and len(alike[-1]) < FEW:
            people = np.concatenate([alike.pop(), people])
        alike.append(people)
    if len(alike) > 1 and len(alike[-1]) < FEW:
        alike[-2:] = [np.concatenate(alike[-2:])]
    return alike


def calibration_error_if_perfect(
    repeats: Sequence[Float64Array],
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Score:
    """Return the calibration error that so few people would show if the model were perfectly calibrated.

    With few people even perfectly calibrated probabilities have one, since a bin holds few people (Bröcker and
    Smith 2007, Weather and Forecasting 22, 651). In each draw one uniform number of a person decides the stage in
    all repeats, and of all scans: a person has one true stage however often the model is asked.

    Args:
        repeats: Probabilities of each repeat, float64 of shape (n, K).
        groups: The person of each of n scans; None where everyone stands for one.
        draws: Number of times that stages are drawn from the probabilities.
        seed: Seed of the draws.

    Returns:
        Mean and 95 % range over the draws.
    """
    rows, classes = repeats[0].shape
    person = _person_of(rows, groups)
    rng = np.random.default_rng(seed)
    errors = np.zeros((draws, len(repeats)))
    for start in range(0, draws, 100):
        part = slice(start, min(start + 100, draws))
        uniform = rng.random((part.stop - start, int(person.max()) + 1))[:, person, None]
        for number, probabilities in enumerate(repeats):
            edges = np.cumsum(probabilities, axis=1)[:, :-1]
            stages = (uniform > edges).sum(axis=2)
            errors[part, number] = weighted.calibration_error(probabilities, weighted.one_hot(stages, classes))
    means = errors.mean(axis=1)
    return intervals(means.mean(keepdims=True), means[:, None])[0]


def mean_over_people(
    values: Float64Array, *, groups: Sequence[str] | None = None, draws: int = DRAWS, seed: int = 0
) -> Score:
    """Return the mean over people and its interval.

    Args:
        values: A figure of each person, or of each of their scans, float64 of shape (n,).
        groups: The person of each; None where everyone stands for one.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    parts = resamples(len(values), groups, draws, seed)
    means = np.concatenate([weights @ values / np.maximum(weights.sum(axis=1), 1) for weights in parts])
    return intervals(values.mean(keepdims=True), means[:, None])[0]


def groups_of(patients: Sequence[str]) -> Sequence[str] | None:
    """Return the person of each row, whom the bootstrap draws whole; None where everyone has one row."""
    return None if len(set(patients)) == len(patients) else patients


def resamples(rows: int, groups: Sequence[str] | None, draws: int, seed: int) -> Iterator[Float64Array]:
    """Yield how often each row is in each bootstrap draw, float64, in parts of shape (some draws, rows).

    Args:
        rows: Number of rows.
        groups: Patient of each row, whom a draw then takes whole; None draws rows.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    group_of = np.arange(rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(group_of.max()) + 1
    most = max(1, min(100, WEIGHTS_AT_ONCE // max(1, rows)))
    for start in range(0, draws, most):
        part = rng.multinomial(count, np.full(count, 1 / count), min(most, draws - start))
        yield part.astype(np.float64)[:, group_of]


def intervals(value: Float64Array, spread: Float64Array) -> list[Score]:
    """Return the scores of one name: ``value`` of shape (columns,), ``spread`` of shape (draws, columns)."""
    tail = 100 * (1 - LEVEL) / 2
    scores = []
    for number, column in zip(value, spread.T, strict=True):
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, (tail, 100 - tail)) if len(known) else (np.nan, np.nan)
        scores.append(Score(float(number), float(low), float(high)))
    return scores


def _weighted(labels: IntArray, probabilities: Float64Array, weights: Float64Array) -> dict[str, Float64Array]:
    """Return every score of each weighting of the rows, of shape (weightings, 1 or K)."""
    return weighted.scores(probabilities, weighted.one_hot(labels, probabilities.shape[1]) * weights[:, None])


def score_decisions(
    labels: IntArray,
    decisions: IntArray,
    count: int,
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Score]:
    """Return ``accuracy`` and ``weighted_f1`` of class numbers that come without probabilities.

    Args:
        labels: Class numbers, int64 of shape (N,).
        decisions: Predicted class numbers, int64 of shape (N,).
        count: Number of classes.
        groups: Patient of each row, which the bootstrap then draws whole; None draws rows.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    truth, answers = weighted.one_hot(labels, count), np.eye(count)[decisions]
    parts = chain([np.ones((1, len(labels)))], resamples(len(labels), groups, draws, seed))
    confusion = np.concatenate([truth * weights[:, None] @ answers for weights in parts])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {"accuracy": weighted.accuracy(confusion), "weighted_f1": weighted.weighted_f1(confusion)}
    return {name: intervals(column[:1], column[1:, None])[0] for name, column in values.items()}


def majority(labels: IntArray, count: int) -> int:
    """Return the most frequent class number."""
    return int(np.bincount(labels, minlength=count).argmax())


def to_dict(scores: Scores) -> dict[str, Any]:
    """Return the scores for a JSON file."""
    return {
        "overall": {name: value.to_dict() for name, value in scores.overall.items()},
        "by_class": {
            name: {"support": scores.support[name]} | {key: value.to_dict() for key, value in values.items()}
            for name, values in scores.by_class.items()
        },
        "confusion_matrix": scores.confusion.tolist(),
    }
