"""Training: a slice table, a fold and a configuration become a run folder."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from brainstage.config import TrainConfig
from brainstage.data.splits import Fold, Splits, make_splits
from brainstage.data.table import SliceTable
from brainstage.data.transforms import Preprocessing
from brainstage.errors import ConfigError, DataError, RunError
from brainstage.files import write_table, write_text
from brainstage.fit import SliceDataset, fit_network
from brainstage.models.build import build_model, build_processor, to_rgb
from brainstage.models.recipes import load_recipe
from brainstage.predict import Predictor, prediction_table
from brainstage.progress import Progress, silent
from brainstage.run import RunFolder


def train(
    slices: SliceTable,
    config: TrainConfig | str = "compact",
    *,
    name: str | None = None,
    out: Path | str = "runs",
    splits: Splits | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> RunFolder:
    """Train a classifier, pick its epoch on validation slices, predict validation and test slices once, save all.

    Args:
        slices: The data.
        config: Settings, or the name of a recipe.
        name: Name of the run; None takes the recipe's name and the next free number.
        out: Folder of the runs.
        splits: Who trains and who is tested; None makes them by the configuration.
        resume: Go on with a run that was stopped, from its last whole checkpoint. On the same machine and
            number of threads it ends with the same weights as one that was never stopped.
        progress: How to show progress.

    Returns:
        The finished run. :func:`brainstage.evaluate` says what its predictions are worth.

    Raises:
        ConfigError: The recipe or the name is not usable, or a resumed run had other settings.
        DataError: The data cannot be split or trained on.
        LeakageError: The patient protocol was asked for and would be broken.
        RunError: The run exists, is in use, or cannot be written.
    """
    config = load_recipe(config) if isinstance(config, str) else config
    run = RunFolder.named(name, out) if name else next_run(config.recipe, out)
    run.create()
    with run.lock():
        if run.finished:
            if resume:
                return run
            raise RunError(f"{run.path}: this run is finished; take another --name")
        if run.started and not resume:
            raise RunError(f"{run.path}: this run was begun; go on with --resume or take another --name")
        splits = _begin(run, slices, config, splits)
        _fit(run, slices, config, splits, progress)
    return run


def next_run(recipe: str, out: Path | str = "runs") -> RunFolder:
    """Return the first ``RECIPE-NNN`` that does not exist."""
    number = 1
    while (run := RunFolder.named(f"{recipe}-{number:03d}", out)).path.exists():
        number += 1
    return run


def _begin(run: RunFolder, slices: SliceTable, config: TrainConfig, splits: Splits | None) -> Splits:
    """Write the run's splits and settings, or check those of the run that is resumed."""
    if run.started:
        saved = TrainConfig.from_json(run.config)
        if saved != config:
            raise ConfigError(f"{run.path}: this run was begun with other settings: {_difference(saved, config)}")
        splits = Splits.load(run.splits, slices)
        if splits.data_hash != json.loads(run.splits.read_text(encoding="utf-8"))["data_hash"]:
            raise DataError(f"{run.path}: this run was begun with other data; name that data with --data")
        return splits
    splits = splits or make_splits(slices, config)
    fold = _fold(splits, config)
    _check_classes(slices, fold)
    splits.save(run.splits)
    write_text(run.config, config.to_json())  # last: a run with settings can be resumed
    return splits


def _difference(saved: TrainConfig, asked: TrainConfig) -> str:
    changed = [name for name in vars(saved) if getattr(saved, name) != getattr(asked, name)]
    return ", ".join(f"{name} {getattr(saved, name)}, not {getattr(asked, name)}" for name in changed)


def _fold(splits: Splits, config: TrainConfig) -> Fold:
    number = config.fold if config.protocol == "patient" else 0
    if splits.protocol != config.protocol or number >= len(splits.folds):
        raise ConfigError(
            f"fold {number} of protocol {config.protocol} was asked for, but the splits given have "
            f"{len(splits.folds)} of protocol {splits.protocol}"
        )
    return splits.folds[number]


def _check_classes(slices: SliceTable, fold: Fold) -> None:
    counts = dict.fromkeys(slices.classes, 0)
    for slice_id in fold.train:
        counts[str(slices.labels[slices.row_of[slice_id]])] += 1
    missing = [name for name, count in counts.items() if count == 0]
    if missing:
        raise DataError(
            f"class {', '.join(missing)} has no slice in train; add some or leave the class out of the data"
        )


def _fit(run: RunFolder, slices: SliceTable, config: TrainConfig, splits: Splits, progress: Progress) -> None:
    fold = _fold(splits, config)
    preprocessing, training, validation = prepare(slices, fold, config)
    model = build_model(config, slices.classes)
    started = time.monotonic()
    trainer = fit_network(model, training, validation, config, run.checkpoints, progress, history=run.history)
    seconds = time.monotonic() - started
    _save_model(run, trainer.model, preprocessing)
    _predict(run, slices, splits, config, progress)
    run.write_manifest(
        {
            "recipe": config.recipe,
            "protocol": splits.protocol,
            "leakage": splits.verdict.to_dict(),
            "data_hash": splits.data_hash,
            "synthetic": slices.synthetic,
            "training_seconds": round(seconds, 1),  # of this process; a resumed run's earlier part is not in it
            "threads": torch.get_num_threads(),
            "versions": _versions(),
        }
    )
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # last: a run without a manifest resumes from them


def prepare(
    slices: SliceTable, fold: Fold, config: TrainConfig
) -> tuple[Preprocessing, SliceDataset, SliceDataset | None]:
    """Return the preprocessing fitted to the training slices, the training set and the validation set."""
    preprocessing = Preprocessing(config.image_size, config.crop_share)
    rows = [slices.row_of[slice_id] for slice_id in fold.train]
    pixels = preprocessing.resize([slices.images[row] for row in rows], margin=config.max_shift)
    preprocessing = preprocessing.fitted(pixels)
    training = SliceDataset(pixels, slices.targets(rows), preprocessing, config.seed, config.mirror)
    if not fold.validation:
        return preprocessing, training, None
    rows = [slices.row_of[slice_id] for slice_id in fold.validation]
    pixels = preprocessing.resize([slices.images[row] for row in rows])
    return preprocessing, training, SliceDataset(pixels, slices.targets(rows), preprocessing)


def _save_model(run: RunFolder, model: Any, preprocessing: Preprocessing) -> None:
    """Write the model folder beside its place, then move it there whole."""
    with tempfile.TemporaryDirectory(dir=run.path, prefix=".model.") as temporary:
        folder = Path(temporary) / "model"
        to_rgb(model.cpu().float()).save_pretrained(folder)
        build_processor(
            preprocessing.size, preprocessing.crop_share, preprocessing.mean, preprocessing.std
        ).save_pretrained(folder)
        shutil.rmtree(run.model, ignore_errors=True)
        folder.replace(run.model)


def _predict(run: RunFolder, slices: SliceTable, splits: Splits, config: TrainConfig, progress: Progress) -> None:
    fold = _fold(splits, config)
    sides = {"validation": fold.validation, "test": fold.test}
    ids = [slice_id for side in sides.values() for slice_id in side]
    predictor = Predictor.open(run.path)
    table = prediction_table(
        slices,
        ids,
        predictor.predict([slices.images[slices.row_of[slice_id]] for slice_id in ids], progress=progress),
        split=[side for side, members in sides.items() for _ in members],
        fold=config.fold,
        model=predictor.hash,
        metadata={
            "protocol": splits.protocol,
            "leakage": splits.verdict.to_dict(),
            "data_hash": splits.data_hash,
            "recipe": config.recipe,
            "synthetic": slices.synthetic,
        },
    )
    write_table(run.predictions, table)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("brainstage", "torch", "transformers", "accelerate", "numpy")}
