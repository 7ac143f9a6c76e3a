"""What the commands share: their common options, how they read data and print results, the exit codes."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainstage.core.printable import printable
from brainstage.core.progress import Progress, progress_bar, silent
from brainstage.training.processes import is_first

if TYPE_CHECKING:
    from brainstage.core.config import TrainConfig
    from brainstage.core.parallel import Workers

BACKBONE = "Hub id (ORG/NAME or ORG/NAME@REVISION) or folder, in place of the recipe's own."
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notices.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder, parquet or CSV file; without it BRAINSTAGE_DATA, then the dataset of `data fetch`.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.")]
ImageColumn = Annotated[str, typer.Option(help="Parquet column with the bytes of the images.")]
PathColumn = Annotated[str, typer.Option(help="CSV column with the paths of the images.")]
LabelColumn = Annotated[str, typer.Option(help="Column with the classes.")]
PatientColumn = Annotated[str, typer.Option(help="Column with the patients, used where it exists.")]
Patients = Annotated[
    Path | None,
    typer.Option("--patients", help="patients.parquet of `brainstage audit`, for data without patients."),
]
ClassName = Annotated[
    list[str] | None,
    typer.Option("--class-name", help="LABEL=NAME: class name for a label of the data. Repeatable."),
]
ClassOrder = Annotated[
    str | None,
    typer.Option(
        help="Class names from the least to the most severe, separated by commas; usual names are recognised."
    ),
]
MaxUnreadable = Annotated[float, typer.Option(min=0, max=1, help="Largest share of rows that may be unreadable.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with work that was stopped.")]
Series = Annotated[
    int | None,
    typer.Option(
        "--series", min=1, help="Number of a series or volume in a folder; `brainstage scans` lists them."
    ),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes; without it one for each processor.")]
TrainingJobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, help="Processes, each of which trains a model at a time; without it one after the other."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="<address|file.toml>",
        help="Work on a cluster: address of a Dask scheduler, or a TOML file with what SLURM jobs need "
        "(docs/how-to/clusters.md).",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, batches and splits.")]
ValidationShare = Annotated[
    float | None,
    typer.Option(help="Share of the training slices held out to pick the epoch; 0 trains on all of them."),
]
SplitsFile = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        exists=True,
        dir_okay=False,
        help="splits.json with the slices or people of each side, in place of new splits.",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE: any other setting of train_config.json. Repeatable.")
]


USAGE_ERROR: Any = typer.BadParameter.__base__
"""click's class in older versions of typer, that of typer's own copy of click in newer ones."""


class ExitCode(IntEnum):
    """How a command ended. docs/reference/exit-codes.md says it in full."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOTHING_USABLE = 3
    TERMINATED = 75
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 usage error, 3 no scan of the input could be used (predict, explain), 75 "
    "stopped by SIGTERM while training, to be started again with --resume, 130 interrupted."
)


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
    from brainstage.datasets.layouts import Columns
    from brainstage.datasets.sources import load_slices

    names = dict(parse_pair(pair, "--class-name", "0=CN") for pair in class_name or [])
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
    """Add the options of ``_load`` to a command, which gets ``load`` in their place: it reads the data when called.

    Where the command has an option of the same name, its default takes the place of that of ``_load``.
    """
    own = inspect.signature(command, eval_str=True).parameters
    options = inspect.signature(_load, eval_str=True).parameters

    def with_data(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in options if name != "quiet"}
        command(load=partial(_load, **chosen, quiet=values["quiet"]), **values)

    shown = {name: parameter for name, parameter in {**own, **options, **own}.items() if name != "load"}
    with_data.__name__, with_data.__doc__ = command.__name__, command.__doc__
    with_data.__annotations__ = {name: parameter.annotation for name, parameter in shown.items()}
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown.values()]
    with_data.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return with_data


def find_backbones(configs: Iterable[TrainConfig], quiet: bool) -> None:
    """Find the backbones of settings, or download them, before minutes are spent on the data."""
    from brainstage.models.backbones import find_backbone

    for config in configs:
        if config.backbone:
            find_backbone(config.backbone, quiet=quiet)


def read_slices(load: Callable[[], Any]) -> Any:
    """Read the data and name the rows and files that are left out."""
    slices = load()
    if is_first():
        for sentence in (*slices.skipped, *slices.unreadable):
            warn(f"left out: {sentence}")
    return slices


def with_protocol(changes: dict[str, Any], slices: Any, quiet: bool) -> dict[str, Any]:
    """Return settings that were given, with the protocol that suits the data where none was.

    Args:
        changes: The settings.
        slices: The data.
        quiet: Do not say so.
    """
    from brainstage.datasets.splits import default_protocol

    if "protocol" in changes or default_protocol(slices) == "official":
        return changes
    say("Protocol patient: the data name their people and have no test side.", quiet)
    return {**changes, "protocol": "patient"}


def given(**values: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {key: value for key, value in values.items() if value is not None}


def parse_order(names: str | None) -> tuple[str, ...] | None:
    """Return the class names of --class-order."""
    return tuple(name.strip() for name in names.split(",")) if names else None


def parse_pair(pair: str, option: str, example: str) -> tuple[str, str]:
    """Return the label and the name of LABEL=NAME.

    Args:
        pair: What was typed.
        option: The option, for the error.
        example: What could be typed.

    Raises:
        typer.BadParameter: It is no such pair.
    """
    label, equals, name = pair.partition("=")
    if not (label and equals and name):
        raise typer.BadParameter(f"{pair!r}: expected LABEL=NAME, e.g. {example}", param_hint=f"'{option}'")
    return label, name


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """Parse FIELD=VALUE pairs."""
    from brainstage.core.config import parse_value

    settings = {}
    for pair in pairs or []:
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise typer.BadParameter(f"{pair!r}: expected FIELD=VALUE, e.g. batch_size=64", param_hint="'--set'")
        settings[field] = parse_value(value)
    return settings


def typed_command() -> list[str]:
    """Return the command as it was typed; of each path its last part alone, since folders may name people."""
    return ["brainstage", *map(_without_folders, sys.argv[1:])]


def _without_folders(word: str) -> str:
    """Return a typed word with the last part alone of a path, also of one that stands in ``--OPTION=PATH``."""
    if not word.startswith("-"):
        return Path(word).name
    option, equals, value = word.partition("=")
    return option + equals + Path(value).name


@contextmanager
def open_workers(
    jobs: int | None, cluster: str | None, *, quiet: bool, without: int | None = None
) -> Iterator[Workers]:
    """Yield where tasks run: processes of this machine, or a cluster.

    Args:
        jobs: Number of processes, where it was given.
        cluster: The cluster, where one was named.
        quiet: Do not say that the work waits for workers.
        without: Number of processes where neither was; None takes one for each usable processor.

    Raises:
        typer.BadParameter: Both were asked for.
    """
    from brainstage.core.parallel import Processes

    if cluster is None:
        yield Processes(jobs or without)
        return
    if jobs is not None:
        reason = "goes without --jobs: the cluster has its own number of workers"
        raise typer.BadParameter(reason, param_hint="'--cluster'")
    from brainstage.core.cluster import open_cluster

    with open_cluster(cluster, lambda text: None if quiet else warn(text)) as workers:
        yield workers


def named_model(name: str, quiet: bool) -> str:
    """Return what a model is opened by: of one on the hub its commit, so that every process opens the same.

    It says which model is used, where the name alone does not tell.

    Args:
        name: A bundled model, a run folder or a model on the hub.
        quiet: Do not say so, and show no progress.
    """
    from brainstage.core.hub import HubId, is_cached
    from brainstage.models.find import hub_id_of, pin

    hub_id = hub_id_of(name)
    if hub_id:
        name = pin(hub_id, quiet=quiet)
        used = f"Model {name} from the hub."
    else:
        local = HubId.parse(name)
        if local is None or not is_cached(local.repo):
            return name
        used = f"Model: the folder {name}, which is here; the one on the hub is {local.repo}@main."
    if not quiet:
        warn(used)
    return name


def progress_of(quiet: bool) -> Progress:
    """Return how a command shows its progress; of several processes the first shows its own."""
    return progress_bar if is_first() and not quiet else silent


def print_json(values: dict[str, Any]) -> None:
    """Print a result for a program to read."""
    print(json.dumps(values, indent=2))


def show_result(
    result: Any,
    show: Callable[[Any], None],
    page: str,
    *,
    as_json: bool,
    quiet: bool,
    saved: object = None,
    **more: Any,
) -> None:
    """Show a result and what it is not, or print it as JSON.

    Args:
        result: What a computing function returned, with ``to_dict``.
        show: Prints it for a reader.
        page: Page of the documentation that explains it.
        as_json: Print JSON, and nothing else.
        quiet: Do not say where it was saved.
        saved: Where it was saved; None where it was not.
        more: Entries that stand before the result's own in the JSON.
    """
    if as_json:
        print_json({**more, **result.to_dict()})
        return
    from brainstage.report.terminal.screen import show_notice

    show(result)
    if saved:
        say(f"Saved {saved}", quiet)
    show_notice(page)


def say(text: str, quiet: bool) -> None:
    """Print a notice: where something was saved, or what to run next. Of several processes the first prints it."""
    if is_first() and not quiet:
        print(text, flush=True)  # a server's address must not wait in the buffer


def warn(text: str) -> None:
    """Print what went wrong, on the error stream."""
    print(printable(text), file=sys.stderr)


def end_with(statuses: Sequence[str]) -> None:
    """End a command that staged or explained scans with the exit code of their statuses.

    Args:
        statuses: ``predicted``, ``refused`` or ``failed``, of each scan or slice.

    Raises:
        typer.Exit: None was predicted (3), or some could not be read (1).
    """
    if "predicted" not in statuses:
        raise typer.Exit(ExitCode.NOTHING_USABLE)
    if "failed" in statuses:
        raise typer.Exit(ExitCode.FAILED)
