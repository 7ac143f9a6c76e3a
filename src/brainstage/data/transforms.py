"""The only preprocessing, and the augmentation.

The preprocessing is that of the image processor saved with a model (resize the shorter side, crop the centre,
scale, normalise), done for a whole array at once; a test holds the two together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainstage.errors import DataError

Pixels = NDArray[np.uint8]


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
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chunks = [images[start : start + 256] for start in range(0, len(images), 256)]
            parts = list(pool.map(lambda chunk: self._resize_chunk(chunk, margin), chunks))
        side = self.size + 2 * margin
        return np.concatenate(parts) if parts else np.zeros((0, side, side), np.uint8)

    def _resize_chunk(self, images: Sequence[Pixels], margin: int) -> Pixels:
        return np.stack([_crop(_scale(image, self.shorter_side), self.size, margin) for image in images])

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
        levels = np.arange(256)
        counts = sum(np.bincount(picture.ravel(), minlength=256) for picture in pixels) / pixels.size
        mean = float(counts @ levels)
        std = float(counts @ (levels - mean) ** 2) ** 0.5
        if std == 0:
            raise DataError("all training pixels have the same value; these are not brain slices")
        return Preprocessing(self.size, self.crop_share, round(mean / 255, 3), round(std / 255, 3))


def _scale(image: Pixels, shorter_side: int) -> Pixels:
    height, width = image.shape
    short = min(height, width)
    size = (int(shorter_side * width / short), int(shorter_side * height / short))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _crop(image: Pixels, size: int, margin: int) -> Pixels:
    top, left = (image.shape[0] - size) // 2 - margin, (image.shape[1] - size) // 2 - margin
    side = size + 2 * margin
    padding = max(0, -top, -left, top + side - image.shape[0], left + side - image.shape[1])
    if padding:
        image = np.pad(image, padding)
    return image[top + padding : top + padding + side, left + padding : left + padding + side]


def draw_shifts(count: int, max_shift: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw how far each slice is shifted in one epoch, int64 of shape (count, 2), rows and columns.

    A shift depends on the seed, the epoch and the slice's number alone, so a resumed training repeats it.
    """
    return np.random.default_rng([seed, epoch]).integers(0, 2 * max_shift + 1, (count, 2))


def draw_mirrored(count: int, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Draw which slices are mirrored in one epoch, bool of shape (count,); repeated like :func:`draw_shifts`."""
    return np.random.default_rng([seed, epoch, 1]).random(count) < 0.5


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
