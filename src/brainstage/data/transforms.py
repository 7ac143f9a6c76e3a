"""The only preprocessing, and the augmentation.

The preprocessing is that of the image processor saved with a model (resize the shorter side, crop the centre,
scale, normalise), done for a whole array at once; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from brainstage.errors import DataError

Pixels = NDArray[np.uint8]

_CHUNK = 256
"""Slices that are scaled at once: enough for every thread, and little memory beside the result."""


@dataclass(frozen=True)
class Preprocessing:
    """From grey slices of any size to the network's input.

    Attributes:
        size: Side of the network's input, in pixels.
        crop_share: Share of the slice's shorter side that is kept.
        mean: Mean of the grey values (0 to 1) that becomes 0.
        std: Standard deviation of the grey values that becomes 1.
    """

    size: int
    crop_share: float
    mean: float = 0.5
    std: float = 0.5

    @property
    def shorter_side(self) -> int:
        """Side that slices are scaled to before the crop (as in ``ConvNextImageProcessor``)."""
        return int(self.size / self.crop_share)

    def resize(self, images: Sequence[Pixels], margin: int = 0) -> Pixels:
        """Scale slices and crop their centre.

        Args:
            images: Grey values, each uint8 of shape (H, W).
            margin: Pixels to keep around the crop for :func:`shift`; black where the slice ends.

        Returns:
            uint8 of shape (N, size + 2·margin, size + 2·margin).
        """
        side = self.size + 2 * margin
        resized = np.empty((len(images), side, side), np.uint8)
        rows_of_shape: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            rows_of_shape.setdefault(image.shape, []).append(row)
        for rows in rows_of_shape.values():
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                scaled = _scale(np.stack([images[row] for row in chunk]), self.shorter_side)
                resized[chunk] = _crop(scaled, self.size, margin)
        return resized

    def normalise(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return the network's input, float32 of shape (N, 1, H, W), for uint8 pixels of shape (N, H, W)."""
        scale = np.float32(1 / (255 * self.std))
        offset = np.float32(self.mean / self.std)
        values: NDArray[np.float32] = pixels[:, None] * scale - offset
        return values

    def fitted(self, pixels: Pixels) -> Preprocessing:
        """Return this preprocessing with the mean and standard deviation of some pixels, to three digits.

        Raises:
            DataError: All pixels are equal.
        """
        std = round(float(pixels.std()) / 255, 3)
        if std == 0:
            raise DataError("all training pixels have the same value; these are not brain slices")
        return Preprocessing(self.size, self.crop_share, round(float(pixels.mean()) / 255, 3), std)


def _scale(images: Pixels, shorter_side: int) -> Pixels:
    """Scale slices of one shape, (N, H, W), by bicubic interpolation with antialiasing.

    The same filter as Pillow's, several times faster; the two round differently, so a few pixels differ by a grey
    level or two (a test holds them together).
    """
    height, width = images.shape[1:]
    short = min(height, width)
    size = (int(shorter_side * height / short), int(shorter_side * width / short))
    values = torch.from_numpy(images)[:, None]
    return interpolate(values, size, mode="bicubic", antialias=True)[:, 0].numpy()


def _crop(images: Pixels, size: int, margin: int) -> Pixels:
    side = size + 2 * margin
    height, width = images.shape[1:]
    top, left = (height - size) // 2 - margin, (width - size) // 2 - margin
    padding = max(0, -top, -left, top + side - height, left + side - width)
    if padding:
        images = np.pad(images, ((0, 0), (padding, padding), (padding, padding)))
    return images[:, top + padding : top + padding + side, left + padding : left + padding + side]


def draw_shifts(count: int, max_shift: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw how far each slice is shifted in one epoch, int64 of shape (count, 2), rows and columns.

    A shift depends on the seed, the epoch and the slice's number alone, so a resumed training repeats it.
    """
    return np.random.default_rng([seed, epoch]).integers(0, 2 * max_shift + 1, (count, 2))


def shift(pixels: Pixels, starts: NDArray[np.int64], size: int) -> Pixels:
    """Cut one window of ``size`` from each picture, its upper left corner at ``starts``.

    Args:
        pixels: uint8 of shape (N, size + 2·margin, size + 2·margin).
        starts: int64 of shape (N, 2), each from 0 to 2·margin.
        size: Side of the windows.

    Returns:
        uint8 of shape (N, size, size).
    """
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    return windows[np.arange(len(pixels)), starts[:, 0], starts[:, 1]]
