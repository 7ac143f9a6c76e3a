"""Performance of a finished model on people it has never seen, for an outcome that is present or absent.

Discrimination, calibration and clinical usefulness, as TRIPOD+AI asks of an external validation (Collins et al.
2024, BMJ 385, e078378). Arrays in, numbers out: ``positive`` says whether each row has the outcome, ``probability``
what the model gave it. Intervals of a :class:`Score` are the bootstrap over people of
:mod:`brainstage.stats.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import NormalDist

import numpy as np

from brainstage.core.arrays import BoolArray, Float64Array
from brainstage.stats.age_and_sex import regression
from brainstage.stats.metrics import DRAWS, FEW, LEVEL, Score, intervals, resamples
from brainstage.stats.weighted import CALIBRATION_BINS, auroc, log_loss

THRESHOLD = 0.5
"""Probability from which on a row is called positive."""
DECISION_THRESHOLDS = tuple(step / 20 for step in range(1, 20))
_SMALLEST_PROBABILITY = 1e-7
_NEWTON_STEPS = 100


@dataclass(frozen=True)
class CalibrationLine:
    """How the log odds of the outcome depend on those that the model gave: 0 and 1 where it is calibrated.

    Attributes:
        intercept: Calibration in the large: intercept with the slope fixed at 1. Below 0 where risks are
            overestimated.
        slope: Calibration slope. Below 1 where probabilities are too extreme.
    """

    intercept: Score
    slope: Score


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of similar probability.

    Attributes:
        predicted: Mean probability.
        observed: Share of rows with the outcome.
        low: Lower end of the 95 % Wilson interval of that share.
        high: Its upper end.
        count: Number of rows.
    """

    predicted: float
    observed: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit for each threshold probability: true positives a row, less false positives at their odds.

    Attributes:
        thresholds: Probability from which on somebody is treated, float64 of shape (m,).
        model: Net benefit of treating those whom the model gives at least the threshold, float64 of shape (m,).
        treat_all: Net benefit of treating everyone, float64 of shape (m,).
        treat_none: Net benefit of treating nobody, which is 0, float64 of shape (m,).
    """

    thresholds: Float64Array
    model: Float64Array
    treat_all: Float64Array
    treat_none: Float64Array


@dataclass(frozen=True)
class CovariateComparison:
    """What the model knows that age and sex do not, on the rows whose covariates are all known.

    Attributes:
        people: Number of people with known covariates.
        scans: Number of their rows.
        auroc: Area under the ROC curve of ``covariates``, ``model`` and ``both``, and the differences
            ``both - covariates`` and ``model - covariates``; None where there are too few people.
        reason: Why there is no comparison; None where there is one.
    """

    people: int
    scans: int
    auroc: Mapping[str, Score] | None = None
    reason: str | None = None


def threshold_scores(
    positive: BoolArray,
    probability: Float64Array,
    groups: Sequence[str] | None = None,
    *,
    threshold: float = THRESHOLD,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Score]:
    """Return discrimination, decisions at a threshold, and the distance of the probabilities from the outcome.

    Args:
        positive: Whether each row has the outcome, bool of shape (N,).
        probability: Predicted probability of the outcome, float64 of shape (N,).
        groups: Person of each row, whom the bootstrap draws whole; None where each row is a person.
        threshold: Probability from which on a row is called positive.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        ``auroc``, ``balanced_accuracy``, ``sensitivity``, ``specificity``, ``ppv``, ``npv``, ``brier`` (Brier 1950,
        Monthly Weather Review 78, 1) and ``log_loss``. A score is NaN where what it divides by does not occur: no
        positive rows, no negative rows, or no rows called so; draws where it is NaN do not count for its interval.
    """

    def scores(weights: Float64Array) -> dict[str, Float64Array]:
        called = probability >= threshold
        by_outcome = _by_outcome(positive, weights)
        true_positive, false_positive = (by_outcome @ called).T
        false_negative, true_negative = (by_outcome @ ~called).T
        sensitivity = true_positive / (true_positive + false_negative)
        specificity = true_negative / (true_negative + false_positive)
        return {
            "auroc": _auroc(positive, probability, weights),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": true_positive / (true_positive + false_positive),
            "npv": true_negative / (true_negative + false_negative),
            "brier": weights @ np.square(probability - positive) / weights.sum(axis=1),
            "log_loss": log_loss(np.stack([probability, 1 - probability], axis=1), by_outcome),
        }

    return _bootstrap(scores, len(positive), groups, draws, seed)


def calibration_line(
    positive: BoolArray,
    probability: Float64Array,
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> CalibrationLine:
    """Return calibration slope and calibration in the large: the outcome regressed on the predicted log odds.

    Logistic regression by maximum likelihood (Cox 1958, Biometrika 45, 562; Van Calster et al. 2019, BMC Medicine
    17, 230). NaN where the maximum does not exist: one outcome does not occur, or, for the slope, the predictions
    separate the outcomes (Albert and Anderson 1984, Biometrika 71, 1). Probabilities of 0 and 1 count as 1e-7 and
    1 - 1e-7.

    Args:
        positive: Whether each row has the outcome, bool of shape (N,).
        probability: Predicted probability of the outcome, float64 of shape (N,).
        groups: Person of each row, whom the bootstrap draws whole; None where each row is a person.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    logit = _logit(probability)

    def line(weights: Float64Array) -> dict[str, Float64Array]:
        occurs = (weights @ positive > 0) & (weights @ ~positive > 0)
        intercept, slope = np.full((2, len(weights)), np.nan)
        intercept[occurs] = _fit_logistic(positive, logit, weights[occurs], fixed_slope=True)[0]
        overlap = _overlap(positive, logit, weights)
        slope[overlap] = _fit_logistic(positive, logit, weights[overlap], fixed_slope=False)[1]
        return {"intercept": intercept, "slope": slope}

    return CalibrationLine(**_bootstrap(line, len(positive), groups, draws, seed))


def calibration_curve(positive: BoolArray, probability: Float64Array, *, bins: int = 10) -> list[CalibrationBin]:
    """Return observed shares beside predicted ones in bins of about equally many rows, in ascending order.

    Rows of equal probability are in one bin, so that there may be fewer bins than asked for. The interval (Wilson
    1927, JASA 22, 209) takes rows for independent: it is too narrow where a person has several.

    Args:
        positive: Whether each row has the outcome, bool of shape (N,).
        probability: Predicted probability of the outcome, float64 of shape (N,).
        bins: Number of bins.
    """
    edges = np.quantile(probability, np.arange(1, bins) / bins)
    numbers = np.searchsorted(edges, probability)
    return [_bin(positive[numbers == number], probability[numbers == number]) for number in np.unique(numbers)]


def expected_calibration_error(
    positive: BoolArray,
    probability: Float64Array,
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Score:
    """Return the mean gap between predicted probability and observed share, over 15 bins of equal width.

    Naeini et al. 2015, AAAI 29, 2901. The bins are of the probability of the outcome, not of the likelier answer as
    in :mod:`brainstage.stats.weighted`: there 0.3 and 0.7 share a bin, and risks overestimated in both cancel.

    Args:
        positive: Whether each row has the outcome, bool of shape (N,).
        probability: Predicted probability of the outcome, float64 of shape (N,).
        groups: Person of each row, whom the bootstrap draws whole; None where each row is a person.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.eye(CALIBRATION_BINS)[bins] * (probability - positive)[:, None]

    def error(weights: Float64Array) -> dict[str, Float64Array]:
        return {"error": np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)}

    return _bootstrap(error, len(positive), groups, draws, seed)["error"]


def decision_curve(
    positive: BoolArray, probability: Float64Array, thresholds: Sequence[float] = DECISION_THRESHOLDS
) -> DecisionCurve:
    """Return the net benefit of the model, of treating everyone and of treating nobody.

    Vickers and Elkin 2006, Medical Decision Making 26, 565.

    Args:
        positive: Whether each row has the outcome, bool of shape (N,).
        probability: Predicted probability of the outcome, float64 of shape (N,).
        thresholds: m probabilities above 0 and below 1, from which on somebody would be treated.
    """
    limits = np.array(thresholds, dtype=np.float64)
    odds = limits / (1 - limits)
    treated = probability >= limits[:, None]
    return DecisionCurve(
        thresholds=limits,
        model=(treated & positive).mean(axis=1) - (treated & ~positive).mean(axis=1) * odds,
        treat_all=positive.mean() - (~positive).mean() * odds,
        treat_none=np.zeros_like(limits),
    )


def compare_with_covariates(
    positive: BoolArray,
    probability: Float64Array,
    covariates: Float64Array,
    groups: Sequence[str] | None = None,
    *,
    folds: int = 5,
    draws: int = DRAWS,
    seed: int = 0,
) -> CovariateComparison:
    """Compare the model with what age and sex alone tell, and with both together.

    Logistic regressions of the outcome on the covariates, and on the covariates and the model's log odds, each
    predicting people whom it was not fitted to (cross-fitting by person). They are fitted to this very cohort, the
    model is not, so the comparison favours the covariates. Intervals draw people; the regressions stay as they are
    fitted.

    Args:
        positive: Whether each row has the outcome, bool of shape (N,).
        probability: Predicted probability of the outcome, float64 of shape (N,).
        covariates: Columns to fit, such as age, its square and sex as 0 or 1, in any unit, NaN where not known,
            float64 of shape (N, k) with k of 1 or more. Only rows without NaN take part.
        groups: Person of each row, who is in one fold and whom the bootstrap draws whole; None where each row is a
            person.
        folds: Number of parts that people are dealt into.
        draws: Number of bootstrap draws.
        seed: Seed of the folds and of the draws.

    Returns:
        The areas and their differences; a reason instead where fewer than 10 people have the outcome, or fewer than
        10 do not.
    """
    known = np.flatnonzero(~np.isnan(covariates).any(axis=1))
    people = [str(row) if groups is None else groups[row] for row in known.tolist()]
    positive, probability, covariates = positive[known], probability[known], covariates[known]
    number, scans = len(set(people)), len(people)
    having, lacking = ({people[row] for row in np.flatnonzero(rows)} for rows in (positive, ~positive))
    if min(len(having), len(lacking)) < FEW:
        reason = (
            f"of the people with known covariates {len(having)} have the outcome and {len(lacking)} do not; "
            f"a comparison needs {FEW} of each"
        )
        return CovariateComparison(number, scans, reason=reason)
    with_model = np.column_stack([covariates, _logit(probability)])
    predictions = {
        "covariates": _cross_fit(positive, covariates, people, folds, seed),
        "model": probability,
        "both": _cross_fit(positive, with_model, people, folds, seed),
    }

    def areas(weights: Float64Array) -> dict[str, Float64Array]:
        area = {name: _auroc(positive, prediction, weights) for name, prediction in predictions.items()}
        return area | {f"{name} - covariates": area[name] - area["covariates"] for name in ("both", "model")}

    return CovariateComparison(number, scans, _bootstrap(areas, scans, people, draws, seed))


def _bootstrap(
    statistics: Callable[[Float64Array], Mapping[str, Float64Array]],
    rows: int,
    groups: Sequence[str] | None,
    draws: int,
    seed: int,
) -> dict[str, Score]:
    """Return each statistic with its interval.

    Args:
        statistics: From weights of the rows, (weightings, rows), to the values of each name, (weightings,).
        rows: Number of rows.
        groups: Person of each row; None where each row is a person.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [statistics(part) for part in chain([np.ones((1, rows))], resamples(rows, groups, draws, seed))]
    values = {name: np.concatenate([part[name] for part in parts])[:, None] for name in parts[0]}
    return {name: intervals(column[0], column[1:])[0] for name, column in values.items()}


def _by_outcome(positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Return the weights of rows with the outcome, and of those without: (weightings, 2, N), else 0."""
    split: Float64Array = weights[:, None] * np.stack([positive, ~positive])
    return split


def _auroc(positive: BoolArray, prediction: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the area under the ROC curve of each weighting, (weightings,)."""
    return auroc(prediction[:, None], _by_outcome(positive, weights))[:, 0]


def _logit(probability: Float64Array) -> Float64Array:
    inside = np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    log_odds: Float64Array = np.log(inside) - np.log1p(-inside)
    return log_odds


def _overlap(positive: BoolArray, logit: Float64Array, weights: Float64Array) -> BoolArray:
    """Return in which weightings no threshold separates the outcomes, (weightings,)."""

    def extremes(rows: BoolArray) -> tuple[Float64Array, Float64Array]:
        drawn = (weights > 0) & rows
        return np.where(drawn, logit, np.inf).min(axis=1), np.where(drawn, logit, -np.inf).max(axis=1)

    (lowest_with, highest_with), (lowest_without, highest_without) = extremes(positive), extremes(~positive)
    overlap: BoolArray = (highest_without > lowest_with) & (highest_with > lowest_without)
    return overlap


def _fit_logistic(
    positive: BoolArray, logit: Float64Array, weights: Float64Array, *, fixed_slope: bool
) -> tuple[Float64Array, Float64Array]:
    """Fit P(positive) = expit(intercept + slope · logit) by maximum likelihood, once for each weighting.

    Newton's method. A step that changes some row's log odds by d is shortened to log(1 + d), which cannot overshoot
    since the curvature changes at most by exp(d) (Sun and Tran-Dinh 2019, Mathematical Programming 178, 145). The
    maximum must exist.

    Returns:
        Intercept and slope, each of shape (weightings,).
    """
    from scipy.special import expit

    intercept, slope = np.zeros(len(weights)), np.ones(len(weights))
    for _ in range(_NEWTON_STEPS):
        fitted = expit(intercept[:, None] + slope[:, None] * logit)
        residual, curvature = weights * (positive - fitted), weights * fitted * (1 - fitted)
        centre = curvature @ logit / curvature.sum(axis=1)
        centred = logit - centre[:, None]
        tilt = (residual * centred).sum(axis=1) / (curvature * np.square(centred)).sum(axis=1)
        tilt = np.zeros_like(tilt) if fixed_slope else tilt
        shift = residual.sum(axis=1) / curvature.sum(axis=1) - tilt * centre
        change = np.abs(shift[:, None] + tilt[:, None] * logit).max(axis=1)
        shortened = np.where(change > 0, np.log1p(change) / change, 1)
        intercept, slope = intercept + shortened * shift, slope + shortened * tilt
        if change.max(initial=0) < 1e-8:
            break
    return intercept, slope


def _bin(positive: BoolArray, probability: Float64Array) -> CalibrationBin:
    """Return the bin of some rows, with Wilson's interval of the observed share."""
    count, share = len(positive), float(positive.mean())
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return CalibrationBin(float(probability.mean()), share, float(middle - half), float(middle + half), count)


def _cross_fit(
    positive: BoolArray, columns: Float64Array, people: Sequence[str], folds: int, seed: int
) -> Float64Array:
    """Return the log odds of each row from a logistic regression that was fitted to other people, (N,)."""
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    predicted: Float64Array = cross_val_predict(
        regression(), columns, positive, groups=people, cv=parts, method="decision_function"
    )
    return predicted
