"""Patient maps: which inferred person a slice belongs to, by the slice's hash."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.errors import DataError
from brainstage.core.schema import require_columns
from brainstage.datasets.table import SliceTable

MAP_COLUMNS = ("slice_id", "patient_id", "slice_index", "level", "confidence")


def with_patients(slices: SliceTable, file: Path | None = None) -> SliceTable:
    """Add inferred patients to the slices of which the data does not name the patient.

    Args:
        slices: The slice table.
        file: A table that ``brainstage audit`` wrote; None takes the map of the public dataset that is bundled with
            the package: of the slices of *Falah/Alzheimer_MRI*, by their hashes, and of no others.

    Raises:
        DataError: The file is not such a table, or holds none of the slices.
    """
    if file is None and slices.patient_source == "given" and None not in slices.patients:
        return slices
    known = _public_map() if file is None else _read(file)
    inferred = [known.get(slice_id, (None, None)) for slice_id in slices.slice_ids]
    if file is not None and not any(patient for patient, _ in inferred):
        raise DataError(f"{file}: holds none of these slices; give the table that was made for this data")
    patients, index = zip(*inferred, strict=True) if inferred else ((), ())
    return slices.with_inferred(patients, index)


def is_public(slice_id: str | None) -> bool:
    """Return whether a slice is of the public dataset."""
    return slice_id in _public_map()


@cache
def _public_map() -> dict[str | None, tuple[str | None, int | None]]:
    with as_file(files("brainstage.datasets").joinpath("maps/falah_alzheimer_mri.parquet")) as file:
        return _read(file)


def _read(file: Path) -> dict[str | None, tuple[str | None, int | None]]:
    try:
        table = pq.ParquetFile(file).read()  # read_table imports pandas, where that is installed
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{file}: not a readable parquet file ({str(error).splitlines()[0]})"
            "; make it again with `brainstage audit`"
        ) from error
    require_columns(table.column_names, ("slice_id", "patient_id", "slice_index"), str(file))
    rows = zip(*(table[name].to_pylist() for name in ("slice_id", "patient_id", "slice_index")), strict=True)
    return {slice_id: (patient, index) for slice_id, patient, index in rows}
