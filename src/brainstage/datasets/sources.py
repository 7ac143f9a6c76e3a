"""From a place (hub, folder, parquet, CSV) to a slice table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from brainstage.core.cache import limit_bytes, new_folder, use
from brainstage.core.columns import map_values
from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError
from brainstage.core.files import sha256
from brainstage.core.hub import cache_root
from brainstage.core.parallel import parallel_map, parallel_stream
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import STAGES, is_dementia_stage, recognised_order, stage_key
from brainstage.datasets.covariates import typed
from brainstage.datasets.images import CHUNK, Reader, read_chunk
from brainstage.datasets.layouts import LISTED, Columns, SourceContent, hub_files, read_content
from brainstage.datasets.patient_map import with_patients
from brainstage.datasets.public import cache_folder
from brainstage.datasets.skipped import skipped_files
from brainstage.datasets.stored import PIXELS, PixelWriter, open_slices, store_slices
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable, slice_id

LARGE_BYTES = 128e6
"""Size of a source's files from which on its decoded slices are kept in a file: some 30,000 slices, 500 MB."""
LIMIT_GB = 50.0
"""Size of the decoded slices in the cache above which those of the least recently used source are removed; the
environment variable ``BRAINSTAGE_SLICES_GB`` changes it."""
VERSION = 2
"""Version of what is kept in the cache, incremented when it changes."""


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
    """Read every slice of a source: into memory, or of a large source into a file that is mapped into memory.

    A source is a folder in the hub's layout (``data/train-*.parquet``, ``data/test-*.parquet``), a folder of
    class folders with JPEG or PNG files (also below ``train`` and ``test``), one parquet file, or a CSV file. Files
    of a folder that are none of these are counted and named in the table's ``skipped``.

    The decoded slices of a source whose files have more than :data:`LARGE_BYTES` are kept in the cache, by the
    paths and the SHA-256 of these files, and not decoded again.

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
        RunError: The cache cannot be written.
    """
    path = default_source() if source is None else Path(source)
    columns = columns or Columns()
    content = read_content(path, columns)
    skipped = skipped_files(path, content.files) if path.is_dir() else ()
    if not len(content.rows):
        raise DataError(". ".join([f"{path}: no slices found; give a folder or file with slices", *skipped]))
    if sum(file.stat().st_size for file in content.files if file.is_file()) <= LARGE_BYTES:
        slices = _decode(content, columns, path, progress, PixelWriter())
    else:
        slices = _decode_once(content, columns, path, progress)
    if len(slices.unreadable) > max_unreadable * len(content.rows):
        raise DataError(
            f"{path}: {len(slices.unreadable)} of {len(content.rows)} slices cannot be read, more than the allowed "
            f"{max_unreadable:.0%}; mend or remove them, or raise "
            f"--max-unreadable; the first: {slices.unreadable[0]}"
        )
    _check_index(slices, path)
    return with_patients(replace(slices, skipped=skipped), patients)


def slices_folder() -> Path:
    """Return the folder of the decoded slices of large sources."""
    return cache_root() / "slices"


def _decode_once(content: SourceContent, columns: Columns, path: Path, progress: Progress) -> SliceTable:
    """Return the slices of a large source from the cache, where they are put the first time."""
    about = {**asdict(columns), "path": str(path.absolute()), "version": VERSION}
    files = [file for file in content.files if file.is_file()]
    hashes = zip((str(file.absolute()) for file in files), parallel_map(sha256, files), strict=True)
    key = hashlib.sha256(json.dumps([about, *hashes]).encode()).hexdigest()[:32]
    folder = slices_folder() / key
    if not folder.is_dir():
        with new_folder(folder) as part:
            pixels = PixelWriter(part / PIXELS)
            store_slices(_decode(content, columns, path, progress, pixels), part)
    use(folder, limit_bytes("BRAINSTAGE_SLICES_GB", LIMIT_GB))
    return open_slices(folder)


def _decode(
    content: SourceContent,
    columns: Columns,
    path: Path,
    progress: Progress,
    pixels: PixelWriter,
) -> SliceTable:
    """Decode every slice of a source.

    Args:
        content, columns, path, progress: As :func:`load_slices` has them.
        pixels: Takes the slices.
    """
    if columns.class_order is None and not columns.class_names:
        columns = replace(columns, class_order=content.class_order)
    rows = _with_class_names(content.rows, columns.class_names, path)
    classes, ordered = _classes(rows, columns, path)
    slice_ids: list[str] = []
    modes: list[str] = []
    kept: list[int] = []
    unreadable: list[str] = []
    with progress("Reading slices", len(rows)) as advance:
        for outcomes in parallel_stream(read_chunk, _chunks(content.readers())):
            for row, outcome in enumerate(outcomes, len(kept) + len(unreadable)):
                if isinstance(outcome, str):
                    unreadable.append(outcome)
                    continue
                pixels.add(outcome.pixels)
                slice_ids.append(slice_id(outcome.pixels))
                modes.append(outcome.mode)
                kept.append(row)
            advance(len(outcomes))
    return SliceTable(
        _table(rows.take(pa.array(kept, pa.int64())) if unreadable else rows, slice_ids, modes),
        pixels.finish(),
        classes,
        tuple(unreadable),
        content.synthetic,
        ordered=ordered,
        stated_levels=content.level_set,
    )


def _chunks(readers: Iterator[Reader]) -> Iterator[list[Reader]]:
    while chunk := list(islice(readers, CHUNK)):
        yield chunk


def _table(rows: pa.Table, slice_ids: Sequence[str], modes: Sequence[str]) -> pa.Table:
    """Return the rows of a slice table, with its covariates as numbers where they are numbers."""
    columns = {name: rows[name] for name in LISTED.names} | {"slice_id": slice_ids, "mode": modes}
    columns["patient_id_source"] = pc.if_else(pc.is_valid(rows["patient_id"]), "given", "unknown")
    table = pa.table({name: columns[name] for name in SLICE_SCHEMA.names}, schema=SLICE_SCHEMA)
    covariates = typed(rows.drop_columns(LISTED.names))
    for name in covariates.column_names:
        table = table.append_column(name, covariates[name])
    return table


def _check_index(slices: SliceTable, path: Path) -> None:
    """Refuse a slice whose index is none of the levels that its file states."""
    for row, level in enumerate(slices.levels):
        if level is not None and not 0 <= level < slices.level_set.count:
            raise DataError(
                f"{path}: {slices.rows['source'][row]} has the slice_index {level}, expected 0 to "
                f"{slices.level_set.count - 1}, since the file states the levels {slices.level_set.name}"
            )


def _with_class_names(rows: pa.Table, names: Mapping[str, str], path: Path) -> pa.Table:
    """Replace the labels found in the data by their class names.

    Raises:
        DataError: A label that has a name is not in the data.
    """
    if not names:
        return rows
    labels = sorted(rows["label"].drop_null().unique().to_pylist())
    for label in names:
        if label not in labels:
            raise DataError(
                f"{path}: --class-name {label}={names[label]} names a label that no slice has; the labels are "
                + ", ".join(labels)
            )
    renamed = map_values(rows["label"], lambda label: names.get(label, label), pa.string())
    return rows.set_column(rows.column_names.index("label"), "label", renamed)


def _classes(rows: pa.Table, columns: Columns, path: Path) -> tuple[tuple[str, ...], bool]:
    """Return the class names, and whether they stand in clinical order; where not, the order is alphabetical."""
    source_of = _first_sources(rows)
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


def _first_sources(rows: pa.Table) -> dict[str, str]:
    """Return where the first slice of each label came from."""
    labelled = rows.select(["label", "source"]).filter(pc.is_valid(rows["label"]))
    first = labelled.group_by("label", use_threads=False).aggregate([("source", "first")])
    return dict(zip(first["label"].to_pylist(), first["source_first"].to_pylist(), strict=True))
