"""What scans there are."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from brainstage.cli.shared import Json, print_json

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
    from brainstage.report.terminal.scans import show_scans
    from brainstage.scans.discover import describe_scans

    found = describe_scans(inputs)
    if as_json:
        print_json({"scans": [info.to_dict() for info in found]})
    else:
        show_scans(found, described=sys.stdout.isatty())
