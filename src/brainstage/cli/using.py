"""A trained model and scans."""

from __future__ import annotations

import os
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.choices import Format, Method, Skull
from brainstage.cli.shared import (
    Cluster,
    ExitCode,
    ImageColumn,
    Jobs,
    Json,
    Quiet,
    Series,
    end_with,
    named_model,
    open_workers,
    print_json,
    progress_of,
    read_slices,
    say,
    takes_data,
    warn,
)
from brainstage.core.errors import ConfigError, DataError

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
    jobs: Jobs = None,
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
        show_saved(f"{out} ({len(predictions.rows):,} rows)", counts, predictions.worth)
        show_notice(PAGE)
    _show_reasons(predictions.reasons)
    statuses = [row["status"] for row in predictions.rows]
    if "failed" in statuses:
        warn(f"{statuses.count('failed')} of {len(scans)} scans could not be read; see above")
    end_with(statuses)


def _predict_many(
    inputs: list[str], out: Path, image_column: str, jobs: int | None, cluster: str | None, quiet: bool
) -> None:
    """Predict many scans into a folder, and say what became of them."""
    from brainstage.inference.predictions import find_model
    from brainstage.inference.shards import predict_shards
    from brainstage.report.terminal.predictions import show_saved
    from brainstage.report.terminal.screen import show_notice

    model, names = find_model(inputs)
    model = named_model(model, quiet)
    with open_workers(jobs, cluster, quiet=quiet) as workers:
        result = predict_shards(
            model, names, out, image_column=image_column, workers=workers, progress=progress_of(quiet)
        )
    _show_reasons(result.reasons)
    if not quiet:
        files = len(result.files)
        show_saved(f"{out} ({files:,} file{'' if files == 1 else 's'})", result.counts, result.worth)
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

    Returns:
        The scans; and a list that gets the number of each one whose skull is taken off, when it is read.
    """
    from brainstage.core.files import make_folder
    from brainstage.report.brain_picture import draw_extraction
    from brainstage.scans.extraction import without_skulls
    from brainstage.scans.skull_strip import OUTLINE_CHECK

    heads: list[int] = []

    def draw(number: int, extraction: Any) -> None:
        picture = make_folder(folder) / f"{number + 1:03d}.png"
        draw_extraction(picture, extraction)
        heads.append(number)
        warn(
            f"{scans[number].name}: its skull was taken off; check {picture}: {OUTLINE_CHECK}, else do not use the "
            "prediction"
        )

    return without_skulls(scans, skull, draw), heads


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
    from brainstage.inference.predictions import find_model
    from brainstage.inference.predictor import Predictor
    from brainstage.scans.discover import choose_series, find_scans

    model, names = find_model(inputs)
    try:
        scans = find_scans(names, image_column)
    except DataError as error:
        warn(f"Error: {error}")
        raise typer.Exit(ExitCode.NOTHING_USABLE) from error
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


@app.command(epilog="Example: brainstage serve, then open http://127.0.0.1:8000")
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Run folders, patient, compact, or ORG/NAME on the hub; the first is the default."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs TLS, and clients a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Host name by which other machines reach this one. Repeatable."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that answer. Each has the models in memory of its own, 0.6 GB for the two bundled "
            "ones; the limits hold for all together.",
        ),
    ] = 1,
    token: Annotated[
        bool,
        typer.Option(
            "--token",
            help="Ask for a token on this machine too. It is made, and printed once in the address; the "
            "environment variable BRAINSTAGE_TOKEN sets your own.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate for HTTPS, PEM, with those that sign it.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    behind_proxy: Annotated[
        str | None,
        typer.Option(
            "--behind-proxy",
            metavar="ADDRESS",
            help="Address or network of a reverse proxy that does TLS: only it may connect, and whom it names as "
            "client is believed.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Serve a web page and an HTTP API.

    They answer this machine alone unless --host or --behind-proxy says otherwise.
    """
    try:
        from brainstage.serve.server import serve as run
        from brainstage.serve.settings import TOKEN_VARIABLE, ServeSettings, needs_token
    except ImportError as error:
        raise ConfigError(
            'the server is not installed; install it with: pip install "brainstage[serve]"'
        ) from error
    from brainstage.models.weights import BUNDLED
    from brainstage.report.terminal.screen import show_notice

    own = os.environ.get(TOKEN_VARIABLE)
    made = secrets.token_urlsafe(32) if own is None and (token or needs_token(host, behind_proxy)) else None
    settings = ServeSettings(
        models=[named_model(model, quiet) for model in models or BUNDLED],
        host=host,
        port=port,
        allowed_hosts=allow_host or (),
        workers=workers,
        token=made if own is None else own,
        certificate=tls_cert,
        key=tls_key,
        proxy=behind_proxy,
    )

    def ready(address: str) -> None:
        if made:  # nobody knows it yet, so it is printed even with --quiet
            print(f"{address}/?token={made}", flush=True)
        else:
            say(f"{address}/?token=… with {TOKEN_VARIABLE} as token" if own else address, quiet)
        if not quiet:
            show_notice("how-to/serve")

    with suppress(KeyboardInterrupt):  # the usual way to stop a server
        run(settings, ready)
