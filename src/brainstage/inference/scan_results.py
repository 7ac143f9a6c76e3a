"""One scan of a BIDS dataset to its derivatives and its prediction: what a process of a BIDS App does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from brainstage.cohorts.derivatives import (
    DerivativesFolder,
    has_derivatives,
    remove_derivatives,
    source_uri,
    write_derivatives,
)
from brainstage.cohorts.ledger import Measured
from brainstage.cohorts.scan import Task, make_slices, read_part, read_slices, task_key, write_part
from brainstage.cohorts.sources import CohortScan
from brainstage.core.files import make_folder, write_json
from brainstage.core.levels import LevelSet
from brainstage.inference.people import predict_people
from brainstage.inference.predictions import Predictions
from brainstage.inference.predictor import open_once
from brainstage.inference.scan_slices import FAILED, REFUSED
from brainstage.scans.discover import scan_of_slices
from brainstage.scans.extraction import Skull

VERSION = 1
"""Version of a result, incremented when it changes, so that results of another version are made anew."""


@dataclass(frozen=True)
class ScanResult:
    """What became of a scan.

    Attributes:
        key: What it depends on: the files, the settings, the model.
        scan_id: Its name.
        participant_id: The person, without ``sub-``.
        session_id: The session, without ``ses-``; None where there is none.
        source: Its place in the source dataset, a BIDS URI; None where the dataset has no scan.
        status: ``predicted``, ``refused`` (readable, but not to be staged) or ``failed`` (not readable).
        reason: Why it was not predicted.
        measured: The fields of :class:`brainstage.cohorts.ledger.Measured`.
        prediction: A row of :class:`brainstage.inference.predictions.Predictions`; empty where there is none.
        title: Which model predicted, and under which protocol it was evaluated; likewise empty.
        notice: What accompanies the prediction; likewise.
        details: What else there is to know of it; likewise.
    """

    key: str
    scan_id: str
    participant_id: str
    session_id: str | None
    source: str | None
    status: str
    reason: str | None
    measured: dict[str, Any]
    prediction: dict[str, Any]
    title: str = ""
    notice: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanTask:
    """A scan to process.

    Attributes:
        folder: The derivatives dataset.
        scan: The scan.
        skull: As for :class:`brainstage.cohorts.scan.Task`.
        level_set: The model's levels.
        model: Run folder, or a bundled model.
        key: As in :class:`ScanResult`.
    """

    folder: DerivativesFolder
    scan: CohortScan
    skull: Skull
    level_set: LevelSet
    model: str
    key: str


def result_key(scan: CohortScan, skull: Skull, level_set: LevelSet, model_hash: str) -> str:
    """Return a hash of what a result depends on.

    Args:
        scan: The scan.
        skull: What is done to its skull.
        level_set: The model's levels.
        model_hash: SHA-256 of the model's weights.
    """
    source = task_key(scan.scan, skull, level_set) if scan.scan else scan.problem
    return hashlib.sha256(json.dumps([VERSION, source, model_hash]).encode()).hexdigest()


def read_result(folder: DerivativesFolder, scan_id: str) -> ScanResult | None:
    """Return what became of a scan; None where there is no whole result of this version."""
    try:
        content = json.loads(folder.result(scan_id).read_text(encoding="utf-8"))
        return ScanResult(**{**content, "details": tuple(content["details"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_done(task: ScanTask) -> bool:
    """Return whether a scan was processed with the same files, settings and model, and all is there."""
    result = read_result(task.folder, task.scan.scan_id)
    if result is None or result.key != task.key:
        return False
    return result.measured["status"] != "prepared" or has_derivatives(task.folder, task.scan)


def process_scan(task: ScanTask) -> str:
    """Write the derivatives of a scan, predict it, write its result last, and return its status.

    Raises:
        RunError: A file cannot be written, or the model cannot be opened.
    """
    scan = task.scan
    measured = _prepared(task) if scan.scan else Measured(scan.untried, scan.problem)
    if measured.status != "prepared":
        return write_result(task, measured)
    images, levels = read_slices(task.folder.cohort.part(scan.scan_id))
    predictor = open_once(task.model)
    slices = scan_of_slices(scan.scan_id, images, levels)
    person = predict_people(predictor, [(scan.scan_id, [slices])])
    return write_result(task, measured, Predictions.collect(predictor, person))


def write_result(task: ScanTask, measured: Measured, predictions: Predictions | None = None) -> str:
    """Write what became of a scan, and return its status.

    Args:
        task: The scan.
        measured: What was measured of it.
        predictions: Its prediction and those of its slices; None where it was not predicted.
    """
    scan = task.scan
    first = predictions.rows[0] if predictions else {}
    status = first["status"] if first else REFUSED if measured.status == "refused" else FAILED
    reason = first["reason"] if first else measured.reason
    result = ScanResult(
        key=task.key,
        scan_id=scan.scan_id,
        participant_id=scan.participant_id,
        session_id=scan.session_id,
        source=source_uri(scan) if scan.scan else None,
        status=status,
        reason=reason and reason.removeprefix(f"{scan.scan_id}: "),
        measured=asdict(measured),
        prediction={name: value for name, value in first.items() if name not in ("person", "source", "reason")},
        title=predictions.title if predictions else "",
        notice=predictions.notice if predictions else "",
        details=tuple(predictions.details) if predictions else (),
    )
    file = task.folder.result(scan.scan_id)
    make_folder(file.parent)
    write_json(file, asdict(result))
    return status


def _prepared(task: ScanTask) -> Measured:
    """Return what was measured of a scan, whose slices and derivatives are then there if it can be used."""
    scan, part = task.scan, task.folder.cohort.part(task.scan.scan_id)
    if scan.scan is None:
        raise ValueError(f"{scan.scan_id} has no file")
    key = task_key(scan.scan, task.skull, task.level_set)
    preparation = Task(scan.scan, part, key, task.skull, task.level_set)
    done = read_part(part)
    if done and done[0] == preparation.key and (done[1].status != "prepared" or has_derivatives(task.folder, scan)):
        return done[1]
    made = make_slices(scan.scan, task.skull, task.level_set)
    if made.registered:
        write_derivatives(task.folder, scan, made.registered)
    else:
        remove_derivatives(task.folder, scan)
    make_folder(part.parent)
    write_part(preparation, made)
    return made.measured
