"""The slice table: one row a slice, its pixels beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from brainstage.core.arrays import IntArray, Pixels
from brainstage.core.columns import to_shared_list
from brainstage.core.errors import DataError
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.schema import Value

SLICE_SCHEMA = pa.schema(
    [
        ("slice_id", pa.string()),  # SHA-256, hex, of the decoded 8-bit grey pixels, row by row
        ("label", pa.string()),  # class name, or null
        ("patient_id", pa.string()),  # or null
        ("patient_id_source", pa.string()),  # given, inferred, unknown
        ("slice_index", pa.int32()),  # level within the patient, or null
        ("split", pa.string()),  # the slice's side in the source itself (train, test), or null
        ("mode", pa.string()),  # how the file stores the pixels: L, RGB, I;16 …
        ("source", pa.string()),  # where the slice came from, for messages
        ("session_id", pa.string()),  # of a person who was scanned several times, or null
        ("scan_id", pa.string()),  # or null
    ]
)


@dataclass(frozen=True)
class SliceTable(Displayed, Plotted, Tabular):
    """Slices in memory.

    Attributes:
        rows: Arrow table with the columns of :data:`SLICE_SCHEMA`, then those of the covariates: float64 or text.
        images: Grey values of each row, uint8 of shape (H, W); sizes may differ between rows.
        classes: Class names, from the least to the most severe stage.
        unreadable: One sentence for each row that was left out because it could not be read.
        synthetic: Whether the slices come from the phantom cohort.
        skipped: One sentence for each kind of files in the source's folder that are not read, with their number.
        ordered: Whether ``classes`` stand in clinical order. Where not, their names are not known and no order was
            given: nothing that depends on the order of three classes or more may be computed.
        stated_levels: The set of levels that the source states its slices to be cut at; None where it states none.
    """

    rows: pa.Table
    images: Sequence[Pixels]
    classes: tuple[str, ...]
    unreadable: tuple[str, ...] = field(default=())
    synthetic: bool = False
    skipped: tuple[str, ...] = ()
    ordered: bool = True
    stated_levels: LevelSet | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def slice_ids(self) -> list[str]:
        """SHA-256 of each slice's pixels."""
        ids: list[str] = self.rows["slice_id"].to_pylist()
        return ids

    @cached_property
    def labels(self) -> list[str | None]:
        """Class name of each slice, or None."""
        return to_shared_list(self.rows["label"])

    @cached_property
    def patients(self) -> list[str | None]:
        """Patient of each slice, or None."""
        return to_shared_list(self.rows["patient_id"])

    @cached_property
    def stacks(self) -> list[str | None]:
        """What each slice is predicted together with: its scan, else its person's session, else its person.

        Where people or sessions share a scan's name, such as ``v0``, theirs stands before it.
        """
        scan, patient = self.rows["scan_id"], self.rows["patient_id"]
        owner = pc.coalesce(pc.binary_join_element_wise(patient, self.rows["session_id"], " "), patient)
        owners = pa.table({"scan": scan, "owner": owner}).group_by("scan").aggregate([("owner", "count_distinct")])
        shared = owners.filter(pc.greater(owners["owner_count_distinct"], 1))["scan"]
        qualified = pc.coalesce(pc.binary_join_element_wise(owner, scan, " "), scan)
        return to_shared_list(pc.coalesce(pc.if_else(pc.is_in(scan, shared), qualified, scan), owner))

    @property
    def level_set(self) -> LevelSet:
        """The levels that the slices show: those stated, else those of the public dataset."""
        return self.stated_levels or PUBLIC

    @cached_property
    def levels(self) -> list[int | None]:
        """Level of each slice in the level set that the source states; None where it states none.

        The ``slice_index`` of other sources numbers the slices of a person, wherever they lie.
        """
        return to_shared_list(self.rows["slice_index"]) if self.stated_levels else [None] * len(self)

    @cached_property
    def covariates(self) -> dict[str, list[Value]]:
        """What else the source says of each slice's person, by column: age, sex, site, …; None where not known."""
        names = [name for name in self.rows.column_names if name not in SLICE_SCHEMA.names]
        return {name: to_shared_list(self.rows[name]) for name in names}

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over every slice and its label, whatever their order."""
        lines = sorted(f"{slice_id} {label}" for slice_id, label in zip(self.slice_ids, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row number of each slice id; of exact duplicates, the first."""
        numbers: dict[str, int] = {}
        for number, slice_id in enumerate(self.slice_ids):
            numbers.setdefault(slice_id, number)
        return numbers

    def targets(self, rows: Sequence[int]) -> IntArray:
        """Return the class numbers of some rows, int64 of shape (len(rows),).

        Raises:
            DataError: A row has no label.
        """
        number = {name: index for index, name in enumerate(self.classes)}
        try:
            return np.array([number[self.labels[row]] for row in rows], dtype=np.int64)  # type: ignore[index]
        except KeyError:
            raise DataError(
                "a slice without a label cannot be trained on or judged; leave it out or label it"
            ) from None

    @property
    def patient_source(self) -> str:
        """Where the patients come from: ``given``, ``inferred`` (also where some are), or ``unknown``."""
        sources = self.rows["patient_id_source"].unique().to_pylist()
        return next((source for source in ("inferred", "given") if source in sources), "unknown")

    def with_inferred(self, patients: Sequence[str | None], index: Sequence[int | None]) -> SliceTable:
        """Return the table with inferred patients where none is given, marked as such, in place of earlier ones.

        Args:
            patients: Patient of each row, None where it is not known.
            index: Level of each row within its patient, from 0; not used where the source states its levels.
        """
        changed = ("patient_id", "patient_id_source", "slice_index")
        who, sources, numbers = (to_shared_list(self.rows[name]) for name in changed)
        for row, (patient, number) in enumerate(zip(patients, index, strict=True)):
            if sources[row] == "inferred" or (sources[row] == "unknown" and patient is not None):
                who[row], sources[row] = patient, "unknown" if patient is None else "inferred"
                if not self.stated_levels:
                    numbers[row] = None if patient is None else number
        rows = self.rows
        for name, column in zip(changed, (who, sources, numbers), strict=True):
            field = SLICE_SCHEMA.field(name)
            rows = rows.set_column(rows.column_names.index(name), field, pa.array(column, field.type))
        return replace(self, rows=rows)

    def with_labels(self, labels: Sequence[str | None]) -> SliceTable:
        """Return the table with other labels."""
        column = self.rows.schema.get_field_index("label")
        return replace(self, rows=self.rows.set_column(column, "label", pa.array(labels, pa.string())))


def slice_id(pixels: Pixels) -> str:
    """Return the identity of a slice: the SHA-256, in hex, of its grey values, row by row."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()
