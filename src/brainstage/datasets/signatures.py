"""Features that distinguish one head from another in a grey slice: anatomy at two scales, grain and tones.

None of them depends on a slice's overall brightness, which varies from slice to slice in the public dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from brainstage.core.arrays import Float16Array, Float32Array, IntArray, Pixels
from brainstage.core.cache import scratch_array
from brainstage.core.parallel import parallel_map
from brainstage.stats.tones import TONES, in_units_of_power, tone_roots

SQUARE_SIDE = 128
"""Side, in pixels, of the square that every slice is fitted into."""
PATTERN_SIDE, COARSE_SIDE = 64, 32
"""Sides, in pixels, of the pictures behind :attr:`Signatures.pattern` and :attr:`Signatures.coarse`."""
HEAD_THRESHOLD = 0.1
"""Grey value, as a share of the picture's root mean square, above which a pixel belongs to the head."""
EXACT_LIMIT = 10_000
"""Number of slices up to which every comparison is exact; above, memory and time are saved at a small cost."""
BLOCK_ROWS = 500
"""Slices processed at once; it bounds the memory of intermediate results."""


@dataclass(frozen=True)
class Signatures:
    """Features of n slices; arrays have n rows and are float32 unless noted."""

    pattern: Float32Array | Float16Array
    """Fine anatomy, shape (n, 4096): 64×64 pixels minus the mean of their surroundings, each row of length 1; it is
    float16 where more than :data:`EXACT_LIMIT` slices were described at once."""
    coarse: Float32Array
    """Coarse anatomy, shape (n, 1024): 32×32 pixels minus the mean of their surroundings, rows of length 1."""
    grain: Float32Array
    """Logarithm of the power of the finest detail by location, shape (n, 256): noise and sharpness of the scan."""
    tones: Float32Array
    """Square root of the histogram of grey values, shape (n, 24): contrast between tissues."""
    area: Float32Array
    """Share of the picture that the head fills, shape (n,)."""

    def __len__(self) -> int:
        return len(self.pattern)

    def take(self, rows: IntArray) -> Signatures:
        """Return the signatures of some rows."""
        return Signatures(*(column[rows] for column in vars(self).values()))


def blocks(count: int, size: int) -> list[slice]:
    """Cut the rows 0 to ``count`` into slices of at most ``size`` rows."""
    return [slice(start, start + size) for start in range(0, count, size)]


def describe_slices(images: Sequence[Pixels]) -> Signatures:
    """Compute the signatures of grey slices, each uint8 of shape (H, W)."""
    count = len(images)
    signatures = Signatures(
        pattern=scratch_array((count, PATTERN_SIDE**2), np.float32 if count <= EXACT_LIMIT else np.float16),
        coarse=scratch_array((count, COARSE_SIDE**2), np.float32),
        grain=scratch_array((count, (COARSE_SIDE // 2) ** 2), np.float32),
        tones=scratch_array((count, TONES), np.float32),
        area=scratch_array((count,), np.float32),
    )

    def fill(rows: slice) -> None:
        for name, column in vars(_signatures(images[rows])).items():
            getattr(signatures, name)[rows] = column

    parallel_map(fill, blocks(count, BLOCK_ROWS))
    return signatures


def describe_coarse(images: Sequence[Pixels]) -> Float32Array:
    """Return :attr:`Signatures.coarse` of any number of grey slices alone, (n, 1024)."""
    coarse: Float32Array = scratch_array((len(images), COARSE_SIDE**2), np.float32)

    def fill(rows: slice) -> None:
        coarse[rows] = _coarse(shrink(shrink(square(images[rows]), PATTERN_SIDE), COARSE_SIDE))

    parallel_map(fill, blocks(len(images), BLOCK_ROWS))
    return coarse


def coarse_anatomy(images: Sequence[Pixels]) -> Float32Array:
    """Return the coarse anatomy of a few grey slices, (n, 1024), in half the steps of :func:`describe_coarse`."""
    return _coarse(shrink(square(images), COARSE_SIDE))


def _coarse(small: Float32Array) -> Float32Array:
    return unit(relief(small, 9))


def square(images: Sequence[Pixels]) -> Float32Array:
    """Fit slices into a square of one size and scale them to unit power: float32 of shape (n, 128, 128)."""
    return in_units_of_power(np.stack([_fit(image) for image in images]).astype(np.float32))


def _fit(image: Pixels) -> Pixels:
    """Scale the longer side to :data:`SQUARE_SIDE` and pad with black."""
    if image.shape == (SQUARE_SIDE, SQUARE_SIDE):
        return image
    scale = SQUARE_SIDE / max(image.shape)
    height, width = (max(1, round(side * scale)) for side in image.shape)
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (SQUARE_SIDE - height) // 2, (SQUARE_SIDE - width) // 2
    return np.pad(small, ((top, SQUARE_SIDE - height - top), (left, SQUARE_SIDE - width - left)))


def _signatures(images: Sequence[Pixels]) -> Signatures:
    pictures = square(images)
    fine = pictures - gaussian_filter(pictures, (0, 1, 1), truncate=2)
    power = gaussian_filter(shrink(np.square(fine), COARSE_SIDE), (0, 1, 1))[:, ::2, ::2]
    half = shrink(pictures, PATTERN_SIDE)
    return Signatures(
        pattern=unit(relief(half, 13)),
        coarse=_coarse(shrink(half, COARSE_SIDE)),
        grain=np.log(power + 1e-4).reshape(len(pictures), -1),
        tones=tone_roots(pictures),
        area=(pictures > HEAD_THRESHOLD).mean(axis=(1, 2), dtype=np.float32),
    )


def shrink(pictures: Float32Array, side: int) -> Float32Array:
    """Average blocks of pixels of square pictures, (n, S, S), until the side is ``side``."""
    block = pictures.shape[1] // side
    if block == 1:
        return pictures
    rows = pictures[:, ::block].copy()  # adding strided rows and columns is five times faster than ``mean``
    for start in range(1, block):
        rows += pictures[:, start::block]
    both = rows[:, :, ::block].copy()
    for start in range(1, block):
        both += rows[:, :, start::block]
    return both / np.float32(block * block)


def relief(pictures: Float32Array, surroundings: int) -> Float32Array:
    """Subtract from each pixel the mean of its surroundings.

    Args:
        pictures: Shape (n, H, W).
        surroundings: Side of the square around each pixel, in pixels.

    Returns:
        Shape (n, H * W).
    """
    return (pictures - uniform_filter(pictures, (0, surroundings, surroundings))).reshape(len(pictures), -1)


def unit(rows: Float32Array) -> Float32Array:
    """Scale every row to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def mirrored(pattern: Float32Array) -> Float32Array:
    """Return the patterns (n, 4096) of the same slices flipped left to right."""
    return pattern.reshape(-1, PATTERN_SIDE, PATTERN_SIDE)[:, :, ::-1].reshape(len(pattern), -1)
