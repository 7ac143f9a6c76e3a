"""The layouts of a source: parquet files of the hub, class folders, a CSV file. What each says of its slices."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.columns import map_values
from brainstage.core.errors import DataError
from brainstage.core.levels import LEVELS_KEY, PUBLIC, LevelSet, named_levels
from brainstage.core.schema import CLASS_ORDER, require_columns
from brainstage.datasets.covariates import covariate_cells, covariate_names, text_columns, typed_columns
from brainstage.datasets.images import CHUNK, IMAGE_SUFFIXES, Reader, decode_slice, read_slice
from brainstage.datasets.skipped import SPLIT_FOLDERS
from brainstage.datasets.table import SLICE_SCHEMA

LISTED = pa.schema(
    [
        SLICE_SCHEMA.field(name)
        for name in SLICE_SCHEMA.names
        if name not in ("slice_id", "patient_id_source", "mode")
    ]
)
"""Columns of slices that are not decoded yet."""


@dataclass(frozen=True)
class Columns:
    """What a source calls its columns and classes.

    Attributes:
        image: Parquet column with the image's bytes (or a struct with a ``bytes`` field).
        path: CSV column with the image's path, relative to the CSV's folder.
        label: Column with the class: a name, or a number.
        patient: Column with the patient. The default is used where it exists; another name must exist.
        split: Column with ``train`` or ``test``, likewise.
        class_names: What to call a label found in the data, e.g. ``{"0": "CN", "1": "MCI"}``.
        class_order: Class names from the least to the most severe stage. Other labels are then refused. Without it
            the names of the usual stagings are put in clinical order
            (:func:`brainstage.core.schema.recognised_order`), others in alphabetical order.
    """

    image: str = "image"
    path: str = "path"
    label: str = "label"
    patient: str = "patient_id"
    split: str = "split"
    class_names: Mapping[str, str] = field(default_factory=dict)
    class_order: tuple[str, ...] | None = None

    @property
    def chosen(self) -> list[str]:
        """The optional columns that have another name than by default, so that they are expected."""
        return [
            chosen
            for chosen, default in ((self.patient, Columns.patient), (self.split, Columns.split))
            if chosen != default
        ]

    @property
    def taken(self) -> set[str]:
        """The columns that are no covariates."""
        return {self.image, self.path, self.label, self.patient, self.split, *SLICE_SCHEMA.names}


@dataclass(frozen=True)
class SourceContent:
    """What a source holds, before its slices are decoded.

    Attributes:
        rows: A row a slice: the columns of :data:`LISTED`, then the covariates as text.
        readers: Gives the reader of each row, in order; few images are in memory at a time.
        files: The files that are read.
        synthetic: Whether the slices are phantoms.
        class_order: The order that a cohort was prepared with.
        level_set: The levels that it states.
    """

    rows: pa.Table
    readers: Callable[[], Iterator[Reader]]
    files: Sequence[Path]
    synthetic: bool = False
    class_order: tuple[str, ...] | None = None
    level_set: LevelSet | None = None


def read_content(path: Path, columns: Columns) -> SourceContent:
    """Return what a source holds.

    Args:
        path: A folder in the hub's layout, a folder of class folders, a parquet file, or a CSV file.
        columns: What the source calls its columns.

    Raises:
        DataError: It is missing or not readable, or lacks a column.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    try:
        if path.is_dir():
            splits = hub_files(path)
            if not splits:
                return _class_folders(path)
            parts = [_parquet(file, columns, split) for split, files in splits.items() for file in files]
            return _joined(parts, path)
        if path.suffix.lower() == ".csv":
            return _csv(path, columns)
        return _parquet(path, columns, None)
    except PermissionError as error:
        raise DataError(f"{error.filename}: this user may not read it; ask its owner for permission to") from error


def _joined(parts: Sequence[SourceContent], path: Path) -> SourceContent:
    """Return the content of several files as one."""
    return SourceContent(
        rows=pa.concat_tables([part.rows for part in parts], promote_options="default"),
        readers=lambda: chain.from_iterable(part.readers() for part in parts),
        files=[file for part in parts for file in part.files],
        synthetic=any(part.synthetic for part in parts),
        class_order=parts[0].class_order,
        level_set=_common_levels([part.level_set for part in parts], path),
    )


def _listed(covariates: pa.Table, **columns: Any) -> pa.Table:
    """Return the rows of a source: the columns that are given, null in the others, then the covariates."""
    count = len(columns["source"])
    values = {field.name: columns.get(field.name, pa.nulls(count, field.type)) for field in LISTED}
    rows = pa.table(values, schema=LISTED)
    for name in covariates.column_names:
        rows = rows.append_column(name, covariates[name])
    return rows


# --- parquet ----------------------------------------------------------------------------------------------------


def hub_files(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files of each split in a folder with the hub's layout, or one folder above it."""
    for pattern in ("{}-*.parquet", "data/{}-*.parquet", "*/data/{}-*.parquet"):
        files_of = {split: sorted(folder.glob(pattern.format(split))) for split in SPLIT_FOLDERS}
        if any(files_of.values()):
            return {split: files for split, files in files_of.items() if files}
    return {}


def _parquet(file: Path, columns: Columns, split: str | None) -> SourceContent:
    """Return what a parquet file holds; its images are left where they are.

    Args:
        file: The file.
        columns: What it calls its columns.
        split: Side of all of its slices; None takes its column.
    """
    schema = _parquet_schema(file)
    require_columns(schema.names, (columns.image, columns.label, *columns.chosen), str(file))
    _check_image_column(schema, columns.image, file)
    known = (columns.label, columns.patient, columns.split, "slice_index", "session_id", "scan_id")
    covariates = covariate_names(schema, columns.taken)
    table = _read_parquet(file, [*dict.fromkeys(name for name in (*known, *covariates) if name in schema.names)])
    names = partial(_names, table, file)
    rows = _listed(
        covariate_cells(table.select(covariates)),
        label=_labels(table, columns.label, file),
        patient_id=names(columns.patient),
        session_id=names("session_id"),
        scan_id=names("scan_id"),
        slice_index=_indices(table, file),
        split=_sides(names(columns.split), file) if split is None else pa.repeat(split, len(table)),
        source=[_row_name(file, number) for number in range(len(table))],
    )
    metadata = schema.metadata or {}
    order = json.loads(metadata.get(CLASS_ORDER.encode(), b"null"))
    return SourceContent(
        rows,
        partial(_readers, file, columns.image),
        [file],
        synthetic=metadata.get(b"brainstage_synthetic") == b"true",
        class_order=None if order is None else tuple(map(str, order)),
        level_set=_stated_levels(schema, file),
    )


def _row_name(file: Path, number: int) -> str:
    return f"{file.name} row {number}"


def _stated_levels(schema: pa.Schema, file: Path) -> LevelSet | None:
    """Return the levels that a parquet file's schema states; None where it states none."""
    name = (schema.metadata or {}).get(LEVELS_KEY.encode())
    return None if name is None else named_levels(name.decode(errors="replace"), str(file))


def _common_levels(stated: Sequence[LevelSet | None], path: Path) -> LevelSet | None:
    """Return the levels that files state; None where one states none.

    Raises:
        DataError: They are of different levels.
    """
    names = sorted({(levels or PUBLIC).name for levels in stated})
    if len(names) > 1:
        raise DataError(
            f"{path}: holds slices of different levels, {' and '.join(names)}; prepare all scans with one of them"
        )
    return None if None in stated else stated[0]


def parquet_levels(file: Path) -> LevelSet | None:
    """Return the set of levels that a parquet file states its slices to be cut at; None where it states none.

    Raises:
        DataError: The file is not parquet, or the set is not known.
    """
    return _stated_levels(_parquet_schema(file), file)


def parquet_readers(file: Path, image_column: str) -> list[tuple[str, Reader]]:
    """Return the name and the reader of each image of a parquet file, labelled or not.

    Raises:
        DataError: The file is not parquet, or the column is missing or does not hold bytes.
    """
    schema = _parquet_schema(file)
    require_columns(schema.names, (image_column,), str(file))
    _check_image_column(schema, image_column, file)
    return [(_row_name(file, number), read) for number, read in enumerate(_readers(file, image_column))]


def _parquet_schema(file: Path) -> pa.Schema:
    with _readable(file):
        return pq.read_schema(file)


def _read_parquet(file: Path, columns: list[str]) -> pa.Table:
    with _readable(file):
        return pq.read_table(file, columns=columns)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn the errors of a parquet file into a sentence."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); write it again"
        ) from error


def _readers(file: Path, column: str) -> Iterator[Reader]:
    """Yield the decoder of each row.

    A row that names a path or an address instead of holding bytes is refused.
    """
    number = 0
    with _readable(file), pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(CHUNK, columns=[column]):
            images = batch.column(0)
            if pa.types.is_struct(images.type):
                images = images.field("bytes")
            for blob in images:
                where = _row_name(file, number)
                if not blob.is_valid:
                    raise DataError(
                        f"{file} row {number}: column {column} has no bytes; a path or an address in a data file "
                        "is never opened, so write the image's bytes into the file"
                    )
                yield partial(decode_slice, blob.as_buffer(), where)
                number += 1


def _check_image_column(schema: pa.Schema, name: str, file: Path) -> None:
    """Refuse a column of images that does not hold bytes."""
    kind = schema.field(name).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{file}: column {name} holds {kind}, expected the bytes of JPEG or PNG images")


def _labels(table: pa.Table, column: str, file: Path) -> pa.Array:
    """Return labels: the column's own text, or its numbers by the names in the file's schema."""
    known = _schema_names(table, column)

    def label(value: Any) -> str | None:
        if value is None or value != value or (isinstance(value, int) and value < 0):  # -1: no label, on the hub
            return None
        return known[value] if known and isinstance(value, int) and value < len(known) else str(value)

    return _mapped(table, column, label, file)


def _schema_names(table: pa.Table, label: str) -> list[str]:
    """Return the class names that ``datasets`` stores in a parquet file's schema."""
    raw = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(raw)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names]


def _names(table: pa.Table, file: Path, column: str) -> pa.Array:
    """Return a column's values as text; nulls where there is no such column."""
    if column not in table.column_names:
        return pa.nulls(len(table), pa.string())
    return _mapped(table, column, lambda value: None if value is None else str(value) or None, file)


def _mapped(table: pa.Table, column: str, function: Callable[[Any], str | None], file: Path) -> pa.Array:
    try:
        return map_values(table[column], function, pa.string())
    except pa.ArrowNotImplementedError:
        raise DataError(f"{file}: column {column} holds {table[column].type}, expected names or numbers") from None


def _indices(table: pa.Table, file: Path) -> pa.Array:
    """Return the column ``slice_index``; nulls where there is none."""
    if "slice_index" not in table.column_names:
        return pa.nulls(len(table), pa.int32())
    try:
        return table["slice_index"].cast(pa.int32())
    except pa.ArrowException:
        raise DataError(f"{file}: column slice_index holds what is no whole number; write whole numbers") from None


def _sides(values: pa.Array, file: Path) -> pa.Array:
    """Return the sides that a column names, which must be known ones."""
    for value in values.unique().to_pylist():
        if value is not None and value not in SPLIT_FOLDERS:
            raise DataError(f"{_row_name(file, values.index(value).as_py())}: {_no_side(value)}")
    return values


def _no_side(value: str) -> str:
    return f"split {value!r} is not one of {', '.join(SPLIT_FOLDERS)}"


# --- class folders and CSV files --------------------------------------------------------------------------------


def _class_folders(folder: Path) -> SourceContent:
    """Return the images of ``folder/CLASS/`` or of ``folder/{train,test}/CLASS/``."""
    names = {child.name: child for child in sorted(folder.iterdir()) if child.is_dir()}
    splits: dict[str | None, Path] = {split: names[split] for split in SPLIT_FOLDERS if split in names}
    listed = [
        (file, class_folder.name, split)
        for split, base in (splits or {None: folder}).items()
        for class_folder in sorted(child for child in base.iterdir() if child.is_dir())
        for file in sorted(class_folder.iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()
    ]
    files, labels, sides = ([*column] for column in zip(*listed, strict=True)) if listed else ([], [], [])
    source = [file.relative_to(folder).as_posix() for file in files]
    rows = _listed(pa.table({}), label=labels, split=sides, source=source)
    return SourceContent(rows, partial(map, _reader, files), files)


def _reader(file: Path) -> Reader:
    return partial(read_slice, file)


def _csv(file: Path, columns: Columns) -> SourceContent:
    """Return the images that a CSV file names."""
    root = file.parent.resolve()
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or ()
            require_columns(header, (columns.path, columns.label, *columns.chosen), str(file))
            records = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not readable as a CSV file in UTF-8 ({error}); save it as one") from error
    images = []
    for line, record in enumerate(records, start=2):
        where = f"{file.name} line {line}"
        if None in record:
            raise DataError(f"{where}: has more cells than the header; put cells that hold commas in quotes")
        images.append((root / (record[columns.path] or "")).resolve())
        if not images[-1].is_relative_to(root):
            raise DataError(
                f"{where}: {record[columns.path]} lies outside {root}; give paths below the CSV's folder"
            )
        if record.get(columns.split) and record[columns.split] not in SPLIT_FOLDERS:
            raise DataError(f"{where}: {_no_side(record[columns.split])}")

    def cells(name: str) -> list[str | None]:
        return [record.get(name) or None for record in records]

    rows = _listed(
        text_columns(records, [name for name in header if name not in columns.taken]),
        label=cells(columns.label),
        patient_id=cells(columns.patient),
        session_id=cells("session_id"),
        scan_id=cells("scan_id"),
        slice_index=_indices(typed_columns(records, ["slice_index"]), file),
        split=cells(columns.split),
        source=[
            f"{file.name} line {line} ({record[columns.path]})" for line, record in enumerate(records, start=2)
        ],
    )
    return SourceContent(rows, partial(map, _reader, images), [file, *images])
