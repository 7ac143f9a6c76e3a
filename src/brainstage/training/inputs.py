"""From a configuration and a fold to the network, the training set and the set that picks the epoch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from brainstage.audits.recovery import find_levels
from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.config import Precision, TrainConfig
from brainstage.core.errors import LeakageError
from brainstage.core.progress import Progress, silent
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.splits import Fold
from brainstage.datasets.table import SliceTable
from brainstage.models.backbones import find_backbone, open_backbone
from brainstage.models.features import FeatureCache
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE, VERSION, orientation_histograms
from brainstage.models.network import build_model
from brainstage.models.patient_model import PatientModel
from brainstage.training.probe import FeatureClassifier, FeatureDataset, FrozenBackbone, slice_features
from brainstage.training.trainer import SliceDataset, uses_bf16


def build_whole(
    slices: SliceTable, fold: Fold, config: TrainConfig
) -> tuple[Any, Preprocessing, SliceDataset, SliceDataset | None]:
    """Return a network whose every weight is trained, and what :func:`prepare` returns for it.

    Args:
        slices: The data.
        fold: The slices of each side.
        config: The settings; they name the backbone, if any.
    """
    if config.backbone is None:
        return build_model(config, slices.classes), *prepare(slices, fold, config)
    folder = find_backbone(config.backbone)
    model = open_backbone(folder, slices.classes, config.seed)
    return model, *prepare(slices, fold, config, Preprocessing.open(folder))


def prepare(
    slices: SliceTable, fold: Fold, config: TrainConfig, preprocessing: Preprocessing | None = None
) -> tuple[Preprocessing, SliceDataset, SliceDataset | None]:
    """Return the preprocessing, the training set and the set that picks the epoch.

    Args:
        slices: The data.
        fold: The slices of each side.
        config: The settings.
        preprocessing: That of a backbone; None makes one by the configuration and fits it to the training slices.
    """
    rows = [slices.row_of[slice_id] for slice_id in fold.train]
    resized = preprocessing or Preprocessing(config.image_size, config.crop_share)
    pixels = resized.resize([slices.images[row] for row in rows], margin=config.max_shift)
    preprocessing = preprocessing or resized.fitted(pixels)
    training = SliceDataset(pixels, slices.targets(rows), preprocessing, config.seed, config.mirror)
    rows = [slices.row_of[slice_id] for slice_id in fold.selecting(config)]
    if not rows:
        return preprocessing, training, None
    pixels = preprocessing.resize([slices.images[row] for row in rows])
    return preprocessing, training, SliceDataset(pixels, slices.targets(rows), preprocessing)


def prepare_head(
    frozen: FrozenBackbone, slices: SliceTable, fold: Fold, config: TrainConfig
) -> tuple[FeatureClassifier, FeatureDataset, FeatureDataset | None]:
    """Return a copy of the backbone's head to train, the training set and the set that picks the epoch.

    Args:
        frozen: The backbone and its features of the fold's slices.
        slices: The data.
        fold: The slices of each side.
        config: The settings.
    """

    def dataset(slice_ids: tuple[str, ...]) -> FeatureDataset:
        rows = [slices.row_of[slice_id] for slice_id in slice_ids]
        return FeatureDataset(frozen.of(slice_ids), slices.targets(rows))

    selecting = fold.selecting(config)
    classifier = FeatureClassifier(copy.deepcopy(frozen.model.classifier))
    return classifier, dataset(fold.train), dataset(selecting) if selecting else None


def open_frozen(slices: SliceTable, fold: Fold, config: TrainConfig, progress: Progress = silent) -> FrozenBackbone:
    """Return a configuration's backbone and its features of every slice of a fold.

    Args:
        slices: The data.
        fold: The slices of each side.
        config: The settings; they name the backbone, the engine and the precision.
        progress: How to show progress.

    Raises:
        ConfigError, DataError: The backbone cannot be fetched or opened, or the engine is not installed.
        RunError: The cache of features cannot be written.
    """
    folder = find_backbone(str(config.backbone))
    model = open_backbone(folder, slices.classes, config.seed)
    features = slice_features(
        slices,
        fold.train + fold.validation + fold.test,
        folder,
        model,
        precision=feature_precision(config),
        engine=config.engine,
        training_ids=fold.train,
        progress=progress,
    )
    return FrozenBackbone(folder, model, features)


WHOLE_SLICE = Preprocessing(SIDE, crop_share=None)
"""Preprocessing of the patient model: it uses the whole slice."""


def fit_patient_model(slices: SliceTable, fold: Fold, progress: Progress = silent) -> PatientModel:
    """Return the patient model of the training people of a fold; slices without a patient are left out.

    Args:
        slices: The data.
        fold: The slices of each side.
        progress: How to show progress.

    Raises:
        LeakageError: No training slice has a patient.
        RunError: The cache of histograms cannot be written.
    """
    rows = [row for row in map(slices.row_of.__getitem__, fold.train) if slices.patients[row]]
    if not rows:
        raise LeakageError(
            "the patient model needs the patient of each slice; recover them with `brainstage audit`"
        )
    places = _places(slices, rows)
    rows, places = (
        [row for row, known in zip(rows, ~np.isnan(places), strict=True) if known],
        places[~np.isnan(places)],
    )
    return PatientModel.fit(
        slice_histograms(slices, rows, progress),
        [str(slices.patients[row]) for row in rows],
        places,
        slices.targets(rows),
        slices.classes,
    )


def slice_histograms(slices: SliceTable, rows: Sequence[int], progress: Progress = silent) -> Float32Array:
    """Return the orientation histograms of some slices, from the cache where they are in it.

    Args:
        slices: The data.
        rows: Rows of the slices.
        progress: How to show progress.

    Returns:
        float32 of shape (len(rows), 8, 8, 8).

    Raises:
        RunError: The cache cannot be written.
    """

    def compute(slice_ids: Sequence[str]) -> Float32Array:
        pixels = WHOLE_SLICE.resize([slices.images[slices.row_of[slice_id]] for slice_id in slice_ids])
        return orientation_histograms(pixels).reshape(len(pixels), -1)

    if not rows:
        return orientation_histograms([])
    cache = FeatureCache({"histograms": [VERSION, SIDE, CELL, DIRECTIONS]})
    histograms = cache.get([slices.slice_ids[row] for row in rows], compute, progress)
    return histograms.reshape(len(rows), SIDE // CELL, SIDE // CELL, DIRECTIONS)


def _places(slices: SliceTable, rows: list[int]) -> Float64Array:
    """Return the place of each slice along the stack, from 0 to 1; NaN where it is not known.

    Where the data does not number a person's slices, their places are recovered from the similarity of slices of
    different people.
    """
    index = [slices.rows["slice_index"][row].as_py() for row in rows]
    if None not in index:
        levels = np.array(index, dtype=np.float64)
        return (levels - levels.min()) / max(1, np.ptp(levels))
    place, series = find_levels(describe_slices([slices.images[row] for row in rows]).coarse)
    largest = np.bincount(series + 1)[1:].argmax() if (series >= 0).any() else 0
    return np.where(series == largest, place, np.nan)


def feature_precision(config: TrainConfig) -> Precision:
    """Return the precision that features are computed in: ``fp32``, ``bf16`` or ``int8``."""
    if config.precision == "int8":
        return "int8"
    return "bf16" if uses_bf16(config) else "fp32"
