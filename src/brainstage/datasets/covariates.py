"""What a source says of people beside their slices: age, sex, site, or whatever columns it has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import pyarrow as pa

NOT_KNOWN = ("", "n/a", "na", "nan", "none", "null")
"""Cells that hold no value, in small letters; BIDS writes ``n/a``."""


def typed_columns(rows: Sequence[Mapping[str, object]], names: Sequence[str] | None = None) -> pa.Table:
    """Return columns as float64 where all cells that are known are numbers, else as text.

    Args:
        rows: Cells by column; one that is missing, None, NaN or among :data:`NOT_KNOWN` is not known.
        names: The columns; None takes all that occur.
    """
    columns = {}
    for name in dict.fromkeys(chain.from_iterable(rows)) if names is None else names:
        cells = [_known(row.get(name)) for row in rows]
        try:
            columns[name] = pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
        except ValueError:
            columns[name] = pa.array(cells, pa.string())
    return pa.table(columns)


def covariate_rows(table: pa.Table, taken: Collection[str]) -> list[dict[str, object]]:
    """Return the cells of each row of a table that are numbers or text, but for the columns that are taken."""
    names = [field.name for field in table.schema if field.name not in taken and _is_scalar(field.type)]
    rows: list[dict[str, object]] = table.select(names).to_pylist() if names else [{}] * len(table)
    return rows


def in_words(value: str | float) -> str:
    """Return a value as text: of a number without the zeros after its point."""
    return value if isinstance(value, str) else f"{value:.10g}"


def _known(cell: object) -> str | None:
    text = None if cell is None else str(cell).strip()
    return None if text is None or text.lower() in NOT_KNOWN else text


def _is_scalar(kind: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    return any(check(kind) for check in (*checks, pa.types.is_large_string, pa.types.is_dictionary))
