"""A trained model and scans."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.shared import (
    ImageColumn,
    Json,
    Quiet,
    print_json,
    progress_of,
    read_slices,
    say,
    takes_data,
    warn,
)
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.schema import RESEARCH_NOTICE

app = typer.Typer()

SCANS = (
    "JPEG, PNG, NIfTI, DICOM or parquet files, folders or globs. A run folder, or patient (taken where none is "
    "named) or compact, which come with the package, may stand first."
)


@app.command(epilog="Example: brainstage predict scan.nii.gz dicom_folder/ --out stages.csv")
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="[model] scans", help=SCANS),
    ],
    one_person: Annotated[
        bool, typer.Option("--one-person", help="All are slices of one person: one answer from all, then each.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the predictions: .csv, .json or .parquet.")
    ] = None,
    image_column: ImageColumn = "image",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stage scans: the probability of each stage, of a person from all slices, then slice by slice."""
    from brainstage.inference.predictions import find_model, predict_scans
    from brainstage.inference.predictor import Predictor
    from brainstage.report.predictions import check_target, write_predictions
    from brainstage.report.terminal import show_predictions
    from brainstage.scans.discover import find_scans

    if out:
        check_target(out)
    model, names = find_model(inputs)
    scans = find_scans(names, image_column)
    predictions = predict_scans(Predictor.open(model), scans, one_person=one_person, progress=progress_of(quiet))
    if out:
        write_predictions(predictions, out)
    if as_json:
        print_json(predictions.to_dict())
    elif out:
        say(f"Saved {out} ({len(predictions.rows)} rows). {predictions.notice}", quiet)
    else:
        show_predictions(predictions)
    for sentence in predictions.reasons:
        warn(sentence)
    failed = sum(row["status"] == "failed" for row in predictions.rows)
    if failed:
        warn(f"{failed} of {len(scans)} scans could not be read; see above")
        raise typer.Exit(1)


@app.command(epilog="Example: brainstage explain scan.nii.gz --out pictures/")
def explain(
    inputs: Annotated[list[str], typer.Argument(metavar="[model] scans", help=SCANS)],
    out: Annotated[Path, typer.Option("--out", help="New folder for the pictures and explanations.json.")],
    method: Annotated[
        str | None,
        typer.Option(help="grad-cam, integrated-gradients or occlusion; without it the one that suits the model."),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Stage to explain, in place of the answered one.")] = None,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Compare with the same model knowing nothing: maps must change.")
    ] = False,
    image_column: ImageColumn = "image",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the pixels that moved a score: each slice as a picture. Not a lesion map."""
    from brainstage.inference.predictions import find_model
    from brainstage.inference.predictor import Predictor
    from brainstage.report.explanations import explain as run
    from brainstage.report.terminal import show_explanations
    from brainstage.scans.discover import find_scans

    model, names = find_model(inputs)
    scans = find_scans(names, image_column)
    predictor = Predictor.open(model)
    found = run(predictor, scans, out, method=method, stage=stage, sanity=sanity, progress=progress_of(quiet))
    if as_json:
        print_json(found.to_dict())
    elif not quiet:
        show_explanations(found, out)
    for sentence in found.reasons:
        warn(sentence)
    if any(row["status"] == "failed" for row in found.rows):
        raise typer.Exit(1)


@app.command(epilog="Example: brainstage export runs/compact-001 --to onnx")
@takes_data
def export(
    load: partial[Any],
    run: Annotated[str, typer.Argument(help="Run folder, or compact, which comes with the package.")],
    to: Annotated[str, typer.Option("--to", help="Format: onnx.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit integers, where they move accuracy by less than 0.2 points.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder; without it onnx in the run's folder.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a network as ONNX, checked to answer as the run does; predict opens the folder without PyTorch.

    Both answer 256 slices of the data; where there is none, of phantoms.
    """
    if to != "onnx":
        raise typer.BadParameter(f"--to {to!r}: expected onnx")
    from brainstage.exports.export import export as write
    from brainstage.report.terminal import show_facts

    found = write(run, out, int8=int8, slices=_data_where_any(load), progress=progress_of(quiet))
    if as_json:
        print_json({"folder": str(found.folder), "title": found.title, **found.to_dict()})
    elif not quiet:
        show_facts(found.title, found.facts, f"brainstage predict {found.folder} IMAGE…")


def _data_where_any(load: partial[Any]) -> Any | None:
    """Read the data; None where none is named and none is at hand."""
    from brainstage.datasets.sources import default_source

    if load.keywords["data"] is None:
        try:
            default_source()
        except DataError:
            return None
    return read_slices(load)


@app.command(epilog="Example: brainstage extract head.nii.gz --out brain.nii.gz")
def extract(
    scan: Annotated[str, typer.Argument(metavar="scan", help="NIfTI file, DICOM file or the folder of a series.")],
    out: Annotated[Path, typer.Option("--out", help="File for the brain, .nii.gz; its picture lies beside it.")],
    quiet: Quiet = False,
) -> None:
    """Extract the brain from a T1-weighted head with its skull, with a picture to check it by."""
    from brainstage.report.brain_picture import draw_extraction
    from brainstage.scans.extraction import check_brain_target, picture_path, write_brain
    from brainstage.scans.extraction import extract as run

    check_brain_target(scan, out)
    with progress_of(quiet)("Extracting the brain", 1):
        extraction = run(scan)
        write_brain(extraction.brain, out)
        draw_extraction(picture_path(out), extraction)
    say(
        f"Saved {out} and {picture_path(out)} (similarity to the MNI152 template {extraction.similarity:.2f}). "
        "Check the picture: the line must follow the edge of the brain in every cut. If it does: "
        f"brainstage predict {out}\n{RESEARCH_NOTICE}",
        quiet,
    )


@app.command(epilog="Example: brainstage serve, then open http://127.0.0.1:8000")
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[model]...", help="Run folders, patient or compact; the first is the default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Name under which other machines may ask this one. Repeatable."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Serve a page and an HTTP API, for this machine alone unless told otherwise."""
    try:
        from brainstage.serve.server import is_loopback, listen
        from brainstage.serve.server import serve as run
    except ImportError as error:
        raise ConfigError(
            "the server is not installed; install it with: pip install 'brainstage[serve]'"
        ) from error
    from brainstage.models.weights import BUNDLED

    if not is_loopback(host) and not allow_host:
        raise ConfigError(
            f"--host {host}: whoever reaches this machine could use the server; name it with --allow-host NAME, as "
            "others will call it, if that is what you want"
        )
    place = listen(host, port)
    address = f"http://{'localhost' if host == '::1' else host}:{place.getsockname()[1]}"
    run(models or BUNDLED, place, allow_host or (), ready=partial(say, f"{address}\n{RESEARCH_NOTICE}", quiet))
