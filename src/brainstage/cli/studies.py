"""Several runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.cli.choices import ProtocolOption, Recipe, SharedSplit, TableProtocol, choice, recipe_option
from brainstage.cli.shared import (
    BACKBONE,
    Cluster,
    Json,
    Out,
    Quiet,
    Resume,
    Seed,
    Settings,
    TrainingJobs,
    ValidationShare,
    find_backbones,
    given,
    open_workers,
    parse_settings,
    progress_of,
    read_slices,
    say,
    show_result,
    takes_data,
    with_protocol,
)

app = typer.Typer()


@app.command(epilog="Example: brainstage compare runs/compact-001 runs/compact-002")
def compare(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN|TABLE", help="Finished runs, or prediction tables of any tool.")
    ],
    split: SharedSplit = None,
    protocol: TableProtocol = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare finished runs on the same slices.

    Shown are paired differences with intervals, time and size.
    """
    from brainstage.evaluation.comparison import compare
    from brainstage.report.terminal.comparisons import show_comparison

    comparison = compare(sources, split=split, protocol=protocol)
    show_result(comparison, show_comparison, "explanation/protocols", as_json=as_json, quiet=quiet)


@app.command(epilog="Example: brainstage compare-backbones google/vit-base-patch16-224 my-vit/ compact --rows 200")
@takes_data
def compare_backbones(
    load: Callable[[], Any],
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Two or more hub ids, folders of backbones, or names of recipes."),
    ],
    recipe: Annotated[str, recipe_option("Recipe of the backbones: linear-probe, fine-tune or report.")] = (
        "linear-probe"
    ),
    rows: Annotated[int | None, typer.Option(help="Number of training slices, drawn at random.")] = None,
    split: Annotated[
        str,
        choice("--split", ("validation", "test"), "Side to compare on; test only once every choice is made."),
    ] = "validation",
    name: Annotated[str | None, typer.Option(help="Name of the comparison; without it compare-001, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    protocol: ProtocolOption = None,
    seed: Seed = None,
    validation_share: ValidationShare = None,
    settings: Settings = None,
    jobs: TrainingJobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train backbones and recipes, and compare them.

    All are trained on the same slices, and compared as `compare` does.
    """
    from brainstage.report.results import write_comparison
    from brainstage.report.terminal.comparisons import show_comparison
    from brainstage.studies.folder import begin
    from brainstage.studies.study import candidates, compare_candidates

    changes = given(train_rows=rows, protocol=protocol, seed=seed, validation_share=validation_share)
    changes |= parse_settings(settings)
    wanted = candidates(names, recipe, **changes)
    find_backbones(wanted.values(), quiet)  # what is wrong or missing is told before the data is read
    slices = read_slices(load)
    changes = with_protocol(changes, slices, quiet or as_json)
    folder = begin("compare", name, out, resume).path
    with open_workers(jobs, cluster, quiet=quiet, without=1) as workers:
        comparison = compare_candidates(
            slices,
            names,
            folder,
            recipe=recipe,
            split=split,
            workers=workers,
            progress=progress_of(quiet),
            say=partial(say, quiet=quiet or as_json),
            **changes,
        )
    write_comparison(comparison, folder)
    show_result(comparison, show_comparison, "explanation/protocols", as_json=as_json, quiet=quiet, saved=folder)


@app.command(epilog="Example: brainstage sweep --recipe linear-probe --vary learning_rate=1e-4,5e-5,1e-5")
@takes_data
def sweep(
    load: Callable[[], Any],
    vary: Annotated[
        list[str], typer.Option("--vary", help="FIELD=VALUE,VALUE, or with --trials FIELD=LOW..HIGH. Repeatable.")
    ],
    recipe: Recipe = "linear-probe",
    backbone: Annotated[str | None, typer.Option(help=BACKBONE)] = None,
    one_factor: Annotated[bool, typer.Option("--one-factor", help="One field at a time (the default).")] = False,
    grid: Annotated[bool, typer.Option("--grid", help="Every combination.")] = False,
    trials: Annotated[
        int | None, typer.Option(help="Number of trials, chosen by TPE; poor ones are stopped early.")
    ] = None,
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
    jobs: TrainingJobs = None,
    cluster: Cluster = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Vary settings and compare them on validation slices.

    Test slices are never used.
    """
    if one_factor + grid + (trials is not None) > 1:
        raise typer.BadParameter("give only one of --one-factor, --grid and --trials")
    from brainstage.models.recipes import load_recipe
    from brainstage.report.results import write_sweep
    from brainstage.report.terminal.comparisons import show_sweep
    from brainstage.training.sweep import Method, plan, sweep
    from brainstage.training.sweep_trials import Factor

    changes = given(backbone=backbone, protocol=protocol, seed=seed, validation_share=validation_share)
    changes |= parse_settings(settings)
    wanted = load_recipe(recipe, **changes)  # a wrong setting is refused before the data is read
    factors = [Factor.parse(text) for text in vary]
    method: Method = "tpe" if trials is not None else "grid" if grid else "one-factor"
    plan(wanted, factors, method)
    find_backbones([wanted], quiet)
    slices = read_slices(load)
    with open_workers(jobs, cluster, quiet=quiet, without=1) as workers:
        result = sweep(
            slices,
            load_recipe(recipe, **with_protocol(changes, slices, quiet or as_json)),
            factors,
            method=method,
            trials=trials or 0,
            name=name,
            out=out,
            storage=storage,
            resume=resume,
            workers=workers,
            progress=progress_of(quiet),
        )
    write_sweep(result)
    show_result(result, show_sweep, "how-to/sweeps", as_json=as_json, quiet=quiet, saved=result.folder)


@app.command(epilog="Example: brainstage compare-protocols --recipe compact-fast")
@takes_data
def compare_protocols(
    load: Callable[[], Any],
    recipe: Recipe = "compact",
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
    """Evaluate one recipe under both protocols.

    The official protocol tests slices of people in the training set, the patient protocol people not in it; both
    stand beside what needs no network.
    """
    from brainstage.models.recipes import load_recipe
    from brainstage.report.results import write_protocols
    from brainstage.report.terminal.comparisons import show_protocols
    from brainstage.studies.protocols import compare_protocols as run_comparison

    changes = given(backbone=backbone, seed=seed, validation_share=validation_share) | parse_settings(settings)
    config = load_recipe(recipe, **changes)  # a wrong setting is refused before the data is read
    find_backbones([config], quiet)
    comparison = run_comparison(
        read_slices(load),
        config,
        name=name,
        out=out,
        resume=resume,
        progress=progress_of(quiet),
        say=partial(say, quiet=quiet or as_json),
    )
    write_protocols(comparison)
    show_result(
        comparison, show_protocols, "explanation/leakage", as_json=as_json, quiet=quiet, saved=comparison.folder
    )


@app.command(epilog="Example: brainstage study --as-reported")
@takes_data
def study(
    load: Callable[[], Any],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Hub ids, folders of backbones, or names of recipes; without any those of the report.",
        ),
    ] = None,
    as_reported: Annotated[
        bool,
        typer.Option(
            "--as-reported", help="Repeat the report's protocol: few slices, every choice on test slices."
        ),
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the study; without it study-001, …")] = None,
    out: Out = Path("runs"),
    resume: Resume = False,
    settings: Settings = None,
    quiet: Quiet = False,
) -> None:
    """Compare backbones, vary settings, train the best.

    The final model is evaluated once; study.html holds all results.
    """
    from brainstage.report.study_page import write_study
    from brainstage.report.terminal.comparisons import show_comparison, show_sweep
    from brainstage.report.terminal.evaluations import show_evaluation
    from brainstage.report.terminal.screen import show_notice
    from brainstage.studies.study import BACKBONES, candidates, run_study

    tell, changes = partial(say, quiet=quiet), parse_settings(settings)
    find_backbones(candidates(names or BACKBONES, "linear-probe", **changes).values(), quiet)
    result = run_study(
        read_slices(load),
        names or (),
        as_reported=as_reported,
        name=name,
        out=out,
        resume=resume,
        progress=progress_of(quiet),
        say=tell,
        **changes,
    )
    page = write_study(result, ["brainstage", *sys.argv[1:]])
    show_comparison(result.comparison)
    show_sweep(result.sweep)
    show_evaluation(result.evaluation)
    tell(f"Saved {page}")
    show_notice("explanation/protocols")
