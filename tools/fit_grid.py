"""Measure where in the head the training data's slices lie: GRID of src/brainstage/scans/stack.py.

    python tools/fit_grid.py

reads the public dataset, averages its people and registers the mean stack to the MNI152 template.
"""

from __future__ import annotations

import numpy as np

from brainstage import load_slices
from brainstage.scans.registration import grid_points, mapped, register
from brainstage.scans.stack import GRID, LEVELS, SIDE
from brainstage.scans.volume import Volume

GUESS = np.array([[0.0, 0.0, -1.4, 90.0], [0.0, 1.7, 0.0, -125.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, 0.0, 1.0]])
"""Level, row and column to millimetres, to begin with.

Nose down: the other way up ends at a likeness of 0.76. Left is right, as in OASIS's own files; the template is
symmetric and cannot tell, but the mean head has more on the side of high columns behind and of low ones in front,
as brains have on the left and the right.
"""


def main() -> None:
    """Print the grid."""
    slices = load_slices()
    levels = np.array(slices.rows["slice_index"].to_pylist())
    sums = np.zeros((LEVELS, SIDE, SIDE))
    for level, image in zip(levels, slices.images, strict=True):
        sums[level] += image / max(1.0, float(np.percentile(image[image > 20], 99)))
    found = register(Volume(sums.astype(np.float32), GUESS))
    grid = np.linalg.inv(found.affine) @ GUESS
    points = grid_points((LEVELS, SIDE, SIDE))
    apart = np.linalg.norm(mapped(grid, points) - mapped(GRID, points), axis=0).mean()
    print(grid.round(3))
    print(f"likeness {found.likeness:.3f}; on average {apart:.1f} mm from the grid in use")


if __name__ == "__main__":
    main()
