"""The patient protocol in full: everyone is predicted by a network that has never seen them."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.config import TrainConfig
from brainstage.core.files import write_table
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.core.schema import PROB_PREFIX, read_metadata, with_metadata
from brainstage.datasets.splits import Splits, make_everyone
from brainstage.datasets.table import SliceTable
from brainstage.models.recipes import load_recipe
from brainstage.training.baselines import linear_baseline
from brainstage.training.tracking import Tracker
from brainstage.training.train import begin_run, calibrate, train


def cross_validate(
    slices: SliceTable,
    config: TrainConfig | str = "compact",
    *,
    name: str | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    track: Tracker | None = None,
    progress: Progress = silent,
) -> RunFolder:
    """Train on every fold of the patient protocol, and predict each person by a network that has not seen them.

    The run's ``folds/00``, ``folds/01``, … are runs of :func:`brainstage.train`, one a fold. Their predictions,
    joined, are the run's; beside them ``baseline.parquet`` holds those of a linear baseline on the same folds. The
    network in ``model/`` is fitted on everyone (``folds/everyone``): the one to be used, whose figures are those of
    the folds; they calibrate it too (:mod:`brainstage.stats.calibration`).

    Args:
        slices: The data.
        config: Settings, or the name of a recipe; ``folds`` and ``repeats`` say how many folds there are.
        name: Name of the run; None takes the recipe's name and the next free number.
        out: Folder of the runs.
        resume: Go on with a run that was stopped; folds that are finished are kept.
        track: A local tracker that gets the figures of each epoch too, in each fold's folder.
        progress: How to show progress.

    Returns:
        The finished run. :func:`brainstage.evaluate_patients` says what its predictions are worth.

    Raises:
        ConfigError, DataError, LeakageError, RunError: As :func:`brainstage.train`.
    """
    config = load_recipe(config) if isinstance(config, str) else config
    config = config.replace(protocol="patient", fold=0)
    run = RunFolder.new(name, config.recipe, out)
    with run.claim(resume=resume) as unfinished:
        if unfinished:
            splits = begin_run(run, slices, config)
            fit = partial(train, slices, out=run.path / "folds", resume=True, track=track, progress=progress)
            folds = [
                fit(config.replace(fold=number), name=f"{number:02d}", splits=splits)
                for number in range(len(splits.folds))
            ]
            everyone = fit(config, name="everyone", splits=make_everyone(slices, config))
            shutil.copytree(everyone.model, run.model, dirs_exist_ok=True)
            _finish(run, slices, splits, folds, config, progress)
    return run


def _finish(
    run: RunFolder,
    slices: SliceTable,
    splits: Splits,
    folds: list[RunFolder],
    config: TrainConfig,
    progress: Progress,
) -> None:
    """Join the folds' predictions, calibrate on them, put the baseline beside them, and write the manifest."""
    tables = [pq.read_table(fold.predictions) for fold in folds]
    about: dict[str, Any] = read_metadata(tables[0])
    table = with_metadata(pa.concat_tables(tables), about)
    write_table(run.predictions, table)
    if config.model != "patient":
        tested = table.filter(pa.compute.equal(table["split"], "test"))
        scores = np.stack([tested[PROB_PREFIX + name].to_numpy() for name in slices.classes], axis=1)
        calibrate(run.model, slices, tested["slice_id"].to_pylist(), scores, tested["fold"].to_pylist())
    write_table(run.baseline, linear_baseline(slices, splits, about, progress=progress))
    manifests = [json.loads(fold.manifest.read_text(encoding="utf-8")) for fold in folds]
    seconds = round(sum(manifest["training_seconds"] for manifest in manifests), 1)
    kept = ("parameters", "threads", "versions")
    run.write_manifest(
        {
            **about,
            **{key: manifests[0][key] for key in kept if key in manifests[0]},
            "folds": len(folds),
            "training_seconds": seconds,
        }
    )
