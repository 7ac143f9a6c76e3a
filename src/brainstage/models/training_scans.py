"""The training people of the patient model: their scans as stacks of histograms, and how acquisitions move them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from brainstage.core.arrays import Float16Array, Float32Array, Float64Array, FloatArray, IntArray, Pixels
from brainstage.models.coordinates import FewPeople, Group, ManyPeople, People
from brainstage.models.patient_features import (
    FEATURES,
    SLABS,
    STEP,
    TONE_SLAB,
    as_roots,
    feature_blocks,
    given_levels,
    in_steps,
    slab_means,
    stack_of,
    weights_of_roots,
)
from brainstage.models.ridge import FeatureScaling
from brainstage.models.slice_components import MIDDLE, SliceComponents, centred, components_that_fit

DIRECTIONS_KEPT = 64
"""Principal directions of acquisitions that are kept. With 16 a larger head changes more predictions; 200 are no
better (``docs/explanation/patient-model.md``)."""
_SCANS_OF_DIRECTIONS = 200
"""Scans from which the directions are measured: a cohort of thousands needs no more."""
_SCANS_AT_ONCE = 128
"""Scans whose slices are in memory together."""


class FeatureRows(Protocol):
    """Features of slices: an array, or what reads the rows that are asked for."""

    def __getitem__(self, rows: IntArray, /) -> Pixels:
        """Return the features of some slices, uint8 of shape (len(rows), a, FEATURES)."""


@dataclass(frozen=True)
class TrainingScans:
    """Scans of training people.

    Attributes:
        stacks: Of each scan, means over acquisitions: roots of histograms in steps, uint8 of shape (n, levels,
            FEATURES), or their components, uint8 of shape (n, levels, r).
        directions: In which acquisitions move people, float16 of shape (d, levels, FEATURES): the sum of their
            outer products is the covariance within a person.
        components: Of the slices, where scans are too many to keep all features of each; else None.
    """

    stacks: Pixels
    directions: Float16Array
    components: SliceComponents | None = None

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.stacks)

    @classmethod
    def gather(cls, features: FeatureRows, scans: IntArray, places: FloatArray, levels: int) -> TrainingScans:
        """Put slices together to scans.

        Args:
            features: Of n slices in each of ``a`` acquisitions; acquisitions of one number belong together.
            scans: Of each slice, the number of its scan, from 0.
            places: Of each slice along the stack, from 0 to 1.
            levels: Number of levels that places from 0 to 1 stand for.
        """
        order = np.argsort(scans, kind="stable")
        slices_of = np.split(order, np.flatnonzero(np.diff(scans[order])) + 1)
        count, acquisitions = len(slices_of), features[order[:1]].shape[1]
        stacks = np.zeros((count, levels, FEATURES), np.uint8)
        there, sums = np.zeros((count, levels), dtype=bool), np.zeros((levels, FEATURES), np.float32)
        chosen = np.linspace(0, count - 1, min(count, _SCANS_OF_DIRECTIONS)).round().astype(np.int64)
        place = {scan: number for number, scan in enumerate(chosen.tolist())}
        exact = np.zeros((len(chosen), levels, FEATURES))
        deviations = np.zeros((len(chosen), acquisitions, levels, FEATURES), np.float32)
        for scan, (rows, shown) in enumerate(_scan_by_scan(features, slices_of)):
            own = (places[rows] * (levels - 1)).round().astype(np.int64)
            given = given_levels(own, levels)
            acquired = stack_of(as_roots(shown), own, given)
            roots = acquired.mean(axis=1)
            stacks[scan, given], there[scan, given] = in_steps(roots.astype(np.float64)), True
            sums[given] += roots
            if scan in place:
                exact[place[scan], given] = roots
                deviations[place[scan]][:, given] = (acquired - roots[:, None]).swapaxes(0, 1)
        # a level that a scan lacks says nothing about its person
        means = sums / np.maximum(there.sum(axis=0), 1)[:, None]
        stacks[~there] = in_steps(means)[np.nonzero(~there)[1]]
        exact = np.where(there[chosen][..., None], exact, means)
        return cls.reduced(stacks, _principal_directions(deviations, exact))

    @classmethod
    def reduced(cls, stacks: Pixels, directions: Float16Array) -> TrainingScans:
        """Return scans with as much of each slice as a model's file has room for.

        Args:
            stacks: Uint8 of shape (n, levels, FEATURES).
            directions: Float16 of shape (d, levels, FEATURES).
        """
        count = components_that_fit(*stacks.shape[:2])
        if count is None:
            return cls(stacks, directions)
        components = SliceComponents.fit(stacks, count)
        seen = components.through(directions.astype(np.float32)).astype(np.float16)
        return cls(components.encode(stacks), seen, components)

    def mean_slices(self) -> Float32Array:
        """Return the roots of histograms of the mean slice at each level, float32 of shape (levels, FEATURES)."""
        means = self.stacks.mean(axis=0, dtype=np.float64).astype(np.float32)
        if self.components is None:
            return means * np.float32(STEP)
        return self.components.means + (means - MIDDLE) @ self.components.axes

    def seen(self, stacks: Float32Array, levels: IntArray) -> Float32Array:
        """Return what the model sees of scans: as much of each slice as of the training people's.

        Args:
            stacks: Roots of histograms, float32 of shape (n, len(levels), FEATURES).
            levels: Their levels.
        """
        if self.components is None:
            return stacks
        means = self.components.means[levels]
        return means + self.components.through(stacks - means)

    def weights_of_roots(self, weights: Float64Array, levels: IntArray) -> Float64Array:
        """Return the weights of a scan's roots of histograms, float64 of shape (len(levels), FEATURES).

        A scan's features are a linear function of its roots: this is the transpose of :meth:`seen` and
        :func:`feature_blocks`.

        Args:
            weights: Of the features of all blocks, joined, shape (p,).
            levels: The levels of the scan.
        """
        seen = weights_of_roots(weights, levels)
        return seen if self.components is None else self.components.weights_of_roots(seen)

    def at(self, levels: IntArray) -> tuple[People, FeatureScaling]:
        """Return the people at some levels, in the coordinates that are the fewer, and the scaling of features."""
        numbers = FEATURES if self.components is None else len(self.components)
        if len(self) > numbers * len(np.unique(levels // SLABS[0])):
            many = ManyPeople(*self._groups(levels))
            return many, many.scaling
        stacks, directions = self.stacks[:, levels], self.directions[:, levels].astype(np.float32)
        roots = as_roots(stacks) if self.components is None else self.components.decode(stacks, levels)
        blocks, within = feature_blocks(roots, levels), feature_blocks(directions, levels)
        scaling = FeatureScaling.of(blocks, within)
        return FewPeople(scaling(blocks), scaling.directions(within)), scaling

    def _groups(self, levels: IntArray) -> tuple[list[Group], list[Float32Array]]:
        """Return the slabs of levels that share features, and the features of someone whose numbers are all 0."""
        groups = []
        for coarse in np.unique(levels // TONE_SLAB):
            own = levels[levels // TONE_SLAB == coarse]
            slabs = own // SLABS[0]
            stacks, directions = self.stacks[:, own], self.directions[:, own].astype(np.float32)
            if self.components is None:
                people, axes = as_roots(stacks), np.eye(FEATURES, dtype=np.float32)
            else:
                people, axes = centred(stacks), self.components.axes
                directions = self.components.components_of(directions)
            units = [np.where((slabs == slab)[:, None], axes[:, None], 0) for slab in np.unique(slabs)]
            groups.append(
                Group(
                    slab_means(people, slabs),
                    slab_means(directions, slabs),
                    feature_blocks(np.concatenate(units), own),
                )
            )
        base = np.zeros((self.directions.shape[1], FEATURES), np.float32)
        base = base if self.components is None else self.components.means
        return groups, feature_blocks(base[None, levels], levels)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a model's file keeps."""
        kept: dict[str, np.ndarray] = {"stacks": self.stacks, "directions": self.directions}
        return kept if self.components is None else kept | self.components.tensors()

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray], levels: int) -> TrainingScans:
        """Return the scans of a model's file.

        Args:
            tensors: What :meth:`tensors` returned.
            levels: Number of levels of the model.

        Raises:
            KeyError, ValueError: A tensor is missing or does not fit.
        """
        components = SliceComponents.of_tensors(tensors, levels)
        numbers = FEATURES if components is None else len(components)
        expected = {"stacks": ((levels, numbers), np.uint8), "directions": ((levels, FEATURES), np.float16)}
        for name, (shape, dtype) in expected.items():
            if tensors[name].shape[1:] != shape or tensors[name].dtype != dtype:
                raise ValueError(f"{name} of shape {tensors[name].shape[1:]}, {tensors[name].dtype}")
        if not np.isfinite(tensors["directions"]).all():
            raise ValueError("directions that are not numbers")
        return cls(tensors["stacks"], tensors["directions"], components)


def _scan_by_scan(features: FeatureRows, slices_of: list[IntArray]) -> Iterator[tuple[IntArray, Pixels]]:
    """Yield each scan's rows and their features; those of some scans are read together."""
    for start in range(0, len(slices_of), _SCANS_AT_ONCE):
        scans = slices_of[start : start + _SCANS_AT_ONCE]
        ends = np.cumsum([len(rows) for rows in scans])
        yield from zip(scans, np.split(features[np.concatenate(scans)], ends[:-1]), strict=True)


def _principal_directions(deviations: Float32Array, stacks: Float64Array) -> Float16Array:
    """Return the directions in which acquisitions move people most, float16 of shape (d, levels, FEATURES).

    Most is measured in the model's features: over slabs of levels, where the noise of single slices averages out.

    Args:
        deviations: Of some people's acquisitions from their mean, shape (n, a, levels, FEATURES).
        stacks: The means of these people, shape (n, levels, FEATURES).
    """
    people, acquisitions, *shape = deviations.shape
    if acquisitions == 1:
        return np.zeros((0, *shape), np.float16)
    rows = deviations.reshape(people * acquisitions, *shape) * np.float32((people * acquisitions) ** -0.5)
    every = np.arange(stacks.shape[1])
    blocks = feature_blocks(rows, every)
    features = FeatureScaling.of(feature_blocks(stacks, every), blocks).directions(blocks)
    _, vectors = np.linalg.eigh(features @ features.T)
    directions = vectors[:, ::-1][:, :DIRECTIONS_KEPT].T @ rows.reshape(len(rows), -1)
    return directions.reshape(-1, *shape).astype(np.float16)
