"""The tool as a BIDS App."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from brainstage.cli.choices import Skull
from brainstage.cli.shared import (
    USAGE_ERROR,
    ClassOrder,
    Cluster,
    Jobs,
    Json,
    Quiet,
    named_model,
    open_workers,
    parse_order,
    parse_pair,
    print_json,
    progress_of,
    say,
    typed_command,
    warn,
)
from brainstage.core.errors import (
    BrainstageError,
    ConfigError,
    DataError,
    InUseError,
    InvalidDatasetError,
    LeakageError,
    MissingInputError,
    NothingSelectedError,
    OutputError,
    RunError,
)

if TYPE_CHECKING:
    from brainstage.core.parallel import Workers
    from brainstage.inference.scan_results import ScanResult
    from brainstage.studies.bids_app import BidsApp

app = typer.Typer()
LEVELS = ("participant", "group")
LISTS = ("--participant-label", "--participant_label", "--session-label", "--session_label")
"""Options that take several values, separated by spaces, as BIDS Apps have them."""


class BidsExitCode(IntEnum):
    """How ``brainstage bids`` ended, by the BIDS execution specification (docs/reference/exit-codes.md)."""

    DONE = 0
    INVALID_DATASET = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    USAGE = 64
    DATA_ERROR = 65
    NO_INPUT = 66
    CANNOT_CREATE = 73
    IO_ERROR = 74
    TRY_AGAIN = 75


CODES: dict[type[BrainstageError], BidsExitCode] = {
    InvalidDatasetError: BidsExitCode.INVALID_DATASET,
    NothingSelectedError: BidsExitCode.NOTHING_SELECTED,
    MissingInputError: BidsExitCode.NO_INPUT,
    DataError: BidsExitCode.DATA_ERROR,
    LeakageError: BidsExitCode.DATA_ERROR,
    OutputError: BidsExitCode.CANNOT_CREATE,
    InUseError: BidsExitCode.TRY_AGAIN,
    RunError: BidsExitCode.NO_INPUT,  # what is left of it: the model cannot be opened
    ConfigError: BidsExitCode.USAGE,
}
"""Code of each kind of error; what stands first is looked at first."""
EXIT_CODES = (
    "Exit codes: 0 done, 16 no BIDS dataset, 17 unknown level, 18 no such participant or session, 64 usage error, "
    "65 some scans could not be read, or none could be used, 66 input or model missing, 73 output cannot be "
    "written, 74 input or output error, 75 try again later, 130 interrupted."
)


class _BidsCommand(TyperCommand):
    """A command whose options take several values, and whose usage errors have the code of BIDS Apps."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        with _usage_code():
            return super().make_context(info_name, one_value_each(args), *rest, **more)

    def invoke(self, ctx: Any) -> Any:
        with _usage_code():
            return super().invoke(ctx)


@contextmanager
def _usage_code() -> Iterator[None]:
    """End with the exit code of a BIDS App where the command was mistyped."""
    try:
        yield
    except USAGE_ERROR as error:
        error.show()
        raise typer.Exit(BidsExitCode.USAGE) from error


def one_value_each(arguments: Sequence[str]) -> list[str]:
    """Return arguments with each value of :data:`LISTS` after an option of its own, which ``typer`` needs."""
    single: list[str] = []
    option, first = "", False
    for argument in arguments:
        if argument.startswith("-"):
            option, first = (argument, True) if argument in LISTS else ("", False)
        elif option and not first:
            single.append(option)
        else:
            first = False
        single.append(argument)
    return single


@app.command(
    cls=_BidsCommand,
    epilog=f"Example: brainstage bids bids/ derivatives/ participant --participant-label 01 02\n\n{EXIT_CODES}",
)
def bids(
    bids_dir: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="BIDS dataset.")],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of the derivatives.")],
    level: Annotated[
        str,
        typer.Argument(
            metavar="<participant|group>", help="participant, in any number of jobs at once; then group."
        ),
    ],
    participant_label: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label",
            "--participant_label",
            help="Participants, with or without sub-, separated by spaces; without it all.",
        ),
    ] = None,
    session_label: Annotated[
        list[str] | None,
        typer.Option(
            "--session-label",
            "--session_label",
            help="Sessions, with or without ses-, separated by spaces; without it all.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Run folder, a bundled model (patient, compact), or ORG/NAME on the hub.")
    ] = "patient",
    skull: Skull = "auto",
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Column of participants.tsv that group evaluates against; without it diagnosis, dx, group, label "
            "or cdr."
        ),
    ] = None,
    class_order: ClassOrder = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option("--map", help="LABEL=CLASS: class of the model that a label stands for. Repeatable."),
    ] = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stage the scans of a BIDS dataset as a BIDS App.

    participant writes brain masks, registered brains, a page and a row of a table for each person; started again it
    does what is missing. group joins the rows, and evaluates the predictions against labels.
    """
    if level not in LEVELS:
        warn(f"Error: {level!r}: unknown analysis level, expected one of {', '.join(LEVELS)}")
        raise typer.Exit(BidsExitCode.UNKNOWN_LEVEL)
    mapped = dict(parse_pair(pair, "--map", "CN=Non_Demented") for pair in class_map or [])
    with _bids_codes(), open_workers(jobs, cluster, quiet=quiet) as workers:
        from brainstage.cohorts.bids import open_bids
        from brainstage.models.find import place_of_model
        from brainstage.studies.bids_app import BidsApp

        dataset = open_bids(workers.path(bids_dir), participant_label or (), session_label or (), label_column)
        place = place_of_model(named_model(model, quiet), workers)
        opened = BidsApp.open(dataset, workers.path(out_dir), place, skull)
        for note in dataset.source.notes:
            warn(note)
        if dry_run:
            _show_plan(opened)
        elif level == "participant":
            _participant(opened, workers=workers, as_json=as_json, quiet=quiet)
        else:
            _group(
                opened,
                named=label_column is not None,
                class_order=parse_order(class_order),
                class_map=mapped or None,
                as_json=as_json,
                quiet=quiet,
            )


def _participant(opened: BidsApp, *, workers: Workers, as_json: bool, quiet: bool) -> None:
    from brainstage.report.derivatives import run_participants

    results = run_participants(opened, workers=workers, progress=progress_of(quiet))
    _show_results(results, as_json=as_json, quiet=quiet)
    say(f"Saved {opened.folder.phenotype} and a page for each participant", quiet or as_json)
    _show_notice(as_json=as_json, quiet=quiet)
    statuses = [result.status for result in results]
    if "failed" in statuses or "predicted" not in statuses:
        raise typer.Exit(BidsExitCode.DATA_ERROR)


def _group(
    opened: BidsApp,
    *,
    named: bool,
    class_order: tuple[str, ...] | None,
    class_map: dict[str, str] | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Join the results of all participants, and evaluate them where there are labels."""
    from brainstage.report.derivatives import write_dataset_files, write_phenotype

    missing = opened.unprocessed()
    if missing:
        warn(f"not processed yet, so not in the results: {', '.join(missing)}; run the participant level for them")
    results = opened.all_results()
    if not results:
        raise DataError(f"{opened.folder.path}: no participant was processed; run the participant level first")
    write_dataset_files(opened)
    table = write_phenotype(opened)
    _show_results(results, as_json=as_json, quiet=quiet)
    say(f"Saved {table}", quiet or as_json)
    _evaluate_group(opened, named, class_order, class_map, as_json=as_json, quiet=quiet)
    _show_notice(as_json=as_json, quiet=quiet)


def _evaluate_group(
    opened: BidsApp,
    named: bool,
    class_order: tuple[str, ...] | None,
    class_map: dict[str, str] | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate the results where there are labels.

    Labels that cannot be evaluated are an error where the user named their column, else a notice.
    """
    from brainstage.report.terminal.validation import show_validation
    from brainstage.report.validation_page import write_validation

    if opened.dataset.source.label_column is None:
        say(
            "Not evaluated: participants.tsv has no column with a label; name it with --label-column",
            quiet or as_json,
        )
        return
    try:
        validation, slices = opened.evaluate(
            class_order=class_order, class_map=class_map, progress=progress_of(quiet)
        )
    except (DataError, LeakageError) as error:
        if named:
            raise
        warn(f"Not evaluated: {error}")
        return
    page = write_validation(validation, slices, opened.folder.validation, typed_command())
    if not as_json:
        show_validation(validation)
    say(f"Saved {page}", quiet or as_json)


def _show_notice(*, as_json: bool, quiet: bool) -> None:
    from brainstage.report.terminal.screen import show_notice

    if not (as_json or quiet):
        show_notice("how-to/bids-app")


def _show_plan(opened: BidsApp) -> None:
    """Print what would be done with each selected scan."""
    missing = set(opened.unprocessed())
    for task in opened.tasks():
        scan = task.scan
        doing = (
            "done" if scan.scan_id not in missing else f"no scan: {scan.problem}" if scan.scan is None else "to do"
        )
        print(f"{scan.scan_id}: {doing}")


def _show_results(results: Sequence[ScanResult], *, as_json: bool, quiet: bool) -> None:
    """Print how many scans have each status, and why the others were not predicted."""
    statuses = [result.status for result in results]
    if as_json:
        print_json({"scans": [vars(result) for result in results]})
        return
    say(", ".join(f"{statuses.count(name):,} {name}" for name in ("predicted", "refused", "failed")), quiet)
    for result in results:
        if result.reason:
            warn(f"{result.scan_id}: {result.status}: {result.reason}")


@contextmanager
def _bids_codes() -> Iterator[None]:
    """End with the exit code of a BIDS App where an error is raised."""
    try:
        yield
    except BrainstageError as error:
        warn(f"Error: {error}")
        code = next(code for kind, code in CODES.items() if isinstance(error, kind))
        raise typer.Exit(code) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        warn(f"Error: {error.filename or 'a file'}: {os.strerror(error.errno) if error.errno else error}")
        raise typer.Exit(BidsExitCode.IO_ERROR) from error
