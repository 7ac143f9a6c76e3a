"""From a configuration and a fold to what is fitted: network, training set, the set that picks the epoch."""

from __future__ import annotations

import copy
from typing import Any

from brainstage.config import Precision, TrainConfig
from brainstage.data.splits import Fold
from brainstage.data.table import SliceTable
from brainstage.data.transforms import Preprocessing
from brainstage.fit import SliceDataset, uses_bf16
from brainstage.models.backbones import find_backbone, open_backbone
from brainstage.models.build import build_model
from brainstage.probe import FeatureClassifier, FeatureDataset, FrozenBackbone, slice_features
from brainstage.progress import Progress, silent


def build_whole(
    slices: SliceTable, fold: Fold, config: TrainConfig
) -> tuple[Any, Preprocessing, SliceDataset, SliceDataset | None]:
    """Return a network of which every weight is to be fitted, and what :func:`prepare` gives for it."""
    if config.backbone is None:
        return build_model(config, slices.classes), *prepare(slices, fold, config)
    folder = find_backbone(config.backbone)
    model = open_backbone(folder, slices.classes, config.seed)
    return model, *prepare(slices, fold, config, Preprocessing.open(folder))


def prepare(
    slices: SliceTable, fold: Fold, config: TrainConfig, preprocessing: Preprocessing | None = None
) -> tuple[Preprocessing, SliceDataset, SliceDataset | None]:
    """Return the preprocessing, the training set and the set that picks the epoch.

    Without a preprocessing it is made by the configuration and fitted to the training slices.
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
    """Return a copy of the backbone's head to fit, the training set and the set that picks the epoch."""

    def dataset(slice_ids: tuple[str, ...]) -> FeatureDataset:
        rows = [slices.row_of[slice_id] for slice_id in slice_ids]
        return FeatureDataset(frozen.of(slice_ids), slices.targets(rows))

    selecting = fold.selecting(config)
    classifier = FeatureClassifier(copy.deepcopy(frozen.model.classifier))
    return classifier, dataset(fold.train), dataset(selecting) if selecting else None


def open_frozen(slices: SliceTable, fold: Fold, config: TrainConfig, progress: Progress = silent) -> FrozenBackbone:
    """Return a configuration's backbone and what it makes of every slice of a fold.

    Raises:
        ConfigError, DataError: The backbone cannot be had or opened, or the engine is not installed.
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
        progress=progress,
    )
    return FrozenBackbone(folder, model, features)


def feature_precision(config: TrainConfig) -> Precision:
    """Return what features are computed in: ``fp32``, ``bf16`` or ``int8``."""
    if config.precision == "int8":
        return "int8"
    return "bf16" if uses_bf16(config) else "fp32"
