"""How traits vary along one person's levels, learnt from groups of slices, and the odds that two groups are one."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.cluster import KMeans

from brainstage.core.arrays import Float32Array, Float64Array, IntArray
from brainstage.core.cache import scratch_array
from brainstage.core.parallel import parallel_map
from brainstage.datasets.neighbours import Neighbours, largest
from brainstage.datasets.signatures import BLOCK_ROWS, EXACT_LIMIT, blocks, unit

_SEED = 0
_KINDS = 12
"""Kinds of traits; traits of one kind share a kernel."""
_SHIFTS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
"""Shifts between two groups' levels that are tried, in steps."""
_PAIRS_AT_ONCE = 50_000
_FACING_SLICES = 8
"""Slices of each group, nearest to the other group, that are weighed."""
_SHORTLIST = 24
_SHORTLIST_DISTANCES = (2.0, 6.0)
"""Distances, in steps, at which slices are searched for likely ones of the same person."""


class TraitModel:
    """A person's traits as Gaussian processes over levels, learnt from the groups of slices joined so far.

    Each trait has unit variance over all slices and no correlation between people; along one person's levels it
    is correlated by a mixture of Gaussian kernels of several lengths, a constant, and white noise. Traits that vary
    in a similar way share a kernel.
    """

    LENGTHS = 0.75 * 2.0 ** np.arange(7)
    """Lengths of the kernels, in steps between neighbouring slices."""

    def __init__(self, traits: Float32Array, level: Float64Array, members: list[IntArray]) -> None:
        """Learn from groups.

        Args:
            traits: Traits of all slices, shape (n, traits).
            level: Level of each slice in steps, shape (n,).
            members: Rows of each group.
        """
        self.level = level.copy()
        self.traits = traits
        self.kind, self.weights = self._learn(members)
        order = np.argsort(self.kind, kind="stable")
        kinds, self._starts, self._sizes = np.unique(self.kind[order], return_index=True, return_counts=True)
        self._sorted: Float32Array = scratch_array(traits.shape, np.float32)
        self._squares = np.empty((len(traits), len(kinds)), np.float32)
        for rows in blocks(len(traits), BLOCK_ROWS):
            self._sorted[rows] = traits[rows][:, order]
            self._squares[rows] = np.add.reduceat(np.square(self._sorted[rows]), self._starts, axis=1)
        self.weights = self.weights[kinds]
        self.kind = np.searchsorted(kinds, self.kind)
        self._weighed: dict[tuple[bytes, bytes], tuple[float, float]] = {}

    def _learn(self, members: list[IntArray]) -> tuple[IntArray, Float64Array]:
        """Return the kind of each trait, and each kind's weights of the kernels."""
        products, counts = self._products(members)
        enough = counts >= 20
        if not enough.any():
            return np.zeros(self.traits.shape[1], dtype=np.int64), np.zeros((1, len(self.LENGTHS) + 1))
        correlation = products[enough] / counts[enough, None]
        trust = np.sqrt(np.minimum(counts[enough], 500))[:, None]
        kinds = min(_KINDS, correlation.shape[1])
        kind = KMeans(kinds, n_init=2, random_state=_SEED).fit_predict((correlation * trust).T)
        kernels = self._kernels(np.flatnonzero(enough).astype(np.float64) * 0.5 + 0.25) * trust
        weights = np.array(
            [nnls(kernels, correlation[:, kind == number].mean(axis=1) * trust[:, 0])[0] for number in range(kinds)]
        )
        return kind, weights * np.minimum(1, 0.985 / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9))

    def _products(self, members: list[IntArray]) -> tuple[Float64Array, Float64Array]:
        """Sum the products of each trait over pairs of one person's slices, by distance in half steps."""
        products, counts = np.zeros((64, self.traits.shape[1])), np.zeros(64)
        for rows in members:
            first, second = np.triu_indices(len(rows), 1)
            level = spaced(self.level[rows])
            bins = np.abs(level[first] - level[second]) // 0.5
            near = bins < 64
            bins, first, second = bins[near].astype(np.int64), rows[first[near]], rows[second[near]]
            counts += np.bincount(bins, minlength=64)
            for part in blocks(len(bins), _PAIRS_AT_ONCE):
                count = len(bins[part])
                sums = csr_array((np.ones(count), (bins[part], np.arange(count))), shape=(64, count))
                products += sums @ (self.traits[first[part]] * self.traits[second[part]])
        return products, counts

    def _kernels(self, distance: Float64Array) -> Float64Array:
        """Return the kernels at some distances, shape (..., number of kernels)."""
        gaussian = np.exp(-0.5 * np.square(distance[..., None] / self.LENGTHS))
        return np.concatenate([gaussian, np.ones((*distance.shape, 1))], axis=-1)

    def _covariance(self, level: Float64Array) -> Float64Array:
        """Return the covariance of one person's slices at some levels for each kind of trait.

        Args:
            level: Shape (..., n).

        Returns:
            Shape (..., kinds, n, n).
        """
        distance = np.abs(level[..., :, None] - level[..., None, :])
        covariance = np.moveaxis(self._kernels(distance) @ self.weights.T, -1, -3)
        each = np.arange(level.shape[-1])
        covariance[..., each, each] = 1.0
        return covariance

    def _evidence(self, rows: IntArray, levels: Float64Array) -> Float64Array:
        """Return the log likelihood ratio of slices being of one person against each being of another.

        Args:
            rows: The slices, shape (n,).
            levels: Levels they may have, shape (m, n).

        Returns:
            Shape (m,).
        """
        own = self._sorted[rows].T.astype(np.float64)
        products = np.add.reduceat(own[:, :, None] * own[:, None, :], self._starts)
        covariance = self._covariance(spaced(levels))
        _, volume = np.linalg.slogdet(covariance)
        difference = np.linalg.inv(covariance) - np.eye(len(rows))
        ratio: Float64Array = -0.5 * (volume @ self._sizes + np.einsum("mkij,kij->m", difference, products))
        return ratio

    def odds(self, left: IntArray, right: IntArray) -> tuple[float, float]:
        """Weigh whether two groups are one person, by the slices of each that are closest to the other.

        Levels of two groups were estimated separately, so other distances between them are tried, with a normal
        prior of one step.

        Args:
            left: Rows of the first group.
            right: Rows of the second group.

        Returns:
            The log likelihood ratio of one person against two, and by how many steps the second group is to be
            moved up for it.
        """
        key = left.tobytes(), right.tobytes()
        if key not in self._weighed:
            left, right = self._facing(left, right), self._facing(right, left)
            apart = sum(self._evidence(rows, self.level[None, rows])[0] for rows in (left, right))
            rows = np.concatenate([left, right])
            up = 1.0 if self.level[right].mean() >= self.level[left].mean() else -1.0
            levels = self.level[rows] + up * _SHIFTS[:, None] * np.repeat([0.0, 1.0], [len(left), len(right)])
            ratios = self._evidence(rows, levels) - apart - 2.0 * np.square(_SHIFTS)
            best = int(ratios.argmax())
            self._weighed[key] = ratios[best] - np.log(len(_SHIFTS)), up * _SHIFTS[best]
        return self._weighed[key]

    def _facing(self, rows: IntArray, others: IntArray) -> IntArray:
        """Return the slices of one group that are closest to another group in level."""
        distance = np.abs(self.level[rows][:, None] - self.level[others]).min(axis=1)
        return rows[np.argsort(distance, kind="stable")[:_FACING_SLICES]]

    def membership(self, rows: IntArray) -> Float64Array:
        """Return each slice's log likelihood ratio of belonging to the others of its group.

        The slice left out is predicted in closed form (Rasmussen and Williams 2006, equations 5.10 to 5.12).
        """
        inverse = np.linalg.inv(self._covariance(spaced(self.level[rows])))
        by_kind = np.split(self._sorted[rows].astype(np.float64), self._starts[1:], axis=1)
        total = np.zeros(len(rows))
        for traits, weights in zip(by_kind, inverse, strict=True):
            precision = np.diag(weights)
            surprise = np.square(weights @ traits).sum(axis=1) / precision
            total += 0.5 * (traits.shape[1] * np.log(precision) - surprise + np.square(traits).sum(axis=1))
        return total

    def likeliest(self, groups: IntArray, count: int = 8) -> tuple[IntArray, Float32Array]:
        """Find the slices of other groups that are most likely of each slice's person.

        All slices are compared up to :data:`EXACT_LIMIT`, above only those on a shortlist.

        Args:
            groups: Group of each slice, shape (n,).
            count: Number of slices to find.

        Returns:
            Their rows and log likelihood ratios, both of shape (n, count); a ratio is -inf where there are fewer.
        """
        if len(groups) > EXACT_LIMIT:
            return self._likeliest_on_shortlist(groups, count)
        order = np.argsort(self.level, kind="stable")
        bands = np.array_split(order, max(1, round(np.ptp(self.level)), len(order) // BLOCK_ROWS))
        middles = np.array([self.level[band].mean() for band in bands])

        def search(number: int) -> tuple[IntArray, Float32Array]:
            rows = bands[number]
            steps = np.maximum(np.abs(middles[number] - middles), 2.0)  # levels may be wrong by two steps
            ratios = [self._ratios(rows, band, step) for band, step in zip(bands, steps, strict=True)]
            ratio = np.concatenate(ratios, axis=1)
            ratio[groups[rows][:, None] == groups[order]] = -np.inf
            return largest(ratio, min(count, len(order) - 1))

        columns, evidence = zip(*parallel_map(search, range(len(bands))), strict=True)
        back = np.argsort(order)
        return order[np.concatenate(columns)][back], np.concatenate(evidence)[back]

    def _ratios(self, rows: IntArray, others: IntArray, distance: float) -> Float32Array:
        """Return the log likelihood ratio of each pair of slices being one person, at one distance of level."""
        by_kind = self._kernels(np.array(distance)) @ self.weights.T
        correlation = by_kind[self.kind].astype(np.float32)
        rest = 1 - np.square(correlation)
        traits, other = self.traits[rows], self.traits[others]
        square = -0.5 * np.square(correlation) / rest
        ratio: Float32Array = (
            (traits * (correlation / rest)) @ other.T
            + (np.square(traits) @ square)[:, None]
            + np.square(other) @ square
        )
        return ratio - 0.5 * np.log(rest).sum()

    def _likeliest_on_shortlist(self, groups: IntArray, count: int) -> tuple[IntArray, Float32Array]:
        """Find likely slices among those with similar traits, weighted by what traits say near and far in level."""
        parts = []
        for distance in _SHORTLIST_DISTANCES:
            correlation = (self._kernels(np.array(distance)) @ self.weights.T)[self.kind]
            weights = np.sqrt(correlation / (1 - np.square(correlation))).astype(np.float32)
            keys = scratch_array(self.traits.shape, np.float32)
            for rows in blocks(len(keys), BLOCK_ROWS):
                keys[rows] = unit(self.traits[rows] * weights)
            parts.append(Neighbours(keys).search(keys, min(_SHORTLIST, len(keys)), groups=(groups, groups)))
        likely, similarity = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        evidence = np.where(np.isfinite(similarity), self._pairs(likely), -np.inf).astype(np.float32)
        column, evidence = largest(evidence, min(count, likely.shape[1]))
        return np.take_along_axis(likely, column, axis=1), evidence

    def _pairs(self, rows: IntArray) -> Float32Array:
        """Return the log likelihood ratio of each slice and some others being one person, shape of ``rows``."""

        def ratio(part: slice) -> Float32Array:
            others = rows[part]
            own, theirs = self._sorted[part, None], self._sorted[others]
            products = np.add.reduceat(own * theirs, self._starts, axis=-1)
            squares = self._squares[part, None] + self._squares[others]
            # levels may be wrong by two steps
            distance = np.maximum(np.abs(self.level[part, None] - self.level[others]), 2.0)
            correlation = self._kernels(distance) @ self.weights.T
            rest = 1 - np.square(correlation)
            exponent = (correlation * products - 0.5 * np.square(correlation) * squares) / rest
            ratios: Float32Array = (exponent - 0.5 * self._sizes * np.log(rest)).sum(axis=-1).astype(np.float32)
            return ratios

        return np.concatenate(parallel_map(ratio, blocks(len(rows), BLOCK_ROWS // 5)))


def spaced(level: Float64Array) -> Float64Array:
    """Move one person's slices up where they lie closer than half a step; levels have shape (..., n)."""
    order = np.argsort(level, axis=-1, kind="stable")
    steps = 0.5 * np.arange(level.shape[-1])
    pushed = np.maximum.accumulate(np.take_along_axis(level, order, axis=-1) - steps, axis=-1) + steps
    return np.take_along_axis(pushed, np.argsort(order, axis=-1), axis=-1)
