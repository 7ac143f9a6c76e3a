"""Which of several duplicates is the original: people are recovered from it, since it lies in the common space.

Turning and zooming blur, so the original is among the sharpest duplicates. Among these, the one most similar to the
mean head at its level is chosen: a flipped slice is less similar to it than its original, as heads are asymmetric
(with 30 % of the public slices flipped, 99.97 % were recognised; of the 3,594 pictures with a flipped copy in
``benchmarks/audit.py --augmented``, all but one).
"""

from __future__ import annotations

import numpy as np

from brainstage.audits.recovery import find_levels
from brainstage.core.arrays import Float16Array, Float32Array, IntArray
from brainstage.datasets.signatures import BLOCK_ROWS, Signatures, blocks, mirrored, unit

_MOST_BANDS = 32
_BAND_PICTURES = 64
_BLUR = 0.05
"""Difference of mean log power of the finest detail above which a slice is blurred against a duplicate of it."""
_ROUNDS = 2


def choose_originals(signatures: Signatures, duplicate_of: IntArray) -> IntArray:
    """Choose, of the slices that show one picture, the one that is most likely the original.

    Args:
        signatures: Signatures of n slices.
        duplicate_of: Number of the picture that each slice shows, shape (n,).

    Returns:
        One row for each picture, in the order of the pictures' numbers.
    """
    pictures, picture = np.unique(duplicate_of, return_inverse=True)
    sharpness = signatures.grain.mean(axis=1)
    chosen = _best(sharpness, picture)
    bands = min(len(pictures) // _BAND_PICTURES, _MOST_BANDS)
    if len(pictures) == len(picture) or bands < 2:
        return chosen
    place, _ = find_levels(signatures.coarse[chosen])
    band = np.where(np.isnan(place), -1, np.minimum(place * bands, bands - 1)).astype(np.int64)
    sharp = sharpness >= sharpness[chosen][picture] - _BLUR
    rows = np.flatnonzero(sharp & (np.bincount(picture)[picture] > 1) & (band[picture] >= 0))
    shown = np.flatnonzero(sharp)  # a picture and its flipped copy add nothing to what is asymmetric of the mean
    for _ in range(_ROUNDS if len(rows) else 0):
        means = _mean_heads(signatures.pattern, shown, band[picture[shown]])
        similarity = np.where(sharp, 0, -np.inf).astype(np.float32)
        similarity[rows] = _similarity(signatures.pattern, rows, means, band[picture[rows]])
        shown = chosen = _best(similarity, picture)
    return chosen


def _best(score: Float32Array, picture: IntArray) -> IntArray:
    """Return the row of each picture with the highest score, the first of equal ones."""
    order = np.lexsort((-score, picture))
    return order[np.unique(picture[order], return_index=True)[1]]


def _mean_heads(pattern: Float32Array | Float16Array, rows: IntArray, band: IntArray) -> Float32Array:
    """Return the mean pattern of some slices in each band of levels, scaled to length 1, shape (bands, 4096).

    All have one left: where most of a band's slices are flipped, its mean is mirrored. What is asymmetric of a head
    hardly changes from band to band (correlation of 0.92 and more in the public dataset).
    """
    means = np.stack(
        [pattern[rows[band == number]].mean(axis=0, dtype=np.float32) for number in range(band.max() + 1)]
    )
    asymmetry = means - mirrored(means)
    for number in range(1, len(means)):
        if asymmetry[number] @ asymmetry[number - 1] < 0:
            means[number], asymmetry[number] = mirrored(means[number, None])[0], -asymmetry[number]
    return unit(means)


def _similarity(
    pattern: Float32Array | Float16Array, rows: IntArray, means: Float32Array, band: IntArray
) -> Float32Array:
    """Return the similarity of some slices to the mean head of their band, shape of ``rows``."""
    parts = [
        np.einsum("nd,nd->n", pattern[rows[part]].astype(np.float32), means[band[part]])
        for part in blocks(len(rows), BLOCK_ROWS)
    ]
    return np.concatenate(parts)
