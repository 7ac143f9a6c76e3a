"""From a volume to slices as the training data has them: levels, field of view, orientation, brightness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from brainstage.core.arrays import Float32Array, Float64Array, Pixels
from brainstage.core.errors import RefusalError
from brainstage.core.levels import BRAIN, PUBLIC, LevelSet
from brainstage.core.schema import SLICE_SIDE
from brainstage.scans.dicom import Frame
from brainstage.scans.registration import (
    TEMPLATE_BRAIN_THRESHOLD,
    Registration,
    averaged,
    covered,
    grid_points,
    inverse,
    mapped,
    mni152,
    register,
    sample,
)
from brainstage.scans.volume import Volume

TRAINING_GRID = np.array(
    [
        [0.028, 0.013, -1.462, 90.752],
        [0.026, 1.722, 0.031, -127.485],
        [1.031, -0.123, 0.043, 1.514],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""From level, row and column of the training data to millimetres of MNI152.

``python tools/fit_grid.py`` reproduces it to within 0.6 mm.

Levels are a millimetre apart, a slice is 187 mm wide and 221 mm long, and **the nose points down**: rows run from
the back of the head to the front, columns from the person's right to the left.
"""
BRAIN_START = -46.0
"""Millimetres from level 0 of the training data upwards to level 0 of ``brain``.

In MNI152 the temporal poles end 48 mm below the training data's level 0, and the vertex is 84 mm above it
(the mask of nilearn, 1 mm); the levels of ``brain`` reach 80 mm.
"""


def _of_the_whole_brain() -> Float64Array:
    """Return the training data's grid, of which only the levels are others."""
    upwards = TRAINING_GRID[:, 0] / np.linalg.norm(TRAINING_GRID[:, 0])
    start = TRAINING_GRID[:, 3] + BRAIN_START * upwards
    return np.column_stack([BRAIN.spacing * upwards, TRAINING_GRID[:, 1:3], start])


GRIDS = {PUBLIC: TRAINING_GRID, BRAIN: _of_the_whole_brain()}
"""From level, row and column of each set of levels to millimetres of MNI152."""
TRAINING_BRIGHTNESS = 237
"""99th percentile of the grey values of a training slice's head (median over slices)."""
MIN_SIMILARITY = 0.45
"""Similarity to the template below which a volume is not a T1-weighted brain, or is not registered.

Slabs of the 200 training people have 0.71 and more at every stage, whole brains 0.78 and more, a young man's head
0.53 and more; a brain the wrong way round has at most 0.33, one of noise, of one grey value or whose
contrast is inverted at most 0.11 (``python benchmarks/volumes.py``, ``python benchmarks/heads.py``).
"""
MAX_OUTSIDE = 0.05
"""Share of brightness outside of the template's brain above which a skull is there: brains have 0.01, heads 0.2."""

MIN_LEVEL_COVERAGE = 0.95
"""Share of a level's brain that a volume must cover to show that level."""
SPLINE_MARGIN = 8
"""Voxels around the points that cubic splines are fitted to: farther ones weigh less than 1 in 10,000."""
MIN_AXIAL_COSINE = 0.87
"""Cosine between the normal of an axial image and the head's upward axis, at 30 degrees."""


def training_stack(volume: Volume, where: str, level_set: LevelSet = PUBLIC) -> tuple[Pixels, list[int]]:
    """Return the slices of a brain without skull as the training data would show it.

    Args:
        volume: The brain, in any orientation and position.
        where: Name of the file, for errors.
        level_set: The levels to cut it at.

    Returns:
        Slices, uint8 of shape (n, 128, 128), nose down; and the level of each, from 0, the lowest. Levels that the
        volume does not show are left out.

    Raises:
        RefusalError: It still has its skull, is no brain, or shows too few of the levels.
    """
    return registered_stack(volume, register(volume), where, level_set)


def registered_stack(
    volume: Volume, registration: Registration, where: str, level_set: LevelSet = PUBLIC
) -> tuple[Pixels, list[int]]:
    """Return the slices of a registered brain, as :func:`training_stack` does.

    Args:
        volume: The brain.
        registration: Its position.
        where: Name of the file, for errors.
        level_set: The levels to cut it at.

    Raises:
        RefusalError: It still has its skull, is no brain, or shows too few of the levels.
    """
    reason = refusal(registration)
    if reason:
        raise RefusalError(f"{where}: {reason}")
    stack, levels = cut(volume, registration, level_set)
    reason = too_few(levels, level_set)
    if reason:
        raise RefusalError(f"{where}: {reason}")
    return stack, levels


def cut(volume: Volume, registration: Registration, level_set: LevelSet = PUBLIC) -> tuple[Pixels, list[int]]:
    """Cut slices as those of the training data out of a registered volume.

    Args:
        volume: The volume.
        registration: Its position.
        level_set: The levels to cut it at.

    Returns:
        Slices, uint8 of shape (n, 128, 128), and the level of each, from 0, the lowest.
    """
    shape = level_set.shape
    at_template = mapped(GRIDS[level_set], grid_points(shape))
    points = mapped(registration.affine, at_template)
    brain = sample(mni152(), at_template).reshape(level_set.count, -1) > TEMPLATE_BRAIN_THRESHOLD
    shown = covered(volume, points)
    covered_brain = brain & shown.reshape(level_set.count, -1)
    levels = np.flatnonzero(covered_brain.sum(axis=1) >= MIN_LEVEL_COVERAGE * brain.sum(axis=1))
    values = np.where(shown, _cubic(averaged(volume, 1.0), points), np.float32(0)).reshape(shape)
    return _grey(values[levels]), levels.tolist()


def _cubic(volume: Volume, points: Float64Array) -> Float32Array:
    """Return grey values at points by cubic splines, which keep edges that linear interpolation blurs.

    Only the part of the volume around the points is filtered. Below 0, where a spline overshoots, is 0.
    """
    at = mapped(inverse(volume.affine), points)
    last = np.array(volume.voxels.shape) - 1
    low = np.clip(np.floor(at.min(axis=1)).astype(int) - SPLINE_MARGIN, 0, last)
    high = np.clip(np.ceil(at.max(axis=1)).astype(int) + SPLINE_MARGIN, 0, last)
    part = volume.voxels[tuple(slice(first, end + 1) for first, end in zip(low, high, strict=True))]
    values: Float32Array = map_coordinates(part, at - low[:, None], order=3, mode="nearest")
    return values.clip(0)


def too_few(levels: Sequence[int], level_set: LevelSet) -> str | None:
    """Return why a volume that shows only some levels is refused; None where they are enough."""
    if len(levels) >= level_set.min_count:
        return None
    return (
        f"shows {len(levels)} of the {level_set.count} levels {level_set.extent}, too few to stage it "
        f"(expected {level_set.min_count} or more)"
    )


def refusal(registration: Registration) -> str | None:
    """Return why a registered volume is not a brain without skull; None where it is."""
    if registration.outside > MAX_OUTSIDE:
        return (
            f"shows a head with its skull ({registration.outside:.0%} of its brightness lies around the brain); "
            "take the brain out first: `--skull auto`, `brainstage extract`, or another tool "
            "(SynthStrip, HD-BET, FSL's BET)"
        )
    if registration.similarity < MIN_SIMILARITY:
        return (
            f"does not look like a T1-weighted brain (its similarity to the template is "
            f"{registration.similarity:.2f}, expected {MIN_SIMILARITY} or more)"
        )
    return None


def training_slice(frame: Frame, where: str) -> Pixels:
    """Return a single axial image as the training data would show it: nose down, the head in the middle.

    A single image cannot be registered, so its level stays unknown and the head keeps its size.

    Returns:
        uint8 of shape (128, 128).

    Raises:
        RefusalError: The image is not axial, or shows nothing.
    """
    normal = np.cross(*frame.axes)
    if abs(normal[2]) < MIN_AXIAL_COSINE * np.linalg.norm(normal):
        raise RefusalError(f"{where}: its image is not axial; give an axial one, or the whole series")
    if np.ptp(frame.pixels) == 0:
        raise RefusalError(f"{where}: all pixels have the same value; give one that shows a brain")
    head = np.argwhere(frame.pixels > 0.2 * np.percentile(frame.pixels, 99))
    across = TRAINING_GRID[:2, 1:3]  # in the plane; x and y of a row and of a column
    steps = np.arange(SLICE_SIDE) - (SLICE_SIDE - 1) / 2
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    apart = across @ np.stack([rows.ravel(), columns.ravel()])
    to_pixels = np.linalg.inv(frame.axes[:, :2].T)
    points = (head.min(axis=0) + head.max(axis=0))[:, None] / 2 + to_pixels @ apart
    smooth = gaussian_filter(frame.pixels, 0.5 / np.linalg.norm(frame.axes, axis=1))
    return _grey(map_coordinates(smooth, points, order=1).reshape(SLICE_SIDE, SLICE_SIDE))


def _grey(values: Float32Array) -> Pixels:
    """Scale a stack's brightness to that of the training data."""
    head = values[values > 0.1 * values.max(initial=0)]
    if not len(head):
        return np.zeros(values.shape, np.uint8)
    return (values * (TRAINING_BRIGHTNESS / np.percentile(head, 99))).round().clip(0, 255).astype(np.uint8)
