"""The command line: parse, one call, print."""

from __future__ import annotations

import gc
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage import __version__
from brainstage.errors import BrainstageError, ConfigError, DataError
from brainstage.progress import Progress, silent, terminal
from brainstage.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE

USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of click in older versions of typer, of typer's own copy of it in newer ones."""

app = typer.Typer(
    help=f"Stage dementia from brain MRI slices. {RESEARCH_NOTICE}",
    epilog=RESEARCH_NOTICE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Get data and look at it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
models_app = typer.Typer(help="Get pretrained backbones.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")

DATA = "Folder, parquet or CSV file; without it BRAINSTAGE_DATA, then what `data fetch` brought."
RECIPES = (
    "Named settings. From scratch: compact, compact-fast, compact-best; patient: a person's slices together. "
    "With a pretrained backbone: linear-probe, fine-tune, report."
)
BACKBONE = "Hub id (ORG/NAME or ORG/NAME@REVISION) or folder, in place of the recipe's own."
SCANS = (
    "JPEG, PNG, NIfTI, DICOM or parquet files, folders or globs. A run folder, or patient (taken where none is "
    "named) or compact, which come with the package, may stand first."
)
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notices.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Data = Annotated[Path | None, typer.Option("--data", help=DATA)]
Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.")]
ImageColumn = Annotated[str, typer.Option(help="Parquet column with the images' bytes.")]
PathColumn = Annotated[str, typer.Option(help="CSV column with the images' paths.")]
LabelColumn = Annotated[str, typer.Option(help="Column with the classes.")]
PatientColumn = Annotated[str, typer.Option(help="Column with the patients, used where it exists.")]
Patients = Annotated[
    Path | None, typer.Option("--patients", help="Table of `brainstage audit`, for data without patients.")
]
ClassName = Annotated[
    list[str] | None,
    typer.Option("--class-name", help="FOUND=NAME: what to call a label of the data. Repeatable."),
]
ClassOrder = Annotated[
    str | None, typer.Option(help="Class names from the least to the most severe, with commas between.")
]
MaxUnreadable = Annotated[float, typer.Option(min=0, max=1, help="Largest share of rows that may be unreadable.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what was stopped.")]
ProtocolOption = Annotated[
    str | None, typer.Option("--protocol", help="official or patient (no person on both sides).")
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, batches and splits.")]
ValidationShare = Annotated[
    float | None, typer.Option(help="Share of train held out to choose by; 0 trains on all of it.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE: any other setting of train_config.json. Repeatable.")
]


def _load(
    data: Data = None,
    image_column: ImageColumn = "image",
    path_column: PathColumn = "path",
    label_column: LabelColumn = "label",
    patient_column: PatientColumn = "patient_id",
    patients: Patients = None,
    class_name: ClassName = None,
    class_order: ClassOrder = None,
    max_unreadable: MaxUnreadable = 0.05,
    *,
    quiet: bool,
) -> Any:
    from brainstage.data.sources import Columns, load_slices

    names = {}
    for pair in class_name or []:
        found, equals, name = pair.partition("=")
        if not (found and equals and name):
            raise typer.BadParameter(f"--class-name {pair!r}: expected FOUND=NAME, e.g. 0=CN")
        names[found] = name
    columns = Columns(
        image=image_column,
        path=path_column,
        label=label_column,
        patient=patient_column,
        class_names=names,
        class_order=tuple(name.strip() for name in class_order.split(",")) if class_order else None,
    )
    return load_slices(
        data, columns=columns, patients=patients, max_unreadable=max_unreadable, progress=_progress(quiet)
    )


def _takes_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``_load``; for them it gets ``load``, which reads the data when it is called.

    A default of the command's own takes the place of that of ``_load``.
    """
    own = inspect.signature(command, eval_str=True).parameters
    options = inspect.signature(_load, eval_str=True).parameters

    def with_data(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in options if name != "quiet"}
        command(load=partial(_load, **chosen, quiet=given["quiet"]), **given)

    shown = {name: one for name, one in {**own, **options, **own}.items() if name != "load"}
    with_data.__name__, with_data.__doc__ = command.__name__, command.__doc__
    with_data.__annotations__ = {name: one.annotation for name, one in shown.items()}
    keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown.values()]
    with_data.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return with_data


@data_app.command("fetch", epilog="Example: brainstage data fetch")
def data_fetch(quiet: Quiet = False) -> None:
    """Download the public dataset (28 MB), checked by SHA-256; what is there is not downloaded again."""
    from brainstage.data.hub import fetch

    for file in fetch(quiet=quiet):
        _say(str(file), quiet)


@data_app.command("describe", epilog="Example: brainstage data describe --data scans/ --json")
@_takes_data
def data_describe(
    load: Callable[[], Any],
    max_unreadable: MaxUnreadable = 1.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count rows, classes, sizes, modes, unreadable rows and exact duplicates."""
    from brainstage.data.describe import describe
    from brainstage.screens import show_description

    found = describe(load())
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show_description(found)


@app.command(epilog="Example: brainstage audit --data scans/ --out audit/")
@_takes_data
def audit(
    load: Callable[[], Any],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for audit.html, audit.json and patients.parquet.")
    ] = None,
    max_unreadable: MaxUnreadable = 1.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find copies, the people behind the slices, and who is on both sides, from the pictures alone."""
    from brainstage.data.audit import audit
    from brainstage.files import make_folder
    from brainstage.report.audit import write_audit
    from brainstage.screens import show_audit

    if out:
        make_folder(out)  # before a minute is spent on looking
    found = audit(_read(load), progress=_progress(quiet))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        show_audit(found)
    if out:
        files = write_audit(found, out, ["brainstage", *sys.argv[1:]])
        if not as_json:
            _say(f"Saved {', '.join(str(file) for file in files)}", quiet)


@data_app.command("phantom", epilog="Example: brainstage data phantom --out phantom/ --patients 40")
def data_phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    patients: Annotated[int, typer.Option(help="Number of people; each has 32 slices.")] = 200,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal cohorts.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write a synthetic cohort with known patients, in the layout of the public dataset."""
    from brainstage.data.phantom import write_phantom

    _say(
        f"{write_phantom(out, patients=patients, seed=seed, progress=_progress(quiet))} ({SYNTHETIC_NOTICE})",
        quiet,
    )


@models_app.command("fetch", epilog="Example: brainstage models fetch google/vit-base-patch16-224")
def models_fetch(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Hub ids, ORG/NAME or ORG/NAME@REVISION.")],
    quiet: Quiet = False,
) -> None:
    """Download backbones ahead of time, checked by SHA-256; those that are there are not downloaded again."""
    from brainstage.models.backbones import fetch

    for name in ids:
        _say(str(fetch(name, quiet=quiet)), quiet)


@models_app.command("clear-features", epilog="Example: brainstage models clear-features")
def models_clear_features(quiet: Quiet = False) -> None:
    """Remove the cached features of frozen backbones; they are computed again when they are needed."""
    from brainstage.models.features import clear, features_folder

    _say(f"{clear() / 1e6:,.1f} MB removed from {features_folder()}", quiet)


@app.command(epilog="Example: brainstage train --recipe compact --data scans/ --name first --set epochs=20")
@_takes_data
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
    changes = _given(**named, validation_share=validation_share) | _settings(settings)
    config = load_recipe(recipe, **changes)  # a wrong setting is told before the data is read
    if track not in (None, "tensorboard"):
        raise typer.BadParameter(f"--track {track!r}: expected tensorboard")
    if config.protocol == "patient" and "fold" not in changes:
        _cross_validate(_read(load), config, as_json, quiet, name=name, out=out, resume=resume, track=track)
    else:
        _train(_read(load), config, as_json, quiet, name=name, out=out, resume=resume, track=track)


def _cross_validate(slices: Any, config: Any, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train every fold, judge by people and show; the options are those of :func:`brainstage.cross_validate`."""
    from brainstage.crossval import cross_validate
    from brainstage.evaluate import evaluate, write_evaluation
    from brainstage.patients import evaluate_patients, write_patient_evaluation
    from brainstage.screens import show_patient_evaluation

    run = cross_validate(slices, config, progress=_progress(quiet), **options)
    write_evaluation(evaluate(run), run.path)
    evaluation = evaluate_patients(run)
    write_patient_evaluation(evaluation, run.path)
    if as_json:
        print(json.dumps({"run": str(run.path), **evaluation.to_dict()}, indent=2))
    else:
        show_patient_evaluation(evaluation)
        _say(f"Saved {run.path}", quiet)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _read(load: Callable[[], Any]) -> Any:
    """Read the data and name the rows that were left out."""
    slices = load()
    for sentence in slices.unreadable:
        _warn(f"left out: {sentence}")
    return slices


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    """Parse FIELD=VALUE pairs."""
    from brainstage.config import parse_value

    settings = {}
    for pair in pairs or []:
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise typer.BadParameter(f"--set {pair!r}: expected FIELD=VALUE, e.g. batch_size=64")
        settings[field] = parse_value(value)
    return settings


def _train(slices: Any, config: Any, as_json: bool, quiet: bool, **options: Any) -> Path:
    """Train, judge and show; the options are those of :func:`brainstage.train`."""
    from brainstage.evaluate import evaluate, write_evaluation
    from brainstage.screens import show_evaluation
    from brainstage.train import train

    run = train(slices, config, progress=_progress(quiet), **options)
    evaluation = evaluate(run)
    write_evaluation(evaluation, run.path, run.history)
    if as_json:
        print(json.dumps({"run": str(run.path), **evaluation.to_dict()}, indent=2))
    else:
        show_evaluation(evaluation)
        _say(f"Saved {run.path}", quiet)
    return run.path


@app.command(
    epilog="Example: brainstage compare --backbones google/vit-base-patch16-224 my-vit/ compact --rows 200"
)
@_takes_data
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
    from brainstage.screens import show_comparison

    if backbones:
        from brainstage.study import begin, candidate, compare_candidates

        changes = _given(train_rows=rows, protocol=protocol, seed=seed, validation_share=validation_share)
        changes |= _settings(settings)
        for one in names:
            candidate(one, recipe, **changes)  # a wrong setting is told before the data is read
        slices = _read(load)
        folder = begin("compare", name, out, resume).path
        say = partial(_say, quiet=quiet)
        found = compare_candidates(
            slices, names, folder, recipe=recipe, split=split, progress=_progress(quiet), say=say, **changes
        )
    else:
        from brainstage.compare import compare

        found = compare([Path(one) for one in names], split=split, protocol=protocol)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        show_comparison(found)
        if backbones:
            _say(f"Saved {folder}", quiet)


@app.command(epilog="Example: brainstage sweep --recipe linear-probe --vary learning_rate=1e-4,5e-5,1e-5")
@_takes_data
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
    from brainstage.screens import show_sweep
    from brainstage.study import draw_sweep
    from brainstage.sweep import Factor, sweep

    changes = _given(backbone=backbone, protocol=protocol, seed=seed, validation_share=validation_share)
    config = load_recipe(recipe, **changes | _settings(settings))
    factors = [Factor.parse(text) for text in vary]
    found = sweep(
        _read(load),
        config,
        factors,
        method="tpe" if trials is not None else "grid" if grid else "one-factor",
        trials=trials or 0,
        name=name,
        out=out,
        storage=storage,
        resume=resume,
        progress=_progress(quiet),
    )
    draw_sweep(found)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        show_sweep(found)
        _say(f"Saved {found.folder}", quiet)


@app.command(epilog="Example: brainstage twin --recipe compact-fast")
@_takes_data
def twin(
    load: Callable[[], Any],
    recipe: Annotated[str, typer.Option(help=RECIPES)] = "compact",
    backbone: Annotated[str | None, typer.Option(help=BACKBONE)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the folder; without it twin-001, …")] = None,
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
    from brainstage.screens import show_twin
    from brainstage.twin import twin

    changes = _given(backbone=backbone, seed=seed, validation_share=validation_share) | _settings(settings)
    config = load_recipe(recipe, **changes)  # a wrong setting is told before the data is read
    say = partial(_say, quiet=quiet or as_json)
    found = twin(_read(load), config, name=name, out=out, resume=resume, progress=_progress(quiet), say=say)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        show_twin(found)
        _say(f"Saved {found.folder}", quiet)


@app.command(epilog="Example: brainstage study --as-reported")
@_takes_data
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
    from brainstage.report.study import write_study
    from brainstage.screens import show_comparison, show_evaluation, show_sweep
    from brainstage.study import run_study

    say = partial(_say, quiet=quiet)
    found = run_study(
        _read(load),
        names or (),
        as_reported=as_reported,
        name=name,
        out=out,
        resume=resume,
        progress=_progress(quiet),
        say=say,
        **_settings(settings),
    )
    page = write_study(found, ["brainstage", *sys.argv[1:]])
    show_comparison(found.comparison)
    show_sweep(found.sweep)
    show_evaluation(found.evaluation)
    say(f"Saved {page}")


@app.command(epilog="Example: brainstage evaluate runs/compact-001 --json")
def evaluate(
    source: Annotated[Path, typer.Argument(help="Run folder, or a prediction table (parquet) of any tool.")],
    split: Annotated[str, typer.Option(help="Side to judge: test, validation or train.")] = "test",
    protocol: Annotated[
        str | None, typer.Option(help="Protocol of a table that does not say: official or patient.")
    ] = None,
    level: Annotated[str, typer.Option(help="What is judged: slice or patient.")] = "slice",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files; without it the run.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge predictions: every score with its interval, as a table, metrics.json and charts."""
    from brainstage.evaluate import evaluate, write_evaluation
    from brainstage.run import RunFolder
    from brainstage.screens import show_evaluation

    if level not in ("slice", "patient"):
        raise typer.BadParameter(f"--level {level!r}: expected slice or patient")
    if level == "patient":
        _evaluate_patients(source, split, protocol, out, as_json, quiet)
        return
    evaluation = evaluate(source, split=split, protocol=protocol)
    run = RunFolder(source) if source.is_dir() else None
    folder = out or (run.path if run else None)
    if folder:
        RunFolder(folder).create()
        files = write_evaluation(evaluation, folder, run.history if run else None)
    if as_json:
        print(json.dumps(evaluation.to_dict(), indent=2))
    else:
        show_evaluation(evaluation)
        if folder:
            _say(f"Saved {', '.join(str(file) for file in files)}", quiet)


def _evaluate_patients(
    source: Path, split: str, protocol: str | None, out: Path | None, as_json: bool, quiet: bool
) -> None:
    from brainstage.files import make_folder
    from brainstage.patients import evaluate_patients, write_patient_evaluation
    from brainstage.screens import show_patient_evaluation

    evaluation = evaluate_patients(source, split=split, protocol=protocol)
    folder = out or (source if source.is_dir() else None)
    file = write_patient_evaluation(evaluation, make_folder(folder)) if folder else None
    if as_json:
        print(json.dumps(evaluation.to_dict(), indent=2))
    else:
        show_patient_evaluation(evaluation)
        if file:
            _say(f"Saved {file}", quiet)


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
        Path | None, typer.Option("--out", help="File for the answers: .csv, .json or .parquet.")
    ] = None,
    image_column: ImageColumn = "image",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stage scans: the probability of each stage, of a person from all slices, then slice by slice."""
    from brainstage.answers import answer, check_target, find_model, write_answers
    from brainstage.data.scans import find_scans
    from brainstage.predict import Predictor
    from brainstage.screens import show_answers

    if out:
        check_target(out)
    model, names = find_model(inputs)
    scans = find_scans(names, image_column)
    answers = answer(Predictor.open(model), scans, one_person=one_person, progress=_progress(quiet))
    if out:
        write_answers(answers, out)
    if as_json:
        print(json.dumps(answers.to_dict(), indent=2))
    elif out:
        _say(f"Saved {out} ({len(answers.rows)} rows). {answers.notice}", quiet)
    else:
        show_answers(answers)
    for sentence in answers.reasons:
        _warn(sentence)
    failed = sum(row["status"] == "failed" for row in answers.rows)
    if failed:
        _warn(f"{failed} of {len(scans)} scans could not be read; see above")
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
    from brainstage.answers import find_model
    from brainstage.data.scans import find_scans
    from brainstage.explain import explain as run
    from brainstage.predict import Predictor
    from brainstage.screens import show_explanations

    model, names = find_model(inputs)
    scans = find_scans(names, image_column)
    predictor = Predictor.open(model)
    found = run(predictor, scans, out, method=method, stage=stage, sanity=sanity, progress=_progress(quiet))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    elif not quiet:
        show_explanations(found, out)
    for sentence in found.reasons:
        _warn(sentence)
    if any(row["status"] == "failed" for row in found.rows):
        raise typer.Exit(1)


@app.command(epilog="Example: brainstage export runs/compact-001 --to onnx")
@_takes_data
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
    from brainstage.export import export as write
    from brainstage.screens import show_export

    found = write(run, out, int8=int8, slices=_data_where_any(load), progress=_progress(quiet))
    if as_json:
        print(json.dumps({"folder": str(found.folder), "title": found.title, **found.to_dict()}, indent=2))
    elif not quiet:
        show_export(found)


def _data_where_any(load: partial[Any]) -> Any | None:
    """Read the data; None where none is named and none is at hand."""
    from brainstage.data.sources import default_source

    if load.keywords["data"] is None:
        try:
            default_source()
        except DataError:
            return None
    return _read(load)


@app.command(epilog="Example: brainstage extract head.nii.gz --out brain.nii.gz")
def extract(
    scan: Annotated[str, typer.Argument(metavar="scan", help="NIfTI file, DICOM file or the folder of a series.")],
    out: Annotated[Path, typer.Option("--out", help="File for the brain, .nii.gz; its picture lies beside it.")],
    quiet: Quiet = False,
) -> None:
    """Take the brain out of a T1-weighted head with its skull, with a picture to judge it by."""
    from brainstage.extraction import extract as run
    from brainstage.extraction import picture_of

    with _progress(quiet)("Taking the brain out", 1):
        found = run(scan, out)
    _say(
        f"Saved {out} and {picture_of(out)} (likeness to the MNI152 template {found.likeness:.2f}). Look at the "
        "picture: the line must follow the edge of the brain in every cut. Where it does: "
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
    run(models or BUNDLED, place, allow_host or (), ready=partial(_say, f"{address}\n{RESEARCH_NOTICE}", quiet))


@app.command(epilog="Example: brainstage quickstart")
def quickstart(out: Out = Path("runs"), quiet: Quiet = False) -> None:
    """Train, judge and use a classifier: on the real data where it can be had, else on the phantom cohort."""
    from brainstage.data.sources import load_slices
    from brainstage.models.recipes import load_recipe
    from brainstage.quickstart import find_data

    source, sentence = find_data(_progress(quiet))
    _say(sentence, quiet)
    slices = load_slices(source, progress=_progress(quiet))
    path = _train(slices, load_recipe("compact"), False, quiet, out=out)
    _say(f"Next: brainstage predict {path} IMAGE…    brainstage evaluate {path}    brainstage --help", quiet)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _progress(quiet: bool) -> Progress:
    return silent if quiet else terminal


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, flush=True)  # a server's address must not wait for more to say


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Run the command line; every mendable error is one sentence and exit code 1."""
    command: Callable[..., Any] = typer.main.get_command(app)
    gc.set_threshold(100_000)  # torch and transformers make a million objects that stay: do not look for dead ones
    warnings.filterwarnings("ignore", message="Image size")  # Pillow's word on large images; ours is an error
    try:
        code = command(standalone_mode=False, prog_name="brainstage")
    except BrainstageError as error:
        _warn(f"Error: {error}")
        code = 1
    except USAGE_ERROR as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _warn("Stopped. What was finished stays; the same command with --resume and --name NAME goes on with it.")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        _warn(f"Error: {error.filename or 'a file'}: {error.strerror or error}")
        code = 1
    sys.exit(code)
