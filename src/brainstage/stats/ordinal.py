"""Probabilities of ordered stages from a score: the proportional odds model."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from brainstage.core.arrays import Float64Array, IntArray

_LEAST = 1e-9
"""Least probability of a stage that a loss is taken of."""


class ProportionalOdds:
    """The probability of each stage given a score: P(stage > k) = expit(slope · score - threshold of k).

    McCullagh 1980, J. R. Stat. Soc. B 42, 109. Fitted by maximum likelihood with a weak penalty (one thousandth of
    the parameters' mean square), which keeps the thresholds of stages with hardly any people finite.
    """

    def __init__(self, scores: Float64Array, labels: IntArray, classes: int) -> None:
        """Fit the slope and the thresholds.

        Args:
            scores: float64 of shape (n,).
            labels: Stage of each score, from 0 to classes - 1, int64 of shape (n,).
            classes: Number of stages.
        """
        from scipy.optimize import minimize  # networks do not wait for its import

        self._mean, self._spread = float(scores.mean()), float(scores.std()) or 1.0
        above = np.array([(labels > k).mean() for k in range(classes - 1)]).clip(1e-3, 1 - 1e-3)
        first, *others = np.log(1 / above - 1)
        start = [1.0, first, *np.log(np.diff([first, *others]).clip(0.05))]

        scaled = self._scaled(scores)

        def penalised_loss(parameters: Float64Array) -> tuple[float, Float64Array]:
            loss, gradient = _loss(parameters, scaled, labels)
            penalty, slope = 1e-3 * np.square(parameters).mean(), 2e-3 * parameters / len(parameters)
            return loss + float(penalty), gradient + slope

        self._parameters: Float64Array = minimize(penalised_loss, start, method="BFGS", jac=True).x

    def predict(self, scores: Float64Array) -> Float64Array:
        """Return the probabilities of the stages, float64 of shape (n, classes)."""
        return _probabilities(self._parameters, self._scaled(scores))

    def severity(self, scores: Float64Array) -> Float64Array:
        """Return the log-odds that the probabilities of scores come from, float64 of shape (n,).

        P(stage > k) = expit(severity - threshold of k): what adds 0.7 to it doubles the odds of a later stage.
        """
        severity: Float64Array = self._parameters[0] * self._scaled(scores)
        return severity

    @property
    def severity_per_score(self) -> float:
        """What one unit of the score adds to the severity."""
        return float(self._parameters[0] / self._spread)

    @property
    def thresholds(self) -> Float64Array:
        """The severity at which later stages than each but the last are as likely as not, (classes - 1,)."""
        return _thresholds(self._parameters)

    def _scaled(self, scores: Float64Array) -> Float64Array:
        scaled: Float64Array = (scores - self._mean) / self._spread
        return scaled


def _probabilities(parameters: Float64Array, scores: Float64Array) -> Float64Array:
    """Return the stages' probabilities for the slope, the first threshold and the logarithms of the steps."""
    later = expit(parameters[0] * scores[:, None] - _thresholds(parameters))
    edges = np.concatenate([np.ones((len(scores), 1)), later, np.zeros((len(scores), 1))], axis=1)
    probabilities: Float64Array = edges[:, :-1] - edges[:, 1:]
    return probabilities


def _loss(parameters: Float64Array, scores: Float64Array, labels: IntArray) -> tuple[float, Float64Array]:
    """Return the mean negative log-likelihood of the stages, and its gradient in the parameters."""
    ends = np.array([-np.inf, *_thresholds(parameters), np.inf])
    odds, classes = parameters[0] * scores, len(ends) - 1
    above, beyond = expit(odds - ends[labels]), expit(odds - ends[labels + 1])
    fitted = (above - beyond).clip(_LEAST)
    inverse = np.where(fitted > _LEAST, 1 / fitted, 0) / len(labels)
    upper, lower = above * (1 - above) * inverse, beyond * (1 - beyond) * inverse
    of_thresholds = np.bincount(labels, upper, classes)[1:] - np.bincount(labels, lower, classes)[:-1]
    of_steps = np.exp(parameters[2:]) * np.cumsum(of_thresholds[::-1])[::-1][1:]
    gradient = np.concatenate([[((lower - upper) * scores).sum(), of_thresholds.sum()], of_steps])
    return float(-np.log(fitted).mean()), gradient


def _thresholds(parameters: Float64Array) -> Float64Array:
    thresholds: Float64Array = parameters[1] + np.cumsum([0.0, *np.exp(parameters[2:])])
    return thresholds
