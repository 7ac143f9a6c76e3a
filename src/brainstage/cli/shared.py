"""What the commands share: their options, how they read data, what they tell."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from brainstage.core.progress import Progress, silent, terminal

DATA = "Folder, parquet or CSV file; without it BRAINSTAGE_DATA, then what `data fetch` brought."
RECIPES = (
    "Named settings. From scratch: compact, compact-fast, compact-best; patient: a person's slices together. "
    "With a pretrained backbone: linear-probe, fine-tune, report."
)
BACKBONE = "Hub id (ORG/NAME or ORG/NAME@REVISION) or folder, in place of the recipe's own."
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
    str | None,
    typer.Option(help="Class names from the least to the most severe, with commas between; usual names are known."),
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
    from brainstage.datasets.sources import Columns, load_slices

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
        class_order=parse_order(class_order),
    )
    return load_slices(
        data, columns=columns, patients=patients, max_unreadable=max_unreadable, progress=progress_of(quiet)
    )


def takes_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``_load``; for them it gets ``load``, which reads the data when it is called.

    A default of the command's own takes the place of that of ``_load``.
    """
    own = inspect.signature(command, eval_str=True).parameters
    options = inspect.signature(_load, eval_str=True).parameters

    def with_data(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in options if name != "quiet"}
        command(load=partial(_load, **chosen, quiet=values["quiet"]), **values)

    shown = {name: one for name, one in {**own, **options, **own}.items() if name != "load"}
    with_data.__name__, with_data.__doc__ = command.__name__, command.__doc__
    with_data.__annotations__ = {name: one.annotation for name, one in shown.items()}
    keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown.values()]
    with_data.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return with_data


def read_slices(load: Callable[[], Any]) -> Any:
    """Read the data and name the rows and files that are left out."""
    slices = load()
    for sentence in (*slices.skipped, *slices.unreadable):
        warn(f"left out: {sentence}")
    return slices


def given(**values: Any) -> dict[str, Any]:
    """Return the options that were named."""
    return {key: value for key, value in values.items() if value is not None}


def parse_order(names: str | None) -> tuple[str, ...] | None:
    """Return the class names of --class-order."""
    return tuple(name.strip() for name in names.split(",")) if names else None


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """Parse FIELD=VALUE pairs."""
    from brainstage.core.config import parse_value

    settings = {}
    for pair in pairs or []:
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise typer.BadParameter(f"--set {pair!r}: expected FIELD=VALUE, e.g. batch_size=64")
        settings[field] = parse_value(value)
    return settings


def progress_of(quiet: bool) -> Progress:
    """Return how a command shows its progress."""
    return silent if quiet else terminal


def print_json(values: dict[str, Any]) -> None:
    """Print a result for a program to read."""
    print(json.dumps(values, indent=2))


def show_result(
    found: Any, show: Callable[[Any], None], *, as_json: bool, quiet: bool, saved: object = None, **more: Any
) -> None:
    """Show a result as a table, with where it was saved, or print it and what is said beside it as JSON."""
    if as_json:
        print_json({**more, **found.to_dict()})
        return
    show(found)
    if saved:
        say(f"Saved {saved}", quiet)


def say(text: str, quiet: bool) -> None:
    """Tell where something lies or what comes next."""
    if not quiet:
        print(text, flush=True)  # a server's address must not wait for more to say


def warn(text: str) -> None:
    """Tell what went wrong, apart from the results."""
    print(text, file=sys.stderr)
