"""Heads with their skull: to a brain on disk, and to the slices of the brain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.scans.discover import Scan, SingleImageError, Slices, find_volume
from brainstage.scans.nifti import as_integers, write_nifti
from brainstage.scans.registration import Registration, register
from brainstage.scans.skull_strip import Extraction, check_extra, extract_brain
from brainstage.scans.stack import MAX_OUTSIDE, registered_stack
from brainstage.scans.volume import Volume

Skull = Literal["auto", "strip", "stripped"]
"""What is done to skulls: taken off where there is one, always, or never, since none is there."""
BRAIN_SUFFIX = ".nii.gz"


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
        raise DataError(f"{scan}: a single picture, expected a volume; give the whole series")
    return extract_brain(source.volume(), source.name)


def take_off_skull(volume: Volume, where: str, skull: Skull) -> tuple[Volume, Registration, Extraction | None]:
    """Return a brain without its skull, its registration, and what was taken out of a head; None where it had none.

    Args:
        volume: A head or a brain.
        where: Name of the file, for errors.
        skull: What is done.

    Raises:
        ConfigError: The extra ``heads`` is needed and not installed.
        RefusalError: No brain is found in the head, or with ``strip`` it has no skull.
    """
    if skull != "strip":
        registration = register(volume)
        if skull == "stripped" or registration.outside <= MAX_OUTSIDE:
            return volume, registration, None
    extraction = extract_brain(volume, where)
    return extraction.brain, register(extraction.brain), extraction


def without_skulls(scans: Sequence[Scan], skull: Skull, taken_off: Callable[[int, Extraction], None]) -> list[Scan]:
    """Return scans that are read without their skull; pictures are read as they are.

    Args:
        scans: As :func:`brainstage.find_scans` returns them.
        skull: What is done.
        taken_off: Called for each skull that is taken off, with the scan's place among the scans, in the thread
            that reads it.
    """
    return [
        replace(scan, read=partial(_read_without_skull, scan, scan.volume, skull, partial(taken_off, number)))
        if scan.volume
        else scan
        for number, scan in enumerate(scans)
    ]


def _read_without_skull(
    scan: Scan,
    read: Callable[[], Volume],
    skull: Skull,
    taken_off: Callable[[Extraction], None],
    level_set: LevelSet = PUBLIC,
) -> Slices:
    try:
        volume = read()
    except SingleImageError:  # it cannot be registered, nor its skull be taken off
        return scan.read(level_set)
    brain, registration, extraction = take_off_skull(volume, scan.name, skull)
    if extraction:
        taken_off(extraction)
    images, levels = registered_stack(brain, registration, scan.name, level_set)
    return Slices(list(images), levels)


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
    write_nifti(out, as_integers(brain.voxels), brain.affine)
