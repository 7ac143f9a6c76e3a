"""Predictions of many scans as a folder of parquet files, each written whole by one task: a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.errors import ConfigError, DataError, MissingInputError
from brainstage.core.files import locked, make_folder, size_and_time, write_json, write_table
from brainstage.core.levels import check_levels
from brainstage.core.parallel import THIS_MACHINE, TOO_LITTLE_MEMORY, Workers, run_all
from brainstage.core.progress import Progress, silent
from brainstage.datasets.layouts import Columns, hub_files
from brainstage.datasets.patient_map import is_public
from brainstage.datasets.sources import load_slices
from brainstage.inference.people import batch_people, predict_rows
from brainstage.inference.performance import describe_performance
from brainstage.inference.predictions import Predictions, check_scans, title_of
from brainstage.inference.predictor import Predictor, open_once
from brainstage.models.find import place_of_model
from brainstage.scans.discover import Scan, find_scans, scan_of_slices

VERSION = 2
"""Version of a shard, incremented when it changes, so that shards of another version are made anew."""
_ABOUT = ".about.json"
"""The model and the inputs that a folder of shards is for."""
VOLUMES_A_SHARD, PICTURES_A_SHARD = 20, 2000
"""Scans of a shard: some 20 seconds of work."""


@dataclass(frozen=True)
class _ShardTask:
    """Scans to predict together.

    Attributes:
        model: Run folder, or a bundled model.
        target: The parquet file of their predictions.
        cohort: Parquet file of a cohort, whose scans are predicted; None where ``scans`` are.
        scans: The scans.
        image_column: Column of the cohort's file with the images.
    """

    model: str
    target: Path
    cohort: Path | None
    scans: tuple[Scan, ...]
    image_column: str


@dataclass(frozen=True)
class ShardedPredictions:
    """Predictions in a folder.

    Attributes:
        files: The parquet files, in the order of the scans; each as :attr:`Predictions.table`, whose ``person`` is
            numbered in each file anew.
        counts: How many people or scans were ``predicted``, ``refused``, ``failed``.
        reasons: Why scans have no prediction, a sentence each.
        performance: What the predictions are worth, as :attr:`Predictions.performance`.
        title: Which model predicts, as :attr:`Predictions.title`.
        removed: Which files of an earlier run were removed and why, a sentence; empty where none was.
    """

    files: tuple[Path, ...]
    counts: dict[str, int]
    reasons: tuple[str, ...]
    performance: str
    title: str
    removed: str = ""


def predict_shards(
    model: str,
    inputs: Sequence[str],
    out: Path,
    *,
    image_column: str = "image",
    workers: Workers = THIS_MACHINE,
    progress: Progress = silent,
) -> ShardedPredictions:
    """Predict scans, or those of a cohort folder, and write their predictions as parquet files.

    Files that were written by an earlier run, of the same scans by the same model, are kept; those of scans that
    changed or went are removed. Memory does not grow with the number of scans, but for their names.

    Args:
        model: Run folder, or a bundled model.
        inputs: Files, folders or globs as for :func:`brainstage.find_scans`; or one folder in the hub's layout, as
            ``prepare`` writes it, of which each scan is predicted from all of its slices.
        out: Folder for the files.
        image_column: Column of parquet files with the images' bytes.
        workers: Where they are predicted; those of a cluster must see all folders under the same paths.
        progress: How to show progress.

    Raises:
        MissingInputError: There is no scan, or a parquet file is not usable. No folder is made.
        DataError: A file states other levels than the model's.
        ConfigError: The folder holds other files, or predictions of another model or of other inputs.
        InUseError: Another process writes into the folder.
        RunError: The model cannot be opened, the process of a file was killed twice, or a file cannot be written.
    """
    predictor = Predictor.open(model)
    if out.is_dir() and any(not _is_shard(file) for file in out.glob("[!.]*")):
        raise ConfigError(f"{out}: holds other files; choose a new folder for the predictions")
    shards = list(_shards(predictor, inputs, image_column, workers))
    make_folder(out)
    with locked(out, "another process writes predictions into it; wait for it or choose another folder"):
        _claim(out, predictor.hash, [str(Path(name).absolute()) for name in inputs])
        place = place_of_model(model, workers)
        tasks = [
            _ShardTask(place, workers.path(out) / name, cohort, scans, image_column)
            for name, cohort, scans in shards
        ]
        missing = [task for task in tasks if not task.target.is_file()]
        with progress("Predicting files of scans", len(missing)) as advance:
            for _ in run_all(_predict_shard, missing, workers, _lost):
                advance(1)
        files = [out / task.target.name for task in tasks]
        return replace(_summary(predictor, files), removed=_remove_others(out, files))


def _claim(out: Path, model: str, inputs: list[str]) -> None:
    """Note which model and inputs a folder is for.

    Raises:
        ConfigError: It holds predictions of another model, or of other inputs.
    """
    file = out / _ABOUT
    if file.is_file() and any(out.glob("part-*.parquet")):
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            other_model, other_inputs = about["model"] != model, set(inputs).isdisjoint(about["inputs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: not readable ({error}); choose a new folder") from error
        if other_model:
            raise ConfigError(f"{out}: holds predictions of another model; choose a new folder")
        if other_inputs:
            raise ConfigError(
                f"{out}: holds predictions of {about['inputs'][0]}; choose a new folder for other scans"
            )
    write_json(file, {"model": model, "inputs": inputs})


def _remove_others(out: Path, files: Sequence[Path]) -> str:
    """Remove the files of scans that changed or went; return a sentence that says so, empty where there were none.

    Args:
        out: The folder.
        files: Its files that stay.
    """
    others = sorted(set(out.glob("part-*.parquet")).difference(files))
    if not others:
        return ""
    gone = set().union(*map(_sources, others)).difference(*map(_sources, files))
    for file in others:
        file.unlink()
    if gone:
        scans = "1 scan that is" if len(gone) == 1 else f"{len(gone):,} scans that are"
        return f"{out}: removed the predictions of {scans} not among those given now; to have all, give all scans"
    replaced = "1 file" if len(others) == 1 else f"{len(others):,} files"
    return f"{out}: replaced {replaced} of predictions, since scans or the column of images changed"


def _sources(file: Path) -> set[str]:
    """Return the scans of a file of predictions, by their whole path; of one that is damaged none."""
    try:
        sources = pq.read_table(file, columns=["source"])["source"].unique().to_pylist()
        return {str(Path(source).absolute()) for source in sources}
    except (pa.ArrowException, OSError, KeyError):
        return set()


def _lost(task: _ShardTask) -> str:
    what = "the process that predicted these scans was killed"
    return f"{task.target}: {what}; {TOO_LITTLE_MEMORY}; start again to go on"


def _is_shard(file: Path) -> bool:
    return file.name.startswith("part-") and file.suffix == ".parquet"


def _shards(
    predictor: Predictor, inputs: Sequence[str], image_column: str, workers: Workers
) -> Iterator[tuple[str, Path | None, tuple[Scan, ...]]]:
    """Yield the name of each shard, which says what it depends on, and its cohort's file or its scans."""
    places = [str(workers.path(Path(name))) for name in inputs]
    cohort = [file for name in places for files in hub_files(Path(name)).values() for file in files]
    if cohort:
        if len(places) > 1:
            raise ConfigError(f"{inputs[0]}: is a cohort; predict it alone")
        for number, file in enumerate(cohort):
            yield _name(predictor, number, image_column, [(str(file), [str(file)])]), file, ()
        return
    try:
        scans = find_scans(places, image_column)
    except DataError as error:
        raise MissingInputError(str(error)) from error
    check_scans(predictor, scans)
    size = VOLUMES_A_SHARD if any(scan.volume for scan in scans) else PICTURES_A_SHARD
    for number, start in enumerate(range(0, len(scans), size)):
        chunk = tuple(scans[start : start + size])
        yield _name(predictor, number, image_column, [(scan.name, scan.files) for scan in chunk]), None, chunk


def _name(predictor: Predictor, number: int, image_column: str, scans: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a shard's name: its number, and a hash of the model and of all that its scans depend on.

    Args:
        predictor: The model.
        number: The shard's number.
        image_column: Column of parquet files with the images.
        scans: Of each scan its name and its files.
    """
    about = [[name, [size_and_time(file) for file in files]] for name, files in scans]
    key = hashlib.sha256(json.dumps([VERSION, predictor.hash, image_column, about]).encode()).hexdigest()
    return f"part-{number:05d}-{key[:12]}.parquet"


def _predict_shard(task: _ShardTask) -> int:
    """Predict the scans of a shard and write it; return how many rows it has."""
    predictor = open_once(task.model)
    scans = _scans_of_cohort(task.cohort, task.image_column, predictor) if task.cohort else task.scans
    people = [person for batch in batch_people(scans) for person in predict_rows(predictor, batch)]
    table = Predictions.collect(predictor, people).table
    write_table(task.target, table)
    return len(table)


def _scans_of_cohort(file: Path, image_column: str, predictor: Predictor) -> list[Scan]:
    """Return the scans of a cohort's file, each with all of its slices; a slice of nobody is a scan of its own."""
    slices = load_slices(file, columns=Columns(image=image_column))
    if slices.stated_levels:
        check_levels(predictor.level_set, slices.stated_levels, str(file))
    rows_of: dict[str, list[int]] = {}
    for row, (stack, source) in enumerate(zip(slices.stacks, slices.rows["source"].to_pylist(), strict=True)):
        rows_of.setdefault(stack or source, []).append(row)
    return [
        scan_of_slices(name, [slices.images[row] for row in rows], [slices.levels[row] for row in rows])
        for name, rows in rows_of.items()
    ]


def _summary(predictor: Predictor, files: Sequence[Path]) -> ShardedPredictions:
    """Count what became of each person, as the first row of each says."""
    counts: Counter[str] = Counter()
    reasons: list[str] = []
    volumes, known, shown = False, 0, 0
    for file in files:
        table = pq.read_table(file, columns=["person", "slice_id", "level", "status", "reason"]).to_pydict()
        people, levels = table["person"], table["level"]
        first = [row for row, person in enumerate(people) if row == 0 or people[row - 1] != person]
        counts.update(table["status"][row] for row in first)
        reasons += [why for why, level in zip(table["reason"], levels, strict=True) if why and level is None]
        volumes = volumes or any(level is not None for level in levels)
        slices = [slice_id for slice_id in table["slice_id"] if slice_id]
        known, shown = known + sum(map(is_public, slices)), shown + len(slices)
    performance = describe_performance(
        predictor.about,
        calibrated=predictor.calibrated,
        refuses=predictor.refuses,
        volumes=volumes,
        slices=(known, shown),
    )
    title = title_of(predictor.hash, predictor.about)
    return ShardedPredictions(tuple(files), dict(counts), tuple(reasons), performance, title)
