"""Linear probes: slices through a frozen backbone, once, and the head alone as a network to fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from brainstage.data.table import SliceTable
from brainstage.data.transforms import Preprocessing
from brainstage.files import sha256
from brainstage.models.backbones import WEIGHTS
from brainstage.models.features import Features, cached_features, forward, split_head
from brainstage.progress import Progress, silent


def slice_features(
    slices: SliceTable,
    slice_ids: Sequence[str],
    folder: Path,
    model: Any,
    *,
    bf16: bool,
    progress: Progress = silent,
) -> dict[str, Features]:
    """Return what a backbone makes of slices before its head, from the cache where it is there.

    Args:
        slices: The data.
        slice_ids: The slices.
        folder: The backbone's folder.
        model: The backbone, as :func:`brainstage.models.backbones.open_backbone` gave it.
        bf16: Whether to compute in bfloat16.
        progress: How to show progress.

    Returns:
        float32 of shape (D,) for each slice id.

    Raises:
        DataError: The folder's image processor is not known.
        RunError: The cache is not writable or the disk is full.
    """
    preprocessing = Preprocessing.open(folder)
    network = forward(split_head(model)[0], bf16)

    def compute(ids: Sequence[str]) -> Features:
        return network(
            preprocessing.normalise(preprocessing.resize([slices.images[slices.row_of[i]] for i in ids]))
        )

    key = {
        "weights": sha256(folder / WEIGHTS),
        "preprocessing": repr(preprocessing),
        "precision": "bf16" if bf16 else "fp32",
    }
    values = cached_features(key, slice_ids, compute, progress)
    return dict(zip(slice_ids, values, strict=True))


class FeatureDataset(Dataset[Any]):
    """Features of slices in memory, for :class:`FeatureClassifier`.

    Args:
        features: float32 of shape (N, D).
        targets: Class numbers, int64 of shape (N,).
    """

    def __init__(self, features: NDArray[np.float32], targets: NDArray[np.int64]):
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

    def forward(self, features: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Return ``logits`` of shape (B, classes), and ``loss`` where labels are given."""
        logits = self.head(features)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


@torch.inference_mode()
def classify(head: torch.nn.Module, features: Features) -> NDArray[np.float32]:
    """Return class probabilities, float32 of shape (N, classes), for features of shape (N, D)."""
    probabilities: NDArray[np.float32] = head(torch.from_numpy(features)).softmax(dim=1).numpy()
    return probabilities
