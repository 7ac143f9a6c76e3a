"""What a source says of people beside their slices: age, sex, site, or whatever columns it has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import pyarrow as pa

from brainstage.core.columns import map_values

NOT_KNOWN = ("", "n/a", "na", "nan", "none", "null")
"""Cells that hold no value, in small letters; BIDS writes ``n/a``."""


def typed_columns(rows: Sequence[Mapping[str, object]], names: Sequence[str] | None = None) -> pa.Table:
    """Return columns as float64 where all cells that are known are numbers, else as text.

    Args:
        rows: Cells by column; one that is missing, None, NaN or among :data:`NOT_KNOWN` is not known.
        names: The columns; None takes all that occur.
    """
    return typed(text_columns(rows, list(dict.fromkeys(chain.from_iterable(rows))) if names is None else names))


def text_columns(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> pa.Table:
    """Return columns as text, null where not known; the arguments are those of :func:`typed_columns`."""
    return pa.table({name: pa.array([_known(row.get(name)) for row in rows], pa.string()) for name in names})


def typed(cells: pa.Table) -> pa.Table:
    """Return columns of text as float64 where all cells that are known are numbers."""
    return pa.table({name: _numbers(cells[name]) for name in cells.column_names})


def covariate_cells(table: pa.Table) -> pa.Table:
    """Return columns of numbers or text as text, null where not known; :func:`typed` makes numbers of them."""
    return pa.table({name: map_values(table[name], _known, pa.string()) for name in table.column_names})


def covariate_names(schema: pa.Schema, taken: Collection[str]) -> list[str]:
    """Return the columns of a schema that hold numbers or text, but for those that are taken."""
    return [field.name for field in schema if field.name not in taken and _is_scalar(field.type)]


def in_words(value: str | float) -> str:
    """Return a value as text: of a number without the zeros after its point."""
    return value if isinstance(value, str) else f"{value:.10g}"


def _known(cell: object) -> str | None:
    text = None if cell is None else str(cell).strip()
    return None if text is None or text.lower() in NOT_KNOWN else text


def _numbers(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as float64; as it is where a cell is no number."""
    try:
        return map_values(column, lambda cell: None if cell is None else float(cell), pa.float64())
    except ValueError:
        return column


def _is_scalar(kind: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    return any(check(kind) for check in (*checks, pa.types.is_large_string, pa.types.is_dictionary))
