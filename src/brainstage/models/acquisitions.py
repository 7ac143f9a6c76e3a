"""Acquisitions: how another scanner, another day or another preparation would have shown the same head.

The patient model is fitted to random ones of its training people, looks at some of every scan that it stages, and
networks can be trained on them. The family is a stated one; it was not fitted to any scanner:

========== ======================================= =====================================================
noise      0 to 6 % of white matter                Rician (Gudbjartsson and Patz 1995, MRM 34, 910)
blur       0 to 1.2 pixels                         standard deviation of a Gaussian
gamma      0.74 to 1.35, its logarithm uniform     contrast between tissues
slope      up to 30 % in each direction            brightness from the middle to each side: coil sensitivity
shift      up to 2 pixels in each direction        of the brain in the picture
turn       up to 3 degrees                         around the picture's middle
zoom       up to 5 % larger or smaller             size of the brain in the picture
========== ======================================= =====================================================

Pixels are those of a slice of 128×128; in larger slices they are as much larger. All slices of a person are changed
alike, and by everything at once; the noise is each slice's own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.models.histograms import BACKGROUND, SIDE, white_matter

VERSION = 1
"""Version of the family, incremented when it changes, so that cached features are not used."""


@dataclass(frozen=True)
class Acquisition:
    """One acquisition. Lengths are in pixels of a slice of 128×128, shares between 0 and 1.

    Attributes:
        noise: Standard deviation of the noise before the magnitude is taken, as a share of white matter.
        blur: Standard deviation of a Gaussian.
        gamma: Exponent of the grey values, where white matter is 1.
        slope: Change of brightness from the middle to the lower and to the right side.
        shift: Down and to the right.
        turn: Degrees, anticlockwise.
        zoom: Factor of size.
        seed: Of the noise.
    """

    noise: float = 0.0
    blur: float = 0.0
    gamma: float = 1.0
    slope: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    zoom: float = 1.0
    seed: int = 0

    @classmethod
    def draw(cls, seed: int) -> Acquisition:
        """Return a random acquisition of the family; equal seeds draw equal ones."""
        rng = np.random.default_rng(seed)

        def between(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        return cls(
            noise=between(0, 0.06),
            blur=between(0, 1.2),
            gamma=float(np.exp(between(-0.3, 0.3))),
            slope=(between(-0.3, 0.3), between(-0.3, 0.3)),
            shift=(between(-2, 2), between(-2, 2)),
            turn=between(-3, 3),
            zoom=between(0.95, 1.05),
            seed=seed,
        )

    def apply(self, image: Pixels) -> Pixels:
        """Return a slice as this acquisition shows it, both uint8 of shape (H, W).

        The same slice gets the same noise, whatever else is acquired.
        """
        white = white_matter(image)
        pixels = self._placed(image)
        if self.blur:
            pixels = gaussian_filter(pixels, self.blur * max(image.shape) / SIDE, truncate=3)
        if any(self.slope):
            down, right = (np.linspace(-1, 1, side, dtype=np.float32) for side in pixels.shape)
            pixels = pixels * (1 + self.slope[0] * down[:, None]) * (1 + self.slope[1] * right)
        if self.gamma != 1:
            pixels = white * (pixels / white).clip(0) ** np.float32(self.gamma)
        if self.noise:
            pixels = self._noisy(pixels, white, zlib.crc32(image.tobytes()))
        changed: Pixels = pixels.round().clip(0, 255).astype(np.uint8)
        return changed

    def _placed(self, image: Pixels) -> Float32Array:
        """Return the slice shifted, turned and zoomed, by bilinear interpolation."""
        if not (any(self.shift) or self.turn or self.zoom != 1):
            return image.astype(np.float32)
        height, width = image.shape
        angle = np.deg2rad(self.turn)
        cos, sin = np.cos(angle) / self.zoom, np.sin(angle) / self.zoom
        unit = max(image.shape) / SIDE
        down, right = height / 2 + self.shift[0] * unit, width / 2 + self.shift[1] * unit
        inverse = (
            *(cos, -sin, width / 2 - cos * right + sin * down),
            *(sin, cos, height / 2 - sin * right - cos * down),
        )
        source = Image.fromarray(image.astype(np.float32))
        return np.asarray(source.transform(source.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR))

    def _noisy(self, pixels: Float32Array, white: float, slice_seed: int) -> Float32Array:
        """Return the slice with Rician noise in the head; around it a skull-stripped slice is black."""
        rng = np.random.default_rng([self.seed, slice_seed])
        real, imaginary = rng.standard_normal((2, *pixels.shape), dtype=np.float32) * np.float32(self.noise * white)
        return np.where(pixels > BACKGROUND, np.hypot(pixels + real, imaginary), pixels)
