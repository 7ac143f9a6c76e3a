"""Claim: a head with its skull is brought to what the training slices show, wherever it lies and however it is lit.

    python benchmarks/heads.py [--head ch2.nii.gz --brain ch2bet.nii.gz]

First, with the public dataset: the outline of its slices is the same for everyone, and that of the MNI152 template
a little outside its brain. Then, with a head and the same brain taken out by another tool (Debian's `mricron-data`
has both): how far the head's registration lies from the brain's, and what the bundled patient model answers, for
the head as it is and changed as scanners and headers might change it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from scipy.spatial.transform import Rotation

from brainstage.core.arrays import Float64Array
from brainstage.core.errors import DataError
from brainstage.core.schema import STACK_LEVELS, STACK_SHAPE
from brainstage.datasets.sources import load_slices
from brainstage.inference.predictor import Predictor
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.registration import grid_points, mapped, mni152, register, sample
from brainstage.scans.skull_strip import brain_mask, extract_brain
from brainstage.scans.stack import TRAINING_GRID, training_stack
from brainstage.scans.volume import Volume

TEMPLATES = Path("/usr/share/mricron/templates")


def main() -> None:
    """Print outlines, then heads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", type=Path, default=TEMPLATES / "ch2.nii.gz")
    parser.add_argument("--brain", type=Path, default=TEMPLATES / "ch2bet.nii.gz")
    options = parser.parse_args()
    outlines()
    if options.head.exists():
        heads(_read(options.head), _read(options.brain))
    else:
        print(f"{options.head}: not there; on Debian: apt install mricron-data")


def outlines() -> None:
    """Compare the outlines of the training slices with one another and with the template's."""
    slices = load_slices()
    levels = np.array(slices.rows["slice_index"].to_pylist())
    filled = np.stack([binary_fill_holes(image > 10) for image in slices.images])
    common = np.stack([filled[levels == level].mean(axis=0) > 0.5 for level in range(STACK_LEVELS)])
    alike = [dice(outline, common[level]) for outline, level in zip(filled, levels, strict=True)]
    print(
        f"{len(filled):,} slices against the usual outline of their level: Dice at least {min(alike):.3f}, ", end=""
    )
    print(f"median {np.median(alike):.3f}")
    template = sample(mni152(), mapped(TRAINING_GRID, grid_points(STACK_SHAPE))).reshape(common.shape)
    print("the template above a grey value against that outline:", end="")
    print(*(f" {edge}: {dice(template > edge, common):.3f}" for edge in (5, 15, 25, 35, 50, 75, 100)), sep=" ")


def heads(head: Volume, brain: Volume) -> None:
    """Take the brain out of changed heads and stage it."""
    predictor = Predictor.open()
    truth = register(brain).affine
    print(f"{'':34} away  Dice with the tool's brain  seconds  answer")
    print(f"{'the brain as the tool left it':34} {'':41}{answered(predictor, brain)}")
    for name, volume, move in changed(head):
        start = time.perf_counter()
        try:
            found = extract_brain(volume, "it")
        except DataError as error:
            print(f"{name:34} refused: {error}")
            continue
        seconds = time.perf_counter() - start
        affine = np.linalg.inv(move) @ found.registration.affine
        overlap = dice(brain_mask(brain, affine, 75), brain.voxels > 0)
        away = apart(affine, truth)
        print(f"{name:34} {away:3.1f} mm {overlap:26.3f} {seconds:8.1f}  {answered(predictor, found.brain)}")


def changed(head: Volume) -> Iterator[tuple[str, Volume, Float64Array]]:
    """Yield a head changed in many ways: a name, the head, and how its header moves it."""
    still, rng = np.eye(4), np.random.default_rng(0)
    voxels, affine = head.voxels, head.affine
    yield "the head as it is", head, still
    for turn in (10, 25):
        move = np.eye(4)
        move[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-turn, turn, 3), degrees=True).as_matrix()
        move[:3, 3] = rng.uniform(-80, 80, 3)
        yield f"turned by up to {turn} degrees, moved", Volume(voxels, move @ affine), move
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in voxels.shape), indexing="ij"))
    for axis, name in enumerate(("across", "along", "upwards")):
        lit = (voxels * np.exp(0.3 * place[axis])).astype(np.float32)
        yield f"1.8 times brighter {name}", Volume(lit, affine), still
    lit = (voxels * np.exp(-0.5 * np.square(place).sum(axis=0))).astype(np.float32)
    yield "darker in the corners", Volume(lit, affine), still
    noisy = np.abs(voxels + rng.normal(0, 0.05 * voxels.max(), voxels.shape)).astype(np.float32)
    yield "with 5 % noise", Volume(noisy, affine), still
    for thick in (3, 5):
        yield f"in slices of {thick} mm", thickened(head, thick), still
    for cut in (20, 40):
        yield f"{cut} mm cut off below", Volume(voxels[:, :, cut:], affine @ shifted((0, 0, cut))), still
    yield "50 mm cut off above", Volume(voxels[:, :, :-50], affine), still
    yield "in a field 100 mm wider", Volume(np.pad(voxels, 50), affine @ shifted((-50, -50, -50))), still
    inverse = np.where(voxels > 0, voxels.max() - voxels, 0).astype(np.float32)
    yield "inverted", Volume(inverse, affine), still
    yield "upside down in its header", Volume(voxels, np.diag([1.0, -1.0, -1.0, 1.0]) @ affine), still


def thickened(head: Volume, count: int) -> Volume:
    """Return a head whose slices are means of so many."""
    slices = head.voxels.shape[2] // count
    voxels = head.voxels[:, :, : slices * count].reshape(*head.voxels.shape[:2], slices, count).mean(axis=3)
    return Volume(voxels, head.affine @ shifted((0, 0, (count - 1) / 2)) @ np.diag([1.0, 1.0, count, 1.0]))


def shifted(voxels: tuple[float, float, float]) -> Float64Array:
    """Return the map that moves by so many voxels."""
    map_ = np.eye(4)
    map_[:3, 3] = voxels
    return map_


def answered(predictor: Predictor, brain: Volume) -> str:
    """Return the probabilities for a brain without skull, and how many of its slices look like training slices."""
    stack, levels = training_stack(brain, "it")
    refused = sum(reason is not None for reason in predictor.refusals(list(stack)))
    probabilities = predictor.predict_proba(list(stack), ["one"] * len(stack), levels)[0]
    return f"{' '.join(f'{one:.3f}' for one in probabilities)}  ({len(stack) - refused} of {len(stack)} slices)"


def apart(one: Float64Array, other: Float64Array) -> float:
    """Return how far two maps lie apart in the template's brain: root mean square, in millimetres."""
    brain = np.stack(np.nonzero(mni152().voxels > 75)).astype(np.float64)
    points = mapped(mni152().affine, brain)
    return float(np.sqrt(np.square(mapped(one, points) - mapped(other, points)).sum(axis=0).mean()))


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks: 1 where they are the same."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def _read(file: Path) -> Volume:
    return decode_nifti(file.read_bytes(), file.name)


if __name__ == "__main__":
    main()
