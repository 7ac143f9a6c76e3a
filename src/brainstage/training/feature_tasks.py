"""Features that many trainings need, computed once before they begin, by processes here or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainstage.core.config import TrainConfig
from brainstage.core.parallel import TOO_LITTLE_MEMORY, Workers, run_all
from brainstage.core.progress import Progress, silent
from brainstage.datasets.signatures import blocks
from brainstage.datasets.splits import Fold
from brainstage.datasets.stored import open_slices
from brainstage.datasets.table import SliceTable
from brainstage.models.patient_model import PREDICTION_SEEDS
from brainstage.training.patient import AcquiredFeatures, training_seeds

SLICES_A_TASK = 512
"""Slices of a task: less than a minute of a ViT-base on one processor."""


@dataclass(frozen=True)
class FeatureTask:
    """Slices whose features are computed together.

    Attributes:
        slices: Folder of the slice table (:func:`brainstage.datasets.stored.store_slices`).
        config: Settings of the trainings.
        slice_ids: The slices.
        calibrated_on: Slices that the ranges of a network of 8-bit integers come from.
        seeds: Acquisitions that the patient model sees each slice in; none for a backbone.
    """

    slices: Path
    config: TrainConfig
    slice_ids: tuple[str, ...]
    calibrated_on: tuple[str, ...] = ()
    seeds: tuple[tuple[int | None, ...], ...] = ()


def compute_features(
    slices: SliceTable,
    stored: Path,
    config: TrainConfig,
    folds: Sequence[Fold],
    workers: Workers,
    progress: Progress = silent,
) -> None:
    """Put the features that trainings need into the cache; of settings that need none, do nothing.

    The workers' cache is to be this process's: what is in another cache is computed again.

    Args:
        slices: The data.
        stored: Folder that :func:`brainstage.datasets.stored.store_slices` wrote the data to.
        config: Settings of the trainings.
        folds: Who trains and who is tested.
        workers: Where they are computed.
        progress: How to show progress.

    Raises:
        RunError: The process that computed some was killed twice, or the cache cannot be written.
        ConfigError, DataError: The backbone cannot be opened.
    """
    tasks = list(_tasks(slices, workers.path(stored), config, folds))
    lost = f"{stored}: the process that computed features was killed twice; {TOO_LITTLE_MEMORY}; --resume goes on"
    with progress("Computing features", len(tasks)) as advance:
        for _ in run_all(_compute, tasks, workers, lambda _task: lost):
            advance(1)


def _tasks(slices: SliceTable, stored: Path, config: TrainConfig, folds: Sequence[Fold]) -> Iterator[FeatureTask]:
    """Yield the tasks."""
    wanted = {one for fold in folds for one in fold.train + fold.validation + fold.test}
    ids = tuple(slice_id for slice_id in slices.row_of if slice_id in wanted)
    if config.model == "patient":
        ids = tuple(slice_id for slice_id in ids if slices.patients[slices.row_of[slice_id]])
        training = training_seeds(slices, [slices.row_of[slice_id] for slice_id in ids])
        for seeds in (training, [PREDICTION_SEEDS] * len(ids)):
            for part in blocks(len(ids), SLICES_A_TASK):
                yield FeatureTask(stored, config, ids[part], seeds=tuple(seeds[part]))
    elif config.frozen:
        from brainstage.models.engines.openvino import CALIBRATION_SLICES  # torch takes seconds to import

        ranges = [tuple(sorted(fold.train)[:CALIBRATION_SLICES]) for fold in folds]
        for calibrated_on in ranges if config.precision == "int8" else [()]:  # else the folds' networks are one
            for part in blocks(len(ids), SLICES_A_TASK):
                yield FeatureTask(stored, config, ids[part], calibrated_on)


def _compute(task: FeatureTask) -> int:
    """Compute the features of a task's slices that are not in the cache; return how many slices it has."""
    slices = open_slices(task.slices)
    if task.seeds:
        AcquiredFeatures(slices, [slices.row_of[slice_id] for slice_id in task.slice_ids], task.seeds)
    else:
        from brainstage.training.inputs import compute_frozen

        compute_frozen(slices, task.config, task.slice_ids, task.calibrated_on)
    return len(task.slice_ids)
