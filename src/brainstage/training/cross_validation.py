"""Cross-validation: everyone is predicted by a model that was trained on other people."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError
from brainstage.core.files import write_table
from brainstage.core.parallel import THIS_PROCESS, Workers
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import PROB_PREFIX, read_metadata, with_metadata
from brainstage.datasets.splits import Splits, make_everyone
from brainstage.datasets.stored import store_slices
from brainstage.datasets.table import SliceTable
from brainstage.models.recipes import load_recipe
from brainstage.training.baselines import age_and_sex_baseline, linear_baseline, nearest_training_slice
from brainstage.training.feature_tasks import compute_features
from brainstage.training.side_by_side import TrainTask, train_side_by_side
from brainstage.training.start import begin_run, check_tracker, read_splits
from brainstage.training.train import calibrate, train_fold

EVERYONE = "everyone"
"""Name of the run that is fitted on everyone."""


def cross_validate(
    slices: SliceTable,
    config: TrainConfig | StrPath = "compact",
    *,
    name: str | None = None,
    out: StrPath = "runs",
    splits: Splits | StrPath | None = None,
    resume: bool = False,
    track: str | None = None,
    workers: Workers = THIS_PROCESS,
    progress: Progress = silent,
) -> RunFolder:
    """Train a model on every fold of the patient protocol; each predicts the people of its fold's test side.

    With ``group_by`` in the settings, ``site`` for one, whole sites are tested by models that saw nobody of them.

    The run's ``folds/00``, ``folds/01``, … are runs of :func:`brainstage.train`, one a fold. Their predictions,
    joined, are the run's. Beside them ``nearest_training_slice.parquet`` and ``baseline.parquet`` hold those of the
    nearest training slice and of a linear baseline on the same folds, and ``age_and_sex.parquet`` those from age
    and sex alone, where they are known. The model in ``model/`` is the one to be used. It is fitted on everyone
    (``folds/everyone``): no one is held out, so it is trained to the last epoch of its schedule. Its performance is
    that of the folds, which calibrate it too (:mod:`brainstage.stats.calibration`).

    Args:
        slices: The data.
        config: Settings, or a recipe: its name or a TOML file.
        name: Name of the run; None takes the recipe's name and the next free number.
        out: Folder of the runs.
        splits: Folds of the patient protocol, or a ``splits.json``, all of which are trained. None draws
            ``config.folds`` folds, ``config.repeats`` times.
        resume: Go on with a run that was stopped; folds that are finished are kept. Of a finished run the settings,
            the data and the splits are checked, and nothing is trained.
        track: As for :func:`brainstage.train`, of each fold.
        workers: Where folds are trained, each by one process; those of a cluster must see ``out`` under the same
            path. Without it one after the other in this process, which then has all processors.
        progress: How to show progress.

    Returns:
        The finished run. :func:`brainstage.evaluate_patients` judges its predictions.

    Raises:
        ConfigError, DataError, LeakageError, RunError: As :func:`brainstage.train`.
    """
    config = config if isinstance(config, TrainConfig) else load_recipe(config)
    check_tracker(track, config)
    splits = read_splits(splits, slices)
    config = _for_folds(config.replace(protocol="patient", fold=0), splits)
    run = RunFolder.new(name, config.recipe, out)
    with run.claim(resume=resume) as unfinished:
        splits = begin_run(run, slices, config, splits, all_folds=True)
        if unfinished:
            folds, everyone = _train_folds(run, slices, splits, config, track, workers, progress)
            shutil.copytree(everyone.model, run.model, dirs_exist_ok=True)
            if everyone.training_slices.is_file():  # not of a fold that an earlier version trained
                shutil.copyfile(everyone.training_slices, run.training_slices)
            _finish(run, slices, splits, folds, everyone, config, progress)
    return run


def _train_folds(
    run: RunFolder,
    slices: SliceTable,
    splits: Splits,
    config: TrainConfig,
    track: str | None,
    workers: Workers,
    progress: Progress,
) -> tuple[list[RunFolder], RunFolder]:
    """Train every fold, and on everyone, here or by workers."""
    trainings = {f"{number:02d}": config.replace(fold=number) for number in range(len(splits.folds))}
    trainings[EVERYONE] = config.replace(validation_share=0.0)
    if workers == THIS_PROCESS:
        fit = partial(train_fold, slices, out=run.folds, resume=True, track=track, progress=progress)
        runs = [
            fit(settings, name=name, splits=make_everyone(splits) if name == EVERYONE else splits)
            for name, settings in trainings.items()
        ]
        return runs[:-1], runs[-1]
    stored = store_slices(slices, run.stored_slices)
    compute_features(slices, stored, config, splits.folds, workers, progress)
    tasks = [
        TrainTask(name, settings, splits=workers.path(run.splits), everyone=name == EVERYONE, track=track)
        for name, settings in trainings.items()
    ]
    runs = train_side_by_side(stored, tasks, run.folds, workers, progress)
    return runs[:-1], runs[-1]


def _for_folds(config: TrainConfig, splits: Splits | None) -> TrainConfig:
    """Return the settings with the number of folds that are given.

    Raises:
        ConfigError: The folds are of another protocol.
    """
    if splits is None:
        return config
    if splits.protocol != "patient":
        raise ConfigError(
            f"cross-validation needs folds of protocol patient; the splits given are {splits.protocol}"
            "; give others or none"
        )
    count = len(splits.folds)
    return config if count in (1, config.folds * config.repeats) else config.replace(folds=count, repeats=1)


def _finish(
    run: RunFolder,
    slices: SliceTable,
    splits: Splits,
    folds: list[RunFolder],
    everyone: RunFolder,
    config: TrainConfig,
    progress: Progress,
) -> None:
    """Join the folds' predictions, calibrate on them, put the baselines beside them, and write the manifest."""
    about = _join_predictions(run, slices, splits, folds, config)
    nearest = nearest_training_slice(slices, dict(enumerate(splits.folds)), about, progress=progress)
    write_table(run.nearest_slice, nearest)
    write_table(run.baseline, linear_baseline(slices, splits, about, progress=progress))
    manifests = [fold.read_manifest() for fold in folds]
    seconds = round(sum(manifest["training_seconds"] for manifest in manifests), 1)
    kept = ("parameters", "threads", "versions", "backbone", "features")
    run.write_manifest(
        {
            **about,
            **{key: manifests[0][key] for key in kept if key in manifests[0]},
            "folds": len(folds),
            "fitted_on": f"everyone: {everyone.read_manifest()['fitted_on']}",
            "training_seconds": seconds,
        }
    )


def _join_predictions(
    run: RunFolder, slices: SliceTable, splits: Splits, folds: list[RunFolder], config: TrainConfig
) -> dict[str, Any]:
    """Write the folds' predictions as the run's, and those from age and sex; calibrate; return the metadata."""
    tables = [pq.read_table(fold.predictions) for fold in folds]
    about = _joined_metadata(tables)
    age_and_sex, about["age_and_sex"] = age_and_sex_baseline(slices, splits, about)
    if age_and_sex is not None:
        write_table(run.age_and_sex, age_and_sex)
    table = with_metadata(pa.concat_tables(tables), about)
    write_table(run.predictions, table)
    if config.model != "patient":
        tested = table.filter(pa.compute.equal(table["split"], "test"))
        scores = np.stack([tested[PROB_PREFIX + name].to_numpy() for name in slices.classes], axis=1)
        calibrate(run.model, slices, tested["slice_id"].to_pylist(), scores, tested["fold"].to_pylist())
    return about


def _joined_metadata(tables: list[pa.Table]) -> dict[str, Any]:
    """Return what stands beside the joined figures: that of every fold but its number, and a caution of any."""
    joined: dict[str, Any] = {}
    for table in tables:
        joined |= read_metadata(table)
    joined.pop("fold", None)
    return joined
