"""From the parts of a cohort's scans to its ledger, its slices and what it says of itself."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.cohorts.folder import VERSION, CohortFolder
from brainstage.cohorts.ledger import LEDGER_SCHEMA, Measured
from brainstage.cohorts.scan import read_part
from brainstage.cohorts.sources import CohortScan, CohortSource
from brainstage.core.errors import DataError
from brainstage.core.files import atomic, make_folder, write_json, write_table
from brainstage.core.levels import LEVELS_KEY, PUBLIC, LevelSet
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import CLASS_ORDER, RESEARCH_NOTICE, SYNTHETIC_NOTICE
from brainstage.datasets.covariates import typed_columns

SCANS_A_SHARD = 200
"""Scans of a parquet file; about 40 MB."""


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort.

    Attributes:
        folder: Where it lies.
        ledger: One row a scan.
        classes: Class names; from the least to the most severe stage where ``ordered``.
        ordered: Whether their order is known.
        notes: What was passed over, a sentence each; they name files, so they are written nowhere.
        synthetic: Whether it was made from the phantom cohort.
        level_set: The levels that its scans were cut at.
    """

    folder: Path
    ledger: pa.Table
    classes: tuple[str, ...]
    ordered: bool
    notes: tuple[str, ...]
    synthetic: bool = False
    level_set: LevelSet = PUBLIC

    @property
    def counts(self) -> list[tuple[str | None, int, int]]:
        """Each class with its people and its prepared scans; last those without a label, if any."""
        prepared = [row for row in self.ledger.to_pylist() if row["status"] == "prepared"]
        people = {(row["participant_id"], row["label"]) for row in prepared}
        scans = Counter(row["label"] for row in prepared)
        labels = (*self.classes, None) if scans[None] else self.classes
        return [(label, sum(own == label for _, own in people), scans[label]) for label in labels]

    @property
    def about(self) -> dict[str, Any]:
        """What the cohort is, for ``cohort.json``."""
        prepared = [row for row in self.ledger.to_pylist() if row["status"] == "prepared"]
        statuses = self.ledger["status"].to_pylist()
        return {
            "version": VERSION,
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.synthetic else None,
            "levels": self.level_set.name,
            "classes": list(self.classes),
            "ordered": self.ordered,
            "people": len({row["participant_id"] for row in prepared}),
            "scans": {status: statuses.count(status) for status in ("prepared", "refused", "failed")},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger and its counts for a JSON file."""
        return {**self.about, "ledger": self.ledger.to_pylist()}


def assemble(
    folder: CohortFolder,
    found: CohortSource,
    classes: tuple[str, ...],
    *,
    ordered: bool,
    level_set: LevelSet = PUBLIC,
    progress: Progress = silent,
) -> Cohort:
    """Write a cohort's ledger and slices from the parts of its scans.

    Args:
        folder: The cohort's folder, which the caller has claimed.
        found: The scans and what is known of their people; each scan that can be tried has its part.
        classes: Class names.
        ordered: Whether they stand in clinical order.
        level_set: The levels of the slices.
        progress: How to show progress.

    Raises:
        DataError: No scan is prepared.
        RunError: The folder is not writable, or the disk is full.
    """
    measured = [_measured(folder, one) for one in found.scans]
    columns = typed_columns([scan.covariates for scan in found.scans], found.covariates)
    ledger = _ledger(found.scans, measured, columns, level_set)
    cohort = Cohort(folder.path, ledger, classes, ordered, found.notes, found.synthetic, level_set)
    write_table(folder.ledger, ledger)
    _write_slices(folder, found.scans, measured, columns, cohort, progress)
    write_json(folder.about, cohort.about)
    return cohort


def _write_slices(
    folder: CohortFolder,
    scans: Sequence[CohortScan],
    measured: Sequence[Measured],
    covariates: pa.Table,
    cohort: Cohort,
    progress: Progress,
) -> None:
    """Write the slices of the prepared scans in shards, one scan in memory at a time."""
    rows = [row for row, one in enumerate(measured) if one.status == "prepared"]
    if not rows:
        raise DataError(
            f"{folder.path}: none of {len(scans)} scans could be prepared; {folder.ledger.name} says why"
        )
    schema = _slice_schema(cohort, covariates.schema)
    new = folder.private / "data"
    shutil.rmtree(new, ignore_errors=True)
    make_folder(new)
    with progress("Writing slices", len(rows)) as advance:
        for side in ("train", "test"):
            of_side = [row for row in rows if (scans[row].split or "train") == side]
            shards = [of_side[start : start + SCANS_A_SHARD] for start in range(0, len(of_side), SCANS_A_SHARD)]
            for number, shard in enumerate(shards):
                file = new / f"{side}-{number:05d}-of-{len(shards):05d}.parquet"
                with atomic(file) as part, pq.ParquetWriter(part, schema) as writer:
                    for row in shard:
                        table = _slices(folder, scans[row], covariates.slice(row, 1), cohort.classes, schema)
                        writer.write_table(table)
                        advance(1)
    shutil.rmtree(folder.data, ignore_errors=True)
    new.rename(folder.data)


def _measured(folder: CohortFolder, one: CohortScan) -> Measured:
    """Return what became of a scan; what is not known of one that was prepared joins as its reason."""
    done = read_part(folder.part(one.scan_id)) if one.scan else None
    if done is None:
        return Measured(one.untried, one.problem)
    return done[1] if done[1].reason else replace(done[1], reason=one.problem)


def _ledger(
    scans: Sequence[CohortScan], measured: Sequence[Measured], covariates: pa.Table, level_set: LevelSet
) -> pa.Table:
    names = ("scan_id", "participant_id", "session_id", "label")
    rows = [
        {**{name: getattr(one, name) for name in names}, **asdict(result)}
        for one, result in zip(scans, measured, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)
    for name in covariates.column_names:
        table = table.append_column(name, covariates[name])
    return table.replace_schema_metadata({LEVELS_KEY: level_set.name})


def _slice_schema(cohort: Cohort, covariates: pa.Schema) -> pa.Schema:
    """Return the columns of the slices, with the features that the library ``datasets`` reads."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = ("patient_id", "session_id", "scan_id")
    fields = [
        ("image", image),
        ("label", pa.int64()),
        *((name, pa.string()) for name in text),
        ("slice_index", pa.int32()),
        *((name, covariates.field(name).type) for name in covariates.names),
    ]
    features: dict[str, Any] = {
        name: {"dtype": "float64" if kind == pa.float64() else str(kind), "_type": "Value"} for name, kind in fields
    }
    features |= {"image": {"_type": "Image"}, "label": {"names": list(cohort.classes), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), LEVELS_KEY: cohort.level_set.name}
    if cohort.ordered:
        metadata[CLASS_ORDER] = json.dumps(list(cohort.classes))
    if cohort.synthetic:
        metadata["brainstage_synthetic"] = "true"
    return pa.schema(fields, metadata=metadata)


def _slices(
    folder: CohortFolder, one: CohortScan, covariates: pa.Table, classes: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """Return the rows of one scan's slices."""
    part = pq.read_table(folder.part(one.scan_id))
    label = None if one.label is None else list(classes).index(one.label)
    always = {
        "label": label,
        "patient_id": one.participant_id,
        "session_id": one.session_id,
        "scan_id": one.scan_id,
    }
    rows = [
        {"image": {"bytes": image, "path": None}, "slice_index": level, **always, **covariates.to_pylist()[0]}
        for image, level in zip(part["image"].to_pylist(), part["slice_index"].to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=schema)
