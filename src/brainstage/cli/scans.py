"""Scans before a model sees them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from brainstage.cli.shared import Json, Quiet, Series, print_json, progress_of
from brainstage.core.errors import DataError

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


@app.command(epilog="Example: brainstage extract head.nii.gz --out brain.nii.gz")
def extract(
    scan: Annotated[str, typer.Argument(metavar="SCAN", help="NIfTI file, DICOM file or folder.")],
    out: Annotated[
        Path, typer.Option("--out", help="File for the brain, .nii.gz; its picture is written beside it.")
    ],
    series: Series = None,
    quiet: Quiet = False,
) -> None:
    """Extract the brain from a T1-weighted scan of a head.

    A picture is written to check the result.
    """
    from brainstage.report.brain_picture import draw_extraction
    from brainstage.report.terminal.screen import show_facts, show_notice
    from brainstage.scans.discover import SeveralVolumesError
    from brainstage.scans.extraction import check_brain_target, picture_path, write_brain
    from brainstage.scans.extraction import extract as run
    from brainstage.scans.skull_strip import OUTLINE_CHECK

    check_brain_target(scan, out)
    with progress_of(quiet)("Extracting the brain", 1):
        try:
            extraction = run(scan, series)
        except SeveralVolumesError as error:
            raise DataError(error.sentence(described=sys.stderr.isatty())) from error
        write_brain(extraction.brain, out)
        draw_extraction(picture_path(out), extraction)
    if not quiet:
        facts = {
            "brain": str(out),
            "picture": str(picture_path(out)),
            "similarity": f"{extraction.similarity:.2f} to the MNI152 template",
            "check": f"in the picture {OUTLINE_CHECK}",
        }
        show_facts("Extracted the brain", facts, f"brainstage predict {out}")
        show_notice("explanation/registration")
