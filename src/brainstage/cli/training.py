"""From data to a run that is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.shared import (
    BACKBONE,
    RECIPES,
    ClassOrder,
    Json,
    Out,
    ProtocolOption,
    Quiet,
    Resume,
    Seed,
    Settings,
    ValidationShare,
    given,
    parse_order,
    parse_settings,
    progress_of,
    read_slices,
    say,
    show_result,
    takes_data,
)

app = typer.Typer()


@app.command(epilog="Example: brainstage quickstart")
def quickstart(out: Out = Path("runs"), quiet: Quiet = False) -> None:
    """Train, judge and use a classifier: on the real data where it can be had, else on the phantom cohort."""
    from brainstage.cli.quickstart import find_data
    from brainstage.datasets.sources import load_slices
    from brainstage.models.recipes import load_recipe

    source, sentence = find_data(progress_of(quiet))
    say(sentence, quiet)
    slices = load_slices(source, progress=progress_of(quiet))
    path = _train(slices, load_recipe("compact"), False, quiet, out=out)
    say(f"Next: brainstage predict {path} IMAGE…    brainstage evaluate {path}    brainstage --help", quiet)


@app.command(epilog="Example: brainstage train --recipe compact --data scans/ --name first --set epochs=20")
@takes_data
def train(
    load: Callable[[], Any],
    recipe: Annotated[str, typer.Option(help=RECIPES)] = "compact",
    backbone: Annotated[str | None, typer.Option(help=BACKBONE)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; without it RECIPE-001, -002, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    protocol: ProtocolOption = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.")] = None,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    track: Annotated[str | None, typer.Option(help="Local tracker beside history.jsonl: tensorboard.")] = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, pick the epoch on validation slices, evaluate once on test, save runs/NAME.

    With --protocol patient every fold is trained, so that everyone is predicted by a model that has not seen them;
    then one on everyone, to be used.
    """
    from brainstage.models.recipes import load_recipe

    named = {"backbone": backbone, "protocol": protocol, "epochs": epochs, "seed": seed}
    changes = given(**named, validation_share=validation_share) | parse_settings(settings)
    config = load_recipe(recipe, **changes)  # a wrong setting is told before the data is read
    if track not in (None, "tensorboard"):
        raise typer.BadParameter(f"--track {track!r}: expected tensorboard")
    if config.protocol == "patient" and "fold" not in changes:
        _cross_validate(read_slices(load), config, as_json, quiet, name=name, out=out, resume=resume, track=track)
    else:
        _train(read_slices(load), config, as_json, quiet, name=name, out=out, resume=resume, track=track)


def _cross_validate(slices: Any, config: Any, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train every fold, judge by people and show; the options are those of :func:`brainstage.cross_validate`."""
    from brainstage.evaluation.patients import evaluate_patients
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.results import write_evaluation, write_patient_evaluation
    from brainstage.report.terminal import show_patient_evaluation
    from brainstage.training.cross_validation import cross_validate

    run = cross_validate(slices, config, progress=progress_of(quiet), **options)
    write_evaluation(evaluate(run), run.path)
    evaluation = evaluate_patients(run)
    write_patient_evaluation(evaluation, run.path)
    show_result(
        evaluation, show_patient_evaluation, as_json=as_json, quiet=quiet, saved=run.path, run=str(run.path)
    )


def _train(slices: Any, config: Any, as_json: bool, quiet: bool, **options: Any) -> Path:
    """Train, judge and show; the options are those of :func:`brainstage.train`."""
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.results import write_evaluation
    from brainstage.report.terminal import show_evaluation
    from brainstage.training.train import train

    run = train(slices, config, progress=progress_of(quiet), **options)
    evaluation = evaluate(run)
    write_evaluation(evaluation, run.path, run.history)
    show_result(evaluation, show_evaluation, as_json=as_json, quiet=quiet, saved=run.path, run=str(run.path))
    return run.path


@app.command(epilog="Example: brainstage evaluate runs/compact-001 --json")
def evaluate(
    source: Annotated[Path, typer.Argument(help="Run folder, or a prediction table (parquet) of any tool.")],
    split: Annotated[str, typer.Option(help="Side to judge: test, validation or train.")] = "test",
    protocol: Annotated[
        str | None, typer.Option(help="Protocol of a table that does not say: official or patient.")
    ] = None,
    level: Annotated[str, typer.Option(help="What is judged: slice or patient.")] = "slice",
    class_order: ClassOrder = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files; without it the run.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge predictions: every score with its interval, as a table, metrics.json and charts."""
    from brainstage.core.run import RunFolder
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.results import write_evaluation
    from brainstage.report.terminal import show_evaluation

    if level not in ("slice", "patient"):
        raise typer.BadParameter(f"--level {level!r}: expected slice or patient")
    if level == "patient":
        _evaluate_patients(source, split, protocol, class_order, out, as_json, quiet)
        return
    evaluation = evaluate(source, split=split, protocol=protocol, class_order=parse_order(class_order))
    run = RunFolder(source) if source.is_dir() else None
    folder = out or (run.path if run else None)
    saved = None
    if folder:
        RunFolder(folder).create()
        saved = ", ".join(map(str, write_evaluation(evaluation, folder, run.history if run else None)))
    show_result(evaluation, show_evaluation, as_json=as_json, quiet=quiet, saved=saved)


def _evaluate_patients(
    source: Path,
    split: str,
    protocol: str | None,
    class_order: str | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from brainstage.core.files import make_folder
    from brainstage.evaluation.patients import evaluate_patients
    from brainstage.report.results import write_patient_evaluation
    from brainstage.report.terminal import show_patient_evaluation

    order = parse_order(class_order)
    evaluation = evaluate_patients(source, split=split, protocol=protocol, class_order=order)
    folder = out or (source if source.is_dir() else None)
    file = write_patient_evaluation(evaluation, make_folder(folder)) if folder else None
    show_result(evaluation, show_patient_evaluation, as_json=as_json, quiet=quiet, saved=file)
