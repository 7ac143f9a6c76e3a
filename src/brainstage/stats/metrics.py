"""Scores of probabilities against labels, with bootstrap intervals. Arrays in, numbers out.

Every score is computed from weights of the rows, so that a bootstrap draw is a weighting and a thousand draws
cost a few matrix products. With all weights 1 each score equals scikit-learn's; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALIBRATION_BINS = 15
"""Bins of the expected calibration error, of equal width (Guo et al. 2017, ICML)."""

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """A figure and its 95 % bootstrap interval. NaN where it cannot be had (a class that does not occur)."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the score for a JSON file; None stands for NaN."""
        return {name: None if np.isnan(number) else round(number, 6) for name, number in vars(self).items()}


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth.

    Attributes:
        overall: Score of each name in :data:`OVERALL`.
        by_class: For each class ``precision``, ``recall``, ``f1`` and ``auroc``.
        support: Number of slices of each class.
        confusion: Slices of each class (rows) predicted as each class (columns), int64 of shape (K, K).
    """

    overall: dict[str, Score]
    by_class: dict[str, dict[str, Score]]
    support: dict[str, int]
    confusion: Ints


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
    labels: Ints,
    probabilities: Floats,
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
    sampled = [
        _weighted(labels, probabilities, weights) for weights in _resamples(len(labels), groups, draws, seed)
    ]
    spread = {name: np.concatenate([part[name] for part in sampled]) for name in point}
    scores = {name: _interval(point[name][0], spread[name]) for name in point}
    return Scores(
        overall={name: scores[name][0] for name in OVERALL},
        by_class={
            class_name: {name: scores[name][number] for name in ("precision", "recall", "f1", "auroc")}
            for number, class_name in enumerate(classes)
        },
        support={name: int((labels == number).sum()) for number, name in enumerate(classes)},
        confusion=_confusion(labels, probabilities, np.ones((1, len(labels))))[0].astype(np.int64),
    )


def paired_difference(
    labels: Ints,
    first: Floats,
    second: Floats,
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Score]:
    """Return each overall score of the first predictions less that of the second, on the same rows.

    Every bootstrap draw weighs the rows alike for both, so that what is hard for both does not widen the interval.

    Args:
        labels: Class numbers, int64 of shape (N,).
        first: Probabilities, float64 of shape (N, K).
        second: Probabilities of the same rows, float64 of shape (N, K).
        groups: Patient of each row, which the bootstrap then draws whole; None draws rows.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    parts = [np.ones((1, len(labels))), *_resamples(len(labels), groups, draws, seed)]
    scores = [(_weighted(labels, first, weights), _weighted(labels, second, weights)) for weights in parts]
    differences = {name: [one[name] - other[name] for one, other in scores] for name in OVERALL}
    return {name: _interval(values[0][0], np.concatenate(values[1:]))[0] for name, values in differences.items()}


def score_repeats(
    labels: Ints, repeats: Sequence[Floats], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Score]:
    """Judge repeated predictions of the same people: the mean of each overall score over the repeats.

    The bootstrap draws people; each draw weighs all repeats alike, so that a repeat is not taken for new people.

    Args:
        labels: Class numbers of n people, int64 of shape (n,).
        repeats: Probabilities of each repeat, float64 of shape (n, K).
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    parts = [np.ones((1, len(labels))), *_resamples(len(labels), None, draws, seed)]
    scores = [[_weighted(labels, one, weights) for one in repeats] for weights in parts]
    means = {name: [np.mean([one[name] for one in part], axis=0) for part in scores] for name in OVERALL}
    return {name: _interval(values[0][0], np.concatenate(values[1:]))[0] for name, values in means.items()}


def shuffled_labels(
    labels: Ints, repeats: Sequence[Floats], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Score]:
    """Return what the same predictions score when the labels are dealt out to people at random.

    Args:
        labels: Class numbers of n people, int64 of shape (n,).
        repeats: Probabilities of each repeat, float64 of shape (n, K).
        draws: Number of shuffles.
        seed: Seed of the shuffles.

    Returns:
        For each overall score the mean and the 95 % range over shuffles (Ojala and Garriga 2010, JMLR 11, 1833).
    """
    rng = np.random.default_rng(seed)
    ones = np.ones((1, len(labels)))
    shuffles = [rng.permutation(labels) for _ in range(draws)]
    scores = [[_weighted(shuffled, one, ones) for one in repeats] for shuffled in shuffles]
    spread = {name: np.array([np.mean([one[name] for one in part]) for part in scores]) for name in OVERALL}
    return {
        name: _interval(np.nanmean(values, keepdims=True), values[:, None])[0] for name, values in spread.items()
    }


def calibration_error_if_right(repeats: Sequence[Floats], *, draws: int = DRAWS, seed: int = 0) -> Score:
    """Return the calibration error that people would show if each probability were right.

    With few people even right probabilities show one, since a bin holds few of them (Bröcker and Smith 2007,
    Weather and Forecasting 22, 651).

    Args:
        repeats: Probabilities of each repeat, float64 of shape (n, K).
        draws: Number of times that stages are drawn from the probabilities.
        seed: Seed of the draws.

    Returns:
        Mean and 95 % range over the draws.
    """
    rng = np.random.default_rng(seed)
    ones = np.ones((1, len(repeats[0])))
    errors = np.empty((draws, len(repeats)))
    for draw in range(draws):
        for number, probabilities in enumerate(repeats):
            below = rng.random((len(probabilities), 1)) > np.cumsum(probabilities, axis=1)
            stages = below.sum(axis=1).clip(max=probabilities.shape[1] - 1)
            errors[draw, number] = _calibration_error(stages, probabilities, ones)[0]
    means = errors.mean(axis=1)
    return _interval(means.mean(keepdims=True), means[:, None])[0]


def mean_over_people(values: Floats, *, draws: int = DRAWS, seed: int = 0) -> Score:
    """Return the mean of a figure of each person, of shape (n,), and its interval over people."""
    weights = np.concatenate(list(_resamples(len(values), None, draws, seed)))
    return _interval(values.mean(keepdims=True), (weights @ values / len(values))[:, None])[0]


def _resamples(rows: int, groups: Sequence[str] | None, draws: int, seed: int) -> list[Floats]:
    """Return how often each row is in each bootstrap draw, in parts of shape (up to 100, rows)."""
    rng = np.random.default_rng(seed)
    group_of = np.arange(rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(group_of.max()) + 1
    parts = [min(100, draws - start) for start in range(0, draws, 100)]
    return [
        rng.multinomial(count, np.full(count, 1 / count), part).astype(np.float64)[:, group_of] for part in parts
    ]


def _interval(value: Floats, spread: Floats) -> list[Score]:
    """Return the scores of one name: ``value`` of shape (columns,), ``spread`` of shape (draws, columns)."""
    tail = 100 * (1 - LEVEL) / 2
    scores = []
    for number, column in zip(value, spread.T, strict=True):
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, (tail, 100 - tail)) if len(known) else (np.nan, np.nan)
        scores.append(Score(float(number), float(low), float(high)))
    return scores


def _weighted(labels: Ints, probabilities: Floats, weights: Floats) -> dict[str, Floats]:
    """Return every score of each weighting, of shape (weightings, 1 or K)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        confusion = _confusion(labels, probabilities, weights)
        by_class = _by_class(confusion) | {"auroc": _auroc(labels, probabilities, weights)}
        support, total = confusion.sum(2), confusion.sum((1, 2))
        # a class that is neither there nor predicted is not averaged over, as in scikit-learn
        occurs = (support > 0) | (confusion.sum(1) > 0)
        overall = {
            "accuracy": np.trace(confusion, axis1=1, axis2=2) / total,
            "balanced_accuracy": _mean_where(by_class["recall"], support > 0),
            "weighted_f1": (by_class["f1"] * support).sum(1) / total,
            "macro_f1": _mean_where(by_class["f1"], occurs),
            "auroc_ovr": _mean_where(by_class["auroc"], ~np.isnan(by_class["auroc"])),
            "quadratic_kappa": _quadratic_kappa(confusion),
            "log_loss": _log_loss(labels, probabilities, weights),
            "calibration_error": _calibration_error(labels, probabilities, weights),
        }
    return {name: values[:, None] for name, values in overall.items()} | by_class


def _mean_where(values: Floats, where: NDArray[np.bool_]) -> Floats:
    mean: Floats = np.where(where, values, 0).sum(1) / where.sum(1)
    return mean


def _confusion(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Return the confusion matrix of each weighting, of shape (weightings, K, K)."""
    count = probabilities.shape[1]
    cell = np.eye(count * count)[labels * count + probabilities.argmax(1)]
    return (weights @ cell).reshape(-1, count, count)


def _by_class(confusion: Floats) -> dict[str, Floats]:
    right = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted = confusion.sum(2), confusion.sum(1)
    return {
        "precision": np.where(predicted > 0, right / predicted, 0.0),
        "recall": np.where(support > 0, right / support, np.nan),
        "f1": np.where(support + predicted > 0, 2 * right / (support + predicted), 0.0),
    }


def _auroc(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Return each class's area under the ROC curve against the rest (Mann-Whitney, ties count half)."""
    areas = []
    for number in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, number], kind="stable")
        _, ties = np.unique(probabilities[order, number], return_index=True)
        positive = np.where(labels[order] == number, weights[:, order], 0.0)
        positive = np.add.reduceat(positive, ties, axis=1)
        negative = np.add.reduceat(weights[:, order], ties, axis=1) - positive
        below = np.cumsum(negative, axis=1) - negative
        areas.append((positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1)))
    return np.stack(areas, axis=1)


def _quadratic_kappa(confusion: Floats) -> Floats:
    """Return Cohen's kappa with quadratic weights: stages are ordered, so a miss by two counts four times."""
    count = confusion.shape[1]
    distance = (np.arange(count)[:, None] - np.arange(count)) ** 2
    expected = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None, :] / confusion.sum((1, 2))[:, None, None]
    kappa: Floats = 1 - (distance * confusion).sum((1, 2)) / (distance * expected).sum((1, 2))
    return kappa


def _log_loss(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    chosen = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.clip(chosen, np.finfo(np.float32).eps, 1.0))
    loss: Floats = weights @ losses / weights.sum(1)
    return loss


def _calibration_error(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Return the mean gap between confidence and accuracy over bins of confidence, weighted by their size."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.zeros((len(labels), CALIBRATION_BINS))
    gaps[np.arange(len(labels)), bins] = confidence - right
    error: Floats = np.abs(weights @ gaps).sum(1) / weights.sum(1)
    return error


def majority(labels: Ints, count: int) -> tuple[int, float]:
    """Return the most frequent class number and the accuracy of always answering it."""
    support = np.bincount(labels, minlength=count)
    return int(support.argmax()), float(support.max() / support.sum())


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
