"""What a model of many people keeps of each of their slices: its largest principal components.

The patient model's file holds a number for each feature of each slice of each training person: 17 kB a person of 32
levels. That of thousands would be too large to hand on. So, above :data:`BYTES`, a slice is described by as many
principal components as fit. The slices of a person who is predicted are seen through the same components, so that
training people and others differ from each other as before. What is lost is measured in
``docs/explanation/patient-model.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from brainstage.core.arrays import Float32Array, Float64Array, IntArray, Pixels
from brainstage.models.patient_features import EDGES, FEATURES, as_roots

BYTES = 40_000_000
"""Most bytes of the training people's slices in a model's file; with all else it is smaller than 50 MB."""
SAMPLE = 500
"""Scans that the components are found from: 16,000 slices for some hundred features."""
TONE_WEIGHT = 3.0
"""A tone counts so many times as much as an edge: in the regression too, its variance is about nine times as large
(:data:`brainstage.models.ridge.BLOCKS`)."""
RANGE = 6.0
"""Standard deviations of a component that a byte reaches to, on either side."""
MIDDLE = 128
"""The byte of a component that is 0."""
_CHUNK = 256
_PREFIX, _TENSORS = "component_", ("means", "scales", "axes")


@dataclass(frozen=True)
class SliceComponents:
    """Principal components of slices at each level.

    Attributes:
        means: Mean roots of histograms at each level, shape (levels, FEATURES).
        scales: Weight of each feature in the components; 0 where it is the same in everyone, shape (FEATURES,).
        axes: What one step of each of ``r`` components adds to the roots, shape (r, FEATURES).
    """

    means: Float32Array
    scales: Float32Array
    axes: Float32Array

    @classmethod
    def fit(cls, stacks: Pixels, count: int) -> SliceComponents:
        """Find the components of training scans.

        Args:
            stacks: Roots of histograms in steps, uint8 of shape (n, levels, FEATURES).
            count: Number of components.
        """
        chosen = np.linspace(0, len(stacks) - 1, min(len(stacks), SAMPLE)).round().astype(np.int64)
        roots = as_roots(stacks[chosen])
        means = roots.mean(axis=0)
        deviations = (roots - means).reshape(-1, FEATURES)
        spread = deviations.std(axis=0)
        varies = spread > 1e-3 * spread.max()  # the corners of a picture are black in everyone
        scales = np.where(varies, 1 / np.where(varies, spread, 1), 0).astype(np.float32)
        scales[EDGES:] *= TONE_WEIGHT
        deviations *= scales
        variance, vectors = np.linalg.eigh(deviations.T @ deviations / len(deviations))
        count = min(count, int((variance > 1e-6 * variance[-1]).sum()))
        steps = RANGE * np.sqrt(variance[::-1][:count]) / (MIDDLE - 1)
        axes = np.where(varies, vectors[:, ::-1][:, :count].T * steps[:, None] / np.where(varies, scales, 1), 0)
        # laid out as a file gives it back, so that a saved model predicts the same to the last bit
        return cls(means, scales, np.ascontiguousarray(axes, np.float32))

    def __len__(self) -> int:
        """Return the number of components."""
        return len(self.axes)

    def encode(self, stacks: Pixels) -> Pixels:
        """Return the components of scans, uint8 of shape (n, levels, r).

        Args:
            stacks: Roots of histograms in steps, uint8 of shape (n, levels, FEATURES).
        """
        codes = np.empty((*stacks.shape[:2], len(self)), np.uint8)
        for start in range(0, len(stacks), _CHUNK):
            part = slice(start, start + _CHUNK)
            components = self.components_of(as_roots(stacks[part]) - self.means)
            codes[part] = (components.round() + MIDDLE).clip(0, 255)
        return codes

    def decode(self, codes: Pixels, levels: IntArray) -> Float32Array:
        """Return the roots of histograms of scans at some levels, float32 of shape (n, len(levels), FEATURES).

        Args:
            codes: What :meth:`encode` returned, at these levels, shape (n, len(levels), r).
            levels: The levels.
        """
        return self.means[levels] + centred(codes) @ self.axes

    def components_of(self, deviations: Float32Array) -> Float32Array:
        """Return the components, in steps, of roots less their means, float32 of shape (…, r)."""
        components: Float32Array = deviations @ self._readers
        return components

    def through(self, deviations: Float32Array) -> Float32Array:
        """Return what the components show of roots less their means, of the same shape."""
        seen: Float32Array = self.components_of(deviations) @ self.axes
        return seen

    def weights_of_roots(self, weights: Float64Array) -> Float64Array:
        """Return the weights of roots that weights of what the components show of them stand for.

        This is the transpose of :meth:`through`; both are float64 of shape (…, FEATURES).
        """
        whole: Float64Array = weights @ self.axes.T @ self._readers.T
        return whole

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a model's file keeps."""
        return {_PREFIX + name: value for name, value in vars(self).items() if name in _TENSORS}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray], levels: int) -> SliceComponents | None:
        """Return the components of a model's file; None where it has none.

        Args:
            tensors: Those of the file.
            levels: Number of levels of the model.

        Raises:
            KeyError, ValueError: A tensor is missing or does not fit.
        """
        if not any(name.startswith(_PREFIX) for name in tensors):
            return None
        means, scales, axes = (tensors[_PREFIX + name] for name in _TENSORS)
        shapes = ((levels, FEATURES), (FEATURES,), (len(axes), FEATURES))
        for name, tensor, shape in zip(_TENSORS, (means, scales, axes), shapes, strict=True):
            if tensor.shape != shape or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
                raise ValueError(f"{_PREFIX}{name} of shape {tensor.shape}, {tensor.dtype}")
        return cls(means, scales, axes)

    @cached_property
    def _readers(self) -> Float32Array:
        """What gives the components of roots less their means, shape (FEATURES, r)."""
        directions = self.axes * self.scales  # at right angles
        readers: Float32Array = (directions / np.square(directions).sum(axis=1, keepdims=True)).T
        return self.scales[:, None] * readers


def components_that_fit(scans: int, levels: int) -> int | None:
    """Return how many components a slice may have where scans are many; None where all its features fit.

    Args:
        scans: Number of training scans.
        levels: Number of their levels.
    """
    count = BYTES // (scans * levels)
    return None if count >= FEATURES else max(1, count)


def centred(codes: Pixels) -> Float32Array:
    """Return components in steps from their bytes."""
    return codes.astype(np.float32) - np.float32(MIDDLE)
