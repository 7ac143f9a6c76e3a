"""Predictions as files: CSV, JSON or parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, write_json, write_table
from brainstage.inference.predictions import Predictions

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a text that spreadsheets take for a formula; the web page's ``csv.js`` has the same."""


def check_target(path: Path) -> None:
    """Refuse a file that predictions cannot be written to, before any work is done.

    Raises:
        ConfigError: The name does not end in .csv, .json or .parquet, or its folder does not exist.
    """
    if path.suffix not in (".csv", ".json", ".parquet"):
        raise ConfigError(
            f"{path}: predictions are written as .csv, .json or .parquet, or into a folder without ending"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder; make it first")


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions to a .csv, .json or .parquet file; each carries the notice and names the model.

    A text in a CSV file that a spreadsheet would take for a formula, such as the name of a file, gets an apostrophe
    before it. Numbers stay as they are.

    Raises:
        ConfigError: The name has another ending, or the folder does not exist.
        RunError: The disk is full or the folder is not writable.
    """
    check_target(path)
    if path.suffix == ".json":
        write_json(path, predictions.to_dict())
    elif path.suffix == ".parquet":
        write_table(path, predictions.table)
    else:
        with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            beside = _in_each_row(predictions)
            writer = csv.DictWriter(stream, [*predictions.rows[0], *beside])
            writer.writeheader()
            for row in predictions.rows:
                cells = {**row, **beside}
                writer.writerow({name: without_formula(value) for name, value in cells.items()})


def _in_each_row(predictions: Predictions) -> dict[str, Any]:
    """Return what each row of a CSV file says of the model, as the web page's has it, and the notice."""
    about = predictions.about
    return {
        "model": predictions.model,
        "protocol": about.get("protocol"),
        "leakage": about.get("leakage", {}).get("sentence"),
        "calibrated": predictions.calibrated,
        "notice": predictions.notice,
    }


def without_formula(value: Any) -> Any:
    """Return the value of a CSV cell: text that begins like a formula gets an apostrophe, all else is unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
