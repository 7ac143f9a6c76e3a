"""A BIDS dataset as a BIDS App takes it: checked, and limited to the people and sessions that are asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage.cohorts.participants import plain_id
from brainstage.cohorts.sources import BIDS_SCANS, DESCRIPTION, CohortScan, CohortSource, find_cohort
from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError, InvalidDatasetError, MissingInputError, NothingSelectedError

REQUIRED_KEYS = ("Name", "BIDSVersion")
"""What a description must say (https://bids-specification.readthedocs.io, 1.9)."""


@dataclass(frozen=True)
class BidsDataset:
    """A BIDS dataset with T1-weighted scans.

    Attributes:
        folder: Where it lies.
        description: Its ``dataset_description.json``.
        source: All scans of the dataset, and what is known of their people.
        selected: The scans of the participants and sessions that were asked for.
    """

    folder: Path
    description: dict[str, Any]
    source: CohortSource
    selected: list[CohortScan]

    @property
    def has_sessions(self) -> bool:
        """Whether it tells sessions apart."""
        return any(scan.session_id for scan in self.source.scans)


def open_bids(
    folder: Path | str,
    participants: Collection[str] = (),
    sessions: Collection[str] = (),
    label_column: str | None = None,
) -> BidsDataset:
    """Check a BIDS dataset and find its T1-weighted scans, one for each participant and session.

    Args:
        folder: The dataset.
        participants: Those who are asked for, with or without ``sub-``; empty for all.
        sessions: Those that are asked for, with or without ``ses-``; empty for all. Scans without a session are
            always selected, as the BIDS execution specification has it.
        label_column: Column of ``participants.tsv`` with the label; None takes the usual names.

    Raises:
        MissingInputError: There is no such folder, or no T1-weighted scan in it.
        InvalidDatasetError: The folder is no BIDS dataset, or a table of it cannot be used.
        NothingSelectedError: A participant or session that is asked for is not in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingInputError(f"{folder}: no such folder; give the folder of a BIDS dataset")
    description = _read_description(folder / DESCRIPTION)
    if not any(next(folder.glob(pattern), None) for pattern in BIDS_SCANS):
        raise MissingInputError(
            f"{folder}: holds no T1-weighted scan sub-*/[ses-*/]anat/*_T1w.nii[.gz]"
            "; give the folder that has the folders sub-*"
        )
    try:
        source = find_cohort(folder, salt=b"", label_column=label_column)  # nothing is hashed in a BIDS dataset
    except DataError as error:
        raise InvalidDatasetError(str(error)) from error
    return BidsDataset(folder, description, source, _selected(source.scans, participants, sessions))


def _read_description(file: Path) -> dict[str, Any]:
    """Return what a dataset says of itself.

    Raises:
        InvalidDatasetError: There is no such file, or it lacks what BIDS requires.
    """
    example = '{"Name": "my dataset", "BIDSVersion": "1.9.0"}'
    try:
        description = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InvalidDatasetError(f"{file}: missing, so this is no BIDS dataset; make it: {example}") from error
    except (OSError, ValueError) as error:
        raise InvalidDatasetError(f"{file}: not readable as JSON ({error}); correct it") from error
    missing = [key for key in REQUIRED_KEYS if not (isinstance(description, dict) and description.get(key))]
    if missing:
        raise InvalidDatasetError(f"{file}: lacks {' and '.join(missing)}; it needs at least {example}")
    return dict(description)


def _selected(
    scans: Sequence[CohortScan], participants: Collection[str], sessions: Collection[str]
) -> list[CohortScan]:
    people = _known(participants, {scan.participant_id for scan in scans}, "sub")
    visits = _known(sessions, {scan.session_id for scan in scans if scan.session_id}, "ses")
    selected = [
        scan
        for scan in scans
        if (not people or scan.participant_id in people)
        and (not visits or scan.session_id is None or scan.session_id in visits)
    ]
    if not selected:
        raise NothingSelectedError(
            "the participants asked for have none of the sessions asked for; name other sessions, or none for all"
        )
    return selected


def _known(asked: Collection[str], there: Collection[str], entity: str) -> set[str]:
    """Return labels without their prefix.

    Raises:
        NothingSelectedError: The dataset has no such participant or session.
    """
    labels = {plain_id(label, entity) or "" for label in asked}
    for label in sorted(labels.difference(there)):
        raise NothingSelectedError(f"{entity}-{label} is not in the dataset{did_you_mean(label, sorted(there))}")
    return labels
