"""Lists of scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from brainstage.report.terminal.screen import open_console, shorten

if TYPE_CHECKING:
    from brainstage.scans.discover import ScanInfo

COLUMNS_BESIDE = 54
"""Columns that the table takes beside the path and the description."""
DESCRIPTION_WIDTH = 16
MIN_SOURCE_WIDTH = 16


def show_scans(scans: Sequence[ScanInfo], *, described: bool) -> None:
    """Print one line for each scan, on request with the descriptions of the series."""
    console = open_console()
    source_width = console.width - COLUMNS_BESIDE - (DESCRIPTION_WIDTH if described else 0)
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("series", justify="right")
    if described:
        table.add_column("description", overflow="fold", min_width=DESCRIPTION_WIDTH)
    for heading in ("matrix", "spacing (mm)", "slices"):
        table.add_column(heading, justify="right", no_wrap=True)
    patients = any(info.patient_number for info in scans)
    if patients:
        table.add_column("patient", justify="right")
    table.add_column("kind")
    table.add_column("source", no_wrap=True)
    for info in scans:
        table.add_row(
            "" if info.number is None else f"{info.number}",
            *([info.description] if described else []),
            "×".join(map(str, info.matrix or ())),
            " × ".join(f"{distance:.3g}" for distance in info.spacing),
            "" if info.slices is None else f"{info.slices:,}",
            *([f"{info.patient_number or ''}"] if patients else []),
            info.kind,
            shorten(info.source, max(MIN_SOURCE_WIDTH, source_width)),
        )
    console.print(table)
    if patients:
        console.print("Their headers name several patients: --one-person would mix them.")
