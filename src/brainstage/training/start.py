"""The start of a run: its settings and splits, written for a new one, checked for one that is resumed."""

from __future__ import annotations

import json
from pathlib import Path

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.files import write_text
from brainstage.core.run import RunFolder, StrPath
from brainstage.datasets.splits import Fold, Splits, make_splits
from brainstage.datasets.table import SliceTable
from brainstage.training.processes import refuse


def check_tracker(name: str | None, config: TrainConfig) -> None:
    """Refuse a tracker that cannot be used, before anything is read or trained.

    Raises:
        ConfigError: It is unknown or not installed, or the model has no epochs.
    """
    if name is None:
        return
    from brainstage.training.tracking import check_installed  # transformers takes seconds to import

    try:
        check_installed(name)
    except ConfigError as error:
        refuse(error)
    if config.model == "patient":
        refuse(ConfigError(f"the patient model is fitted without epochs, so there is nothing for {name} to track"))


def read_splits(splits: Splits | StrPath | None, slices: SliceTable) -> Splits | None:
    """Return splits, read from a file where a path is given.

    Raises:
        DataError, LeakageError: As :meth:`brainstage.Splits.load`.
    """
    return splits if splits is None or isinstance(splits, Splits) else Splits.load(splits, slices)


def begin_run(
    run: RunFolder,
    slices: SliceTable,
    config: TrainConfig,
    splits: Splits | None = None,
    *,
    all_folds: bool = False,
) -> Splits:
    """Write the settings and splits of a new run, or check those of a run that was started or finished.

    Args:
        run: The run, locked by this process.
        slices: The data.
        config: The settings.
        splits: The slices of each side; None makes them, or takes those that the run was started with.
        all_folds: Whether every fold is trained, not only the one that the settings name.

    Raises:
        ConfigError: The run was started with different settings, or the patient model would not know the order of
            the classes.
        DataError: It was started with different data or splits, the data cannot be split, or have one class.
        LeakageError: The patient protocol would be broken.
    """
    if run.started:
        check_settings(run.path, TrainConfig.from_json(run.config), config)
        saved = _saved_splits(run, slices)
        if splits is not None and splits.folds != saved.folds:
            raise DataError(f"{run.path}: this run was started with different splits; take another --name")
        return saved
    if len(slices.classes) < 2:
        found = f"the class {slices.classes[0]} alone" if slices.classes else "no class"
        raise DataError(f"the slices have {found}; give data of two classes or more")
    splits = splits or make_splits(slices, config)
    chosen = splits.chosen(config)
    _check_order(slices, config)
    for fold in splits.folds if all_folds else (chosen,):
        _check_classes(slices, fold, config)
    splits.save(run.splits, slices.classes)
    write_text(run.config, config.to_json())  # last: a run with settings can be resumed
    return splits


def check_settings(folder: Path, saved: TrainConfig, config: TrainConfig) -> None:
    """Refuse to go on with different settings.

    Args:
        folder: The folder of the run, for the error.
        saved: The settings that it was started with.
        config: The settings asked for.

    Raises:
        ConfigError: They differ from the saved ones; the message names each difference.
    """
    if saved != config:
        changed = [name for name in vars(saved) if getattr(saved, name) != getattr(config, name)]
        pairs = ", ".join(f"{name} {getattr(saved, name)}, not {getattr(config, name)}" for name in changed)
        raise ConfigError(
            f"{folder}: this run was started with different settings: {pairs}; "
            "set them alike or take another --name"
        )


def _saved_splits(run: RunFolder, slices: SliceTable) -> Splits:
    """Return the splits that a run was started with.

    Raises:
        DataError: They are not of this data, or its patients or the order of its classes are others now.
    """
    splits = Splits.load(run.splits, slices)
    saved = json.loads(run.splits.read_text(encoding="utf-8"))
    if splits.data_hash != saved.get("data_hash"):
        raise DataError(f"{run.path}: this run was started with different data; name that data with --data")
    if saved.get("classes", [*slices.classes]) != [*slices.classes]:
        raise DataError(
            f"{run.path}: this run was started with the classes in the order {', '.join(saved['classes'])}; give "
            "it with --class-order or take another --name"
        )
    if splits.verdict.to_dict() != saved.get("leakage"):
        raise DataError(
            f"{run.path}: this run was started when the data had other patients ({saved['leakage']['sentence']}; "
            f"now {splits.verdict}); give the same --patients or take another --name"
        )
    hashes = [fold.hash for fold in splits.folds]
    if saved.get("hashes", hashes) != hashes:  # which runs of earlier versions did not write
        raise DataError(
            f"{run.path}: this run was started when other slices were of the people of its folds; give the same "
            "patients or take another --name"
        )
    return splits


def _check_order(slices: SliceTable, config: TrainConfig) -> None:
    if config.model == "patient" and not slices.ordered and len(slices.classes) > 2:
        raise ConfigError(
            f"the patient model needs the order of the classes, and that of {', '.join(slices.classes)} is not "
            "known; give --class-order, from the least to the most severe"
        )


def _check_classes(slices: SliceTable, fold: Fold, config: TrainConfig) -> None:
    counts = dict.fromkeys(slices.classes, 0)
    for slice_id in fold.train:
        counts[str(slices.labels[slices.row_of[slice_id]])] += 1
    missing = [name for name, count in counts.items() if count == 0]
    if missing:
        remedy = "draw more rows" if config.train_rows else "add some or leave the class out of the data"
        raise DataError(f"class {', '.join(missing)} has no slice in train; {remedy}")
