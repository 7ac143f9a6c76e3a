"""Several runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.shared import (
    BACKBONE,
    RECIPES,
    Json,
    Out,
    ProtocolOption,
    Quiet,
    Resume,
    Seed,
    Settings,
    ValidationShare,
    given,
    parse_settings,
    progress_of,
    read_slices,
    say,
    show_result,
    takes_data,
)

app = typer.Typer()


@app.command(
    epilog="Example: brainstage compare --backbones google/vit-base-patch16-224 my-vit/ compact --rows 200"
)
@takes_data
def compare(
    load: Callable[[], Any],
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Runs; or what --backbones says.")],
    backbones: Annotated[
        bool, typer.Option("--backbones", help="The names are hub ids, folders or recipes to be trained first.")
    ] = False,
    recipe: Annotated[str, typer.Option(help="Recipe of the backbones: linear-probe, fine-tune or report.")] = (
        "linear-probe"
    ),
    rows: Annotated[int | None, typer.Option(help="Number of training rows, drawn at random.")] = None,
    split: Annotated[
        str, typer.Option(help="Side to judge: validation, or test once all is chosen.")
    ] = "validation",
    name: Annotated[str | None, typer.Option(help="Name of the comparison; without it compare-001, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    protocol: ProtocolOption = None,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs, or backbones and recipes trained alike: paired differences with intervals, time and size."""
    from brainstage.report.results import write_comparison
    from brainstage.report.terminal import show_comparison

    folder = None
    if backbones:
        from brainstage.studies.folder import begin
        from brainstage.studies.study import candidate, compare_candidates

        changes = given(train_rows=rows, protocol=protocol, seed=seed, validation_share=validation_share)
        changes |= parse_settings(settings)
        for one in names:
            candidate(one, recipe, **changes)  # a wrong setting is told before the data is read
        slices = read_slices(load)
        folder = begin("compare", name, out, resume).path
        tell = partial(say, quiet=quiet)
        found = compare_candidates(
            slices, names, folder, recipe=recipe, split=split, progress=progress_of(quiet), say=tell, **changes
        )
        write_comparison(found, folder)
    else:
        from brainstage.evaluation.comparison import compare

        found = compare([Path(one) for one in names], split=split, protocol=protocol)
    show_result(found, show_comparison, as_json=as_json, quiet=quiet, saved=folder)


@app.command(epilog="Example: brainstage sweep --recipe linear-probe --vary learning_rate=1e-4,5e-5,1e-5")
@takes_data
def sweep(
    load: Callable[[], Any],
    vary: Annotated[
        list[str], typer.Option("--vary", help="FIELD=VALUE,VALUE, or with --trials FIELD=LOW..HIGH. Repeatable.")
    ],
    recipe: Annotated[str, typer.Option(help=RECIPES)] = "linear-probe",
    backbone: Annotated[str | None, typer.Option(help=BACKBONE)] = None,
    one_factor: Annotated[bool, typer.Option("--one-factor", help="One field at a time (the default).")] = False,
    grid: Annotated[bool, typer.Option("--grid", help="Every combination.")] = False,
    trials: Annotated[int | None, typer.Option(help="So many trials that TPE chooses, poor ones stopped.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database for several machines, postgresql://…; without it SQLite.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep; without it sweep-001, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    protocol: ProtocolOption = None,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Vary settings and judge each on validation slices, never on test."""
    if one_factor + grid + (trials is not None) > 1:
        raise typer.BadParameter("give one of --one-factor, --grid and --trials")
    from brainstage.models.recipes import load_recipe
    from brainstage.report.results import write_sweep
    from brainstage.report.terminal import show_sweep
    from brainstage.training.sweep import Factor, sweep

    changes = given(backbone=backbone, protocol=protocol, seed=seed, validation_share=validation_share)
    config = load_recipe(recipe, **changes | parse_settings(settings))
    factors = [Factor.parse(text) for text in vary]
    found = sweep(
        read_slices(load),
        config,
        factors,
        method="tpe" if trials is not None else "grid" if grid else "one-factor",
        trials=trials or 0,
        name=name,
        out=out,
        storage=storage,
        resume=resume,
        progress=progress_of(quiet),
    )
    write_sweep(found)
    show_result(found, show_sweep, as_json=as_json, quiet=quiet, saved=found.folder)


@app.command(epilog="Example: brainstage compare-protocols --recipe compact-fast")
@takes_data
def compare_protocols(
    load: Callable[[], Any],
    recipe: Annotated[str, typer.Option(help=RECIPES)] = "compact",
    backbone: Annotated[str | None, typer.Option(help=BACKBONE)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the folder; without it protocols-001, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One recipe on people it has seen and on people it has not, side by side, with all baselines."""
    from brainstage.models.recipes import load_recipe
    from brainstage.report.results import write_protocols
    from brainstage.report.terminal import show_protocols
    from brainstage.studies.protocols import compare_protocols as run_comparison

    changes = given(backbone=backbone, seed=seed, validation_share=validation_share) | parse_settings(settings)
    config = load_recipe(recipe, **changes)  # a wrong setting is told before the data is read
    tell = partial(say, quiet=quiet or as_json)
    found = run_comparison(
        read_slices(load), config, name=name, out=out, resume=resume, progress=progress_of(quiet), say=tell
    )
    write_protocols(found)
    show_result(found, show_protocols, as_json=as_json, quiet=quiet, saved=found.folder)


@app.command(epilog="Example: brainstage study --as-reported")
@takes_data
def study(
    load: Callable[[], Any],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Hub ids, folders or recipes; else the report's."),
    ] = None,
    as_reported: Annotated[
        bool, typer.Option("--as-reported", help="The report's protocol: few rows, every choice on test slices.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the study; without it study-001, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    settings: Settings = None,
    quiet: Quiet = False,
) -> None:
    """Compare, vary and train in one go; study.html tells it all."""
    from brainstage.report.study_page import write_study
    from brainstage.report.terminal import show_comparison, show_evaluation, show_sweep
    from brainstage.studies.study import run_study

    tell = partial(say, quiet=quiet)
    found = run_study(
        read_slices(load),
        names or (),
        as_reported=as_reported,
        name=name,
        out=out,
        resume=resume,
        progress=progress_of(quiet),
        say=tell,
        **parse_settings(settings),
    )
    page = write_study(found, ["brainstage", *sys.argv[1:]])
    show_comparison(found.comparison)
    show_sweep(found.sweep)
    show_evaluation(found.evaluation)
    tell(f"Saved {page}")
