"""The data: download, describe and audit it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.shared import (
    Json,
    MaxUnreadable,
    Quiet,
    given,
    print_json,
    progress_of,
    read_slices,
    say,
    show_result,
    takes_data,
)
from brainstage.core.schema import SYNTHETIC_NOTICE

app = typer.Typer()
group = typer.Typer(help="Download, describe and generate data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(group, name="data")

EXAMPLE_COMMANDS = (
    "brainstage predict {0}/brain.nii.gz",
    "brainstage predict {0}/dicom/",
    "brainstage predict {0}/slices/ --one-person",
    "brainstage scans {0}/",
    "brainstage explain {0}/brain.nii.gz --out pictures/",
    "brainstage extract {0}/head.nii.gz --out extracted.nii.gz",
    "brainstage serve",
)
"""What can be done with the files of ``data example``; 0 is their folder."""
OF_EXTRAS = ("SimpleITK", "fastapi")
"""What the last two of them need beside the rest."""


@app.command(epilog="Example: brainstage audit --data scans/ --out audit/")
@takes_data
def audit(
    load: Callable[[], Any],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for audit.html, audit.json and patients.parquet.")
    ] = None,
    max_unreadable: MaxUnreadable = 1.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find duplicates and people on both sides.

    People are recovered from the images alone.
    """
    from brainstage.audits.audit import audit
    from brainstage.core.files import make_folder
    from brainstage.report.audit_page import write_audit
    from brainstage.report.terminal.data import show_audit

    if out:
        make_folder(out)  # an unusable folder is refused before the minutes of work
    result = audit(read_slices(load), progress=progress_of(quiet))
    files = write_audit(result, out, ["brainstage", *sys.argv[1:]]) if out else []
    saved = ", ".join(map(str, files))
    show_result(result, show_audit, "explanation/leakage", as_json=as_json, quiet=quiet, saved=saved)


@group.command(epilog="Example: brainstage data fetch")
def fetch(quiet: Quiet = False) -> None:
    """Download the public dataset (28 MB).

    Files are checked by SHA-256; those that exist are not downloaded again.
    """
    from brainstage.datasets.public import fetch

    for file in fetch(quiet=quiet):
        say(str(file), quiet)


@group.command(epilog="Example: brainstage data describe --data scans/ --json")
@takes_data
def describe(
    load: Callable[[], Any],
    max_unreadable: MaxUnreadable = 1.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count rows, classes, sizes, modes and duplicates.

    Exact duplicates are counted, and files that are not read.
    """
    from brainstage.datasets.describe import describe
    from brainstage.report.terminal.data import show_description
    from brainstage.report.terminal.screen import show_notice

    description = describe(load())
    if as_json:
        print_json(description)
    else:
        show_description(description)
        show_notice("reference/formats")


@group.command(epilog="Example: brainstage data clear-slices")
def clear_slices(quiet: Quiet = False) -> None:
    """Delete the decoded slices of large sources.

    They show people. They are decoded again when needed.
    """
    from brainstage.core.cache import clear
    from brainstage.datasets.sources import slices_folder

    say(f"{clear(slices_folder()) / 1e6:,.1f} MB removed from {slices_folder()}", quiet)


@group.command(epilog="Example: brainstage data phantom --bids phantom/ --participants 60")
def phantom(
    out: Annotated[Path | None, typer.Option("--out", help="Folder for slices.")] = None,
    bids: Annotated[Path | None, typer.Option("--bids", help="Folder for volumes, as a BIDS dataset.")] = None,
    patients: Annotated[
        int | None, typer.Option(help="Number of people of --out, each with 32 slices; 200 by default.")
    ] = None,
    participants: Annotated[
        int | None,
        typer.Option(help="Number of people of --bids; from 12 on the last 8 have a defect; 60 by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same cohort.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write a synthetic cohort with known patients.

    Slices have the layout of the public dataset. Volumes are T1-weighted brains without skull.
    """
    if (out is None) == (bids is None):
        raise typer.BadParameter("give one of --out (slices) and --bids (volumes)")
    if (patients if bids else participants) is not None:
        raise typer.BadParameter("--patients goes with --out, --participants with --bids")
    if bids:
        from brainstage.cohorts.phantom import write_phantom_bids

        defects = write_phantom_bids(
            bids, **given(participants=participants), seed=seed, progress=progress_of(quiet)
        )
        say("\n".join(f"{place}: {what}" for place, what in defects.items()), quiet or not defects)
    if out:
        from brainstage.datasets.phantom import write_phantom

        write_phantom(out, **given(patients=patients), seed=seed, progress=progress_of(quiet))
    say(f"{out or bids} ({SYNTHETIC_NOTICE})", quiet)


@group.command(epilog="Example: brainstage data example --out example/")
def example(
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the files.")],
    quiet: Quiet = False,
) -> None:
    """Write scans of one synthetic person to try commands on.

    A brain (NIfTI), the same as a DICOM series and as slices (PNG), and a head with its skull.
    """
    from brainstage.cohorts.example import write_example

    with progress_of(quiet)("Drawing the example", 1):
        contents = write_example(out)
    say(f"{out}/ ({SYNTHETIC_NOTICE}):", quiet)
    for name, what in contents.items():
        say(f"  {name:<13} {what}", quiet)
    say("Try these commands:", quiet)
    for command in EXAMPLE_COMMANDS:
        say(f"  {command.format(out)}", quiet)
    if not all(map(find_spec, OF_EXTRAS)):
        say('extract and serve need: pip install "brainstage[all]"', quiet)
