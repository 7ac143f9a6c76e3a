"""The planes of MNI152 on which a head is shown."""

from __future__ import annotations

import numpy as np

from brainstage.core.arrays import Float64Array

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The axis that each plane stands across."""
FRAME = ((-95, 96), (-135, 100), (-75, 105))
"""Millimetres of MNI152, along each axis, between which a head is shown."""


def plane_points(plane: str, place: float, spacing: float = 1.0) -> tuple[Float64Array, tuple[int, int]]:
    """Return the points of a plane as radiologists look at it: the person's right is on the left.

    Args:
        plane: One of :data:`AXES`.
        place: Where it stands on its axis, in millimetres.
        spacing: Millimetres from a point to the next.

    Returns:
        The points in millimetres of MNI152, float64 of shape (3, n), row by row from the top; then the number of
        rows and columns.
    """
    axis = AXES[plane]
    across, upwards = (np.arange(*FRAME[other], spacing) for other in range(3) if other != axis)
    columns, rows = np.meshgrid(across if axis == 0 else across[::-1], upwards[::-1])
    points = np.insert(np.stack([columns.ravel(), rows.ravel()]), axis, place, axis=0)
    return points.astype(np.float64), columns.shape
