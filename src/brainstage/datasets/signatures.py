"""What tells one head from another in a grey slice: anatomy at two scales, the grain, the tones.

All of them are blind to a slice's brightness scaling, which differs from slice to slice in the public dataset.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

Floats = NDArray[np.float32]

SIDE = 128
"""Side of the square that every slice is brought to."""
PATTERN, COARSE = 64, 32
"""Sides of the pictures behind :attr:`Signatures.pattern` and :attr:`Signatures.coarse`."""
HEAD = 0.1
"""Grey value, as a share of the picture's root mean square, above which a pixel belongs to the head."""
BLOCK = 500
"""Slices that are worked on at once: what memory a search takes grows with their number times all others."""


@dataclass(frozen=True)
class Signatures:
    """Numbers that describe n slices; every array is float32 with n rows."""

    pattern: Floats
    """Fine anatomy, (n, 4096): 64×64 pixels less their surroundings, each row of length 1."""
    coarse: Floats
    """Coarse anatomy, (n, 1024): 32×32 pixels less their surroundings, each row of length 1."""
    grain: Floats
    """Logarithm of the finest detail's power by place, (n, 256): noise and sharpness of the scan."""
    tones: Floats
    """Square root of the grey values' histogram, (n, 24): contrast between tissues."""
    area: Floats
    """Share of the picture that the head fills, (n,)."""

    def __len__(self) -> int:
        return len(self.pattern)

    def take(self, rows: NDArray[np.int64]) -> Signatures:
        """Return the signatures of some rows."""
        return Signatures(*(column[rows] for column in vars(self).values()))


def describe_slices(images: Sequence[NDArray[np.uint8]]) -> Signatures:
    """Compute the signatures of grey slices, each uint8 of shape (H, W)."""
    chunks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(_signatures, chunks))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Signatures(*(np.concatenate(column) for column in columns))


def coarse_anatomy(images: Sequence[NDArray[np.uint8]]) -> Floats:
    """Return :attr:`Signatures.coarse` of grey slices alone, (n, 1024)."""
    return _coarse(_shrink(square(images), COARSE))


def _coarse(small: Floats) -> Floats:
    return unit(relief(small, 9))


def square(images: Sequence[NDArray[np.uint8]]) -> Floats:
    """Bring slices to one square size and to unit power: float32 of shape (n, 128, 128)."""
    pictures = np.stack([_fit(image) for image in images]).astype(np.float32)
    power = np.sqrt(np.square(pictures).mean(axis=(1, 2), keepdims=True))
    return pictures / np.maximum(power, 1e-6)


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale the longer side to :data:`SIDE`, and fill up with black."""
    if image.shape == (SIDE, SIDE):
        return image
    scale = SIDE / max(image.shape)
    height, width = (max(1, round(side * scale)) for side in image.shape)
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return np.pad(small, ((top, SIDE - height - top), (left, SIDE - width - left)))


def _signatures(images: Sequence[NDArray[np.uint8]]) -> Signatures:
    pictures = square(images)
    fine = pictures - gaussian_filter(pictures, (0, 1, 1), truncate=2)
    power = gaussian_filter(_shrink(np.square(fine), COARSE), (0, 1, 1))[:, ::2, ::2]
    half = _shrink(pictures, PATTERN)
    return Signatures(
        pattern=unit(relief(half, 13)),
        coarse=_coarse(_shrink(half, COARSE)),
        grain=np.log(power + 1e-4).reshape(len(pictures), -1),
        tones=_histograms(pictures),
        area=(pictures > HEAD).mean(axis=(1, 2), dtype=np.float32),
    )


def _shrink(pictures: Floats, side: int) -> Floats:
    """Average blocks of pixels; adding every so many-th row and column is five times faster than ``mean``."""
    block = pictures.shape[1] // side
    rows = pictures[:, ::block].copy()
    for start in range(1, block):
        rows += pictures[:, start::block]
    both = rows[:, :, ::block].copy()
    for start in range(1, block):
        both += rows[:, :, start::block]
    return both / np.float32(block * block)


def relief(pictures: Floats, surroundings: int) -> Floats:
    """Subtract from (n, H, W) pictures the mean of the surroundings, so many pixels wide: one row each."""
    return (pictures - uniform_filter(pictures, (0, surroundings, surroundings))).reshape(len(pictures), -1)


def _histograms(pictures: Floats) -> Floats:
    """Return the root of the density of grey values: 24 bins, each an eighth of the root mean square wide."""
    bins = np.minimum(pictures * 8, 24).astype(np.int32)
    bins += np.arange(len(pictures), dtype=np.int32)[:, None, None] * 25
    counts = np.bincount(bins.ravel(), minlength=25 * len(pictures)).reshape(-1, 25)[:, 1:]
    return np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def unit(rows: Floats) -> Floats:
    """Scale every row to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def mirrored(pattern: Floats) -> Floats:
    """Return the pattern of the slices flipped left to right."""
    return pattern.reshape(-1, PATTERN, PATTERN)[:, :, ::-1].reshape(len(pattern), -1)


def nearest(queries: Floats, keys: Floats, count: int, *, same: bool = False) -> tuple[NDArray[np.int64], Floats]:
    """Find each query's most similar keys by scalar product, block by block.

    Args:
        queries: Shape (n, d).
        keys: Shape (m, d).
        count: Number of keys to find, at most m (m - 1 with ``same``).
        same: Queries and keys are the same rows, and a row is not its own neighbour.

    Returns:
        Row numbers of the keys, best first, and their similarities; both of shape (n, count).
    """

    def search(start: int) -> tuple[NDArray[np.int64], Floats]:
        block = queries[start : start + BLOCK] @ keys.T
        if same:
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        return largest(block, count)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found, similarity = zip(*pool.map(search, range(0, len(queries), BLOCK)), strict=True)
    return np.concatenate(found), np.concatenate(similarity)


def largest(block: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the columns of each row's largest values, largest first, and the values; both (rows, count)."""
    best = block.argmax(axis=1)[:, None] if count == 1 else np.argpartition(block, -count, axis=1)[:, -count:]
    values = np.take_along_axis(block, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
