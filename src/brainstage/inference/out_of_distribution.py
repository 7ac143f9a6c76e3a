"""Whether a picture looks like the slices that a model was trained on: what does not gets no answer.

A slice's coarse anatomy (32×32 pixels less their surroundings) is compared with the means of 32 groups of training
slices. On heads that are registered, as these are, that correlation tells brain slices from all else: every other
picture, other planes, species and contrasts, heads with skull (`benchmarks/refusal.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from brainstage.datasets.signatures import Floats, coarse_anatomy, unit

Pixels = NDArray[np.uint8]

FILE = "likeness.safetensors"
GROUPS = 32
"""Most groups of training slices; the public dataset has as many levels."""
_SAMPLE = 2000
WIDER = 1.3
"""How much wider an angle from its group may be than that of 99 % of the training slices.

Chosen between what pictures that come with scikit-image, drawn shapes and text reach, and what training slices do.
"""

TURNS: dict[str, Callable[[Pixels], Pixels]] = {
    "flip it top to bottom": lambda image: image[::-1],
    "turn it by 180 degrees": lambda image: image[::-1, ::-1],
    "turn it by 90 degrees to the left": lambda image: np.rot90(image),
    "turn it by 90 degrees to the right": lambda image: np.rot90(image, -1),
}
"""What brings a slice that lies otherwise to how the training slices lie."""
SIZES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the picture that a head is scaled to, in search of the size that it should have."""
LARGEST = 512
"""Longest side in pixels of a picture that is told what is wrong with it: the frame of a long strip is huge."""


class Likeness:
    """What training slices look like.

    Attributes:
        least: Least likeness that a slice must have.
    """

    def __init__(self, means: Floats, least: float) -> None:
        """Take the groups' means, float32 of shape (groups, 1024) and of length 1 each, and the least likeness."""
        self._means = means
        self.least = least

    @classmethod
    def fit(cls, images: Sequence[Pixels]) -> Likeness:
        """Learn from training slices, each uint8 of shape (H, W); of many a sample is enough."""
        from sklearn.cluster import KMeans  # takes a second to import, and prediction needs none of it

        chosen = np.random.default_rng(0).permutation(len(images))[:_SAMPLE]
        rows = coarse_anatomy([images[row] for row in chosen])
        groups = int(np.clip(len(rows) // 50, 1, GROUPS))
        means = unit(KMeans(groups, random_state=0).fit(rows).cluster_centers_.astype(np.float32))
        angle = np.arccos(np.clip(np.quantile((rows @ means.T).max(axis=1), 0.01), -1, 1))
        return cls(means, float(np.cos(min(angle * WIDER, np.pi / 2))))

    def of(self, images: Sequence[Pixels]) -> Floats:
        """Return the likeness of each picture, from -1 to 1, shape (n,)."""
        likeness: Floats = (coarse_anatomy(images) @ self._means.T).max(axis=1)
        return likeness

    def refusals(self, images: Sequence[Pixels]) -> list[str | None]:
        """Return why each picture is refused; None where it may be staged."""
        if not len(images):
            return []
        return [
            None if likeness >= self.least else self._reason(image, float(likeness))
            for image, likeness in zip(images, self.of(images), strict=True)
        ]

    def _reason(self, image: Pixels, likeness: float) -> str:
        if np.ptp(image) == 0:
            return "shows nothing, all its pixels have the same value"
        image = _reduced(image)
        turned = self.of([turn(image) for turn in TURNS.values()])
        if turned.max() >= self.least:
            return f"lies otherwise than the slices that the model was trained on; {list(TURNS)[turned.argmax()]}"
        if self.of([_framed(image, size) for size in SIZES]).max() >= self.least:
            return (
                "shows the head at another size or place than the slices that the model was trained on; crop it or "
                "pad it to be like them"
            )
        return (
            "does not look like the slices that the model was trained on (its likeness to them is "
            f"{likeness:.2f}, expected {self.least:.2f} or more)"
        )

    def save(self, folder: Path) -> None:
        """Write ``likeness.safetensors`` into a folder."""
        save_file({"means": self._means.astype(np.float16)}, folder / FILE, {"least": f"{self.least:.4f}"})

    @classmethod
    def open(cls, folder: Path) -> Likeness | None:
        """Read a folder that :meth:`save` wrote; None where a model has no such file.

        Raises:
            OSError, ValueError, SafetensorError: The file is damaged or does not fit.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        with safe_open(file, "numpy") as tensors:
            means, least = tensors.get_tensor("means"), float((tensors.metadata() or {}).get("least", "nan"))
        if means.ndim != 2 or means.shape[1] != len(coarse_anatomy([np.zeros((2, 2), np.uint8)])[0]):
            raise ValueError(f"{FILE}: means of shape {means.shape}")
        if not -1 <= least <= 1:
            raise ValueError(f"{FILE}: no usable least likeness")
        return cls(means.astype(np.float32), least)


def _reduced(image: Pixels) -> Pixels:
    """Return a picture whose longer side has at most :data:`LARGEST` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def _framed(image: Pixels, size: float) -> Pixels:
    """Return the head alone, in the middle of a square picture of which it fills a share."""
    rows, columns = np.nonzero(image >= 0.1 * image.max())
    head = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = round(max(head.shape) / size)
    square = Image.new("L", (side, side))
    square.paste(Image.fromarray(head), ((side - head.shape[1]) // 2, (side - head.shape[0]) // 2))
    return np.asarray(square)
