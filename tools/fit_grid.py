"""Measure where in the head the training data's slices lie: TRAINING_GRID of src/brainstage/scans/stack.py.

    python tools/fit_grid.py

reads the public dataset, averages its people and registers the mean stack to the MNI152 template.
"""

from __future__ import annotations

import numpy as np

from brainstage import load_slices
from brainstage.core.schema import STACK_SHAPE
from brainstage.scans.registration import grid_points, mapped, mni152, register
from brainstage.scans.stack import TRAINING_GRID
from brainstage.scans.volume import Volume

GUESS = np.array([[0.0, 0.0, -1.4, 90.0], [0.0, 1.7, 0.0, -125.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, 0.0, 1.0]])
"""Start of the fit, from level, row and column to millimetres.

Nose down: the other way up ends at a similarity of 0.76. Left is right, as in OASIS's own files. The template is
symmetric and cannot show it, but the mean head has more tissue at high columns behind and at low ones in front, as
brains have on the left and the right.
"""


def main() -> None:
    """Print the grid."""
    slices = load_slices()
    levels = np.array(slices.rows["slice_index"].to_pylist())
    sums = np.zeros(STACK_SHAPE)
    for level, image in zip(levels, slices.images, strict=True):
        sums[level] += image / max(1.0, float(np.percentile(image[image > 20], 99)))
    registration = register(Volume(sums.astype(np.float32), GUESS), template=mni152)
    grid = np.linalg.inv(registration.affine) @ GUESS
    points = grid_points(STACK_SHAPE)
    apart = np.linalg.norm(mapped(grid, points) - mapped(TRAINING_GRID, points), axis=0).mean()
    print(grid.round(3))
    print(f"similarity {registration.similarity:.3f}; on average {apart:.1f} mm from the grid in use")


if __name__ == "__main__":
    main()
