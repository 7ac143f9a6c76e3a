"""Training people at some levels, in coordinates in which ridge regression on ten thousand features is cheap.

Ridge regression asks of features only for their inner products. So people whose features are ``J`` may stand in any
coordinates ``R`` with ``R Rᵀ = J Jᵀ``, the fewer the cheaper. Few people get one coordinate a person
(:class:`FewPeople`); then the cost of a fit grows with the cube of their number. Many people are described by the
means of their slabs of levels, of which all features are linear functions (:class:`ManyPeople`); then it grows with
their number. Both give the line that ridge regression on the features themselves gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from brainstage.core.arrays import Float32Array, Float64Array, FloatArray, IntArray
from brainstage.models.ridge import FeatureScaling, RidgeLine, focal_scales, scales_of

_JITTER = 1e-10
"""What is added to inner products, as a share of their mean: some coordinates may be functions of others."""


class Coordinates(NamedTuple):
    """People and directions in ``k`` coordinates.

    Attributes:
        people: float64 of shape (n, k).
        directions: float64 of shape (d, k).
        to_features: From weights of the coordinates (k,) to those of the scaled features (p,).
    """

    people: Float64Array
    directions: Float64Array
    to_features: Callable[[Float64Array], Float64Array]


class People(Protocol):
    """Training people at some levels."""

    def coordinates(self, targets: Float64Array, rows: IntArray | None, focal_share: float) -> Coordinates:
        """Return all people in coordinates that are fitted in.

        Args:
            targets: float64 of shape (n,).
            rows: Those whose targets may be seen; None for all.
            focal_share: Share of the features' variance that goes to those correlated with the target.
        """


def fit_line(people: People, targets: Float64Array, focal_share: float = 0.0) -> RidgeLine:
    """Return the line of all people on scaled features.

    Args:
        people, targets, focal_share: As for :meth:`People.coordinates`.
    """
    coordinates = people.coordinates(targets, None, focal_share)
    line = RidgeLine.fit(coordinates.people, targets, coordinates.directions)
    return RidgeLine(coordinates.to_features(line.weights), line.intercept)


def out_of_fold(
    people: People, folds: Iterable[tuple[IntArray, IntArray]], targets: Float64Array, focal_share: float = 0.0
) -> tuple[Float64Array, Float64Array]:
    """Return each person's score and its spread over acquisitions, from a line fitted to others.

    Args:
        people, targets, focal_share: As for :meth:`People.coordinates`.
        folds: Rows that are fitted to, and rows that are held out.

    Returns:
        Two arrays of float64 of shape (n,).
    """
    scores, spread = np.empty(len(targets)), np.empty(len(targets))
    for rest, held in folds:
        rows, directions, _ = people.coordinates(targets, rest, focal_share)
        line = RidgeLine.fit(rows[rest], targets[rest], directions)
        scores[held], spread[held] = line(rows[held]), line.spread(directions)
    return scores, spread


class FewPeople:
    """People fewer than what their features are functions of."""

    def __init__(self, features: FloatArray, directions: FloatArray) -> None:
        """Take scaled features of people, (n, p), and of directions, (d, p)."""
        self._count = len(features)
        self._joint = np.concatenate([features, directions], dtype=np.float64)

    def coordinates(self, targets: Float64Array, rows: IntArray | None, focal_share: float) -> Coordinates:
        """Return one coordinate a person and direction; with a focal share, the features themselves, weighted.

        Args:
            targets, rows, focal_share: As for :meth:`People.coordinates`.
        """
        if not focal_share:
            return self._alike
        shown = slice(self._count) if rows is None else rows
        centred = self._joint[: self._count][shown]
        centred -= centred.mean(axis=0)
        wanted = targets[shown] - targets[shown].mean()
        weights = focal_scales(np.square(centred).sum(axis=0), wanted @ centred, wanted, focal_share)
        weighted = self._joint * weights
        return Coordinates(weighted[: self._count], weighted[self._count :], lambda line: line * weights)

    @cached_property
    def _alike(self) -> Coordinates:
        root = _root_of(self._joint @ self._joint.T)
        return Coordinates(root[: self._count], root[self._count :], lambda line: self._joint.T @ _undo(root, line))


class Group(NamedTuple):
    """Some slabs of levels that share no feature with others.

    Attributes:
        people: Their means in ``k`` numbers, float32 of shape (n, k).
        directions: The same of the directions, float32 of shape (d, k).
        blocks: The features of each number, by block, float32 of shape (k, …).
    """

    people: Float32Array
    directions: Float32Array
    blocks: list[Float32Array]


class ManyPeople:
    """People more than what their features are functions of.

    Attributes:
        scaling: That of their features.
    """

    def __init__(self, groups: Sequence[Group], offset: Sequence[FloatArray]) -> None:
        """Take people in numbers that their features are linear functions of.

        Args:
            groups: The groups of slabs, each with ``b`` blocks of features.
            offset: Features, by block, of someone whose numbers are all 0, each of shape (1, …).
        """
        centres = [group.people.mean(axis=0, dtype=np.float64) for group in groups]
        self._people = [group.people - centre for group, centre in zip(groups, centres, strict=True)]
        self._directions = [group.directions.astype(np.float64) for group in groups]
        products = [
            people.T @ people / len(people) + directions.T @ directions
            for people, directions in zip(self._people, self._directions, strict=True)
        ]
        blocks = list(zip(*(group.blocks for group in groups), strict=True))  # by block, then by group
        means = [
            np.concatenate([centre @ part for centre, part in zip(centres, block, strict=True)]) + base[0]
            for block, base in zip(blocks, offset, strict=True)
        ]
        variances = [
            np.concatenate([_variance(product, part) for product, part in zip(products, block, strict=True)])
            for block in blocks
        ]
        self.scaling = FeatureScaling([mean.astype(np.float32) for mean in means], scales_of(variances))
        self._widths = [[part.shape[1] for part in block] for block in blocks]
        scales = [_split(scale, widths) for scale, widths in zip(self.scaling.scales, self._widths, strict=True)]
        self._features = [
            np.concatenate(
                [part * scale[number] for part, scale in zip(group.blocks, scales, strict=True)],
                axis=1,
                dtype=np.float64,
            )
            for number, group in enumerate(groups)
        ]

    def coordinates(self, targets: Float64Array, rows: IntArray | None, focal_share: float) -> Coordinates:
        """Return as many coordinates as there are numbers in all groups.

        Args:
            targets, rows, focal_share: As for :meth:`People.coordinates`.
        """
        if not focal_share:
            return self._alike
        shown = slice(None) if rows is None else rows
        wanted = targets[shown] - targets[shown].mean()
        variance, covariance = [], []
        for people, features in zip(self._people, self._features, strict=True):
            centred = people[shown] - people[shown].mean(axis=0)
            variance.append(_variance(centred.T @ centred, features))
            covariance.append(wanted @ centred @ features)
        weights = focal_scales(np.concatenate(variance), np.concatenate(covariance), wanted, focal_share)
        return self._weighted(_split(weights, [len(part) for part in variance]))

    @cached_property
    def _alike(self) -> Coordinates:
        return self._weighted([np.ones(features.shape[1]) for features in self._features])

    def _weighted(self, weights: list[Float64Array]) -> Coordinates:
        """Return coordinates of people whose features are multiplied by weights, (…,) a group."""
        features = [part * weight for part, weight in zip(self._features, weights, strict=True)]
        roots = [_root_of(part @ part.T) for part in features]

        def to_features(line: Float64Array) -> Float64Array:
            parts = _split(line, [len(root) for root in roots])
            groups = [
                weight * (_undo(root, part) @ feature)
                for weight, root, part, feature in zip(weights, roots, parts, features, strict=True)
            ]
            return self._by_block(groups)

        people, directions = (
            np.concatenate([part @ root for part, root in zip(parts, roots, strict=True)], axis=1)
            for parts in (self._people, self._directions)
        )
        return Coordinates(people, directions, to_features)

    def _by_block(self, groups: list[Float64Array]) -> Float64Array:
        """Return values of features that stand group by group in the order of the scaling, block by block."""
        widths = list(zip(*self._widths, strict=True))  # by group, then by block
        parts = [_split(group, own) for group, own in zip(groups, widths, strict=True)]
        return np.concatenate([part for block in zip(*parts, strict=True) for part in block])


def _variance(product: Float64Array, features: FloatArray) -> Float64Array:
    """Return the variance of features, (p,), from that of the numbers they are functions of, (k, k)."""
    variance: Float64Array = ((product @ features) * features).sum(axis=0)
    return variance.clip(0)


def _root_of(products: Float64Array) -> Float64Array:
    """Return a lower triangle whose product with its transpose is this matrix, (k, k)."""
    products[np.diag_indices_from(products)] += _JITTER * max(float(np.trace(products)) / len(products), 1e-30)
    root: Float64Array = cholesky(products, lower=True)
    return root


def _undo(root: Float64Array, line: Float64Array) -> Float64Array:
    """Return the coefficients, (k,), of the rows that a root was taken of, from weights of its columns."""
    coefficients: Float64Array = solve_triangular(root, line, lower=True, trans="T", check_finite=False)
    return coefficients


def _split(values: FloatArray, widths: Sequence[int]) -> list[Float64Array]:
    return np.split(values, list(accumulate(widths))[:-1])
