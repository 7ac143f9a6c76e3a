"""Histograms of grey values: the contrast between tissues, whatever a picture's brightness."""

from __future__ import annotations

import numpy as np

from brainstage.core.arrays import Float32Array

TONES = 24
"""Bins of grey values, each an eighth of a picture's root mean square; darker pixels are left out as background."""


def in_units_of_power(pictures: Float32Array) -> Float32Array:
    """Divide pictures, float32 of shape (n, H, W), by their root mean square."""
    power = np.sqrt(np.square(pictures).mean(axis=(1, 2), keepdims=True))
    return pictures / np.maximum(power, 1e-6)


def tone_roots(pictures: Float32Array) -> Float32Array:
    """Return the square roots of the shares of the pixels in each bin.

    Args:
        pictures: In units of their root mean square, shape (n, H, W).

    Returns:
        Shape (n, TONES); the squares of a row add up to 1, or to 0 where the picture is black.
    """
    bins = np.minimum(pictures * 8, TONES).astype(np.int32)
    bins += np.arange(len(pictures), dtype=np.int32)[:, None, None] * (TONES + 1)
    counts = np.bincount(bins.ravel(), minlength=(TONES + 1) * len(pictures)).reshape(-1, TONES + 1)[:, 1:]
    return np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)
