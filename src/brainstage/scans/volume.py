"""A volume: what a scanner's file holds, whatever the order of its axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainstage.core.errors import DataError

Reals = NDArray[np.float64]

MAX_VOXELS = 400**3
"""Most voxels that are read; a file of a few bytes can ask for gigabytes."""
MIN_SIDE = 8
"""Fewest voxels along each axis: fewer show no brain."""
SPACINGS = (0.2, 12.0)
"""Smallest and largest distance of neighbouring voxels in millimetres that a brain is scanned with."""
FARTHEST = 1e6
"""Millimetres that no part of a scan is away from its origin; squares of much larger numbers overflow."""
BRIGHTEST = 1e9
"""Largest grey value: scanners give thousands, and squares of much larger ones overflow."""


def checked_values(values: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    """Return grey values, 0 where they are not finite.

    Raises:
        DataError: They cannot be a scanner's.
    """
    values = np.nan_to_num(values, posinf=0, neginf=0)
    largest = float(np.abs(values).max())
    if largest > BRIGHTEST:
        raise DataError(
            f"{where}: holds grey values up to {largest:.0e}, expected at most {BRIGHTEST:.0e}; damaged?"
        )
    return values


@dataclass(frozen=True)
class Volume:
    """Grey values in space.

    Attributes:
        voxels: float32 of shape (I, J, K), finite.
        affine: From a voxel's index to millimetres, shape (4, 4); x goes to the right, y to the front, z up (RAS+).
    """

    voxels: NDArray[np.float32]
    affine: Reals

    @classmethod
    def checked(cls, voxels: NDArray[np.float32], affine: Reals, where: str) -> Volume:
        """Return a volume that can be that of a brain.

        Raises:
            DataError: It has too few voxels, is empty, holds values that no scanner gives, or its size in
                millimetres is that of no head.
        """
        if min(voxels.shape) < MIN_SIDE:
            shape = "×".join(str(side) for side in voxels.shape)
            raise DataError(f"{where}: {shape} voxels, expected at least {MIN_SIDE} along each axis")
        usable = np.isfinite(affine).all() and np.abs(affine).max() < FARTHEST
        if not usable or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
            raise DataError(f"{where}: its header gives no usable directions of its axes")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not (SPACINGS[0] <= spacing.min() and spacing.max() <= SPACINGS[1]):
            said = " × ".join(f"{side:.3g}" for side in spacing)
            raise DataError(f"{where}: voxels of {said} mm, expected {SPACINGS[0]} to {SPACINGS[1]:g} mm")
        voxels = checked_values(voxels, where)
        if voxels.max() == voxels.min():
            raise DataError(f"{where}: all voxels have the same value")
        return cls(voxels, affine)

    @property
    def spacing(self) -> Reals:
        """Distance of neighbouring voxels along each axis, in millimetres."""
        distances: Reals = np.linalg.norm(self.affine[:3, :3], axis=0)
        return distances
