"""A model for others."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainstage.cli.choices import Format
from brainstage.cli.shared import (
    ExitCode,
    Json,
    Quiet,
    named_model,
    print_json,
    progress_of,
    read_slices,
    say,
    takes_data,
)
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.links import docs_page

if TYPE_CHECKING:
    from brainstage.core.hub import Repository
    from brainstage.exports.publish import Publication

app = typer.Typer()


@app.command(epilog="Example: brainstage export runs/compact-001 --to onnx")
@takes_data
def export(
    load: partial[Any],
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, the bundled model compact, or ORG/NAME on the hub.")
    ],
    to: Format = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit integers, if they change the accuracy on validation slices by less than 0.2 points and the "
            "stage of at most 1 in 100.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder; without it onnx in the run's folder.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a network as ONNX and check its predictions.

    The network and the ONNX file predict 256 slices of the data; without data, of phantoms. predict opens the new
    folder without PyTorch.
    """
    from brainstage.exports.export import export as write
    from brainstage.report.terminal.screen import show_facts, show_notice

    exported = write(
        named_model(run, quiet), out, int8=int8, slices=_data_if_any(load), progress=progress_of(quiet)
    )
    if as_json:
        print_json({"folder": str(exported.folder), "title": exported.title, **exported.to_dict()})
    elif not quiet:
        show_facts(exported.title, exported.facts, f"brainstage predict {exported.folder} IMAGE…")
        show_notice("how-to/export")


def _data_if_any(load: partial[Any]) -> Any | None:
    """Read the data; return None where none is named and none was downloaded."""
    from brainstage.datasets.sources import default_source

    if load.keywords["data"] is None:
        try:
            default_source()
        except DataError:
            return None
    return read_slices(load)


@app.command(epilog="Example: brainstage push runs/patient-001 my-lab/dementia-stages --dry-run")
def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or one that export wrote.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Name on the Hugging Face hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everyone read it; without it, it is private.")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="Licence, by the hub's name for it, such as cc-by-nc-4.0; without it none.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, and where to. The hub is not asked.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a model on the Hugging Face hub.

    The model, its preprocessing and its card are uploaded in one commit; pushed again, they are replaced.
    Predictions, splits and settings stay here. The login is that of `hf auth login`. Others then run: brainstage
    predict ORG/NAME SCAN.
    """
    from brainstage.exports.publish import look_at_target, prepare_publication, publish

    publication = prepare_publication(run, name, public=public, license=license)
    if dry_run:
        if as_json:
            print_json({**publication.to_dict(), "commit": None})
        else:
            print(f"{_describe(publication)}\nNothing was sent.")
        return
    there = look_at_target(publication)
    if not yes:
        _ask(publication, there)
    commit = publish(publication, there, quiet=quiet)
    if as_json:
        print_json({**publication.to_dict(), "commit": commit})
    elif there and commit == there.commit:
        say(f"{publication.address} holds this model already; nothing was changed.", quiet)
    else:
        say(f"Published {publication.address} (commit {commit[:12]}). Try: brainstage predict {name} SCAN", quiet)


def _ask(publication: Publication, there: Repository | None) -> None:
    """Show what would be uploaded and ask, on the error stream.

    Raises:
        ConfigError: Nobody is there to answer.
        typer.Exit: The answer is no.
    """
    if not sys.stdin.isatty():
        raise ConfigError(f"{publication.repo}: nobody can be asked here; look at --dry-run, then add --yes")
    what = f"It replaces the model there (commit {there.commit[:12]})." if there else "A new repository is made."
    print(f"{_describe(publication)}\n{what}", file=sys.stderr)
    if not typer.confirm("May you share this, and do you want to?", err=True):
        print("Nothing was uploaded.", file=sys.stderr)
        raise typer.Exit(ExitCode.FAILED)


def _describe(publication: Publication) -> str:
    """Return what is uploaded, where to, and what it tells of people."""
    readers = "private: you, and whom you let in" if publication.private else "PUBLIC: everyone"
    width = max(map(len, publication.sizes))
    files = [f"  {name:{width}}  {_size(size):>10}" for name, size in publication.sizes.items()]
    return "\n".join(
        [
            f"To {publication.address} ({readers})",
            *files,
            f"  {'together':{width}}  {_size(sum(publication.sizes.values())):>10}",
            *map(fill, (f"Stays here: {', '.join(publication.kept_here) or 'nothing'}", *publication.inside)),
            f"Read before you share: {docs_page('explanation/data-statement')}",
        ]
    )


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
