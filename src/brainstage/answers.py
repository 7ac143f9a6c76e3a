"""From images on disk to answers for a user: stage and probabilities of each, in a file or on the screen."""

from __future__ import annotations

import csv
import glob
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from brainstage.data.io import CHUNK, SUFFIXES, Picture, Reader, read_chunk, read_slice
from brainstage.data.patients import is_public
from brainstage.data.sources import parquet_readers
from brainstage.data.table import slice_id
from brainstage.errors import ConfigError, DataError, RunError
from brainstage.files import atomic, write_json, write_table
from brainstage.models.weights import BUNDLED, DEFAULT
from brainstage.predict import Predictor
from brainstage.progress import Progress, silent
from brainstage.run import RunFolder
from brainstage.schema import PROB_PREFIX, RESEARCH_NOTICE, SYNTHETIC_NOTICE, with_metadata


@dataclass(frozen=True)
class Answers:
    """What a model says of some images.

    Attributes:
        rows: One mapping an image: ``source``, ``slice_id``, ``stage``, ``prob_<class>`` …, ``error``; an
            image that could not be read has only ``source`` and ``error``.
        classes: Class names, in clinical order.
        about: The run's manifest.
        model: SHA-256 of the weights.
        one_person: Whether all were read as slices of one person: then every row has the same answer.
    """

    rows: list[dict[str, Any]]
    classes: tuple[str, ...]
    about: dict[str, Any]
    model: str
    one_person: bool

    @property
    def notice(self) -> str:
        """What stands beside every answer: what the model is worth, where that is known."""
        worth = self.about.get("worth", "Scores of a model, not calibrated probabilities.")
        stamp = f" Model trained on phantoms, {SYNTHETIC_NOTICE}." if self.about.get("synthetic") else ""
        return f"{RESEARCH_NOTICE} {worth}{stamp}{self._familiar}"

    @property
    def _familiar(self) -> str:
        """Say when slices are of people that a model of this package was fitted on."""
        known = sum(is_public(row["slice_id"]) for row in self.rows) if "worth" in self.about else 0
        if not known:
            return ""
        return (
            f" Slices of people that it was fitted on: {known:,} of {len(self.rows):,}; their answers test nothing."
        )

    @property
    def title(self) -> str:
        """Which model answers, and under which protocol it was judged."""
        leakage = self.about.get("leakage", {}).get("sentence", "leakage unknown")
        return f"model {self.model[:12]} · protocol {self.about.get('protocol', 'unknown')} · {leakage}"

    def to_dict(self) -> dict[str, Any]:
        """Return the answers for a JSON file."""
        about = {key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic", "figures")}
        return {"notice": self.notice, "model": self.model, **about, "answers": self.rows}


def find_model(inputs: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Tell the model from the images in what a user typed: a run folder or a bundled model's name may come first.

    Returns:
        The model, and the names of the images.

    Raises:
        RunError: The first name is nothing that is there.
        ConfigError: There is a model and no image.
    """
    first = inputs[0]
    named = first in BUNDLED or (Path(first) / "model").is_dir() or RunFolder(first).started
    if not named and not Path(first).exists() and not glob.has_magic(first):
        raise RunError(f"{first}: no such run, and no such image")
    if named and len(inputs) == 1:
        raise ConfigError(f"{first}: names a model; give images, folders or parquet files after it")
    return (first, inputs[1:]) if named else (DEFAULT, inputs)


def find_images(inputs: Sequence[str], image_column: str = "image") -> list[tuple[str, Reader]]:
    """Find images in files, folders, globs and parquet files.

    Returns:
        Name and reader of each image.

    Raises:
        DataError: There is no image at all, or a parquet file is not usable.
    """
    images: list[tuple[str, Reader]] = []
    for name in inputs:
        path = Path(name)
        if path.suffix.lower() == ".parquet" and path.is_file():
            images += parquet_readers(path, image_column)
        else:
            images += [(str(file), partial(read_slice, file)) for file in _expand(name)]
    if not images:
        raise DataError(f"{', '.join(inputs)}: no JPEG or PNG image found")
    return images


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if path.exists() or not glob.has_magic(name):
        return [path]
    return sorted(Path(found) for found in glob.glob(name, recursive=True) if Path(found).is_file())


def answer(
    predictor: Predictor,
    images: Sequence[tuple[str, Reader]],
    *,
    one_person: bool = False,
    progress: Progress = silent,
) -> Answers:
    """Stage every image that can be read, each alone or all as slices of one person.

    Each thread takes some images from file to answer, on one core: torch's own threads would wait for one
    another many times in so small a network. Few images are in memory at a time.
    """
    rows: list[dict[str, Any]] = []
    size = len(images) if one_person else CHUNK
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    threads = torch.get_num_threads()
    try:
        with (
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
            progress("Predicting", len(images)) as advance,
        ):
            for answered in pool.map(partial(_answer_chunk, predictor, one_person), chunks):
                rows += answered
                advance(len(answered))
    finally:
        torch.set_num_threads(threads)
    return Answers(rows, predictor.classes, predictor.about, predictor.hash, one_person)


def _answer_chunk(
    predictor: Predictor, one_person: bool, images: Sequence[tuple[str, Reader]]
) -> list[dict[str, Any]]:
    outcomes = read_chunk([read for _, read in images])
    pixels = [outcome.pixels for outcome in outcomes if isinstance(outcome, Picture)]
    scores = iter(predictor.predict(pixels, ["the one"] * len(pixels) if one_person else None))
    columns = [PROB_PREFIX + name for name in predictor.classes]
    rows = []
    for (source, _), outcome in zip(images, outcomes, strict=True):
        row: dict[str, Any] = {"source": source, "slice_id": None, "stage": None} | dict.fromkeys(columns)
        if isinstance(outcome, Picture):
            probabilities = next(scores)
            row |= {"slice_id": slice_id(outcome.pixels), "stage": predictor.classes[probabilities.argmax()]}
            row |= zip(columns, probabilities.tolist(), strict=True)
        rows.append(row | {"error": outcome if isinstance(outcome, str) else None})
    return rows


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
