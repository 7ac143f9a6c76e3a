"""A trained model and scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.choices import Method, Skull
from brainstage.cli.shared import (
    Cluster,
    ExitCode,
    ImageColumn,
    Json,
    Quiet,
    Series,
    end_with,
    named_model,
    open_workers,
    print_json,
    progress_of,
    warn,
)
from brainstage.core.errors import DataError, MissingInputError

app = typer.Typer()

REASONS_SHOWN = 20
"""How many reasons of scans without a prediction are printed."""
PAGE = "explanation/calibration"
"""Page of the documentation that says what a prediction is worth."""
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] SCAN",
        help="JPEG, PNG, NIfTI, DICOM or parquet files, folders or globs. A model may come first: a run folder, "
        "one of the bundled models patient (the default) and compact, or one on the hub, ORG/NAME or "
        "ORG/NAME@REVISION.",
    ),
]


@app.command(epilog="Example: brainstage predict scan.nii.gz dicom_folder/ --out stages.csv")
def predict(
    inputs: Inputs,
    one_person: Annotated[
        bool,
        typer.Option("--one-person", help="All scans show one person: predict from all slices, then from each."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File for the predictions: .csv, .json or .parquet; for many scans a folder of parquet files, "
            "which goes on where it was stopped.",
        ),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Also print a row for each slice, such as the levels of a volume.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Also say what the stages, the people and the figures are.")
    ] = False,
    skull: Skull = "stripped",
    series: Series = None,
    image_column: ImageColumn = "image",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, where --out is a folder; without it one for each processor."),
    ] = None,
    cluster: Cluster = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the probability of each stage.

    Each person is predicted from all slices, then slice by slice. With --skull auto each brain that is taken out of
    a head is drawn into the folder brains, to be checked.
    """
    from brainstage.inference.predictions import predict_scans
    from brainstage.report.predictions import check_target, write_predictions
    from brainstage.report.terminal.predictions import show_predictions, show_saved
    from brainstage.report.terminal.screen import show_notice

    if out and not out.suffix:
        if one_person or slices or details or as_json or skull != "stripped" or series is not None:
            raise typer.BadParameter(
                "a folder takes neither --one-person, --slices, --details, --json, --skull nor --series; heads "
                "with their skull are prepared first, with brainstage prepare",
                param_hint="'--out'",
            )
        _predict_many(inputs, out, image_column, jobs, cluster, quiet)
        return
    if jobs is not None or cluster is not None:
        raise typer.BadParameter("are for --out with a folder, predictions/", param_hint="'--jobs' / '--cluster'")
    if out:
        check_target(out)
    predictor, scans = _open(inputs, image_column, series, quiet)
    heads: list[int] = []
    if skull != "stripped":
        scans, heads = _without_skulls(scans, skull, (out.parent if out else Path()) / "brains")
    predictions = predict_scans(predictor, scans, one_person=one_person, progress=progress_of(quiet))
    predictions = replace(predictions, skulls_removed=tuple(scans[number].name for number in sorted(heads)))
    if out:
        write_predictions(predictions, out)
    if as_json:
        print_json(predictions.to_dict())
    elif not out:
        show_predictions(predictions, slices=slices, details=details)
        show_notice(PAGE)
    elif not quiet:
        counts = Counter(rows[0]["status"] for rows in predictions.people)
        show_saved(f"{out} ({len(predictions.rows):,} rows)", counts, predictions.performance, predictions.title)
        show_notice(PAGE)
    _show_reasons(predictions.reasons)
    statuses = [row["status"] for row in predictions.rows]
    if "failed" in statuses:
        warn(f"{statuses.count('failed')} of {len(scans)} scans could not be read; see above")
    end_with(statuses)


def _predict_many(
    inputs: list[str], out: Path, image_column: str, jobs: int | None, cluster: str | None, quiet: bool
) -> None:
    """Predict many scans into a folder, and say what became of them.

    Raises:
        typer.Exit: There is no scan; the message says why.
    """
    from brainstage.inference.shards import predict_shards
    from brainstage.models.find import find_model
    from brainstage.report.terminal.predictions import show_saved
    from brainstage.report.terminal.screen import show_notice

    model, names = find_model(inputs)
    model = named_model(model, quiet)
    with open_workers(jobs, cluster, quiet=quiet) as workers:
        try:
            result = predict_shards(
                model, names, out, image_column=image_column, workers=workers, progress=progress_of(quiet)
            )
        except MissingInputError as error:
            raise _nothing_usable(error) from error
    _show_reasons(result.reasons)
    if result.removed:
        warn(result.removed)
    if not quiet:
        files = len(result.files)
        saved = f"{out} ({files:,} file{'' if files == 1 else 's'})"
        show_saved(saved, result.counts, result.performance, result.title)
        show_notice(PAGE)
    end_with(list(result.counts))


def _show_reasons(reasons: Sequence[str]) -> None:
    """Print why scans have no prediction; of many, the first, and how many others there are."""
    for reason in reasons[:REASONS_SHOWN]:
        warn(reason)
    if rest := len(reasons[REASONS_SHOWN:]):
        warn(f"{rest:,} more reasons are in column reason of the file that --out writes")


def _without_skulls(scans: Sequence[Any], skull: Any, folder: Path) -> tuple[list[Any], list[int]]:
    """Return scans that are read without their skull, each brain that is taken out drawn into a folder.

    A picture is named after its scan's number, or the next that is free: one that is there is never overwritten.

    Returns:
        The scans; and a list that gets the number of each one whose skull is taken off, when it is read.
    """
    from brainstage.core.files import make_folder
    from brainstage.report.brain_picture import draw_extraction
    from brainstage.scans.extraction import without_skulls
    from brainstage.scans.skull_strip import OUTLINE_CHECK

    heads: list[int] = []

    def draw(number: int, extraction: Any) -> None:
        picture = _new_picture(make_folder(folder), number + 1)
        draw_extraction(picture, extraction)
        heads.append(number)
        warn(
            f"{scans[number].name}: its skull was taken off; check {picture}: {OUTLINE_CHECK}, else do not use the "
            "prediction"
        )

    return without_skulls(scans, skull, draw), heads


def _new_picture(folder: Path, number: int) -> Path:
    """Make an empty file for a picture, named after the first free number from this one on; return its path."""
    while True:
        picture = folder / f"{number:03d}.png"
        try:
            picture.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return picture


def _nothing_usable(error: DataError) -> typer.Exit:
    """Print why there is no scan; return what ends the command."""
    warn(f"Error: {error}")
    return typer.Exit(ExitCode.NOTHING_USABLE)


def _open(inputs: list[str], image_column: str, series: int | None, quiet: bool) -> tuple[Any, Any]:
    """Return the predictor and the scans that were named, or the series of that number among them.

    Args:
        inputs: What was typed: perhaps a model, then scans.
        image_column: Column of parquet files with the images' bytes.
        series: The number.
        quiet: Do not say which model is used.

    Raises:
        typer.Exit: There is no scan; the message says why.
    """
    from brainstage.inference.predictor import Predictor
    from brainstage.models.find import find_model
    from brainstage.scans.discover import choose_series, find_scans

    model, names = find_model(inputs)
    try:
        scans = find_scans(names, image_column)
    except DataError as error:
        raise _nothing_usable(error) from error
    if series is not None:
        scans = [choose_series(scans, series)]
    return Predictor.open(named_model(model, quiet)), scans


@app.command(epilog="Example: brainstage explain scan.nii.gz --out pictures/")
def explain(
    inputs: Inputs,
    out: Annotated[
        Path,
        typer.Option("--out", help="New folder for one picture a person, tables and explanations.json."),
    ],
    one_person: Annotated[
        bool, typer.Option("--one-person", help="All scans show one person: explain their slices together.")
    ] = False,
    method: Method = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Stage to explain; without it the predicted one. Contributions take none: they are to the score "
            "behind all stages."
        ),
    ] = None,
    sanity: Annotated[
        bool,
        typer.Option(
            "--sanity", help="Compare with the maps of the same model, its weights randomised: must differ."
        ),
    ] = False,
    skull: Skull = "stripped",
    series: Series = None,
    image_column: ImageColumn = "image",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw and list what moved the score.

    One picture a person shows all slices with one colour scale. The patient model's contributions are exact and add
    up to the score; a network's maps are Captum's. Neither shows lesions. With --skull auto each brain that is
    taken out of a head is drawn into the folder brains beside --out, to be checked.
    """
    from brainstage.report.explanations import explain as run
    from brainstage.report.terminal.explanations import show_explanations
    from brainstage.report.terminal.screen import show_notice

    predictor, scans = _open(inputs, image_column, series, quiet)
    if skull != "stripped":
        scans, _ = _without_skulls(scans, skull, out.parent / "brains")
    explanations = run(
        predictor,
        scans,
        out,
        one_person=one_person,
        method=method,
        stage=stage,
        sanity=sanity,
        progress=progress_of(quiet),
    )
    if as_json:
        print_json(explanations.to_dict())
    elif not quiet:
        show_explanations(explanations, out)
        show_notice("explanation/explanations")
    for reason in explanations.reasons:
        warn(reason)
    end_with([row["status"] for row in explanations.rows])
