"""Three cuts of a registered scan, by which a person sees in a second whether the registration is right."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from brainstage.core.arrays import BoolArray, Float64Array, Pixels
from brainstage.scans.registration import Registration, averaged, mapped, mni152, sample
from brainstage.scans.skull_strip import TRAINING_BRAIN_EDGE
from brainstage.scans.volume import Volume

PLANES = ((2, 14.0), (1, -20.0), (0, 8.0))
"""Axial, coronal and sagittal: the axis that a plane stands across, and its place in millimetres of MNI152."""
FRAME = ((-95, 96), (-135, 100), (-75, 105))
"""Millimetres of MNI152, along each axis, between which a scan is shown."""
SPACING = 2.0
"""Millimetres of a pixel."""
WHITE_PERCENTILE = 99.5
"""Percentile of the grey values that is shown white."""
_STEPS = [np.arange(*ends, SPACING) for ends in FRAME]
_SHAPES = [tuple(len(steps) for other, steps in enumerate(_STEPS) if other != axis)[::-1] for axis, _ in PLANES]
"""Height and width of each cut."""


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
    cuts, start = [], 0
    for height, width in _SHAPES:
        cuts.append(values[start : start + height * width].reshape(height, width))
        start += height * width
    tall = max(height for height, _ in _SHAPES)
    above = [(tall - height) // 2 for height, _ in _SHAPES]
    padded = [np.pad(cut, ((top, tall - len(cut) - top), (0, 0))) for cut, top in zip(cuts, above, strict=True)]
    return np.concatenate(padded, axis=1)


@cache
def _points() -> Float64Array:
    """Return the millimetres of MNI152 of the pixels of all cuts, (3, n), each cut row by row from the top.

    As radiologists look at it: the person's right is on the left.
    """
    cuts = []
    for axis, place in PLANES:
        across, upwards = (steps for other, steps in enumerate(_STEPS) if other != axis)
        columns, rows = np.meshgrid(across if axis == 0 else across[::-1], upwards[::-1])
        cuts.append(np.insert(np.stack([columns.ravel(), rows.ravel()]), axis, place, axis=0))
    return np.concatenate(cuts, axis=1).astype(np.float64)
