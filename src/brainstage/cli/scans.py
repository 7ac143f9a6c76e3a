"""What scans there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from brainstage.cli.shared import Json, print_json

if TYPE_CHECKING:
    from brainstage.scans.discover import ScanInfo

app = typer.Typer()


@app.command(epilog="Example: brainstage scans dicom_folder/")
def scans(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="SCAN", help="JPEG, PNG, NIfTI, DICOM or parquet files, folders or globs."),
    ],
    as_json: Json = False,
) -> None:
    """List the series and volumes of a folder.

    Their numbers are those that --series takes. A DICOM series' own description can name people: it is shown on a
    terminal, and left out where the output goes elsewhere.
    """
    from brainstage.scans.discover import describe_scans

    found = describe_scans(inputs)
    if as_json:
        print_json({"scans": [info.to_dict() for info in found]})
    else:
        _show(found, described=sys.stdout.isatty())


def _show(found: Sequence[ScanInfo], *, described: bool) -> None:
    """Print one line for each, on request with the descriptions of the series."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("series", justify="right")
    if described:
        table.add_column("description", overflow="fold", min_width=16)
    for heading in ("matrix", "spacing (mm)", "slices"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("kind")
    table.add_column("source", overflow="fold")
    for info in found:
        table.add_row(
            "" if info.number is None else f"{info.number}",
            *([info.description] if described else []),
            "×".join(map(str, info.matrix or ())),
            " × ".join(f"{distance:.3g}" for distance in info.spacing),
            "" if info.slices is None else f"{info.slices:,}",
            info.kind,
            info.source,
        )
    Console(markup=False).print(table)
