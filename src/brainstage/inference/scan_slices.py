"""Slices of a scan on their way to a prediction or an explanation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from brainstage.core.arrays import Pixels
from brainstage.core.errors import DataError, RefusalError
from brainstage.core.levels import LevelSet
from brainstage.inference.predictor import Predictor
from brainstage.scans.discover import Scan

PREDICTED, REFUSED, FAILED = "predicted", "refused", "failed"
"""What becomes of a slice."""


@dataclass
class ScanSlice:
    """A slice of a scan, or why the scan has none.

    Attributes:
        source: Name of the scan.
        image: Grey values, uint8 of shape (H, W); None where the scan cannot be used.
        level: Level in the model's level set; None where it is not known.
        status: What becomes of it.
        reason: Why it is refused or failed.
    """

    source: str
    image: Pixels | None = None
    level: int | None = None
    status: str = PREDICTED
    reason: str | None = None


Slice = TypeVar("Slice", bound=ScanSlice)


def read_scan(kind: type[Slice], scan: Scan, level_set: LevelSet) -> list[Slice]:
    """Return the slices of a scan; of one that cannot be used a single one that says why.

    Args:
        kind: What each becomes.
        scan: The scan.
        level_set: The levels that a volume is cut at.
    """
    try:
        images, levels = scan.read(level_set)
    except RefusalError as error:
        return [kind(scan.name, status=REFUSED, reason=str(error))]
    except DataError as error:
        return [kind(scan.name, status=FAILED, reason=str(error))]
    return [kind(scan.name, image, level) for image, level in zip(images, levels, strict=True)]


def mark_refused(predictor: Predictor, slices: Iterable[ScanSlice]) -> None:
    """Refuse the slices that are out of distribution, with the reason."""
    readable = [item for item in slices if item.status == PREDICTED]
    for item, reason in zip(readable, predictor.refusals(images_of(readable)), strict=True):
        if reason:
            item.status, item.reason = REFUSED, f"{item.source}: {reason}"


def images_of(slices: Iterable[ScanSlice]) -> list[Pixels]:
    """Return the grey values of those that have some."""
    return [item.image for item in slices if item.image is not None]
