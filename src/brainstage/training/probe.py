"""Linear probes: slices through a frozen backbone, once, and the head alone as a network to fit."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedConfig

from brainstage.core.arrays import Float32Array, IntArray
from brainstage.core.config import Engine, Precision
from brainstage.core.files import sha256
from brainstage.core.progress import Progress, silent
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.table import SliceTable
from brainstage.models.backbones import forward, split_head
from brainstage.models.engines import openvino
from brainstage.models.features import FeatureCache
from brainstage.models.folder import WEIGHTS


def slice_features(
    slices: SliceTable,
    slice_ids: Sequence[str],
    folder: Path,
    model: Any,
    *,
    precision: Precision,
    engine: Engine = "torch",
    training_ids: Sequence[str] | None = None,
    progress: Progress = silent,
) -> dict[str, Float32Array]:
    """Return the features that a backbone computes of slices before its head, from the cache where it has them.

    The ranges of the 8-bit network come from those 16 training slices whose ids are smallest, and its features are
    kept under their hash. So equal data has equal features, whatever was computed before; another fold, whose
    training slices are others, has features of its own.

    Args:
        slices: The data.
        slice_ids: The slices.
        folder: The backbone's folder.
        model: The backbone, as :func:`brainstage.models.backbones.open_backbone` returns it.
        precision: ``fp32``, ``bf16``, or ``int8`` (``openvino`` only).
        engine: What computes them.
        training_ids: The training slices, which ``int8`` is calibrated on; None takes ``slice_ids``.
        progress: How to show progress.

    Returns:
        float32 of shape (D,) for each slice id.

    Raises:
        ConfigError: The engine is not installed.
        DataError: The folder's image processor is not known.
        RunError: The cache is not writable or the disk is full.
    """
    preprocessing = Preprocessing.open(folder)
    key = {
        "weights": sha256(folder / WEIGHTS),
        "preprocessing": repr(preprocessing),
        "precision": precision,
        "engine": engine,
    }
    examples = list(slice_ids[:2])  # what a network is traced with; its features do not depend on them
    if precision == "int8":
        examples = sorted(training_ids or slice_ids)[: openvino.CALIBRATION_SLICES]
        key["calibration"] = hashlib.sha256("\n".join(examples).encode()).hexdigest()
    cache = FeatureCache(key)

    def inputs_of(ids: Sequence[str]) -> Float32Array:
        return preprocessing.normalise(preprocessing.resize([slices.images[slices.row_of[i]] for i in ids]))

    @functools.cache  # made when the first slice is missing
    def network() -> Callable[[Float32Array], Float32Array]:
        return _network(model, inputs_of(examples), cache, precision, engine)

    def compute(ids: Sequence[str]) -> Float32Array:
        return network()(inputs_of(ids))

    return dict(zip(slice_ids, cache.get(slice_ids, compute, progress), strict=True))


def _network(
    model: Any, inputs: Float32Array, cache: FeatureCache, precision: Precision, engine: Engine
) -> Callable[[Float32Array], Float32Array]:
    body, _ = split_head(model)
    if engine == "torch":
        return forward(body, precision == "bf16")
    if precision == "int8":
        return openvino.quantized(body, inputs, cache.folder)
    return openvino.compiled(body, inputs, bf16=precision == "bf16")


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone that stays as it is.

    Attributes:
        folder: Its folder.
        model: The whole network, with the head that training starts from.
        features: float32 of shape (D,) for each slice id.
    """

    folder: Path
    model: Any
    features: dict[str, Float32Array]

    def of(self, slice_ids: Sequence[str]) -> Float32Array:
        """Return the features of slices, float32 of shape (N, D)."""
        return np.stack([self.features[slice_id] for slice_id in slice_ids])


class FeatureDataset(Dataset[Any]):
    """Features of slices in memory, for :class:`FeatureClassifier`.

    Args:
        features: float32 of shape (N, D).
        targets: Class numbers, int64 of shape (N,).
    """

    def __init__(self, features: Float32Array, targets: IntArray):
        self.features, self.targets = torch.from_numpy(features), torch.from_numpy(targets)

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: features know no augmentation."""

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Return a batch: ``features`` float32 (B, D) and ``labels`` int64 (B,)."""
        return {"features": self.features[rows], "labels": self.targets[rows]}


class FeatureClassifier(torch.nn.Module):
    """A head alone, with the loss that ``transformers`` gives the whole network."""

    def __init__(self, head: torch.nn.Module):
        super().__init__()
        self.head = head
        self.config = PreTrainedConfig()  # Trainer reads it where labels are smoothed

    def forward(self, features: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Return ``logits`` of shape (B, classes), and ``loss`` where labels are given."""
        logits = self.head(features)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


@torch.inference_mode()
def classify(head: torch.nn.Module, features: Float32Array) -> Float32Array:
    """Return class probabilities, float32 of shape (N, classes), for features of shape (N, D)."""
    probabilities: Float32Array = head(torch.from_numpy(features)).softmax(dim=1).numpy()
    return probabilities
