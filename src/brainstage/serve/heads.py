"""Heads with their skull: the brain is taken out in memory, and what was cut is sent back to be checked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from brainstage.core.errors import ConfigError, RefusalError
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.scans.discover import Scan, SliceReader, Slices
from brainstage.scans.extraction import without_skulls
from brainstage.scans.nifti import as_integers, encode_nifti
from brainstage.scans.skull_strip import OUTLINE_CHECK, Extraction
from brainstage.serve.pictures import png
from brainstage.serve.uploads import file_numbers

CHECK = f"A skull was taken off: in the pictures (`extracted`) {OUTLINE_CHECK}, else do not use the prediction."


class SkullRemoval:
    """Takes the skulls of a request's scans off as they are read; scans without a skull are read as they are.

    Attributes:
        scans: The scans, which are read without their skull.
    """

    def __init__(self, scans: Sequence[Scan]):
        self._uploaded = scans
        self._extracted: dict[int, dict[str, Any]] = {}
        self.scans = [
            replace(scan, read=partial(_read_or_refuse, scan.read, scan.name))
            for scan in without_skulls(scans, "auto", self._keep)
        ]

    def _keep(self, number: int, extraction: Extraction) -> None:
        """Keep pictures and a packed brain, for the volumes take a gigabyte; called in the thread that reads."""
        from brainstage.report.brain_picture import outline_pictures  # Matplotlib, which few requests need

        outlines = {plane: png(picture) for plane, picture in outline_pictures(extraction).items()}
        brain = encode_nifti(as_integers(extraction.brain.voxels), extraction.brain.affine)
        self._extracted[number] = {
            "files": file_numbers([self._uploaded[number]]),
            "similarity": round(extraction.similarity, 3),
            "outline": outlines,
            "brain": base64.b64encode(brain).decode("ascii"),
        }

    @property
    def extracted(self) -> list[dict[str, Any]]:
        """What was taken out of heads, in the order of the scans.

        ``files`` (their numbers), ``similarity`` (to the template), ``outline`` (a cut of each plane with the edge
        of the brain, PNG in base64) and ``brain`` (a gzipped NIfTI file in base64).
        """
        return [self._extracted[number] for number in sorted(self._extracted)]


def _read_or_refuse(read: SliceReader, where: str, level_set: LevelSet = PUBLIC) -> Slices:
    """Read a scan; where the extra for heads is missing, a head is refused with its install command."""
    try:
        return read(level_set)
    except ConfigError as error:
        raise RefusalError(f"{where}: shows a head with its skull; {error}") from error
