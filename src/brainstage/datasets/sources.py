"""From a place (hub, folder, parquet, CSV) to a slice table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError
from brainstage.core.levels import LEVELS_KEY, PUBLIC, LevelSet, named_levels
from brainstage.core.parallel import parallel_map
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import (
    CLASS_ORDER,
    STAGES,
    is_dementia_stage,
    recognised_order,
    require_columns,
    stage_key,
)
from brainstage.datasets.covariates import covariate_rows, typed_columns
from brainstage.datasets.images import CHUNK, IMAGE_SUFFIXES, Picture, Reader, decode_slice, read_chunk, read_slice
from brainstage.datasets.patient_map import with_patients
from brainstage.datasets.public import cache_folder
from brainstage.datasets.skipped import SPLIT_FOLDERS, skipped_files
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable, slice_id


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
class _Row:
    """One slice before it is decoded."""

    read: Reader
    source: str
    label: str | None
    patient: str | None = None
    split: str | None = None
    index: int | None = None
    session: str | None = None
    scan: str | None = None
    covariates: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Content:
    """What a source holds before it is decoded."""

    rows: Sequence[_Row]
    synthetic: bool = False
    files: Sequence[Path] = ()
    """The files of a folder that are read."""
    class_order: tuple[str, ...] | None = None
    """The order that a cohort was prepared with."""
    level_set: LevelSet | None = None
    """The levels that it states."""


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
    class folders with JPEG or PNG files (also below ``train`` and ``test``), one parquet file, or a CSV file. Files
    of a folder that are none of these are counted and named in the table's ``skipped``.

    Args:
        source: The place; None takes :func:`default_source`.
        columns: What the source calls its columns and classes.
        patients: A table that ``brainstage audit`` wrote, for slices of which the data does not name the patient.
            Without it the slices of the public dataset get those of the map that is bundled with the package.
        max_unreadable: Largest share of rows that may be unreadable; those rows are left out and named in
            the table's ``unreadable``.
        progress: How to show progress.

    Raises:
        DataError: The source is missing or empty, a column or a class is not what was expected, or too many
            rows are unreadable.
    """
    path = default_source() if source is None else Path(source)
    columns = columns or Columns()
    content = _find(path, columns)
    if columns.class_order is None and not columns.class_names:
        columns = replace(columns, class_order=content.class_order)
    rows = _with_class_names(content.rows, columns.class_names, path)
    skipped = skipped_files(path, content.files) if path.is_dir() else ()
    if not rows:
        raise DataError(". ".join([f"{path}: no slices found", *skipped]))
    classes, ordered = _classes(rows, columns, path)
    pictures, unreadable = _decode(rows, progress)
    if len(unreadable) > max_unreadable * len(rows):
        raise DataError(
            f"{path}: {len(unreadable)} of {len(rows)} slices cannot be read, more than the allowed "
            f"{max_unreadable:.0%}; the first: {unreadable[0]}"
        )
    kept = [(row, picture) for row, picture in zip(rows, pictures, strict=True) if picture is not None]
    images = [picture.pixels for _, picture in kept]
    slices = SliceTable(
        _table(kept),
        images,
        classes,
        tuple(unreadable),
        content.synthetic,
        skipped,
        ordered,
        content.level_set,
    )
    _check_index(slices, path)
    return with_patients(slices, patients)


def _check_index(slices: SliceTable, path: Path) -> None:
    """Refuse a slice whose index is none of the levels that its file states."""
    for row, level in enumerate(slices.levels):
        if level is not None and not 0 <= level < slices.level_set.count:
            raise DataError(
                f"{path}: {slices.rows['source'][row]} has the slice_index {level}, expected 0 to "
                f"{slices.level_set.count - 1}, since the file states the levels {slices.level_set.name}"
            )


def _with_class_names(rows: Sequence[_Row], names: Mapping[str, str], path: Path) -> Sequence[_Row]:
    """Replace the labels found in the data by their class names.

    Raises:
        DataError: A label that has a name is not in the data.
    """
    if not names or not rows:
        return rows
    labels = sorted({row.label for row in rows if row.label is not None})
    for label in names:
        if label not in labels:
            raise DataError(
                f"{path}: --class-name {label}={names[label]} names a label that no slice has; the labels are "
                + ", ".join(labels)
            )
    return [row if row.label is None else replace(row, label=names.get(row.label, row.label)) for row in rows]


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
        "session_id": [row.session for row, _ in kept],
        "scan_id": [row.scan for row, _ in kept],
    }
    table = pa.table(columns, schema=SLICE_SCHEMA)
    covariates = typed_columns([row.covariates for row, _ in kept])
    for name in covariates.column_names:
        table = table.append_column(name, covariates[name])
    return table


def hub_files(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files of each split in a folder with the hub's layout, or one folder above it."""
    for pattern in ("{}-*.parquet", "data/{}-*.parquet", "*/data/{}-*.parquet"):
        files_of = {split: sorted(folder.glob(pattern.format(split))) for split in SPLIT_FOLDERS}
        if any(files_of.values()):
            return {split: files for split, files in files_of.items() if files}
    return {}


def _find(path: Path, columns: Columns) -> _Content:
    """Return what a source holds."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            splits = hub_files(path)
            if not splits:
                return _find_in_folder(path)
            parts = [_find_in_parquet(file, columns, split) for split, files in splits.items() for file in files]
            return _Content(
                rows=[row for part in parts for row in part.rows],
                synthetic=any(part.synthetic for part in parts),
                files=[file for files in splits.values() for file in files],
                class_order=parts[0].class_order,
                level_set=_common_levels([part.level_set for part in parts], path),
            )
        if path.suffix.lower() == ".csv":
            return _Content(list(_csv_rows(path, columns)))
        return _find_in_parquet(path, columns, None)
    except PermissionError as error:
        raise DataError(f"{error.filename}: this user may not read it") from error


def _find_in_parquet(file: Path, columns: Columns, split: str | None) -> _Content:
    table = _read_parquet(file)
    require_columns(table.column_names, (columns.image, columns.label, *columns.chosen), str(file))
    labels = _labels(table, columns.label)
    patients = _optional(table, columns.patient)
    splits = _optional(table, columns.split) if split is None else [split] * len(table)
    indices = _optional(table, "slice_index")
    sessions, scans = (_names(table, name) for name in ("session_id", "scan_id"))
    covariates = covariate_rows(table, columns.taken)
    rows = []
    for number, (where, read) in enumerate(_readers(table, file, columns.image)):
        patient = None if patients[number] is None else str(patients[number])
        split = _split_name(splits[number], where)
        who = patient, split, indices[number], sessions[number], scans[number], covariates[number]
        rows.append(_Row(read, where, labels[number], *who))
    metadata = table.schema.metadata or {}
    order = json.loads(metadata.get(CLASS_ORDER.encode(), b"null"))
    return _Content(
        rows,
        synthetic=metadata.get(b"brainstage_synthetic") == b"true",
        class_order=None if order is None else tuple(map(str, order)),
        level_set=_stated_levels(table.schema, file),
    )


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
    return _stated_levels(_read_parquet(file, columns=[]).schema, file)


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


def _read_parquet(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
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


def _labels(table: pa.Table, column: str) -> list[str | None]:
    """Return labels: the column's own text, or its numbers by the names in the file's schema."""
    values = table[column].to_pylist()
    known = _schema_names(table, column)
    labels: list[str | None] = []
    for value in values:
        if value is None or value != value or (isinstance(value, int) and value < 0):  # -1: no label, on the hub
            labels.append(None)
        elif known and isinstance(value, int) and value < len(known):
            labels.append(known[value])
        else:
            labels.append(str(value))
    return labels


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


def _names(table: pa.Table, name: str) -> list[str | None]:
    """Return a column's values as text."""
    return [None if value is None else str(value) for value in _optional(table, name)]


def _split_name(value: str | None, where: str) -> str | None:
    if value is None or value in SPLIT_FOLDERS:
        return value
    raise DataError(f"{where}: split {value!r} is not one of {', '.join(SPLIT_FOLDERS)}")


def _find_in_folder(folder: Path) -> _Content:
    """Return the images of ``folder/CLASS/`` or of ``folder/{train,test}/CLASS/``."""
    names = {child.name: child for child in sorted(folder.iterdir()) if child.is_dir()}
    splits: dict[str | None, Path] = {split: names[split] for split in SPLIT_FOLDERS if split in names}
    rows, files = [], []
    for split, base in (splits or {None: folder}).items():
        for class_folder in sorted(child for child in base.iterdir() if child.is_dir()):
            for file in sorted(class_folder.iterdir()):
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir():
                    source = file.relative_to(folder).as_posix()
                    rows.append(_Row(partial(read_slice, file), source, class_folder.name, split=split))
                    files.append(file)
    return _Content(rows, files=files)


def _csv_rows(file: Path, columns: Columns) -> Iterator[_Row]:
    root = file.parent.resolve()
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            require_columns(reader.fieldnames or (), (columns.path, columns.label, *columns.chosen), str(file))
            records = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not readable as a CSV file in UTF-8 ({error})") from error
    for line, record in enumerate(records, start=2):
        where = f"{file.name} line {line}"
        if None in record:
            raise DataError(f"{where}: has more cells than the header; put cells that hold commas in quotes")
        image = (root / (record[columns.path] or "")).resolve()
        if not image.is_relative_to(root):
            raise DataError(
                f"{where}: {record[columns.path]} lies outside {root}; give paths below the CSV's folder"
            )
        yield _Row(
            read=partial(read_slice, image),
            source=f"{where} ({record[columns.path]})",
            label=record[columns.label] or None,
            patient=record.get(columns.patient) or None,
            session=record.get("session_id") or None,
            split=_split_name(record.get(columns.split) or None, where),
            covariates={name: cell for name, cell in record.items() if name not in columns.taken},
        )


def _classes(rows: Sequence[_Row], columns: Columns, path: Path) -> tuple[tuple[str, ...], bool]:
    """Return the class names, and whether they stand in clinical order; where not, the order is alphabetical."""
    source_of = {row.label: row.source for row in reversed(rows) if row.label is not None}
    labels = sorted(source_of)
    allowed = columns.class_order or _expected_stages(labels)
    for label in labels:
        if allowed and label not in allowed:
            raise DataError(
                f"{path}: {source_of[label]} has the label {label!r}, expected one of {', '.join(allowed)}"
                f"{did_you_mean(label, list(allowed))}; map names with --class-name FOUND=NAME"
                + ("" if columns.class_order else ", or list all classes with --class-order")
            )
    if columns.class_order:
        return columns.class_order, True
    _refuse_two_spellings(labels, source_of, path)
    order = recognised_order(labels, columns.label)
    return order or tuple(labels), order is not None


def _expected_stages(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that are allowed, so that a misspelt stage is an error and not one class more.

    Once one label is a stage of the public dataset, or two are in other spellings, all must be.
    """
    stages = [label for label in labels if is_dementia_stage(label)]
    if set(labels) & set(STAGES):
        return tuple(dict.fromkeys([*STAGES, *stages]))
    return tuple(stages) if len(stages) > 1 else ()


def _refuse_two_spellings(labels: Sequence[str], source_of: Mapping[str, str], path: Path) -> None:
    """Raise :class:`DataError` where two labels are one known stage in two spellings."""
    first: dict[str, str] = {}
    for label in labels:
        other = first.setdefault(stage_key(label), label)
        if other != label and recognised_order([label]):
            raise DataError(
                f"{path}: the labels {other!r} ({source_of[other]}) and {label!r} ({source_of[label]}) are two "
                f"spellings of one stage; make them one with --class-name {label!r}={other!r}"
            )


def _decode(rows: Sequence[_Row], progress: Progress) -> tuple[list[Picture | None], list[str]]:
    """Decode all rows. Unreadable ones become None and a sentence."""
    readers = [row.read for row in rows]
    chunks = [readers[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with progress("Reading slices", len(rows)) as advance:
        parts = parallel_map(read_chunk, chunks, done=lambda outcomes: advance(len(outcomes)))
    outcomes = list(chain.from_iterable(parts))
    unreadable = [outcome for outcome in outcomes if isinstance(outcome, str)]
    pictures = [None if isinstance(outcome, str) else outcome for outcome in outcomes]
    return pictures, unreadable
