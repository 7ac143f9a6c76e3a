"""One person: how traits run along the levels, learnt from groups of slices, and the odds that two are one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.cluster import KMeans

from brainstage.datasets.signatures import BLOCK, Floats, largest

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

_SEED = 0
_KINDS = 12
_MOVES = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
_FACING = 8


class Person:
    """A person's traits as Gaussian processes over levels, learnt from the groups found so far.

    Each trait has unit variance over all slices and no correlation between people; along one person's levels it
    is correlated by a mixture of Gaussian kernels of several lengths, a constant, and white noise. Traits that run
    alike share a kernel.
    """

    LENGTHS = 0.75 * 2.0 ** np.arange(7)
    """Lengths of the kernels, in steps between neighbouring slices."""

    def __init__(self, traits: Floats, level: Reals, members: list[Ints]) -> None:
        self.level = level.copy()
        self.traits = traits
        self.kind, self.weights = self._learn(members)
        order = np.argsort(self.kind, kind="stable")
        self._sorted = traits[:, order].astype(np.float64)
        kinds, self._starts, self._sizes = np.unique(self.kind[order], return_index=True, return_counts=True)
        self.weights = self.weights[kinds]
        self.kind = np.searchsorted(kinds, self.kind)
        self._weighed: dict[tuple[bytes, bytes], tuple[float, float]] = {}

    def _learn(self, members: list[Ints]) -> tuple[Ints, Reals]:
        """Return the kind of each trait, and each kind's weights of the kernels."""
        products, counts = self._products(members)
        seen = counts >= 20
        if not seen.any():
            return np.zeros(self.traits.shape[1], dtype=np.int64), np.zeros((1, len(self.LENGTHS) + 1))
        courses = products[seen] / counts[seen, None]
        trust = np.sqrt(np.minimum(counts[seen], 500))[:, None]
        kinds = min(_KINDS, courses.shape[1])
        kind = KMeans(kinds, n_init=2, random_state=_SEED).fit_predict((courses * trust).T)
        kernels = self._kernels(np.flatnonzero(seen).astype(np.float64) * 0.5 + 0.25) * trust
        weights = np.array(
            [nnls(kernels, courses[:, kind == one].mean(axis=1) * trust[:, 0])[0] for one in range(kinds)]
        )
        return kind, weights * np.minimum(1, 0.985 / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9))

    def _products(self, members: list[Ints]) -> tuple[Reals, Reals]:
        """Sum the products of each trait over pairs of one person's slices, by distance in half steps."""
        products, counts = np.zeros((64, self.traits.shape[1])), np.zeros(64)
        for rows in members:
            first, second = np.triu_indices(len(rows), 1)
            level = spaced(self.level[rows])
            bins = np.abs(level[first] - level[second]) // 0.5
            near = bins < 64
            bins, first, second = bins[near].astype(np.int64), rows[first[near]], rows[second[near]]
            sums = csr_array((np.ones(len(bins)), (bins, np.arange(len(bins)))), shape=(64, len(bins)))
            products += sums @ (self.traits[first] * self.traits[second])
            counts += np.bincount(bins, minlength=64)
        return products, counts

    def _kernels(self, distance: Reals) -> Reals:
        """Return the kernels at some distances, shape (..., number of kernels)."""
        gaussian = np.exp(-0.5 * np.square(distance[..., None] / self.LENGTHS))
        return np.concatenate([gaussian, np.ones((*distance.shape, 1))], axis=-1)

    def _covariance(self, level: Reals) -> Reals:
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

    def _evidence(self, rows: Ints, levels: Reals) -> Reals:
        """Return the log likelihood ratio of slices being one person against each being another one.

        Args:
            rows: The slices, shape (n,).
            levels: Where they may lie, shape (m, n).

        Returns:
            Shape (m,).
        """
        own = self._sorted[rows].T
        products = np.add.reduceat(own[:, :, None] * own[:, None, :], self._starts)
        covariance = self._covariance(spaced(levels))
        _, volume = np.linalg.slogdet(covariance)
        difference = np.linalg.inv(covariance) - np.eye(len(rows))
        ratio: Reals = -0.5 * (volume @ self._sizes + np.einsum("mkij,kij->m", difference, products))
        return ratio

    def odds(self, one: Ints, other: Ints) -> tuple[float, float]:
        """Weigh whether two groups are one person, by the slices of each that are closest to the other.

        Levels of two groups were found apart from each other, so other distances between them are tried, with a
        normal prior of one step.

        Returns:
            The log likelihood ratio of one person against two, and by how many steps the second group is to be
            moved up for it.
        """
        key = one.tobytes(), other.tobytes()
        if key not in self._weighed:
            one, other = self._facing(one, other), self._facing(other, one)
            alone = sum(self._evidence(rows, self.level[None, rows])[0] for rows in (one, other))
            rows = np.concatenate([one, other])
            up = 1.0 if self.level[other].mean() >= self.level[one].mean() else -1.0
            levels = self.level[rows] + up * _MOVES[:, None] * np.repeat([0.0, 1.0], [len(one), len(other)])
            ratios = self._evidence(rows, levels) - alone - 2.0 * np.square(_MOVES)
            best = int(ratios.argmax())
            self._weighed[key] = ratios[best] - np.log(len(_MOVES)), up * _MOVES[best]
        return self._weighed[key]

    def _facing(self, one: Ints, other: Ints) -> Ints:
        """Return the slices of one group that are closest to the other in level."""
        distance = np.abs(self.level[one][:, None] - self.level[other]).min(axis=1)
        return one[np.argsort(distance, kind="stable")[:_FACING]]

    def membership(self, rows: Ints) -> Reals:
        """Return each slice's log likelihood ratio of belonging to the others of its group.

        The slice left out is predicted in closed form (Rasmussen and Williams 2006, equations 5.10 to 5.12).
        """
        inverse = np.linalg.inv(self._covariance(spaced(self.level[rows])))
        total = np.zeros(len(rows))
        for traits, one in zip(np.split(self._sorted[rows], self._starts[1:], axis=1), inverse, strict=True):
            precision = np.diag(one)
            surprise = np.square(one @ traits).sum(axis=1) / precision
            total += 0.5 * (traits.shape[1] * np.log(precision) - surprise + np.square(traits).sum(axis=1))
        return total

    def likeliest(self, groups: Ints, count: int = 8) -> tuple[Ints, Floats]:
        """Find the slices of other groups that are most likely of each slice's person.

        Returns:
            Their rows and log likelihood ratios, both of shape (n, count).
        """
        order = np.argsort(self.level, kind="stable")
        blocks = np.array_split(order, max(1, round(np.ptp(self.level)), len(order) // BLOCK))
        middles = [self.level[block].mean() for block in blocks]

        def search(number: int) -> tuple[Ints, Floats]:
            rows = blocks[number]
            steps = [max(abs(middles[number] - far), 2.0) for far in middles]  # levels may be wrong by as much
            ratio = np.concatenate([self._pairs(rows, *other) for other in zip(blocks, steps, strict=True)], axis=1)
            ratio[groups[rows][:, None] == groups[order]] = -np.inf
            return largest(ratio, min(count, len(order) - 1))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            columns, evidence = zip(*pool.map(search, range(len(blocks))), strict=True)
        back = np.argsort(order)
        return order[np.concatenate(columns)][back], np.concatenate(evidence)[back]

    def _pairs(self, rows: Ints, others: Ints, distance: float) -> Floats:
        """Return the log likelihood ratio of each pair of slices being one person, at one distance of level."""
        by_kind = self._kernels(np.array(distance)) @ self.weights.T
        correlation = by_kind[self.kind].astype(np.float32)
        rest = 1 - np.square(correlation)
        one, other = self.traits[rows], self.traits[others]
        own = -0.5 * np.square(correlation) / rest
        ratio: Floats = (
            (one * (correlation / rest)) @ other.T + (np.square(one) @ own)[:, None] + np.square(other) @ own
        )
        return ratio - 0.5 * np.log(rest).sum()


def spaced(level: Reals) -> Reals:
    """Move one person's slices up where they lie closer than half a step; levels have shape (..., n)."""
    order = np.argsort(level, axis=-1, kind="stable")
    steps = 0.5 * np.arange(level.shape[-1])
    pushed = np.maximum.accumulate(np.take_along_axis(level, order, axis=-1) - steps, axis=-1) + steps
    return np.take_along_axis(pushed, np.argsort(order, axis=-1), axis=-1)
