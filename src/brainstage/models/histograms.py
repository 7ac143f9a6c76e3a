"""Histograms of oriented gradients of a slice: how much edge of each direction is in each cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.parallel import parallel_map

SIDE = 128
"""Pixels of a slice's side."""
CELL = 16
"""Pixels of a cell's side."""
DIRECTIONS = 8
"""Directions that an edge can have, from 0 to 180 degrees."""
BACKGROUND = 20
"""Grey value up to which a pixel is not of the head."""
VERSION = 1
"""Version of the histograms, incremented when they change, so that cached ones are not used."""


def orientation_histograms(images: Sequence[Pixels] | Pixels, cell: int = CELL) -> Float32Array:
    """Measure how much edge of each direction is in each cell of slices.

    After the histograms of oriented gradients of Dalal and Triggs (2005, CVPR), with each slice divided by its
    white matter's grey value in place of the contrast of blocks: a slice's brightness scaling is its own in the
    public dataset, and differences of contrast between cells say something here.

    Args:
        images: Grey slices, each uint8 of shape (SIDE, SIDE).
        cell: Side of a cell in pixels; a divisor of SIDE.

    Returns:
        Shape (n, SIDE / cell, SIDE / cell, DIRECTIONS): mean length of the gradient, in white matter a pixel,
        shared between the two nearest directions.
    """
    if not len(images):
        return np.zeros((0, SIDE // cell, SIDE // cell, DIRECTIONS), np.float32)
    return np.stack(list(parallel_map(lambda image: _histogram(image, cell), images)))


def _histogram(image: Pixels, cell: int) -> Float32Array:
    cells = SIDE // cell
    down, right = np.gradient(image / white_matter(image))
    length = np.hypot(down, right)
    direction = np.arctan2(down, right) % np.pi / np.pi * DIRECTIONS
    lower = np.floor(direction)
    share = direction - lower
    row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
    place = (row // cell * cells + column // cell) * DIRECTIONS
    sums = np.zeros(cells * cells * DIRECTIONS)
    for number, weight in ((lower, length * (1 - share)), (lower + 1, length * share)):
        bins = place + number.astype(np.int64).ravel() % DIRECTIONS
        sums += np.bincount(bins, weight.ravel(), len(sums))
    return (sums / cell**2).reshape(cells, cells, DIRECTIONS).astype(np.float32)


def white_matter(image: Pixels) -> float:
    """Return the grey value of the white matter: the highest peak above the median of the head's pixels."""
    counts = np.bincount(image[image > BACKGROUND], minlength=256).astype(np.float64)
    if not counts.any():
        return 255.0
    smooth = np.convolve(counts, np.hanning(15), mode="same")
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(middle + smooth[middle:].argmax())
