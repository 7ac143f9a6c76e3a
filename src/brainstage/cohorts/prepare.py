"""From a source of scans to a cohort folder, a scan at a time: what is finished stays, whatever happens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from brainstage.cohorts.assemble import Cohort, assemble
from brainstage.cohorts.folder import CohortFolder, check_made
from brainstage.cohorts.ledger import Measured, Status
from brainstage.cohorts.scan import Slices, Task, prepare_scan, read_part, task_key, write_part
from brainstage.cohorts.selection import check_split, with_classes, without_excluded
from brainstage.cohorts.sources import CohortScan, find_cohort
from brainstage.core.errors import RunError
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.core.parallel import THIS_MACHINE, Workers, run_tasks
from brainstage.core.progress import Progress, silent
from brainstage.scans.extraction import Skull

DIED = "the process that worked on it was killed; too little memory?"
"""Reason of a scan whose process was killed twice."""


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
        check_made(folder, level_set)
        found = find_cohort(
            workers.path(Path(source)),
            salt=folder.salt(),
            participants=participants,
            label_column=label_column,
            covariates=covariates,
            all_runs=all_runs,
        )
        found = replace(found, scans=without_excluded(found.scans, exclude))
        found, classes, ordered = with_classes(found, class_order)
        check_split(found.scans)
        _prepare_parts(folder, found.scans, skull, level_set, redo, workers, progress)
        return assemble(folder, found, classes, ordered=ordered, level_set=level_set, progress=progress)


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
