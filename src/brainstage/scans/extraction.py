"""A head on disk to its brain on disk."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.files import atomic
from brainstage.scans.discover import find_volume
from brainstage.scans.skull_strip import Extraction, check_extra, extract_brain
from brainstage.scans.volume import Volume

BRAIN_SUFFIX = ".nii.gz"
WRITTEN_MAXIMUM = 10_000
"""Grey value of the brightest voxel of a written brain: after N4 grey values have no unit."""


def extract(scan: Path | str, series: int | None = None) -> Extraction:
    """Extract the brain from a T1-weighted head; :func:`write_brain` saves it.

    Args:
        scan: A NIfTI file, a DICOM file or a folder.
        series: Number of the series or volume in a folder that holds several, as ``brainstage scans`` lists them.

    Raises:
        ConfigError: The extra ``heads`` is not installed.
        DataError: The scan cannot be read.
        RefusalError: It is not a T1-weighted head with its skull.
    """
    check_extra()
    source = find_volume(str(scan), series)
    if source.volume is None:
        raise DataError(f"{scan}: a single picture, expected a volume")
    return extract_brain(source.volume(), source.name)


def check_brain_target(scan: Path | str, out: Path) -> None:
    """Refuse a file that the brain of a scan cannot be written to, before any work is done.

    Raises:
        ConfigError: Its name does not end in ``.nii.gz``, its folder does not exist, or it is the scan itself.
    """
    if not out.name.endswith(BRAIN_SUFFIX):
        raise ConfigError(f"{out}: a brain is written as {BRAIN_SUFFIX}; end the name in that")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder; make it first")
    if out.exists() and Path(scan).exists() and out.samefile(scan):
        raise ConfigError(f"{out}: is the scan itself; give the brain another name")


def picture_path(brain: Path) -> Path:
    """Return the path of the picture beside a written brain."""
    return brain.with_name(brain.name.removesuffix(BRAIN_SUFFIX) + ".png")


def write_brain(brain: Volume, out: Path) -> None:
    """Write a volume as a gzipped NIfTI-1 file of 16-bit integers.

    Its header holds the position in space and nothing of the scan's own header.

    Raises:
        RunError: The disk is full or the folder is not writable.
    """
    scaled = brain.voxels * np.float32(WRITTEN_MAXIMUM / brain.voxels.max())
    image = nib.Nifti1Image(scaled.round().astype(np.int16), brain.affine)  # type: ignore[no-untyped-call]
    with atomic(out) as part:
        part.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
