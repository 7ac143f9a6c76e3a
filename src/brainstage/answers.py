"""From images on disk to answers for a user: stage and probabilities of each, in a file or on the screen."""

from __future__ import annotations

import csv
import glob
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from brainstage.data.io import SUFFIXES, Picture, read_slice
from brainstage.data.sources import read_parquet_images
from brainstage.data.table import slice_id
from brainstage.errors import ConfigError, DataError
from brainstage.files import atomic, write_json, write_table
from brainstage.predict import Predictor
from brainstage.progress import Progress, silent
from brainstage.schema import PROB_PREFIX, RESEARCH_NOTICE, SYNTHETIC_NOTICE, with_metadata

Outcome = Picture | str  # a picture, or the sentence that says why there is none


@dataclass(frozen=True)
class Answers:
    """What a model says of some images.

    Attributes:
        rows: One mapping an image: ``source``, ``slice_id``, ``stage``, ``prob_<class>`` …, ``error``; an
            image that could not be read has only ``source`` and ``error``.
        classes: Class names, in clinical order.
        about: The run's manifest.
        model: SHA-256 of the weights.
    """

    rows: list[dict[str, Any]]
    classes: tuple[str, ...]
    about: dict[str, Any]
    model: str

    @property
    def notice(self) -> str:
        """What stands beside every answer."""
        stamp = f" Model trained on phantoms, {SYNTHETIC_NOTICE}." if self.about.get("synthetic") else ""
        return f"{RESEARCH_NOTICE} Scores of a model, not calibrated probabilities.{stamp}"

    @property
    def title(self) -> str:
        """Which model answers, and under which protocol it was judged."""
        leakage = self.about.get("leakage", {}).get("sentence", "leakage unknown")
        return f"model {self.model[:12]} · protocol {self.about.get('protocol', 'unknown')} · {leakage}"

    def to_dict(self) -> dict[str, Any]:
        """Return the answers for a JSON file."""
        about = {key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic")}
        return {"notice": self.notice, "model": self.model, **about, "answers": self.rows}


def read_pictures(
    inputs: Sequence[str], image_column: str = "image", progress: Progress = silent
) -> list[tuple[str, Outcome]]:
    """Read images from files, folders, globs and parquet files.

    Returns:
        Name and picture of each image, or its name and why it could not be read.

    Raises:
        DataError: There is no image at all, or a parquet file is not usable.
    """
    pictures: list[tuple[str, Outcome]] = []
    for name in inputs:
        path = Path(name)
        if path.suffix.lower() == ".parquet" and path.is_file():
            pictures += read_parquet_images(path, image_column)
        else:
            pictures += _read_files(_expand(name), progress)
    if not pictures:
        raise DataError(f"{', '.join(inputs)}: no JPEG or PNG image found")
    return pictures


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if path.exists() or not glob.has_magic(name):
        return [path]
    return sorted(Path(found) for found in glob.glob(name, recursive=True) if Path(found).is_file())


def _read_files(files: Sequence[Path], progress: Progress) -> list[tuple[str, Outcome]]:
    with ThreadPoolExecutor() as pool, progress("Reading images", len(files)) as advance:
        outcomes = []
        for file, outcome in zip(files, pool.map(_read_or_reason, files), strict=True):
            outcomes.append((str(file), outcome))
            advance(1)
    return outcomes


def _read_or_reason(file: Path) -> Outcome:
    try:
        return read_slice(file)
    except DataError as error:
        return str(error)


def answer(run: Path, pictures: Sequence[tuple[str, Outcome]], progress: Progress = silent) -> Answers:
    """Stage every picture that could be read.

    Raises:
        RunError: The run's model is missing or not usable.
    """
    predictor = Predictor.open(run)
    readable = [outcome.pixels for _, outcome in pictures if isinstance(outcome, Picture)]
    probabilities = iter(predictor.predict(readable, progress=progress))
    rows = []
    for source, outcome in pictures:
        row: dict[str, Any] = {"source": source, "slice_id": None, "stage": None}
        row |= {PROB_PREFIX + name: None for name in predictor.classes}
        if isinstance(outcome, Picture):
            scores = next(probabilities)
            row |= {"slice_id": slice_id(outcome.pixels), "stage": predictor.classes[scores.argmax()]}
            row |= {PROB_PREFIX + name: float(score) for name, score in zip(predictor.classes, scores, strict=True)}
        rows.append(row | {"error": outcome if isinstance(outcome, str) else None})
    return Answers(rows, predictor.classes, predictor.about, predictor.hash)


def check_target(path: Path) -> None:
    """Refuse a file that answers cannot be written to, before any work is done.

    Raises:
        ConfigError: The name does not end in .csv, .json or .parquet, or its folder does not exist.
    """
    if path.suffix not in (".csv", ".json", ".parquet"):
        raise ConfigError(f"{path}: answers are written as .csv, .json or .parquet; end the name in one of them")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder; make it first")


def write_answers(answers: Answers, path: Path) -> None:
    """Write answers to a .csv, .json or .parquet file; each carries the notice.

    Raises:
        ConfigError: The name has another ending.
        RunError: The disk is full or the folder is not writable.
    """
    check_target(path)
    if path.suffix == ".json":
        write_json(path, answers.to_dict())
    elif path.suffix == ".parquet":
        about = {key: value for key, value in answers.to_dict().items() if key != "answers"}
        write_table(path, with_metadata(pa.Table.from_pylist(answers.rows), about))
    else:
        with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*answers.rows[0], "notice"])
            writer.writeheader()
            writer.writerows({**row, "notice": answers.notice} for row in answers.rows)
