"""A head on disk to its brain on disk, with a picture for a person to judge."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.report.charts import Cut, draw_cuts
from brainstage.scans.discover import find_volume
from brainstage.scans.registration import mapped, sample
from brainstage.scans.skull_strip import Extraction, brain_mask, check_extra, extract_brain
from brainstage.scans.volume import Volume

SUFFIX = ".nii.gz"
BRIGHTEST = 10_000
"""Grey value of the brightest voxel of a written brain: N4 leaves no unit."""
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The axis that each plane stands across."""
PLACES = {
    "axial": (2, 8, 14, 21, 27, 33),  # the levels of the training data
    "coronal": (-80, -55, -30, -5, 20, 45),
    "sagittal": (-50, -30, -10, 10, 30, 50),
}
"""Millimetres of MNI152 at which a head is shown, so that everyone's picture shows the same parts."""
FRAME = ((-95, 96), (-135, 100), (-75, 105))
"""Millimetres of MNI152, along each axis, between which a head is shown."""
TITLE = (
    "The line must follow the edge of the brain in every cut; it may run a few millimetres outside. In axial and "
    f"coronal cuts the person's right is on the right. {RESEARCH_NOTICE}"
)


def extract(scan: str, out: Path) -> Extraction:
    """Take the brain out of a head; write it, and beside it a picture of what was taken (``.png``).

    Args:
        scan: A NIfTI file, a DICOM file or the folder of a series.
        out: File for the brain, ``….nii.gz``. Its header says how it lies in space and nothing else.

    Raises:
        ConfigError: The extra ``heads`` is not installed, or the file cannot be written so.
        DataError: The scan cannot be read.
        RefusalError: It is no T1-weighted head with its skull.
        RunError: The disk is full or the folder is not writable.
    """
    if not out.name.endswith(SUFFIX):
        raise ConfigError(f"{out}: a brain is written as {SUFFIX}; end the name in that")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder; make it first")
    if out.exists() and Path(scan).exists() and out.samefile(scan):
        raise ConfigError(f"{out}: is the scan itself; give the brain another name")
    check_extra()
    found = find_volume(scan)
    assert found.volume  # noqa: S101 - find_volume looks for it
    extraction = extract_brain(found.volume(), found.name)
    write_brain(extraction.brain, out)
    draw_cuts(picture_of(out), list(_cuts(extraction)), TITLE)
    return extraction


def picture_of(brain: Path) -> Path:
    """Return the name of the picture beside a brain."""
    return brain.with_name(brain.name.removesuffix(SUFFIX) + ".png")


def write_brain(brain: Volume, out: Path) -> None:
    """Write a volume as a gzipped NIfTI-1 file of 16-bit integers."""
    scaled = brain.voxels * np.float32(BRIGHTEST / brain.voxels.max())
    image = nib.Nifti1Image(scaled.round().astype(np.int16), brain.affine)  # type: ignore[no-untyped-call]
    with atomic(out) as part:
        part.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _cuts(extraction: Extraction) -> Iterator[list[Cut]]:
    """Yield a row of cuts for each plane."""
    head, affine = extraction.head, extraction.registration.affine
    mask = brain_mask(head, affine)
    inside = Volume(mask.astype(np.float32), head.affine)
    white = float(np.percentile(head.voxels[mask], 99.5))
    for plane, places in PLACES.items():
        row = []
        for place in places:
            points = mapped(affine, _plane(AXES[plane], place))
            shape = [len(range(*FRAME[axis])) for axis in reversed(range(3)) if axis != AXES[plane]]
            shown, within = (sample(volume, points).reshape(shape) for volume in (head, inside))
            row.append(Cut(f"{plane}, {'xyz'[AXES[plane]]} = {place} mm", shown, within, white))
        yield row


def _plane(axis: int, place: float) -> NDArray[np.float64]:
    """Return the points of a plane across an axis, (3, n), row by row from below."""
    across, upwards = np.meshgrid(*(np.arange(*FRAME[other]) for other in range(3) if other != axis))
    points = np.insert(np.stack([across.ravel(), upwards.ravel()]), axis, place, axis=0)
    return points.astype(np.float64)
