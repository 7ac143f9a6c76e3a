"""Trainings side by side, each by a process of its own, here or on a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainstage.core.config import TrainConfig
from brainstage.core.files import make_folder
from brainstage.core.parallel import TOO_LITTLE_MEMORY, Workers, run_all
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.datasets.splits import Splits, make_everyone
from brainstage.datasets.stored import open_slices
from brainstage.training.train import train_fold


@dataclass(frozen=True)
class TrainTask:
    """A model to train.

    Attributes:
        name: Name of its run.
        config: Its settings.
        splits: A ``splits.json``; None makes splits by the settings, and the run is judged alone.
        everyone: Train on every slice of the splits.
        track: As for :func:`brainstage.train`.
    """

    name: str
    config: TrainConfig
    splits: Path | None = None
    everyone: bool = False
    track: str | None = None


def train_side_by_side(
    stored: Path, tasks: Sequence[TrainTask], out: Path, workers: Workers, progress: Progress
) -> list[RunFolder]:
    """Train models, except those that are finished, and return their runs in the order of the tasks.

    Args:
        stored: Folder of the slices (:func:`brainstage.datasets.stored.store_slices`), which each process maps; it
            is removed in the end.
        tasks: The trainings, of different names.
        out: Folder of the runs.
        workers: Where models are trained.
        progress: How to show progress.

    Raises:
        RunError: The process of a training was killed twice.
        BrainstageError: As :func:`brainstage.train`.
    """
    make_folder(out)
    placed = [(workers.path(stored), workers.path(out), task) for task in tasks]

    def lost(placed: tuple[Path, Path, TrainTask]) -> str:
        run = out / placed[-1].name
        return f"{run}: the process that trained it was killed twice; {TOO_LITTLE_MEMORY}; --resume goes on"

    with progress("Training", len(tasks)) as advance:
        for _ in run_all(_train, placed, workers, lost):
            advance(1)
    shutil.rmtree(stored)
    return [RunFolder(out / task.name) for task in tasks]


def _train(placed: tuple[Path, Path, TrainTask]) -> str:
    """Train a model in a process of its own; return its name."""
    folder, out, task = placed
    slices = open_slices(folder)
    splits = None if task.splits is None else Splits.load(task.splits, slices)
    train_fold(
        slices,
        task.config,
        name=task.name,
        out=out,
        splits=make_everyone(splits) if splits and task.everyone else splits,
        resume=True,
        track=task.track,
        progress=silent,
        alone=splits is None,
    )
    return task.name
