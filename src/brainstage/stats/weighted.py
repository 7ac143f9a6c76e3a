"""Scores of probabilities under many weightings of the rows at once: a bootstrap draw is such a weighting.

Probabilities are float64 of shape (N, K). Weights say how much each row counts as a row of each class, float64 of
shape (weightings, K, N): with :func:`one_hot` of the labels each score is scikit-learn's, and a test holds them
together.
"""

from __future__ import annotations

import numpy as np

from brainstage.core.arrays import BoolArray, Float64Array, IntArray

CALIBRATION_BINS = 15
"""Bins of the expected calibration error, of equal width (Guo et al. 2017, ICML)."""


def one_hot(labels: IntArray, count: int) -> Float64Array:
    """Return labels (…, N) as weights of shape (…, K, N): 1 for each row's class, else 0."""
    encoded: Float64Array = (labels[..., None, :] == np.arange(count)[:, None]).astype(np.float64)
    return encoded


def scores(probabilities: Float64Array, weights: Float64Array) -> dict[str, Float64Array]:
    """Return every score of each weighting.

    Args:
        probabilities: float64 of shape (N, K).
        weights: How much each row counts as a row of each class, float64 of shape (weightings, K, N).

    Returns:
        Of shape (weightings, 1), or (weightings, K) for those by class.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        confusion = confusion_matrices(probabilities, weights)
        by_class = _by_class(confusion) | {"auroc": auroc(probabilities, weights)}
        support = confusion.sum(2)
        # a class that does not occur and is not predicted is left out of the mean, as in scikit-learn
        occurs = (support > 0) | (confusion.sum(1) > 0)
        overall = {
            "accuracy": accuracy(confusion),
            "balanced_accuracy": _mean_where(by_class["recall"], support > 0),
            "weighted_f1": weighted_f1(confusion),
            "macro_f1": _mean_where(by_class["f1"], occurs),
            "auroc_ovr": _mean_where(by_class["auroc"], ~np.isnan(by_class["auroc"])),
            "quadratic_kappa": _quadratic_kappa(confusion),
            "log_loss": log_loss(probabilities, weights),
            "calibration_error": calibration_error(probabilities, weights),
        }
    return {name: values[:, None] for name, values in overall.items()} | by_class


def _mean_where(values: Float64Array, where: BoolArray) -> Float64Array:
    mean: Float64Array = np.where(where, values, 0).sum(1) / where.sum(1)
    return mean


def confusion_matrices(probabilities: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the confusion matrix of each weighting, of shape (…, K, K), from weights of shape (…, K, N)."""
    confusion: Float64Array = weights @ np.eye(probabilities.shape[1])[probabilities.argmax(1)]
    return confusion


def accuracy(confusion: Float64Array) -> Float64Array:
    """Return the share on the diagonal of each confusion matrix, of shape (weightings,)."""
    share: Float64Array = np.trace(confusion, axis1=1, axis2=2) / confusion.sum((1, 2))
    return share


def weighted_f1(confusion: Float64Array) -> Float64Array:
    """Return the mean F1 over classes, weighted by their support, of shape (weightings,)."""
    support = confusion.sum(2)
    mean: Float64Array = (_by_class(confusion)["f1"] * support).sum(1) / support.sum(1)
    return mean


def _by_class(confusion: Float64Array) -> dict[str, Float64Array]:
    correct = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted = confusion.sum(2), confusion.sum(1)
    return {
        "precision": np.where(predicted > 0, correct / predicted, 0.0),
        "recall": np.where(support > 0, correct / support, np.nan),
        "f1": np.where(support + predicted > 0, 2 * correct / (support + predicted), 0.0),
    }


def auroc(probabilities: Float64Array, weights: Float64Array) -> Float64Array:
    """Return each class's area under the ROC curve against the rest (Mann-Whitney, ties count half).

    Args:
        probabilities: Of the first k of K classes, float64 of shape (N, k).
        weights: How much each row counts as a row of each class, float64 of shape (weightings, K, N).

    Returns:
        float64 of shape (weightings, k); NaN where a class does not occur, or nothing else does.
    """
    areas, every = [], weights.sum(1)
    for number in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, number], kind="stable")
        _, ties = np.unique(probabilities[order, number], return_index=True)
        positive = np.add.reduceat(weights[:, number, order], ties, axis=1)
        negative = np.add.reduceat(every[:, order], ties, axis=1) - positive
        below = np.cumsum(negative, axis=1) - negative
        areas.append((positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1)))
    return np.stack(areas, axis=1)


def _quadratic_kappa(confusion: Float64Array) -> Float64Array:
    """Return Cohen's kappa with quadratic weights: stages are ordered, so a miss by two counts four times."""
    count = confusion.shape[1]
    distance = (np.arange(count)[:, None] - np.arange(count)) ** 2
    expected = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None, :] / confusion.sum((1, 2))[:, None, None]
    kappa: Float64Array = 1 - (distance * confusion).sum((1, 2)) / (distance * expected).sum((1, 2))
    return kappa


def log_loss(probabilities: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the mean of -log(probability of the true class), shape (weightings,); arguments as :func:`auroc`."""
    losses = -np.log(np.clip(probabilities, np.finfo(np.float32).eps, 1.0))
    loss: Float64Array = np.tensordot(weights, losses.T, 2) / weights.sum((1, 2))
    return loss


def calibration_error(probabilities: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the mean gap between confidence and accuracy over bins of confidence, weighted by their size."""
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    in_bin = np.eye(CALIBRATION_BINS)[bins]
    gaps = weights.sum(1) @ (in_bin * confidence[:, None])
    for number in range(probabilities.shape[1]):
        gaps -= weights[:, number] @ (in_bin * (predicted == number)[:, None])
    error: Float64Array = np.abs(gaps).sum(1) / weights.sum((1, 2))
    return error
