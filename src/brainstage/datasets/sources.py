"""From a place (hub, folder, parquet, CSV) to a slice table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import STAGES, clinical_order, require_columns
from brainstage.datasets.images import CHUNK, SUFFIXES, Picture, Reader, decode_slice, read_chunk, read_slice
from brainstage.datasets.patient_map import with_patients
from brainstage.datasets.public import cache_folder
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable, slice_id

SPLIT_FOLDERS = ("train", "test")


@dataclass(frozen=True)
class Columns:
    """What a source calls its columns and classes.

    Attributes:
        image: Parquet column with the image's bytes (or a struct with a ``bytes`` field).
        path: CSV column with the image's path, relative to the CSV's folder.
        label: Column with the class: a name, or a number.
        patient: Column with the patient; used where it exists.
        split: Column with ``train`` or ``test``; used where it exists.
        class_names: What to call a label found in the data, e.g. ``{"0": "CN", "1": "MCI"}``.
        class_order: Class names from the least to the most severe stage. Other labels are then refused.
    """

    image: str = "image"
    path: str = "path"
    label: str = "label"
    patient: str = "patient_id"
    split: str = "split"
    class_names: Mapping[str, str] = field(default_factory=dict)
    class_order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Row:
    """One slice before it is decoded."""

    read: Reader
    source: str
    label: str | None
    patient: str | None = None
    split: str | None = None
    index: int | None = None


def default_source() -> Path:
    """Return where the dataset is: the folder in ``BRAINSTAGE_DATA``, else the cache.

    Raises:
        DataError: It is in neither place.
    """
    named = os.environ.get("BRAINSTAGE_DATA")
    if named:
        return Path(named)
    if hub_files(cache_folder()):
        return cache_folder()
    raise DataError(
        "no data: run `brainstage data fetch`, or name a folder, parquet or CSV file with --data "
        "or in the environment variable BRAINSTAGE_DATA"
    )


def load_slices(
    source: Path | str | None = None,
    *,
    columns: Columns | None = None,
    patients: Path | None = None,
    max_unreadable: float = 0.05,
    progress: Progress = silent,
) -> SliceTable:
    """Read every slice of a source into memory.

    A source is a folder in the hub's layout (``data/train-*.parquet``, ``data/test-*.parquet``), a folder of
    class folders with JPEG or PNG files (also below ``train`` and ``test``), one parquet file, or a CSV file.

    Args:
        source: The place; None takes :func:`default_source`.
        columns: What the source calls its columns and classes.
        patients: A table that ``brainstage audit`` wrote, for slices to which the data gives no patient. Without it
            the slices of the public dataset get those of the map that comes with the package.
        max_unreadable: Largest share of rows that may be unreadable; those rows are left out and named in
            the table's ``unreadable``.
        progress: How to show progress.

    Raises:
        DataError: The source is missing or empty, a column or a class is not what was expected, or too many
            rows are unreadable.
    """
    path = default_source() if source is None else Path(source)
    columns = columns or Columns()
    rows, synthetic = _find_rows(path, columns)
    if not rows:
        raise DataError(f"{path}: no slices found")
    classes = _classes(rows, columns, path)
    pictures, unreadable = _decode(rows, progress)
    if len(unreadable) > max_unreadable * len(rows):
        raise DataError(
            f"{path}: {len(unreadable)} of {len(rows)} slices cannot be read, more than the allowed "
            f"{max_unreadable:.0%}; the first: {unreadable[0]}"
        )
    kept = [(row, picture) for row, picture in zip(rows, pictures, strict=True) if picture is not None]
    images = [picture.pixels for _, picture in kept]
    slices = SliceTable(_table(kept), images, classes, tuple(unreadable), synthetic)
    return with_patients(slices, patients)


def _table(kept: Sequence[tuple[_Row, Picture]]) -> pa.Table:
    columns = {
        "slice_id": [slice_id(picture.pixels) for _, picture in kept],
        "label": [row.label for row, _ in kept],
        "patient_id": [row.patient for row, _ in kept],
        "patient_id_source": ["unknown" if row.patient is None else "given" for row, _ in kept],
        "slice_index": [row.index for row, _ in kept],
        "split": [row.split for row, _ in kept],
        "mode": [picture.mode for _, picture in kept],
        "source": [row.source for row, _ in kept],
    }
    return pa.table(columns, schema=SLICE_SCHEMA)


def hub_files(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files of each split in a folder with the hub's layout, or one folder above it."""
    for pattern in ("{}-*.parquet", "data/{}-*.parquet", "*/data/{}-*.parquet"):
        found = {split: sorted(folder.glob(pattern.format(split))) for split in SPLIT_FOLDERS}
        if any(found.values()):
            return {split: files for split, files in found.items() if files}
    return {}


def _find_rows(path: Path, columns: Columns) -> tuple[list[_Row], bool]:
    """Return the rows of a source, and whether they are synthetic."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            files = hub_files(path)
            if files:
                parts = [_parquet_rows(file, columns, split) for split in files for file in files[split]]
                return [row for rows, _ in parts for row in rows], any(synthetic for _, synthetic in parts)
            return list(_folder_rows(path)), False
        if path.suffix.lower() == ".csv":
            return list(_csv_rows(path, columns)), False
        return _parquet_rows(path, columns, None)
    except PermissionError as error:
        raise DataError(f"{error.filename}: this user may not read it") from error


def _parquet_rows(file: Path, columns: Columns, split: str | None) -> tuple[list[_Row], bool]:
    table = _read_parquet(file)
    require_columns(table.column_names, (columns.image, columns.label), str(file))
    labels = _labels(table, columns)
    patients = _optional(table, columns.patient)
    splits = _optional(table, columns.split) if split is None else [split] * len(table)
    indices = _optional(table, "slice_index")
    rows = []
    for number, (where, read) in enumerate(_readers(table, file, columns.image)):
        patient = None if patients[number] is None else str(patients[number])
        rows.append(_Row(read, where, labels[number], patient, _split_name(splits[number], where), indices[number]))
    metadata = table.schema.metadata or {}
    return rows, metadata.get(b"brainstage_synthetic") == b"true"


def parquet_readers(file: Path, image_column: str) -> list[tuple[str, Reader]]:
    """Return the name and the reader of each image of a parquet file, labelled or not.

    Raises:
        DataError: The file is not parquet, or the column is missing or does not hold bytes.
    """
    table = _read_parquet(file)
    require_columns(table.column_names, (image_column,), str(file))
    return list(_readers(table, file, image_column))


def _readers(table: pa.Table, file: Path, column: str) -> Iterator[tuple[str, Reader]]:
    """Yield the name and the decoder of each row."""
    for number, blob in enumerate(_image_bytes(table[column], file, column)):
        where = f"{file.name} row {number}"
        yield where, partial(decode_slice, blob.as_buffer(), where)


def _read_parquet(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]})") from error


def _image_bytes(column: pa.ChunkedArray, file: Path, name: str) -> pa.Array:
    """Return the column's bytes. A row that names a path or an address instead of holding bytes is refused."""
    array = column.combine_chunks()
    if pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        array = array.field("bytes")
    if not (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)):
        raise DataError(f"{file}: column {name} holds {array.type}, expected the bytes of JPEG or PNG images")
    if array.null_count:
        row = array.is_null().to_pylist().index(True)
        raise DataError(
            f"{file} row {row}: column {name} has no bytes; a path or an address in a data file is never opened, "
            "so write the image's bytes into the file"
        )
    return array


def _labels(table: pa.Table, columns: Columns) -> list[str | None]:
    """Return class names: the column's own text, or its numbers by the names in the file's schema."""
    values = table[columns.label].to_pylist()
    known = _schema_names(table, columns.label)
    found: list[str | None] = []
    for value in values:
        if value is None or (isinstance(value, int) and value < 0):  # -1: unlabelled, in hub datasets
            found.append(None)
        elif known and isinstance(value, int) and value < len(known):
            found.append(known[value])
        else:
            found.append(str(value))
    return [None if label is None else columns.class_names.get(label, label) for label in found]


def _schema_names(table: pa.Table, label: str) -> list[str]:
    """Return the class names that ``datasets`` stores in a parquet file's schema."""
    raw = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(raw)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names]


def _optional(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist() if name in table.column_names else [None] * len(table)


def _split_name(value: str | None, where: str) -> str | None:
    if value is None or value in SPLIT_FOLDERS:
        return value
    raise DataError(f"{where}: split {value!r} is not one of {', '.join(SPLIT_FOLDERS)}")


def _folder_rows(folder: Path) -> Iterator[_Row]:
    """Yield the files of ``folder/CLASS/`` or of ``folder/{train,test}/CLASS/``."""
    names = {child.name: child for child in sorted(folder.iterdir()) if child.is_dir()}
    splits: dict[str | None, Path] = {split: names[split] for split in SPLIT_FOLDERS if split in names}
    for split, base in (splits or {None: folder}).items():
        for class_folder in sorted(child for child in base.iterdir() if child.is_dir()):
            for file in sorted(class_folder.iterdir()):
                if file.suffix.lower() in SUFFIXES:
                    source = file.relative_to(folder).as_posix()
                    yield _Row(partial(read_slice, file), source, class_folder.name, split=split)


def _csv_rows(file: Path, columns: Columns) -> Iterator[_Row]:
    root = file.parent.resolve()
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            require_columns(reader.fieldnames or (), (columns.path, columns.label), str(file))
            records = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not readable as a CSV file in UTF-8 ({error})") from error
    for line, record in enumerate(records, start=2):
        where = f"{file.name} line {line}"
        image = (root / (record[columns.path] or "")).resolve()
        if not image.is_relative_to(root):
            raise DataError(
                f"{where}: {record[columns.path]} lies outside {root}; give paths below the CSV's folder"
            )
        label = record[columns.label] or None
        yield _Row(
            read=partial(read_slice, image),
            source=f"{where} ({record[columns.path]})",
            label=None if label is None else columns.class_names.get(label, label),
            patient=record.get(columns.patient) or None,
            split=_split_name(record.get(columns.split) or None, where),
        )


def _classes(rows: Sequence[_Row], columns: Columns, path: Path) -> tuple[str, ...]:
    """Return the class names in clinical order.

    Once one label is a stage of the public dataset all must be, so that a misspelt one is not a class.
    """
    labels = [row.label for row in rows if row.label is not None]
    allowed = columns.class_order or (STAGES if set(labels) & set(STAGES) else None)
    for row in rows:
        if allowed and row.label is not None and row.label not in allowed:
            raise DataError(
                f"{path}: {row.source} has the label {row.label!r}, expected one of {', '.join(allowed)}"
                f"{did_you_mean(row.label, list(allowed))}; map names with --class-name FOUND=NAME"
            )
    if columns.class_order:
        return columns.class_order
    return clinical_order(sorted(set(labels)))


def _decode(rows: Sequence[_Row], progress: Progress) -> tuple[list[Picture | None], list[str]]:
    """Decode all rows. Unreadable ones become None and a sentence."""
    pictures: list[Picture | None] = []
    unreadable: list[str] = []
    readers = [row.read for row in rows]
    chunks = [readers[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("Reading slices", len(rows)) as advance:
        for outcomes in pool.map(read_chunk, chunks):
            unreadable += [outcome for outcome in outcomes if isinstance(outcome, str)]
            pictures += [None if isinstance(outcome, str) else outcome for outcome in outcomes]
            advance(len(outcomes))
    return pictures, unreadable
