"""Remake the templates that the package brings: what volumes are registered to, and what phantoms are made of.

    pip install nilearn
    python tools/make_template.py

writes to src/brainstage/scans/templates: ``mni152_4mm.nii.gz``, ICBM 152 nonlinear symmetric 2009a from the copy
that nilearn carries, ``mni152_2mm.nii.gz``, the brain of the same alone, and ``elderly_4mm.nii.gz``, the mean of
the 200 people of the public dataset where their slices reach, and elsewhere MNI152 with its grey values changed to
theirs.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy.ndimage import map_coordinates

from brainstage import load_slices
from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.schema import STACK_LEVELS, STACK_SHAPE
from brainstage.datasets.table import SliceTable
from brainstage.scans.registration import TEMPLATE_SPACING, grid_points, mapped
from brainstage.scans.stack import TRAINING_GRID
from brainstage.scans.volume import Volume

FOLDER = Path(__file__).parents[1] / "src/brainstage/scans/templates"
BLOCK = int(TEMPLATE_SPACING)
"""Voxels of a millimetre along each side of a voxel of the template."""
BRIGHT = 75
"""Grey value of MNI152 above which a voxel is surely brain; by these the grey values of the two are matched."""


def main() -> None:
    """Write the templates."""
    write("mni152_2mm.nii.gz", brain_alone())
    fine = load_mni152_template(resolution=1)
    young = averaged_blocks(Volume(np.asarray(fine.dataobj, dtype=np.float32), fine.affine))
    write("mni152_4mm.nii.gz", young)
    write("elderly_4mm.nii.gz", with_mean_of_people(young, mean_stack(load_slices())))


def brain_alone() -> Volume:
    """Return the brain of MNI152 in voxels of 2 mm, grey values from 0 to 255 and 0 around it."""
    image, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    brain = np.where(mask.get_fdata() > 0, image.get_fdata(), 0)
    return Volume((brain * 255).round().astype(np.float32), image.affine)


def averaged_blocks(volume: Volume) -> Volume:
    """Average blocks of 4×4×4 voxels, and scale the largest to 255."""
    blocks = [side // BLOCK for side in volume.voxels.shape]
    voxels = volume.voxels[tuple(slice(BLOCK * count) for count in blocks)]
    coarse = voxels.reshape([side for count in blocks for side in (count, BLOCK)]).mean(axis=(1, 3, 5))
    affine = volume.affine @ np.diag([BLOCK, BLOCK, BLOCK, 1.0])
    affine[:3, 3] = volume.affine[:3] @ [*3 * [(BLOCK - 1) / 2], 1]
    return Volume((coarse / coarse.max() * 255).round().astype(np.float32), affine)


def mean_stack(slices: SliceTable) -> Float32Array:
    """Return the mean of all people's slices, each scaled to its own bright voxels: (32, 128, 128)."""
    levels = np.array(slices.rows["slice_index"].to_pylist())
    sums = np.zeros(STACK_SHAPE)
    for level, image in zip(levels, slices.images, strict=True):
        sums[level] += image / np.percentile(image[image > 20], 99)
    return (sums / np.bincount(levels)[:, None, None]).astype(np.float32)


def with_mean_of_people(young: Volume, stack: Float32Array) -> Volume:
    """Return MNI152 with the mean of people in place of it where a voxel, or a share of it, lies between levels."""
    mean, share = on_grid(young, stack)
    whole = (share > 0.99) & (young.voxels > BRIGHT)
    quantiles = np.linspace(0, 1, 101)
    known = [np.quantile(values[whole], quantiles) for values in (young.voxels, mean)]
    matched = np.interp(young.voxels, *(np.insert(values, 0, 0.0) for values in known))
    voxels = share * mean + (1 - share) * matched
    return Volume((voxels / voxels.max() * 255).round().astype(np.float32), young.affine)


def on_grid(young: Volume, stack: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Return the mean of a stack in each voxel of the template, and the share of the voxel that the stack shows."""
    to_stack = np.linalg.inv(TRAINING_GRID) @ young.affine
    steps = (np.arange(BLOCK) - (BLOCK - 1) / 2) / BLOCK
    sums, counts = np.zeros(young.voxels.size), np.zeros(young.voxels.size)
    for step in np.stack(np.meshgrid(steps, steps, steps)).reshape(3, -1).T:
        at = mapped(to_stack, grid_points(young.voxels.shape) + step[:, None])
        shown = (at[0] > -0.5) & (at[0] < STACK_LEVELS - 0.5)
        sums += np.where(shown, map_coordinates(stack, at, order=1, mode="nearest"), 0)
        counts += shown
    mean, share = sums / np.maximum(counts, 1), counts / BLOCK**3
    return mean.reshape(young.voxels.shape), share.reshape(young.voxels.shape)


def write(name: str, volume: Volume) -> None:
    """Write a template as 8-bit integers."""
    file = FOLDER / name
    nib.save(nib.Nifti1Image(volume.voxels.astype(np.uint8), volume.affine), file)
    print(f"{file}: {volume.voxels.shape}, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
