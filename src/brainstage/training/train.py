"""Training of one model: a slice table, a fold and a configuration become a run folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from brainstage.core.arrays import FloatArray
from brainstage.core.config import TrainConfig
from brainstage.core.errors import RunError
from brainstage.core.files import sha256, write_table
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.datasets.splits import Fold, Splits
from brainstage.datasets.table import SliceTable
from brainstage.inference.classifiers import Prediction
from brainstage.inference.out_of_distribution import OutOfDistributionDetector
from brainstage.inference.prediction_table import prediction_table
from brainstage.inference.predictor import Predictor
from brainstage.models.folder import WEIGHTS
from brainstage.models.recipes import load_recipe
from brainstage.stats.calibration import Calibration
from brainstage.training.baselines import nearest_training_slice
from brainstage.training.fitted import Fitted
from brainstage.training.patient import fit_people
from brainstage.training.processes import on_first, process_count, share_of_batch
from brainstage.training.provenance import optimism
from brainstage.training.start import begin_run, check_tracker, read_splits


def train(
    slices: SliceTable,
    config: TrainConfig | StrPath = "compact",
    *,
    name: str | None = None,
    out: StrPath = "runs",
    splits: Splits | StrPath | None = None,
    resume: bool = False,
    track: str | None = None,
    progress: Progress = silent,
) -> RunFolder:
    """Train one model, pick its epoch on validation slices, predict validation and test slices once, save all.

    Under the patient protocol it is trained on the fold ``config.fold``; :func:`brainstage.cross_validate` trains
    on all folds. Under ``torchrun`` every process calls this with the same arguments, and the first writes the run.

    Args:
        slices: The data.
        config: Settings, or a recipe: its name or a TOML file.
        name: Name of the run; None takes the recipe's name and the next free number.
        out: Folder of the runs.
        splits: The slices of each side, or a ``splits.json``; None makes them by the configuration, whose numbers
            of rows, validation share and seed of the folds are not used otherwise.
        resume: Go on with a run that was stopped, from its last whole checkpoint. On the same machine and
            number of threads and processes it ends with the same weights as one that was never stopped; where it
            was stopped within an epoch, ``train_loss`` of that epoch is of its later steps. Of a finished run the
            settings, the data and the splits are checked, and nothing is trained.
        track: A tracker that gets the figures of each epoch too, by the name that ``transformers`` has for it:
            ``tensorboard`` writes into the run's folder, others where their own settings say, which may be another
            machine.
        progress: How to show progress.

    Returns:
        The finished run; :func:`brainstage.evaluate` judges its predictions. A run that fails before its first
        epoch is saved leaves no folder behind.

    Raises:
        ConfigError: The recipe or the name is not usable, a resumed run had other settings, or the tracker or
            the engine is not installed.
        DataError: The data cannot be split or trained on, or a resumed run had other data or splits.
        LeakageError: The patient protocol was asked for and would be broken.
        RunError: The run exists, is in use, was changed after it finished, or cannot be written.
        OtherProcessError: The first of several processes failed.
        Terminated: SIGTERM arrived while the network was trained, and a checkpoint is saved.
    """
    return train_fold(
        slices, config, name=name, out=out, splits=splits, resume=resume, track=track, progress=progress, alone=True
    )


def train_fold(
    slices: SliceTable,
    config: TrainConfig | StrPath,
    *,
    name: str | None,
    out: StrPath,
    splits: Splits | StrPath | None,
    resume: bool,
    track: str | None,
    progress: Progress,
    alone: bool = False,
) -> RunFolder:
    """Train one model as :func:`train` does.

    Args:
        slices, config, name, out, splits, resume, track, progress: As for :func:`train`.
        alone: Whether the run is judged alone and so needs the nearest training slices; those of several folds are
            found together, in a fraction of the time.

    Raises:
        ConfigError, DataError, LeakageError, RunError: As :func:`train`.
    """
    config = config if isinstance(config, TrainConfig) else load_recipe(config)
    share_of_batch(config)  # refused before anything is written
    check_tracker(track, config)
    begun: list[Splits] = []
    with ExitStack() as stack:

        def begin() -> tuple[str, bool]:
            run = RunFolder.new(name, config.recipe, out)
            unfinished = stack.enter_context(run.claim(resume=resume))
            begun.append(begin_run(run, slices, config, read_splits(splits, slices)))
            return str(run.path), unfinished

        path, unfinished = on_first(begin)
        run = RunFolder(path)
        if unfinished:
            fold_splits = begun[0] if begun else begin_run(run, slices, config)
            _fit(run, slices, config, fold_splits, progress, track, alone=alone)
    return run


def _fit(
    run: RunFolder,
    slices: SliceTable,
    config: TrainConfig,
    splits: Splits,
    progress: Progress,
    track: str | None,
    *,
    alone: bool,
) -> None:
    fold = splits.chosen(config)
    if config.model == "patient":
        fitted = fit_people(slices, fold, progress)
    else:
        from brainstage.training.networks import fit_slices  # torch and Trainer take seconds to import

        fitted = fit_slices(run, slices, config, fold, progress, track)
    on_first(lambda: _finish(run, slices, config, splits, fitted, progress, alone=alone))


def _finish(
    run: RunFolder,
    slices: SliceTable,
    config: TrainConfig,
    splits: Splits,
    fitted: Fitted,
    progress: Progress,
    *,
    alone: bool,
) -> None:
    """Write the model, its predictions and the manifest."""
    fold = splits.chosen(config)
    _save_model(
        run,
        fitted,
        OutOfDistributionDetector.fit(
            [slices.images[slices.row_of[slice_id]] for slice_id in fold.train], slices.level_set.count
        ),
    )
    about = _about(slices, config, splits, fold)
    people = [splits.patient_of[slice_id] for slice_id in fold.train]
    known = {"slice_id": list(fold.train), "patient_id": pa.array(people, pa.string())}
    write_table(run.training_slices, pa.table(known))
    _predict(run, slices, fold, config.fold, fitted.prediction, about, progress)
    if alone:
        nearest = nearest_training_slice(slices, {config.fold: fold}, about, progress=progress)
        write_table(run.nearest_slice, nearest)
    extra = {"fitted_on": _fitted_on(fold, splits), "versions": _versions()}
    together = {"processes": process_count()} if process_count() > 1 else {}
    run.write_manifest({**about, **fitted.about, **extra, **together})
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # last: a run without a manifest resumes from them


def _about(slices: SliceTable, config: TrainConfig, splits: Splits, fold: Fold) -> dict[str, Any]:
    """Return what stands beside every figure of the run."""
    about = {
        "recipe": config.recipe,
        "protocol": splits.protocol,
        "selection": config.selection,
        "leakage": splits.verdict.to_dict(),
        "data_hash": splits.data_hash,
        "synthetic": slices.synthetic,
        "ordered": slices.ordered,
        "levels": slices.level_set.name,
    }
    number = splits.named(config.fold) if splits.protocol == "patient" else None
    notes = {"fold": number, "optimistic": optimism(config, slices, fold)}
    return about | {name: note for name, note in notes.items() if note}


def _fitted_on(fold: Fold, splits: Splits) -> str:
    """Return the size of the training set in words."""
    people = {splits.patient_of[slice_id] for slice_id in fold.train}
    of_people = "" if None in people else f" of {len(people)} people"
    return f"{len(fold.train):,} slices{of_people}"


def _save_model(run: RunFolder, fitted: Fitted, detector: OutOfDistributionDetector) -> None:
    """Write the model folder beside its place, then move it there whole.

    Raises:
        RunError: The disk is full or the folder is not writable.
    """
    try:
        with tempfile.TemporaryDirectory(dir=run.path, prefix=".model.") as temporary:
            folder = Path(temporary) / "model"
            fitted.save(folder)
            fitted.preprocessing.save(folder)
            detector.save(folder)
            shutil.rmtree(run.model, ignore_errors=True)
            folder.replace(run.model)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{run.model}: not written ({reason}); free some space and go on with --resume") from error


def _predict(
    run: RunFolder,
    slices: SliceTable,
    fold: Fold,
    number: int,
    prediction: Prediction | None,
    about: dict[str, Any],
    progress: Progress,
) -> None:
    """Write the predictions of the validation and test slices; calibrate a network on the validation people's."""
    ids = fold.validation + fold.test
    if prediction is None:
        predictor = Predictor.open(run.path)
        images = [slices.images[slices.row_of[slice_id]] for slice_id in ids]
        prediction = predictor.predict_features(predictor.extract_features(images, progress=progress))
    table = prediction_table(
        slices,
        ids,
        prediction.probabilities,
        split=["validation"] * len(fold.validation) + ["test"] * len(fold.test),
        fold=number,
        model=sha256(run.model / WEIGHTS),
        metadata=about,
        conformal_threshold=prediction.conformal_threshold,
    )
    write_table(run.predictions, table)
    if about["protocol"] == "patient" and fold.validation and prediction.conformal_threshold is None:
        calibrate(run.model, slices, fold.validation, prediction.probabilities[: len(fold.validation)])


def calibrate(
    model: Path,
    slices: SliceTable,
    slice_ids: Sequence[str],
    scores: FloatArray,
    folds: Sequence[int] | None = None,
) -> None:
    """Calibrate a network on scores for slices of people who are not in its training set.

    Of a single fold these are its validation people, who also picked the epoch, so its sets may cover slightly less
    than nine of ten. A cross-validated network is calibrated on everyone out of fold, where nobody picked the epoch
    of the network that scored them.

    Args:
        model: The model folder.
        slices: The slice table that the slices are in.
        slice_ids: The slices.
        scores: Softmax scores of each slice, shape (n, classes).
        folds: Fold of each slice, where several networks gave the scores; None where one did.
    """
    rows = [slices.row_of[slice_id] for slice_id in slice_ids]
    _, people = np.unique([str(slices.patients[row]) for row in rows], return_inverse=True)
    _, scans = np.unique([str(slices.stacks[row]) for row in rows], return_inverse=True)
    networks = np.zeros(len(rows), np.int64) if folds is None else np.array(folds)
    _, stacks = np.unique(np.stack([networks, scans]), axis=1, return_inverse=True)
    Calibration.fit(scores, slices.targets(rows), people, stacks).save(model)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("brainstage", "torch", "transformers", "accelerate", "numpy")}
