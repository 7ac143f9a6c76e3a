"""The scans of a source and what is known of their people: a BIDS dataset, a folder tree, or a table of paths."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from brainstage.cohorts.ledger import Status
from brainstage.cohorts.participants import (
    LABEL_COLUMNS,
    SESSION_COLUMN,
    SPLIT_COLUMN,
    Participants,
    person_column,
    plain_id,
    read_participants,
    read_table,
    without_zeros,
)
from brainstage.cohorts.phantom import GENERATOR
from brainstage.core.errors import DataError
from brainstage.core.schema import recognised_order, require_columns
from brainstage.datasets.skipped import SPLIT_FOLDERS
from brainstage.scans.dicom import patient_and_study
from brainstage.scans.discover import Scan, find_scans

TABLE_SUFFIXES = (".csv", ".tsv")
DESCRIPTION = "dataset_description.json"
"""What a BIDS dataset says of itself."""
BIDS_SCANS = ("sub-*/anat/*_T1w.nii*", "sub-*/ses-*/anat/*_T1w.nii*")
"""Where a BIDS dataset has its T1-weighted scans (https://bids-specification.readthedocs.io, 1.9)."""
NIFTI_SUFFIXES = (".nii.gz", ".nii")
HASH_LENGTH = 12
"""Hexadecimal digits of a salted hash: among 100,000 people two are alike with a chance of 0.00002."""


@dataclass(frozen=True)
class CohortScan:
    """A scan of a person, before it is read.

    Attributes:
        scan_id: Name of the scan; letters, digits, ``-`` and ``_`` alone, so that it can name a file.
        participant_id: The person; of DICOM files a salted hash.
        session_id: The session; None where the source tells none apart.
        scan: Reads it; None where there is nothing to read.
        label: Class name; None where it is not known.
        split: Side of the cohort, ``train`` or ``test``, where the table of participants has one.
        covariates: What else is known of the person at this session.
        problem: Why it is not tried, or what is not known of it; None where all is well.
        untried: Status of a scan that is not tried.
    """

    scan_id: str
    participant_id: str
    session_id: str | None = None
    scan: Scan | None = None
    label: str | None = None
    split: str | None = None
    covariates: Mapping[str, str | None] = field(default_factory=dict)
    problem: str | None = None
    untried: Status = "failed"


@dataclass(frozen=True)
class CohortSource:
    """What a source holds.

    Attributes:
        scans: In the order of their names.
        label_column: Column with the label; None where no table has one.
        covariates: Names of the columns that come along.
        notes: What was passed over, a sentence each.
        synthetic: Whether it is the phantom cohort.
    """

    scans: list[CohortScan]
    label_column: str | None = None
    covariates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    synthetic: bool = False


@dataclass(frozen=True)
class _Located:
    """A scan and whose it is."""

    participant_id: str
    session_id: str | None
    scan: Scan | None
    problem: str | None = None
    label: str | None = None
    original_id: str | None = None
    """The patient's id in DICOM files, by which a table of participants may name the person; never written."""

    @property
    def session(self) -> tuple[str, str]:
        """The person and the session, to sort by."""
        return self.participant_id, self.session_id or ""

    @property
    def name(self) -> str:
        """Where the scan lies, for messages on the terminal."""
        return self.scan.name if self.scan else self.participant_id


def find_cohort(
    source: Path,
    *,
    salt: bytes,
    participants: Path | None = None,
    label_column: str | None = None,
    covariates: Sequence[str] | None = None,
    all_runs: bool = False,
) -> CohortSource:
    """Find the scans of a source and what is known of their people.

    Args:
        source: A BIDS dataset; a folder with NIfTI or DICOM files in any depth, where a person is a folder below it
            or a file in it (below folders that are named like stages, if there are such); or a CSV or TSV file with
            the columns ``path`` (below its folder), ``participant_id`` and a label.
        salt: Bytes that are hashed together with ids of DICOM files, so that nobody can try ids out.
        participants: Table of people (:func:`brainstage.cohorts.participants.read_participants`); None takes the
            ``participants.tsv`` of a BIDS dataset, or the table of paths itself.
        label_column: Column with the label; None takes the usual names.
        covariates: Columns that come along; None takes age, sex and site where they exist.
        all_runs: Take all scans of a session; else one, and name the others in the notes.

    Raises:
        DataError: The source or a table is missing, empty or not of the expected form.
    """
    known = read_participants(participants, label_column, covariates) if participants else None
    if source.is_dir():
        if _is_bids(source):
            own = source / "participants.tsv"
            if known is None:
                known = read_participants(own, label_column, covariates) if own.is_file() else Participants()
            known = known.with_sessions(_session_tables(source))
            located = _of_bids(source)
        else:
            located = _of_tree(source, salt, class_folders=known is None)
    elif source.suffix.lower() in TABLE_SUFFIXES:
        known = known or read_participants(source, label_column, covariates)
        located = _of_table(source)
    else:
        missing = "" if source.exists() else "no such file or folder; "
        raise DataError(f"{source}: {missing}expected a folder of scans, or a CSV or TSV file with a column path")
    known = known or Participants()
    chosen, notes = (located, []) if all_runs else _one_a_session(located)
    scans = [*_described(chosen, known), *_without_scan(located, known, salt)]
    if known.rows and not any(one.label for one in scans):
        notes.append(_without_label(known))
    notes += _alike({one.participant_id for one in located} | known.people)
    ordered = sorted(scans, key=attrgetter("scan_id"))
    return CohortSource(ordered, known.label_column, known.covariates, tuple(notes), _is_phantom(source))


# --- three kinds of sources -------------------------------------------------------------------------------------


def _is_bids(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file() or any(folder.glob("sub-*"))


def _is_phantom(source: Path) -> bool:
    """Return whether a dataset says that :mod:`brainstage.cohorts.phantom` made it."""
    try:
        about = json.loads((source / DESCRIPTION).read_text(encoding="utf-8"))
        return any(made["Name"] == GENERATOR for made in about["GeneratedBy"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _session_tables(folder: Path) -> list[tuple[str, Path]]:
    files = sorted(folder.glob("sub-*/sub-*_sessions.tsv"))
    return [(file.parent.name.removeprefix("sub-"), file) for file in files]


def _of_bids(folder: Path) -> list[_Located]:
    files = sorted(file for pattern in BIDS_SCANS for file in folder.glob(pattern))
    files = [file for file in files if file.name.endswith(NIFTI_SUFFIXES)]
    if not files:
        raise DataError(
            f"{folder}: a BIDS dataset without a file sub-*/[ses-*/]anat/*_T1w.nii[.gz]"
            "; give a dataset with such files"
        )
    places = [file.relative_to(folder) for file in files]
    return [
        _Located(_entity(place, "sub") or "", _entity(place, "ses"), *_scan_of(file))
        for place, file in zip(places, files, strict=True)
    ]


def _of_tree(folder: Path, salt: bytes, *, class_folders: bool) -> list[_Located]:
    """Return the volumes of a folder; ``class_folders`` says whether folders may name the label."""
    scans = [scan for scan in find_scans(folder) if scan.volume]
    if not scans:
        raise DataError(f"{folder}: no NIfTI or DICOM volume found; give the folder that holds them")
    places = [Path(scan.files[0]).relative_to(folder).parts for scan in scans]
    by_class = class_folders and min(map(len, places)) > 1 and recognised_order({parts[0] for parts in places})
    located = []
    for scan, parts in zip(scans, places, strict=True):
        label, below = (parts[0], parts[1:]) if by_class else (None, parts)
        ids = patient_and_study(Path(scan.files[0]))
        if ids:
            patient, study = ids
            person, session = _hashed(salt, patient or below[0]), _hashed(salt, study) if study else None
            located.append(_Located(person, session, scan, label=label, original_id=patient))
        else:
            person = _entity(Path(*below), "sub") or nifti_stem(below[0])
            session = _entity(Path(*below), "ses") or "-".join(below[1:-1]) or None
            located.append(_Located(person, session, scan, label=label))
    return located


def _of_table(file: Path) -> list[_Located]:
    columns, records = read_table(file)
    require_columns(columns, ("path",), str(file))
    person, root = person_column(columns, file), file.parent.resolve()
    located = []
    for line, record in records:
        path = (root / (record["path"] or "")).resolve()
        if record["path"] is None or not path.is_relative_to(root):
            raise DataError(
                f"{file} line {line}: {record['path'] or 'no path'} is no path below {root}; put the table above "
                "the scans that it names"
            )
        ids = plain_id(record[person], "sub") or "", plain_id(record.get(SESSION_COLUMN), "ses")
        located.append(_Located(*ids, *_scan_of(path)))
    return located


def _scan_of(path: Path) -> tuple[Scan | None, str | None]:
    """Return the volume of a file, or of a folder with a DICOM series; else why there is none, without its path."""
    if not path.exists():
        return None, "no such file"
    try:
        scans = find_scans(path)
    except DataError:
        return None, "no NIfTI file and no DICOM series"
    volumes = [scan for scan in scans if scan.volume] or scans  # reading what is no volume raises what is wrong
    if len(volumes) > 1:
        return None, f"holds {len(volumes)} series; name the folder or the file of one of them"
    return volumes[0], None


# --- whose they are, and what is known --------------------------------------------------------------------------


def _one_a_session(located: list[_Located]) -> tuple[list[_Located], list[str]]:
    """Return one scan of each session, and a sentence for each session of several: the others are passed over.

    Of DICOM series that with the most images is taken, for localizers are short; of files the first by name.
    """
    chosen, notes = [], []
    for _, members in groupby(sorted(located, key=attrgetter("session", "name")), key=attrgetter("session")):
        first, *others = sorted(members, key=lambda one: -len(one.scan.files) if one.scan else 0)
        chosen.append(first)
        if others:
            names = ", ".join(one.name for one in others)
            notes.append(f"{first.name}: taken of {len(others) + 1} scans of its session; passed over: {names}")
    return chosen, notes


def _alike(people: Iterable[str]) -> list[str]:
    """Return a sentence for people whose ids differ by zeros alone."""
    groups = groupby(sorted(people, key=lambda one: (without_zeros(one), one)), key=without_zeros)
    alike = [", ".join(names) for _, names in groups]
    return [f"{names}: these ids differ by zeros alone; is it one person?" for names in alike if ", " in names]


def _without_label(known: Participants) -> str:
    """Return a sentence for a table none of whose columns is a label."""
    columns = ", ".join(next(iter(known.rows.values())))
    if known.label_column:
        return f"{known.file}: column {known.label_column} is empty for every scan, so none has a label"
    return (
        f"{known.file}: none of its columns ({columns}) is called {', '.join(LABEL_COLUMNS)}, so no scan has a "
        "label; name the column with --label-column"
    )


def _described(located: list[_Located], known: Participants) -> Iterator[CohortScan]:
    """Yield the scans with their names and what is known of them."""
    for _, members in groupby(sorted(located, key=attrgetter("session", "name")), key=attrgetter("session")):
        of_session = list(members)
        for number, one in enumerate(of_session, 1):
            run = f"_run-{number}" if len(of_session) > 1 else ""
            yield _with_cells(one, _scan_id(one.participant_id, one.session_id) + run, known)


def _with_cells(one: _Located, scan_id: str, known: Participants) -> CohortScan:
    """Return a scan with the cells of its person; what is missing there is its problem."""
    asked = one.original_id or one.participant_id
    cells = known.cells(asked, one.session_id) or {}
    label = one.label or (cells.get(known.label_column) if known.label_column else None)
    problem = one.problem
    if problem is None and known.rows and not cells:
        similar = known.similar(asked) if one.original_id is None else None
        problem = f"no row of {known.file} describes the person" + (
            f"; {similar} differs by zeros alone: name the person alike in both" if similar else ""
        )
    elif problem is None and label is None:
        problem = f"no label in column {known.label_column} of {known.file}" if known.label_column else "no label"
    split = cells.get(SPLIT_COLUMN)
    if split not in (None, *SPLIT_FOLDERS):
        raise DataError(
            f"{known.file}: {asked} has the split {split!r}, expected one of {', '.join(SPLIT_FOLDERS)}"
        )
    covariates = {name: cells.get(name) for name in known.covariates}
    return CohortScan(scan_id, one.participant_id, one.session_id, one.scan, label, split, covariates, problem)


def _without_scan(located: list[_Located], known: Participants, salt: bytes) -> Iterator[CohortScan]:
    """Yield a row for each person and session of the table that the source has no scan of."""
    hashed = any(one.original_id for one in located)
    there = {
        (one.original_id or one.participant_id, session) for one in located for session in (one.session_id, None)
    }
    for participant_id, session_id in known.rows:
        if (participant_id, session_id) not in there:
            person = _hashed(salt, participant_id) if hashed else participant_id
            yield CohortScan(
                _scan_id(person, session_id), person, session_id, problem=f"no scan, but a row of {known.file}"
            )


def _entity(path: Path, name: str) -> str | None:
    """Return the value of an entity of BIDS, as ``sub-01``, in a path below the source; None where it has none.

    BIDS allows letters and digits alone, but people are told apart by more, as in ``sub-01-A`` or
    ``sub-002_S_0295``: a folder's name goes up to the next entity, a file's, where no folder has one, up to ``_``.
    """
    for part in reversed(path.parts[:-1]):
        if found := re.search(rf"(?:^|_){name}-(.+?)(?=_[A-Za-z0-9]+-|$)", part):
            return found[1]
    found = re.search(rf"(?:^|_){name}-([^_]+)", nifti_stem(path.name))
    return found[1] if found else None


def nifti_stem(name: str) -> str:
    """Return the name of a NIfTI file without its ending; other names as they are."""
    for suffix in NIFTI_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _scan_id(participant_id: str, session_id: str | None) -> str:
    return f"sub-{safe_name(participant_id)}" + (f"_ses-{safe_name(session_id)}" if session_id else "")


def safe_name(name: str) -> str:
    """Return a name that can be part of a file's; names that had to be changed keep apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9-]", "-", name)[:60]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _hashed(salt: bytes, name: str) -> str:
    return hashlib.sha256(salt + name.encode()).hexdigest()[:HASH_LENGTH]
