"""Three cuts of a registered scan, by which a person sees in a second whether the registration is right."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from brainstage.core.arrays import BoolArray, Float64Array, Pixels
from brainstage.scans.planes import plane_points
from brainstage.scans.registration import Registration, averaged, mapped, mni152, sample
from brainstage.scans.skull_strip import TRAINING_BRAIN_EDGE
from brainstage.scans.volume import Volume

PLACES = {"axial": 14.0, "coronal": -20.0, "sagittal": 8.0}
"""Where each plane stands, in millimetres of MNI152."""
SPACING = 2.0
"""Millimetres of a pixel."""
WHITE_PERCENTILE = 99.5
"""Percentile of the grey values that is shown white."""


def check_cuts(volume: Volume, registration: Registration) -> Pixels:
    """Return an axial, a coronal and a sagittal cut of a scan side by side, as the template lies.

    Args:
        volume: The scan, with its skull where it has one.
        registration: Its position.

    Returns:
        Grey values, uint8 of the shape of :func:`template_outline`.
    """
    values = sample(averaged(volume, SPACING), mapped(registration.affine, _points()))
    bright = values[values > 0]
    white = float(np.percentile(bright, WHITE_PERCENTILE)) if len(bright) else 1.0
    return _side_by_side((values * (255 / white)).clip(0, 255)).astype(np.uint8)


@cache
def template_outline() -> BoolArray:
    """Return which pixels of the cuts are the edge of the brain, as the training slices have it: (H, W)."""
    inside = _side_by_side(sample(mni152(), _points()) > TRAINING_BRAIN_EDGE)
    outline: BoolArray = inside & ~binary_erosion(inside)
    return outline


def _side_by_side(values: NDArray[Any]) -> NDArray[Any]:
    """Put the cuts, whose pixels follow each other, side by side, lower ones in the middle: (H, W)."""
    shapes = [shape for _, shape in _planes()]
    ends = np.cumsum([height * width for height, width in shapes])[:-1]
    cuts = [cut.reshape(shape) for cut, shape in zip(np.split(values, ends), shapes, strict=True)]
    tall = max(map(len, cuts))
    above = [(tall - len(cut)) // 2 for cut in cuts]
    padded = [np.pad(cut, ((top, tall - len(cut) - top), (0, 0))) for cut, top in zip(cuts, above, strict=True)]
    return np.concatenate(padded, axis=1)


def _points() -> Float64Array:
    """Return the millimetres of MNI152 of the pixels of all cuts, (3, n)."""
    return np.concatenate([points for points, _ in _planes()], axis=1)


@cache
def _planes() -> list[tuple[Float64Array, tuple[int, int]]]:
    return [plane_points(plane, place, SPACING) for plane, place in PLACES.items()]
