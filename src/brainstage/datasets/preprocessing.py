"""The only preprocessing, and the augmentation.

The preprocessing is that of the image processor saved with a model (resize, crop the centre, scale, normalise),
done for a whole array at once; a test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainstage.core.arrays import BoolArray, Float32Array, IntArray, Pixels
from brainstage.core.cache import scratch_array
from brainstage.core.errors import DataError
from brainstage.core.files import write_json
from brainstage.core.parallel import parallel_map

_FILE = "preprocessor_config.json"
CHUNK = 32
"""Slices of one task of a thread."""


@dataclass(frozen=True)
class Preprocessing:
    """From grey slices of any size to the network's input.

    Attributes:
        size: Side of the network's input, in pixels.
        crop_share: Share of the slice's shorter side that is kept (``ConvNextImageProcessor``); None scales both
            sides to ``size`` and keeps everything (``ViTImageProcessor``).
        mean: Mean of the grey values (0 to 1) that becomes 0. One number makes an input of one channel; a number
            a channel makes one of that many channels.
        std: Standard deviation of the grey values that becomes 1, like ``mean``.
        resample: Pillow's number of the interpolation: 2 bilinear, 3 bicubic.
    """

    size: int
    crop_share: float | None
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5
    resample: int = 3

    @classmethod
    def open(cls, folder: Path) -> Preprocessing:
        """Read the preprocessing of a model folder.

        Raises:
            DataError: Its ``preprocessor_config.json`` is missing, damaged or of another architecture.
        """
        file = folder / _FILE
        try:
            return cls.of_processor(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: not a usable image processor ({error}); get the model folder anew") from error

    @classmethod
    def of_processor(cls, settings: dict[str, Any]) -> Preprocessing:
        """Return what an image processor does, from the content of its ``preprocessor_config.json``.

        Raises:
            KeyError, TypeError, ValueError: It is the processor of another architecture, or leaves out a step.
        """
        kind = settings.get("image_processor_type") or settings["feature_extractor_type"]
        steps = ("do_resize", "do_rescale", "do_normalize")
        if (
            not all(settings.get(step, True) for step in steps)
            or settings.get("rescale_factor", 1 / 255) != 1 / 255
        ):
            raise ValueError(f"its image processor leaves out one of {', '.join(steps)}")
        mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
        side, crop_share = _side_and_crop(kind, settings)
        return cls(side, crop_share, mean, std, settings["resample"])

    @property
    def settings(self) -> dict[str, Any]:
        """The content of ``preprocessor_config.json``: the same preprocessing, for RGB pictures.

        It is what transformers' own processors write, which take seconds to import.
        """
        settings: dict[str, Any] = {
            **dict.fromkeys(("do_normalize", "do_rescale", "do_resize"), True),
            "image_mean": self._of_channels(self.mean),
            "image_std": self._of_channels(self.std),
            "resample": self.resample,
            "rescale_factor": 1 / 255,
        }
        if self.crop_share is None:
            size = {"height": self.size, "width": self.size}
            return settings | {"image_processor_type": "ViTImageProcessor", "size": size}
        size = {"shortest_edge": self.size}
        return settings | {
            "image_processor_type": "ConvNextImageProcessor",
            "crop_pct": self.crop_share,
            "size": size,
        }

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json`` into a model folder."""
        write_json(folder / _FILE, dict(sorted(self.settings.items())))

    def one_channel(self) -> Preprocessing | None:
        """Return this preprocessing for a network of one channel; None where the channels differ."""
        means, stds = set(self._of_channels(self.mean)), set(self._of_channels(self.std))
        return replace(self, mean=means.pop(), std=stds.pop()) if len(means) == len(stds) == 1 else None

    @staticmethod
    def _of_channels(value: float | tuple[float, ...]) -> list[float]:
        return list(value) if isinstance(value, tuple) else [value] * 3

    def resize(self, images: Sequence[Pixels], margin: int = 0, out: Pixels | None = None) -> Pixels:
        """Scale slices and crop their centre.

        Args:
            images: Grey values, each uint8 of shape (H, W).
            margin: Pixels to keep around the crop for :func:`shift`; black where the slice ends.
            out: What is filled; None makes it.

        Returns:
            uint8 of shape (N, *self.shape(margin)).
        """
        resized = scratch_array((len(images), *self.shape(margin)), np.uint8) if out is None else out

        def fill(start: int) -> None:
            for row, image in enumerate(images[start : start + CHUNK], start):
                resized[row] = _crop(self._scale(image), self.size, margin)

        parallel_map(fill, range(0, len(images), CHUNK))
        return resized

    def shape(self, margin: int = 0) -> tuple[int, int]:
        """Return rows and columns of a slice with a margin around the network's input."""
        return self.size + 2 * margin, self.size + 2 * margin

    def undo(self, map_: Float32Array, shape: tuple[int, ...]) -> Float32Array:
        """Return a map of the network's input, of any resolution, on the slice that the input was made of.

        Args:
            map_: float32 of shape (h, w), the whole input however coarse.
            shape: Rows and columns of the slice.

        Returns:
            float32 of that shape, 0 where the slice was cropped.
        """
        scaled = np.zeros(self._scaled(shape), np.float32)
        top, left = ((side - self.size) // 2 for side in scaled.shape)
        scaled[top : top + self.size, left : left + self.size] = _resized(map_, (self.size, self.size))
        return _resized(scaled, shape)

    def _scale(self, image: Pixels) -> Pixels:
        rows, columns = self._scaled(image.shape)
        return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling(self.resample)))

    def _scaled(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return rows and columns of a slice before its centre is cropped."""
        if self.crop_share is None:
            return self.size, self.size
        shorter_side, short = int(self.size / self.crop_share), min(shape)
        return int(shorter_side * shape[0] / short), int(shorter_side * shape[1] / short)

    def normalise(self, pixels: Pixels) -> Float32Array:
        """Return the network's input, float32 of shape (N, C, H, W), for uint8 pixels of shape (N, H, W)."""
        channels = np.broadcast_arrays(np.atleast_1d(self.mean), np.atleast_1d(self.std))
        mean, std = (values.astype(np.float64).reshape(-1, 1, 1) for values in channels)
        scale, offset = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
        values: Float32Array = pixels[:, None] * scale
        values -= offset  # in place: fresh memory would take as long as the arithmetic
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
            raise DataError("all training pixels have the same value; these are not brain slices; give other data")
        return replace(self, mean=round(mean / 255, 3), std=round(std / 255, 3))


def _side_and_crop(kind: str, settings: dict[str, Any]) -> tuple[int, float | None]:
    """Return the input's side in pixels and the share that is cropped, from an image processor's settings."""
    size = settings["size"]
    if kind.startswith("ConvNext"):
        side = size["shortest_edge"]
        return side, settings["crop_pct"] if side < 384 else None  # larger pictures are scaled, never cropped
    if kind.startswith("ViT"):
        height, width = (size, size) if isinstance(size, int) else (size["height"], size["width"])
        if height != width:
            raise ValueError(f"its input of {width}×{height} pixels is not square")
        return height, None
    raise ValueError(f"its image processor is a {kind}, expected that of a ViT, Swin or ConvNeXt")


def _resized(map_: Float32Array, shape: tuple[int, ...]) -> Float32Array:
    return np.asarray(Image.fromarray(map_).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _crop(image: Pixels, size: int, margin: int) -> Pixels:
    top, left = (image.shape[0] - size) // 2 - margin, (image.shape[1] - size) // 2 - margin
    side = size + 2 * margin
    padding = max(0, -top, -left, top + side - image.shape[0], left + side - image.shape[1])
    if padding:
        image = np.pad(image, padding)
    return image[top + padding : top + padding + side, left + padding : left + padding + side]


def draw_shifts(count: int, max_shift: int, seed: int, epoch: int) -> IntArray:
    """Draw how far each slice is shifted in one epoch, int64 of shape (count, 2), rows and columns.

    A shift depends on the seed, the epoch and the slice's number alone, so a resumed training repeats it.

    Args:
        count: Number of slices.
        max_shift: Largest shift in pixels; shifts are from 0 to twice that, the middle being none.
        seed: Seed of the training.
        epoch: Number of the epoch.
    """
    return np.random.default_rng([seed, epoch]).integers(0, 2 * max_shift + 1, (count, 2))


def draw_mirrored(count: int, seed: int, epoch: int) -> BoolArray:
    """Draw which slices are mirrored in one epoch, bool of shape (count,); repeated like :func:`draw_shifts`.

    Args:
        count: Number of slices.
        seed: Seed of the training.
        epoch: Number of the epoch.
    """
    return np.random.default_rng([seed, epoch, 1]).random(count) < 0.5


def draw_versions(count: int, versions: int, seed: int, epoch: int) -> IntArray:
    """Draw which version of each slice an epoch shows, int64 of shape (count,); repeated like :func:`draw_shifts`.

    Args:
        count: Number of slices.
        versions: Number of versions of each.
        seed: Seed of the training.
        epoch: Number of the epoch.
    """
    return np.random.default_rng([seed, epoch, 2]).integers(0, versions, count)


def shift(pixels: Pixels, starts: IntArray, size: int) -> Pixels:
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
