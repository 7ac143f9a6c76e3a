"""Remake the coarse brain that volumes are registered to, from the MNI152 template that nilearn carries.

    pip install nilearn
    python tools/make_template.py

writes src/brainstage/scans/templates/mni152_4mm.nii.gz (ICBM 152 nonlinear symmetric 2009a, brain only).
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_template

TARGET = Path(__file__).parents[1] / "src/brainstage/scans/templates/mni152_4mm.nii.gz"


def main() -> None:
    """Average blocks of 4×4×4 voxels of 1 mm."""
    fine = load_mni152_template(resolution=1)
    voxels = np.asarray(fine.dataobj, dtype=np.float32)
    blocks = [side // 4 for side in voxels.shape]
    voxels = voxels[tuple(slice(4 * count) for count in blocks)]
    coarse = voxels.reshape(blocks[0], 4, blocks[1], 4, blocks[2], 4).mean(axis=(1, 3, 5))
    affine = fine.affine @ np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = fine.affine[:3] @ [1.5, 1.5, 1.5, 1]
    image = nib.Nifti1Image((coarse / coarse.max() * 255).round().astype(np.uint8), affine)
    TARGET.parent.mkdir(exist_ok=True)
    nib.save(image, TARGET)
    print(f"{TARGET}: {coarse.shape}, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
