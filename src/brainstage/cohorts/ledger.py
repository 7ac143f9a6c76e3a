"""The ledger of a cohort: one row a scan, what became of it and what was measured."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from brainstage.core.arrays import Float64Array

Status = Literal["prepared", "refused", "failed"]
"""Refused scans are readable and not to be staged; failed ones are not readable."""
LEDGER_SCHEMA = pa.schema(
    [
        ("scan_id", pa.string()),
        ("participant_id", pa.string()),
        ("session_id", pa.string()),  # or null
        ("label", pa.string()),  # class name, or null
        ("status", pa.string()),
        ("reason", pa.string()),  # why it is not prepared, or what is not known of it
        ("similarity", pa.float64()),  # correlation with the template inside its brain
        ("outside", pa.float64()),  # share of brightness outside of the template's brain
        ("levels", pa.int32()),  # how many of the cohort's levels the scan shows; the schema's metadata name them
        ("skull_stripped", pa.bool_()),  # whether the skull was taken off here
        ("orientation", pa.string()),  # directions of the voxel axes as found: RAS, LPS …
        ("seconds", pa.float64()),  # that the scan took
    ]
)


@dataclass(frozen=True)
class Measured:
    """What became of one scan.

    Attributes:
        status: ``prepared``, ``refused`` or ``failed``.
        reason: Why it is not prepared.
        similarity: Correlation with the template within its brain; None where it was not registered.
        outside: Share of its brightness outside of the template's brain, likewise.
        levels: How many of the cohort's levels it shows.
        skull_stripped: Whether the skull was taken off here; None where it was not registered.
        orientation: Directions of the voxel axes as found; None where it could not be read.
        seconds: That it took.
    """

    status: Status
    reason: str | None = None
    similarity: float | None = None
    outside: float | None = None
    levels: int = 0
    skull_stripped: bool | None = None
    orientation: str | None = None
    seconds: float = 0.0


def orientation(affine: Float64Array) -> str:
    """Return where the axes of a volume's voxels point, as ``RAS``: right, anterior (front), superior (up)."""
    import nibabel as nib

    return "".join(nib.aff2axcodes(affine))  # type: ignore[no-untyped-call]


def covariate_names(ledger: pa.Table) -> list[str]:
    """Return the columns of a ledger that came along from the table of participants."""
    return [name for name in ledger.column_names if name not in LEDGER_SCHEMA.names]


def count_reasons(ledger: pa.Table) -> list[tuple[str, str, int]]:
    """Return how many scans have each status and reason, the most frequent first; figures within are left out."""
    pairs = zip(ledger["status"].to_pylist(), ledger["reason"].to_pylist(), strict=True)
    counts = Counter((status, _kind(reason)) for status, reason in pairs)
    return [(status, kind, count) for (status, kind), count in counts.most_common()]


def _kind(reason: str | None) -> str:
    """Return a reason without what differs from scan to scan: brackets, and what follows a semicolon."""
    return re.sub(r"\s*\([^()]*\)", "", reason or "").partition(";")[0]
