"""Networks: which weights are fitted, on which inputs, and what the run keeps of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from brainstage.core.config import TrainConfig
from brainstage.core.files import sha256
from brainstage.core.levels import LEVELS_KEY
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.splits import Fold
from brainstage.datasets.table import SliceTable
from brainstage.inference.classifiers import Prediction
from brainstage.models.backbones import find_backbone
from brainstage.models.folder import WEIGHTS
from brainstage.models.network import to_rgb
from brainstage.training.fitted import Fitted, seconds_since
from brainstage.training.inputs import build_whole, feature_precision, open_frozen, prepare_head
from brainstage.training.probe import classify
from brainstage.training.processes import is_first
from brainstage.training.tracking import open_tracker
from brainstage.training.trainer import fit_network


def fit_slices(
    run: RunFolder,
    slices: SliceTable,
    config: TrainConfig,
    fold: Fold,
    progress: Progress = silent,
    track: str | None = None,
) -> Fitted:
    """Fit a network to a fold's training slices: all of it, or the head of a frozen backbone.

    Args:
        run: The run, whose folder gets checkpoints and the figures of each epoch.
        slices: The data.
        config: The settings.
        fold: The slices of each side.
        progress: How to show progress.
        track: As for :func:`brainstage.train`.

    Raises:
        ConfigError, DataError, RunError, OtherProcessError, Terminated: As :func:`brainstage.train`.
    """
    fit = partial(
        fit_network,
        config=config,
        checkpoints=run.checkpoints,
        progress=progress,
        history=run.history,
        trackers=[open_tracker(track, run)] if track and is_first() else [],
    )
    fitted = (
        _fit_head(slices, config, fold, progress, fit) if config.frozen else _fit_whole(slices, config, fold, fit)
    )
    return replace(fitted, about={**fitted.about, "threads": torch.get_num_threads()})


def _fit_whole(slices: SliceTable, config: TrainConfig, fold: Fold, fit: Callable[..., Trainer]) -> Fitted:
    """Fit every weight: of a network from scratch, or of a backbone and its new head."""
    started = time.monotonic()
    model, preprocessing, training, selecting = build_whole(slices, fold, config)
    trainer = fit(model, training, selecting)
    model = trainer.model.cpu().float()
    if not config.backbone:
        return Fitted(_saver(to_rgb(model), slices), preprocessing, _size(model) | seconds_since(started))
    folder = find_backbone(config.backbone)
    about = _about_backbone(config.backbone, folder) | _size(model) | seconds_since(started)
    return Fitted(_saver(model, slices), preprocessing, about)


def _fit_head(
    slices: SliceTable, config: TrainConfig, fold: Fold, progress: Progress, fit: Callable[..., Trainer]
) -> Fitted:
    """Fit the head of a frozen backbone on features that are computed once."""
    started = time.monotonic()
    frozen = open_frozen(slices, fold, config, progress)
    about: dict[str, Any] = {"features": f"{config.engine} {feature_precision(config)}"}
    about["feature_seconds"], started = round(time.monotonic() - started, 1), time.monotonic()
    classifier, training, selecting = prepare_head(frozen, slices, fold, config)
    trainer = fit(classifier, training, selecting)
    frozen.model.classifier = trainer.model.head.cpu()
    judged = fold.validation + fold.test
    return Fitted(
        _saver(frozen.model, slices),
        Preprocessing.open(frozen.folder),
        _about_backbone(str(config.backbone), frozen.folder) | about | _size(frozen.model) | seconds_since(started),
        Prediction(classify(frozen.model.classifier, frozen.of(judged)), None) if judged else None,
    )


def _saver(network: Any, slices: SliceTable) -> Callable[[Path], object]:
    """Return what writes a network into a folder; its configuration names the levels that it was trained on."""
    network.config.update({LEVELS_KEY: slices.level_set.name})
    save: Callable[[Path], object] = network.save_pretrained
    return save


def _size(model: Any) -> dict[str, int]:
    return {"parameters": sum(weight.numel() for weight in model.parameters())}


def _about_backbone(name: str, folder: Path) -> dict[str, Any]:
    return {"backbone": {"name": name, "weights": sha256(folder / WEIGHTS)}}
