"""From a source of scans to a cohort folder, a scan at a time: what is finished stays, whatever happens."""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.cohorts.ledger import LEDGER_SCHEMA, Measured, Status
from brainstage.cohorts.scan import Slices, Task, prepare_scan, read_part, task_key, write_part
from brainstage.cohorts.sources import CohortScan, CohortSource, find_cohort
from brainstage.core.config import did_you_mean
from brainstage.core.errors import ConfigError, DataError, LeakageError, RunError
from brainstage.core.files import atomic, locked, make_folder, write_json, write_table
from brainstage.core.levels import LEVELS_KEY, PUBLIC, LevelSet
from brainstage.core.parallel import THIS_MACHINE, Workers, run_tasks
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import CLASS_ORDER, RESEARCH_NOTICE, SYNTHETIC_NOTICE, recognised_order
from brainstage.datasets.covariates import typed_columns
from brainstage.scans.extraction import Skull

VERSION = 1
"""Version of the cohort folder."""
SCANS_A_SHARD = 200
"""Scans of a parquet file; about 40 MB."""
DIED = "the process that worked on it was killed; too little memory?"


@dataclass(frozen=True)
class CohortFolder:
    """Paths of a cohort.

    ======================================= =========================================================
    ``data/train-00000-of-000NN.parquet``   the slices: image, label, person, session, scan, level, covariates
    ``scans.parquet``                       the ledger, a row a scan (:mod:`brainstage.cohorts.ledger`)
    ``cohort.json``                         levels, classes, counts
    ``qc.html``                             each scan's cuts to be checked by eye, written by the command line
    ``.prepare/``                           private: slices scan by scan, from which a stopped run goes on, and the
                                            salt of the hashes; not to be published, and safe to delete in the end
    ======================================= =========================================================
    """

    path: Path

    @property
    def data(self) -> Path:
        """The folder of the slices."""
        return self.path / "data"

    @property
    def ledger(self) -> Path:
        """The ledger."""
        return self.path / "scans.parquet"

    @property
    def about(self) -> Path:
        """What the cohort is."""
        return self.path / "cohort.json"

    @property
    def private(self) -> Path:
        """What a stopped run goes on from."""
        return self.path / ".prepare"

    def part(self, scan_id: str) -> Path:
        """Return the file of one scan's slices."""
        return self.private / "parts" / f"{scan_id}.parquet"

    @property
    def quality(self) -> Path:
        """The page by which people check scans."""
        return self.path / "qc.html"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder and lock it for this process.

        Raises:
            RunError: Another process prepares it, it is not writable, or it holds something else.
        """
        if (
            self.path.is_dir()
            and not self.about.exists()
            and not self.private.exists()
            and any(self.path.iterdir())
        ):
            raise RunError(f"{self.path}: holds other files; choose a new folder with --out")
        make_folder(self.private / "parts")
        with locked(self.path, "another process prepares this cohort; wait for it", f"{self.private.name}/.lock"):
            yield

    def salt(self) -> bytes:
        """Return the cohort's salt, made where there is none yet."""
        file = self.private / "salt"
        if not file.is_file():
            with atomic(file) as part:
                part.write_text(secrets.token_hex(32), encoding="ascii")
            file.chmod(0o600)
        return file.read_bytes()


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


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    participants: Path | None = None,
    label_column: str | None = None,
    covariates: Sequence[str] | None = None,
    class_order: tuple[str, ...] | None = None,
    level_set: LevelSet = PUBLIC,
    skull: Skull = "auto",
    all_runs: bool = False,
    exclude: Path | None = None,
    redo: Collection[Status] = (),
    workers: Workers = THIS_MACHINE,
    progress: Progress = silent,
) -> Cohort:
    """Prepare the scans of a source: read, strip, register and cut each, and write a cohort folder.

    A scan that cannot be used is a row of the ledger with its reason, and the others go on. A run that was stopped,
    by whatever, goes on where it was; of a finished one only what is new or changed is prepared. Labels and
    covariates are read anew each time.

    Args:
        source: As for :func:`brainstage.cohorts.sources.find_cohort`.
        out: The cohort's folder.
        participants: Table of people; None takes the source's own.
        label_column: Column with the label; None takes the usual names.
        covariates: Columns that come along; None takes age, sex and site where they exist.
        class_order: Class names from the least to the most severe stage; others are then unknown labels. None
            recognises the usual names.
        level_set: The levels to cut scans at; those of a folder never change.
        skull: ``strip`` takes the skull off, ``stripped`` says that none is there, ``auto`` looks.
        all_runs: Take all scans of a session; else one.
        exclude: File with names of scans to leave out, one a line.
        redo: Scans of these statuses are prepared again.
        workers: Where scans are prepared. Those of a cluster must see the source and ``out`` under the same paths.
        progress: How to show progress.

    Raises:
        DataError: The source or a table is not usable; no scan can be prepared.
        ConfigError: A file to exclude names an unknown scan.
        LeakageError: The table's ``split`` puts a person on both sides.
        RunError: The folder is in use, of another version or other levels, or not writable, or the disk is full.
    """
    folder = CohortFolder(workers.path(Path(out)))
    with folder.claim():
        _check_made(folder, level_set)
        found = find_cohort(
            workers.path(Path(source)),
            salt=folder.salt(),
            participants=participants,
            label_column=label_column,
            covariates=covariates,
            all_runs=all_runs,
        )
        found = replace(found, scans=_without_excluded(found.scans, exclude))
        found, classes, ordered = with_classes(found, class_order)
        _check_split(found.scans)
        _prepare_parts(folder, found.scans, skull, level_set, redo, workers, progress)
        return assemble(folder, found, classes, ordered=ordered, level_set=level_set, progress=progress)


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


def _check_made(folder: CohortFolder, level_set: LevelSet) -> None:
    """Refuse a finished cohort of another version or of other levels."""
    if not folder.about.exists():
        return
    try:
        about = json.loads(folder.about.read_text(encoding="utf-8"))
        version, levels = about["version"], about["levels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder.about}: not readable as a cohort ({error}); choose a new folder with --out"
        ) from error
    if version != VERSION:
        raise RunError(
            f"{folder.path}: a cohort of version {version}, this brainstage makes version {VERSION}; choose a new "
            "folder with --out"
        )
    if levels != level_set.name:
        raise RunError(
            f"{folder.path}: was prepared with --levels {levels}, not {level_set.name}; give the same levels, or "
            "choose a new folder with --out"
        )


# --- which scans ------------------------------------------------------------------------------------------------


def _without_excluded(scans: list[CohortScan], exclude: Path | None) -> list[CohortScan]:
    """Return the scans; those that a file names are not tried."""
    if exclude is None:
        return scans
    try:
        lines = [line.strip() for line in exclude.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{exclude}: cannot be read as text ({error}); save it as text in UTF-8") from error
    names = {line for line in lines if line and not line.startswith("#")}
    known = [one.scan_id for one in scans]
    for name in sorted(names.difference(known)):
        raise ConfigError(f"{exclude}: {name} is no scan of this source{did_you_mean(name, known)}")
    why = f"left out by {exclude.name}"
    return [
        replace(one, scan=None, problem=why, untried="refused") if one.scan_id in names else one for one in scans
    ]


def with_classes(source: CohortSource, order: tuple[str, ...] | None) -> tuple[CohortSource, tuple[str, ...], bool]:
    """Return the scans, the class names, and whether they stand in clinical order.

    Scans with a label that is none of the classes are not tried. Without an order these are the labels of which two
    or more are those of a usual staging, else all.
    """
    scans, column = source.scans, source.label_column
    found = sorted({one.label for one in scans if one.label is not None})
    known = [name for name in found if recognised_order([name], column or "")]
    usual = recognised_order(found, column or "") or (recognised_order(known) if len(known) > 1 else None)
    classes = order or usual or tuple(found)
    unknown = f"expected one of {', '.join(classes)}; correct it, or list all classes with --class-order"
    checked = [
        one
        if one.label is None or one.label in classes
        else replace(one, scan=None, label=None, problem=f"unknown label {one.label}, {unknown}")
        for one in scans
    ]
    notes = list(source.notes)
    if not (order or usual) and len(classes) > 1:
        notes.append(
            f"the order of the classes {', '.join(classes)} is not known, so they stand in that of the alphabet"
            "; give it from the least to the most severe with --class-order"
        )
    return replace(source, scans=checked, notes=tuple(notes)), classes, bool(order or usual)


def _check_split(scans: Sequence[CohortScan]) -> None:
    """Refuse a split that some scans lack, or that puts a person on both sides."""
    sides: dict[str, set[str | None]] = {}
    for one in scans:
        if one.scan:
            sides.setdefault(one.participant_id, set()).add(one.split)
    given = {side for found in sides.values() for side in found}
    for person, found in sides.items():
        if len(found - {None}) > 1:
            raise LeakageError(
                f"column split of the participants: {person} is on both sides; a person's sessions belong on one"
            )
        if None in found and len(given) > 1:
            raise DataError(
                f"column split of the participants: {person} has none; give one to everyone or to nobody"
            )


# --- scan by scan -----------------------------------------------------------------------------------------------


def _prepare_parts(
    folder: CohortFolder,
    scans: Sequence[CohortScan],
    skull: Skull,
    level_set: LevelSet,
    redo: Collection[Status],
    workers: Workers,
    progress: Progress,
) -> None:
    """Prepare the scans that have no part, or one of other files or settings."""
    tasks = []
    for one in scans:
        if one.scan:
            key = task_key(one.scan, skull, level_set)
            task = Task(one.scan, folder.part(one.scan_id), key, skull, level_set)
            done = read_part(task.part)
            if done is None or done[0] != task.key or done[1].status in redo:
                tasks.append(task)
    with progress("Preparing scans", len(tasks)) as advance:
        for task, measured in run_tasks(prepare_scan, tasks, workers):
            if measured is None:
                write_part(task, Slices(Measured("failed", DIED)))
            elif read_part(task.part) is None:
                raise RunError(
                    f"{task.part}: a worker wrote this file where this machine does not see it; give an --out that "
                    "all machines of the cluster share"
                )
            advance(1)


# --- the cohort folder ------------------------------------------------------------------------------------------


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
