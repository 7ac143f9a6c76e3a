"""From data to a run and its performance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainstage.cli.choices import Level, ProtocolOption, Recipe, Split, TableProtocol, Tracker
from brainstage.cli.shared import (
    BACKBONE,
    ClassOrder,
    Cluster,
    Data,
    Json,
    Out,
    Quiet,
    Resume,
    Seed,
    Settings,
    SplitsFile,
    TrainingJobs,
    ValidationShare,
    find_backbones,
    given,
    open_workers,
    parse_order,
    parse_settings,
    progress_of,
    read_slices,
    say,
    show_result,
    takes_data,
    with_protocol,
)
from brainstage.core.errors import ConfigError
from brainstage.core.sigterm import terminated_by_sigterm
from brainstage.training.processes import first_goes_first, is_first, share_of_batch

if TYPE_CHECKING:
    from brainstage.core.config import TrainConfig
    from brainstage.core.run import RunFolder
    from brainstage.datasets.table import SliceTable
    from brainstage.evaluation.slices import Evaluation

app = typer.Typer()

Backbone = Annotated[str | None, typer.Option(help=BACKBONE)]
RunName = Annotated[str | None, typer.Option("--name", help="Name of the run; without it RECIPE-001, -002, …")]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs.")]


@app.command(epilog="Example: brainstage quickstart")
def quickstart(data: Data = None, out: Out = Path("runs"), quiet: Quiet = False) -> None:
    """Train and evaluate a first classifier.

    It learns from the public dataset, or where that is out of reach from the phantom cohort.
    """
    from brainstage.cli.quickstart import find_data, lesson
    from brainstage.datasets.sources import load_slices
    from brainstage.models.recipes import load_recipe
    from brainstage.report.terminal.evaluations import show_evaluation
    from brainstage.report.terminal.screen import facts_table, open_console, show_notice

    source, sentence = find_data(data, progress_of(quiet))
    say(sentence, quiet)
    slices = load_slices(source, progress=progress_of(quiet))
    run, evaluation = _train(slices, load_recipe("compact"), quiet=quiet, out=out)
    show_evaluation(evaluation)
    say(f"Saved {run.path}", quiet)
    print("\nAccuracy, and what it means:")
    open_console().print(facts_table(lesson(slices, run, evaluation, progress_of(quiet))))
    say(f"Next: {_next_command(slices)}", quiet)
    show_notice("explanation/leakage")


def _next_command(slices: SliceTable) -> str:
    """Return the command that gives an honest figure of these data."""
    if None in slices.patients:
        return "brainstage audit, which recovers the people from the pixels"
    return "brainstage cross-validate --recipe patient, the model that is for new people"


@app.command(epilog="Example: brainstage train --recipe compact --data scans/ --name first --set epochs=20")
@takes_data
@terminated_by_sigterm()
def train(
    load: Callable[[], Any],
    recipe: Recipe = "compact",
    backbone: Backbone = None,
    name: RunName = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    protocol: ProtocolOption = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold of the patient protocol whose people are the test set, from 0.")
    ] = None,
    splits: SplitsFile = None,
    epochs: Epochs = None,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    track: Tracker = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one model, evaluate it and save runs/NAME.

    Its epoch is picked on validation slices, and it is evaluated once on test slices. Under the patient protocol it
    is trained on one fold; cross-validate trains all of them.
    """
    from brainstage.datasets.splits import Splits, make_splits
    from brainstage.models.recipes import load_recipe
    from brainstage.report.terminal.evaluations import show_evaluation

    changes = given(backbone=backbone, protocol=protocol, fold=fold, epochs=epochs, seed=seed)
    changes |= given(validation_share=validation_share) | parse_settings(settings)
    with first_goes_first():
        wanted = load_recipe(recipe, **changes)  # a wrong setting is refused before the data is read
        share_of_batch(wanted)
        find_backbones([wanted], quiet)
        slices = read_slices(load)
        changes = with_protocol(changes, slices, quiet or as_json)
        config = load_recipe(recipe, **changes)
        if fold is not None and config.protocol != "patient":
            raise typer.BadParameter(
                "the official protocol has one fold; add --protocol patient", param_hint="'--fold'"
            )
        folds = Splits.load(splits, slices) if splits else None
    if config.protocol == "patient" and "fold" not in changes:
        drawn = folds or make_splits(slices, config)
        of = f"One fold of {len(drawn.folds)}: fold {config.fold}"
        say(f"{of}. `brainstage cross-validate` trains all.", quiet or as_json)
        folds = folds if resume else drawn
    run, evaluation = _train(
        slices, config, quiet=quiet, name=name, out=out, resume=resume, track=track, **given(splits=folds)
    )
    show = partial(show_result, as_json=as_json, quiet=quiet, saved=run.path, run=str(run.path))
    show(evaluation, show_evaluation, "explanation/protocols")


@app.command(epilog="Example: brainstage cross-validate --recipe patient --data scans/ --patients patients.parquet")
@takes_data
def cross_validate(
    load: Callable[[], Any],
    recipe: Recipe = "compact",
    backbone: Backbone = None,
    name: RunName = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    folds: Annotated[
        int | None, typer.Option(help="Number of folds; each person is tested in one of them.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="How often the folds are drawn anew.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Column, such as site: each value is tested by models that saw nobody of it.")
    ] = None,
    splits: SplitsFile = None,
    epochs: Epochs = None,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    track: Tracker = None,
    settings: Settings = None,
    jobs: TrainingJobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every fold of the patient protocol.

    Each person is predicted by a model that was trained on other people, and all people are evaluated together. The
    model of the run, runs/NAME, is then trained on everyone.
    """
    from brainstage.models.recipes import load_recipe

    changes = given(backbone=backbone, folds=folds, repeats=repeats, group_by=group_by, epochs=epochs, seed=seed)
    changes |= given(validation_share=validation_share) | parse_settings(settings)
    config = load_recipe(recipe, **{"protocol": "patient", **changes})
    find_backbones([config], quiet)
    if config.protocol != "patient" or "fold" in changes:
        raise typer.BadParameter(
            "cross-validate trains all folds of the patient protocol; train takes another protocol, or one fold",
            param_hint="'--set'",
        )
    slices = read_slices(load)
    with open_workers(jobs, cluster, quiet=quiet, without=1) as workers:
        _cross_validate(
            slices,
            config,
            as_json=as_json,
            quiet=quiet,
            name=name,
            out=out,
            resume=resume,
            track=track,
            workers=workers,
            **given(splits=splits),
        )


def _train(slices: SliceTable, config: TrainConfig, *, quiet: bool, **options: Any) -> tuple[RunFolder, Evaluation]:
    """Train one model, evaluate it and write both.

    Args:
        slices: The data.
        config: The settings.
        quiet: Show no progress.
        options: Those of :func:`brainstage.train`.

    Returns:
        The run and its performance.
    """
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.results import write_evaluation
    from brainstage.training.train import train

    run = train(slices, config, progress=progress_of(quiet), **options)
    if not is_first():
        raise typer.Exit
    evaluation = evaluate(run)
    write_evaluation(evaluation, run.path, run.history)
    return run, evaluation


def _cross_validate(slices: SliceTable, config: TrainConfig, *, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train every fold, evaluate by person and show; the options are those of :func:`brainstage.cross_validate`."""
    from brainstage.evaluation.patients import evaluate_patients
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.checklists import write_checklists
    from brainstage.report.results import write_evaluation, write_patient_evaluation
    from brainstage.report.run_facts import facts_of_run
    from brainstage.report.terminal.evaluations import show_patient_evaluation
    from brainstage.training.cross_validation import cross_validate

    run = cross_validate(slices, config, progress=progress_of(quiet), **options)
    by_slice, evaluation = evaluate(run), evaluate_patients(run)
    write_evaluation(by_slice, run.path)
    write_patient_evaluation(evaluation, run.path)
    write_checklists(facts_of_run(run, by_slice, evaluation, slices), run.path)
    show = partial(show_result, as_json=as_json, quiet=quiet, saved=run.path, run=str(run.path))
    show(evaluation, show_patient_evaluation, "explanation/protocols")


@app.command(epilog="Example: brainstage evaluate runs/compact-001 --json")
def evaluate(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|TABLE", help="Run folder, or a prediction table (parquet) of any tool."),
    ],
    split: Split = "test",
    protocol: TableProtocol = None,
    level: Level = "slice",
    class_order: ClassOrder = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the metrics and charts; without it the run's own.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate the predictions of a run or a table.

    Every score has its 95 % interval; the result is a table, JSON and charts.
    """
    from brainstage.models.find import hub_id_of

    if hub_id_of(str(source)):
        raise ConfigError(
            f"{source}: no such run or table here, and a model on the hub brings no predictions; judge it on your "
            f"own people: brainstage validate {source} --data FOLDER"
        )
    evaluate_level = _evaluate_patients if level == "patient" else _evaluate_slices
    side = {"split": split, "protocol": protocol, "class_order": parse_order(class_order)}
    evaluate_level(source, out, partial(show_result, as_json=as_json, quiet=quiet), **side)


def _evaluate_slices(source: Path, out: Path | None, show: Callable[..., None], **side: Any) -> None:
    from brainstage.core.run import RunFolder
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.results import write_evaluation
    from brainstage.report.terminal.evaluations import show_evaluation

    evaluation = evaluate(source, **side)
    run = RunFolder(source) if source.is_dir() else None
    folder = out or (run.path if run else None)
    saved = None
    if folder:
        RunFolder(folder).create()
        saved = ", ".join(map(str, write_evaluation(evaluation, folder, run.history if run else None)))
    show(evaluation, show_evaluation, "explanation/protocols", saved=saved)


def _evaluate_patients(source: Path, out: Path | None, show: Callable[..., None], **side: Any) -> None:
    from brainstage.core.files import make_folder
    from brainstage.evaluation.patients import evaluate_patients
    from brainstage.report.results import write_patient_evaluation
    from brainstage.report.terminal.evaluations import show_patient_evaluation

    evaluation = evaluate_patients(source, **side)
    folder = out or (source if source.is_dir() else None)
    file = write_patient_evaluation(evaluation, make_folder(folder)) if folder else None
    show(evaluation, show_patient_evaluation, "explanation/protocols", saved=file)
