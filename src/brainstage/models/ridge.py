"""Ridge regression on people's features: their scaling, the line, and what is believed of effects in few features.

An effect in a small part of the brain is in a few of ten thousand features. Ridge regression shrinks all of them
alike, and from some dozens of people it cannot tell such an effect from chance. Where a share of the weight goes to
the features that are correlated with the target among the training people, as in the adaptive lasso (Zou 2006, JASA
101, 1418), it can; a weak effect in all features is then seen less. So the patient model chooses the share by its
training people (``docs/explanation/levels.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

from brainstage.core.arrays import Float32Array, Float64Array, FloatArray

BLOCKS = (0.175, 0.175, 0.175, 0.175, 0.3)
"""Shares of the blocks of features: edges by cell and slab, together 0.7, and tones."""
RIDGE = 0.2
"""Strength of the ridge, where the mean square length of a person's features is 1."""
FOCAL_POWER = 8
"""A feature is scaled by its correlation with the target to this power."""


@dataclass(frozen=True)
class FeatureScaling:
    """Features in units of their spread among the training people; each block counts by its share, however long."""

    means: list[Float32Array]
    scales: list[Float32Array]

    @classmethod
    def of(cls, blocks: list[Float32Array], directions: list[Float32Array]) -> FeatureScaling:
        """Measure people's means over acquisitions, (n, …) a block, and the directions within people, (d, …)."""
        variances = [
            block.var(axis=0) + np.square(within).sum(axis=0)
            for block, within in zip(blocks, directions, strict=True)
        ]
        return cls([block.mean(axis=0) for block in blocks], scales_of(variances))

    def __call__(self, blocks: list[Float32Array]) -> Float32Array:
        """Return the blocks of n people scaled and joined, float32 of shape (n, d)."""
        parts = [(b - mean) * scale for b, mean, scale in zip(blocks, self.means, self.scales, strict=True)]
        scaled: Float32Array = np.concatenate(parts, axis=1)
        return scaled

    def directions(self, blocks: list[Float32Array]) -> Float32Array:
        """Return directions in the same units."""
        return FeatureScaling([np.zeros_like(mean) for mean in self.means], self.scales)(blocks)


def scales_of(variances: Sequence[FloatArray]) -> list[Float32Array]:
    """Return what the features of each block are multiplied by, from their variances over all acquisitions."""
    scales = []
    for share, variance in zip(BLOCKS, variances, strict=True):
        spread = np.sqrt(variance)
        varies = spread > 1e-3 * spread.max()  # the corners of a picture are black in everyone
        length = np.sqrt(share / max(1, varies.sum()))
        scales.append(np.where(varies, length / np.where(varies, spread, 1), 0).astype(np.float32))
    return scales


@dataclass(frozen=True)
class RidgeLine:
    """Ridge regression on people, and on directions that are to change nothing."""

    weights: Float64Array
    intercept: float

    @classmethod
    def fit(cls, features: FloatArray, targets: Float64Array, directions: FloatArray) -> RidgeLine:
        """Fit to n people.

        The equations are solved in their primal form where people outnumber features, else in their dual form.

        Args:
            features: Means of their acquisitions, shape (n, d).
            targets: float64 of shape (n,).
            directions: In which acquisitions move a person, shape (k, d): the sum of their outer products is the
                covariance within a person.
        """
        centre, middle = features.mean(axis=0, dtype=np.float64), targets.mean()
        rows = np.concatenate([features - centre, np.sqrt(len(features)) * directions.astype(np.float64)])
        wanted = np.concatenate([targets - middle, np.zeros(len(directions))])
        weights = _solve(rows, wanted)
        return cls(weights, float(middle - centre @ weights))

    def __call__(self, features: FloatArray) -> Float64Array:
        """Return the scores of n people, float64 of shape (n,), from their scaled features, shape (n, d)."""
        scores: Float64Array = features @ self.weights + self.intercept
        return scores

    def spread(self, directions: FloatArray) -> float:
        """Return the standard deviation of a person's score over acquisitions."""
        return float(np.linalg.norm(directions @ self.weights))


def _solve(rows: Float64Array, wanted: Float64Array) -> Float64Array:
    """Return the weights of ridge regression without an intercept, of rows (n, d), float64 of shape (d,)."""
    count, width = rows.shape
    weights: Float64Array
    if count > width:
        weights = solve(rows.T @ rows + RIDGE * np.eye(width), rows.T @ wanted, assume_a="pos")
    else:
        weights = rows.T @ solve(rows @ rows.T + RIDGE * np.eye(count), wanted, assume_a="pos")
    return weights


def focal_scales(
    variance: Float64Array, covariance: Float64Array, targets: Float64Array, share: float
) -> Float64Array:
    """Return what each feature is multiplied by, float64 of shape (d,); the people's mean square length stays.

    Args:
        variance: Of each feature over n people, times n, shape (d,).
        covariance: Of each feature with the targets, times n, shape (d,).
        targets: Less their mean, shape (n,).
        share: Share of the features' variance that goes to those correlated with the target; 0 believes all alike.
    """
    lengths = np.sqrt(variance * np.square(targets).sum())
    correlation = np.abs(covariance) / np.where(lengths > 0, lengths, 1)
    focal = correlation ** (2 * FOCAL_POWER)
    focal *= variance.sum() / max(float((focal * variance).sum()), 1e-300)
    scales: Float64Array = np.sqrt(1 - share + share * focal)
    return scales
