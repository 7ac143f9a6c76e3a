"""A volume: what a scanner's file holds, whatever the order of its axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.errors import DataError

MAX_VOXELS = 400**3
"""Most voxels of a volume that is read: a file of a few bytes can claim gigabytes."""
MIN_VOXELS_ALONG_AXIS = 8
"""Fewest voxels along each axis of a brain."""
MIN_SPACING, MAX_SPACING = 0.2, 12.0
"""Smallest and largest distance of neighbouring voxels of a brain scan, in millimetres."""
MAX_OFFSET = 1e6
"""Largest element of an affine map, in millimetres; squares of much larger numbers overflow."""
MAX_GREY_VALUE = 1e9
"""Largest grey value: scanners write thousands, and squares of much larger ones overflow."""


def check_spacing(spacing: Float64Array, where: str) -> None:
    """Check the distances of neighbouring voxels or pixels, in millimetres.

    Raises:
        DataError: One is not that of a brain scan.
    """
    if not (spacing.min() >= MIN_SPACING and spacing.max() <= MAX_SPACING):
        size = " × ".join(f"{side:.3g}" for side in spacing)
        raise DataError(
            f"{where}: voxels of {size} mm, expected {MIN_SPACING} to {MAX_SPACING:g} mm"
            "; resample it or correct its header"
        )


def checked_values(values: Float32Array, where: str) -> Float32Array:
    """Return grey values with 0 in place of those that are not finite.

    Raises:
        DataError: One is larger than :data:`MAX_GREY_VALUE`.
    """
    values = np.nan_to_num(values, posinf=0, neginf=0)
    largest = float(np.abs(values).max())
    if largest > MAX_GREY_VALUE:
        raise DataError(
            f"{where}: holds grey values up to {largest:.0e}, expected at most {MAX_GREY_VALUE:.0e}; "
            "convert it again"
        )
    return values


@dataclass(frozen=True)
class Volume:
    """Grey values in space.

    Attributes:
        voxels: float32 of shape (I, J, K), finite.
        affine: From a voxel's index to millimetres, shape (4, 4); x goes to the right, y to the front, z up (RAS+).
    """

    voxels: Float32Array
    affine: Float64Array

    @classmethod
    def checked(cls, voxels: Float32Array, affine: Float64Array, where: str) -> Volume:
        """Return a volume that can be that of a brain.

        Args:
            voxels: float32 of shape (I, J, K).
            affine: From a voxel's index to millimetres (RAS+), float64 of shape (4, 4).
            where: The file, for errors.

        Raises:
            DataError: It has too few voxels, all of them are equal, a value is too large, or the affine map is not
                that of a head.
        """
        if min(voxels.shape) < MIN_VOXELS_ALONG_AXIS:
            shape = "×".join(str(side) for side in voxels.shape)
            raise DataError(
                f"{where}: {shape} voxels, expected at least {MIN_VOXELS_ALONG_AXIS} along each axis"
                "; give a scan of the whole brain"
            )
        usable = np.isfinite(affine).all() and np.abs(affine).max() < MAX_OFFSET
        if not usable or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
            raise DataError(
                f"{where}: its header holds no usable affine map (qform, sform or orientation); convert it again"
            )
        check_spacing(np.linalg.norm(affine[:3, :3], axis=0), where)
        voxels = checked_values(voxels, where)
        if voxels.max() == voxels.min():
            raise DataError(f"{where}: all voxels have the same value; give one that shows a brain")
        return cls(voxels, affine)

    @property
    def spacing(self) -> Float64Array:
        """Distance of neighbouring voxels along each axis, in millimetres."""
        distances: Float64Array = np.linalg.norm(self.affine[:3, :3], axis=0)
        return distances
