"""Predictions as files: CSV, JSON or parquet."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa

from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, write_json, write_table
from brainstage.core.schema import with_metadata
from brainstage.inference.predictions import Predictions


def check_target(path: Path) -> None:
    """Refuse a file that predictions cannot be written to, before any work is done.

    Raises:
        ConfigError: The name does not end in .csv, .json or .parquet, or its folder does not exist.
    """
    if path.suffix not in (".csv", ".json", ".parquet"):
        raise ConfigError(f"{path}: predictions are written as .csv, .json or .parquet; give a name that ends so")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder; make it first")


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions to a .csv, .json or .parquet file; each carries the notice.

    Raises:
        ConfigError: The name has another ending.
        RunError: The disk is full or the folder is not writable.
    """
    check_target(path)
    if path.suffix == ".json":
        write_json(path, predictions.to_dict())
    elif path.suffix == ".parquet":
        about = {key: value for key, value in predictions.to_dict().items() if key != "predictions"}
        write_table(path, with_metadata(pa.Table.from_pylist(predictions.rows), about))
    else:
        with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*predictions.rows[0], "notice"])
            writer.writeheader()
            writer.writerows({**row, "notice": predictions.notice} for row in predictions.rows)
