"""From a configuration and a fold to the network, the training set and the set that picks the epoch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from brainstage.core.arrays import Pixels
from brainstage.core.cache import scratch_array
from brainstage.core.config import Precision, TrainConfig
from brainstage.core.parallel import parallel_map
from brainstage.core.progress import Progress, silent
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.signatures import BLOCK_ROWS, blocks
from brainstage.datasets.splits import Fold
from brainstage.datasets.table import SliceTable
from brainstage.models.acquisitions import Acquisition
from brainstage.models.backbones import find_backbone, open_backbone
from brainstage.models.network import build_model
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
    versions = 1 + (ACQUISITIONS_OF_NETWORKS if config.augment == "acquisitions" else 0)
    shape = (versions, len(rows), *resized.shape(config.max_shift))
    pixels = scratch_array(shape, np.uint8, random_order=True)
    resized.resize([slices.images[row] for row in rows], config.max_shift, out=pixels[0])
    for number in range(1, versions):
        for part in blocks(len(rows), BLOCK_ROWS):
            acquired = _acquire(slices, rows[part], number - 1)
            resized.resize(acquired, config.max_shift, out=pixels[number, part])
    preprocessing = preprocessing or resized.fitted(pixels[0])
    training = SliceDataset(pixels, slices.targets(rows), preprocessing, config.seed, config.mirror)
    rows = [slices.row_of[slice_id] for slice_id in fold.selecting(config)]
    if not rows:
        return preprocessing, training, None
    pixels = preprocessing.resize([slices.images[row] for row in rows])
    return preprocessing, training, SliceDataset(pixels[None], slices.targets(rows), preprocessing)


def _acquire(slices: SliceTable, rows: Sequence[int], number: int) -> list[Pixels]:
    """Return slices as a random acquisition of its own shows each."""
    seeds = [int(slices.slice_ids[row][:8], 16) + number for row in rows]
    images = [slices.images[row] for row in rows]
    return parallel_map(lambda one: Acquisition.draw(one[1]).apply(one[0]), list(zip(images, seeds, strict=True)))


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
    return compute_frozen(slices, config, fold.train + fold.validation + fold.test, fold.train, progress)


def compute_frozen(
    slices: SliceTable,
    config: TrainConfig,
    slice_ids: Sequence[str],
    training_ids: Sequence[str],
    progress: Progress = silent,
) -> FrozenBackbone:
    """Return a configuration's backbone and its features of some slices.

    Args:
        slices: The data.
        config: The settings; they name the backbone, the engine and the precision.
        slice_ids: The slices.
        training_ids: The training slices, which a network of 8-bit integers is calibrated on.
        progress: How to show progress.

    Raises:
        ConfigError, DataError, RunError: As :func:`open_frozen`.
    """
    folder = find_backbone(str(config.backbone))
    model = open_backbone(folder, slices.classes, config.seed)
    features = slice_features(
        slices,
        slice_ids,
        folder,
        model,
        precision=feature_precision(config),
        engine=config.engine,
        training_ids=training_ids,
        progress=progress,
    )
    return FrozenBackbone(folder, model, features)


ACQUISITIONS_OF_NETWORKS = 4
"""Random acquisitions of each training slice that the epochs of a network draw from."""


def feature_precision(config: TrainConfig) -> Precision:
    """Return the precision that features are computed in: ``fp32``, ``bf16`` or ``int8``."""
    if config.precision == "int8":
        return "int8"
    return "bf16" if uses_bf16(config) else "fp32"
