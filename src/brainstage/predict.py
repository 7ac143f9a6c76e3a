"""Predictor: slices to stage probabilities, from a model folder alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from brainstage.data.table import SliceTable
from brainstage.data.transforms import Pixels, Preprocessing
from brainstage.errors import DataError, RunError
from brainstage.files import sha256
from brainstage.models.backbones import WEIGHTS, load, read_config
from brainstage.models.build import folded, open_grey
from brainstage.progress import Progress, silent
from brainstage.run import RunFolder
from brainstage.schema import PROB_PREFIX, with_metadata

BATCH = 32
"""Slices a forward pass: more do not fit the caches of a laptop's processor, and take longer each."""


class Predictor:
    """A trained classifier, ready for slices.

    Attributes:
        classes: Class names, in the order of the probabilities.
        hash: SHA-256 of the weights file.
        about: The run's manifest: protocol, leakage verdict, whether the data was synthetic.
    """

    def __init__(self, model: Any, preprocessing: Preprocessing, weights_hash: str, about: dict[str, Any]):
        self._model = model.to(memory_format=torch.channels_last)
        self._preprocessing = preprocessing
        self.hash = weights_hash
        self.about = about
        self.classes: tuple[str, ...] = tuple(model.config.id2label[i] for i in range(model.config.num_labels))

    @classmethod
    def open(cls, path: Path | str) -> Predictor:
        """Open a run folder.

        Only safetensors weights of the architectures that brainstage trains are opened; nothing in the folder
        is executed.

        Raises:
            RunError: The folder or a file of it is missing, damaged or of another kind.
        """
        run = RunFolder(path)
        if not run.path.is_dir():
            raise RunError(f"{path}: no such run; `brainstage train --name NAME` makes runs/NAME")
        try:
            about = json.loads(run.manifest.read_text(encoding="utf-8")) if run.finished else {}
            return cls(*_open(run.model), sha256(run.model / WEIGHTS), about)
        except DataError as error:
            raise RunError(str(error)) from error
        except Exception as error:  # whatever safetensors, transformers or torch find wrong with foreign files
            reason = shorten(str(error), 200) or type(error).__name__
            raise RunError(f"{run.model}: not a usable model folder ({reason})") from error

    @torch.inference_mode()
    def predict(self, images: Sequence[Pixels], *, progress: Progress = silent) -> NDArray[np.float32]:
        """Return class probabilities, float32 of shape (N, classes), for grey slices, each uint8 of (H, W)."""
        scores = np.empty((len(images), len(self.classes)), np.float32)
        with progress("Predicting", len(images)) as advance:
            for start in range(0, len(images), BATCH):
                rows = slice(start, start + BATCH)
                pixels = self._preprocessing.normalise(self._preprocessing.resize(images[rows]))
                scores[rows] = self._model(torch.from_numpy(pixels)).logits.softmax(dim=1)
                advance(len(pixels))
        return scores


def _open(folder: Path) -> tuple[Any, Preprocessing]:
    """Return the network and its preprocessing. A ResNet that sees equal channels is opened for one of them."""
    preprocessing = Preprocessing.open(folder)
    grey = preprocessing.one_channel()
    if read_config(folder)["model_type"] == "resnet" and grey:
        return folded(open_grey(folder)), grey
    return load(folder), preprocessing


def prediction_table(
    slices: SliceTable,
    slice_ids: Sequence[str],
    probabilities: NDArray[np.float32],
    *,
    split: Sequence[str],
    fold: int,
    model: str,
    metadata: dict[str, Any],
) -> pa.Table:
    """Return a prediction table (:func:`brainstage.schema.validate_predictions`) of some slices.

    Args:
        slices: The slice table that the slices are in.
        slice_ids: The slices.
        probabilities: float32 of shape (len(slice_ids), classes).
        split: Side of each slice.
        fold: Number of the fold.
        model: SHA-256 of the weights.
        metadata: What is written beside the columns; ``protocol`` and ``leakage`` are read by ``evaluate``.
    """
    rows = [slices.row_of[slice_id] for slice_id in slice_ids]
    columns: dict[str, Any] = {
        "slice_id": list(slice_ids),
        "patient_id": pa.array([slices.patients[row] for row in rows], pa.string()),
        "split": list(split),
        "fold": pa.array([fold] * len(rows), pa.int32()),
        "label": pa.array([slices.labels[row] for row in rows], pa.string()),
        "model": [model] * len(rows),
    }
    columns |= {PROB_PREFIX + name: probabilities[:, number] for number, name in enumerate(slices.classes)}
    return with_metadata(pa.table(columns), metadata)
