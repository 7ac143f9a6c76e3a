"""What the patient model sees: slices as roots of histograms, and scans as blocks of features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_closing

from brainstage.core.arrays import Float32Array, Float64Array, FloatArray, IntArray, Pixels
from brainstage.core.parallel import parallel_map
from brainstage.models.acquisitions import Acquisition
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE, orientation_histograms
from brainstage.stats.tones import TONES, in_units_of_power, tone_roots

SLABS = (4, 8)
"""Numbers of neighbouring levels that are averaged; both kinds of means are features, fine and coarse."""
TONE_SLAB = 8
"""Neighbouring levels whose tones are averaged."""
STEP = 1 / 255
"""Size of one unit of a saved histogram's square root: in the square root of white matter a pixel for edges, of a
share of the pixels for tones."""
EDGES = (SIDE // CELL) ** 2 * DIRECTIONS
"""Number of a slice's features that are edges."""
FEATURES = EDGES + TONES
"""Number of a slice's features."""
GAP = 5
"""Fewer missing levels than this between two given ones are filled from their neighbours."""


def patient_features(images: Sequence[Pixels], seeds: Sequence[int | None]) -> Pixels:
    """Return what the patient model sees of slices in several acquisitions.

    Args:
        images: Grey slices, each uint8 of shape (SIDE, SIDE).
        seeds: Of the ``a`` acquisitions; None shows a slice as it is.

    Returns:
        Square roots of the orientation histogram, then of the tones, in steps of :data:`STEP`: uint8 of shape
        (n, a, FEATURES).
    """
    acquisitions = [None if seed is None else Acquisition.draw(seed) for seed in seeds]

    def features_of(image: Pixels) -> Pixels:
        shown = [one.apply(image) if one else image for one in acquisitions]
        edges = np.sqrt(orientation_histograms(shown)).reshape(len(shown), -1)
        tones = tone_roots(in_units_of_power(np.stack(shown).astype(np.float32)))
        return in_steps(np.concatenate([edges, tones], axis=1))

    if not len(images):
        return np.zeros((0, len(seeds), FEATURES), np.uint8)
    return np.stack(parallel_map(features_of, images))


def as_roots(features: Pixels) -> Float32Array:
    """Return roots of histograms from their number of steps, of the same shape."""
    return features.astype(np.float32) * np.float32(STEP)


def in_steps(roots: FloatArray) -> Pixels:
    """Return roots of histograms in whole steps, of the same shape."""
    return (roots / np.float32(STEP)).round().clip(0, 255).astype(np.uint8)


def given_levels(levels: IntArray, count: int) -> IntArray:
    """Return which of ``count`` levels are given: those of the slices, and small gaps between them."""
    given = np.zeros(count + 2 * GAP, dtype=bool)  # a margin, or closing would wear off the ends
    given[levels + GAP] = True
    closed: IntArray = np.flatnonzero(binary_closing(given, np.ones(GAP))[GAP:-GAP])
    return closed


def stack_of(roots: Float32Array, levels: IntArray, given: IntArray) -> Float32Array:
    """Put a person's slices on the levels given; each level takes the mean of the nearest slices.

    Args:
        roots: Of n slices in ``a`` acquisitions, shape (n, a, FEATURES).
        levels: Of the slices, shape (n,).
        given: The levels of the stack.

    Returns:
        float32 of shape (len(given), a, FEATURES).
    """
    stack: Float32Array = np.tensordot(nearest_slices(levels, given), roots, axes=1)
    return stack


def nearest_slices(levels: IntArray, given: IntArray) -> Float32Array:
    """Return the share of each slice in each level of a stack, float32 of shape (len(given), n).

    Args:
        levels: Of the slices, shape (n,).
        given: The levels of the stack.
    """
    distance = np.abs(given[:, None] - levels)
    nearest = (distance == distance.min(axis=1, keepdims=True)).astype(np.float32)
    shares: Float32Array = nearest / nearest.sum(axis=1, keepdims=True)
    return shares


def feature_blocks(stacks: FloatArray, levels: IntArray) -> list[Float32Array]:
    """Average roots of histograms over slabs of levels.

    Edges are averaged in cells of one size and twice that. All of it is linear, so directions of stacks become
    directions of features. Slabs of :data:`TONE_SLAB` levels share no feature.

    Args:
        stacks: Of n scans, shape (n, len(levels), FEATURES).
        levels: Their levels.

    Returns:
        The blocks that ``ridge.BLOCKS`` weighs, each of shape (n, …).
    """
    fine = stacks[..., :EDGES].reshape(*stacks.shape[:2], SIDE // CELL, SIDE // CELL, DIRECTIONS)
    pairs = fine[:, :, ::2] + fine[:, :, 1::2]
    coarse: FloatArray = (pairs[:, :, :, ::2] + pairs[:, :, :, 1::2]) * np.float32(0.25)
    edges = [slab_means(roots, levels // slab) for roots in (fine, coarse) for slab in SLABS]
    return [*edges, slab_means(stacks[..., EDGES:], levels // TONE_SLAB)]


def weights_of_roots(weights: FloatArray, levels: IntArray) -> Float64Array:
    """Return the weights of roots of histograms that weights of the features made of them stand for.

    This is the transpose of :func:`feature_blocks`: ``weights · features`` of a scan is ``result · stack``.

    Args:
        weights: Of the features of all blocks, joined in their order, shape (p,).
        levels: The levels of the stack.

    Returns:
        float64 of shape (len(levels), FEATURES).
    """
    cells, halves, rest = SIDE // CELL, SIDE // CELL // 2, weights.astype(np.float64)
    edges = np.zeros((len(levels), cells, cells, DIRECTIONS))
    for shape in ((cells, cells, DIRECTIONS), (halves, halves, DIRECTIONS)):
        for slab in SLABS:
            own, rest = _spread(rest, levels // slab, shape)
            edges += own if shape[0] == cells else own.repeat(2, axis=1).repeat(2, axis=2) / 4
    tones, _ = _spread(rest, levels // TONE_SLAB, (TONES,))
    return np.concatenate([edges.reshape(len(levels), EDGES), tones], axis=1)


def _spread(weights: Float64Array, slabs: IntArray, shape: tuple[int, ...]) -> tuple[Float64Array, Float64Array]:
    """Share the weights of the means of slabs among their levels; return them, and the weights that are left."""
    _, number, counts = np.unique(slabs, return_inverse=True, return_counts=True)
    length = len(counts) * math.prod(shape)
    means = weights[:length].reshape(len(counts), *shape)
    return (means / counts.reshape(-1, *[1] * len(shape)))[number], weights[length:]


def slab_means(stacks: FloatArray, slabs: IntArray) -> Float32Array:
    """Average over the levels of each slab.

    Args:
        stacks: Shape (n, levels, …).
        slabs: The slab of each level.

    Returns:
        Shape (n, slabs · …), slab by slab.
    """
    length = math.prod(stacks.shape[2:])  # there may be no direction
    means = [stacks[:, slabs == slab].mean(axis=1).reshape(len(stacks), length) for slab in np.unique(slabs)]
    return np.concatenate(means, axis=1)
