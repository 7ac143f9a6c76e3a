"""Predictor: slices to stage probabilities, from a model folder alone, whichever kind of model lies there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brainstage.core.errors import BrainstageError, DataError, RunError
from brainstage.core.files import sha256
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.core.schema import LEAST, PROB_PREFIX, with_metadata
from brainstage.datasets.preprocessing import Pixels, Preprocessing
from brainstage.datasets.table import SliceTable
from brainstage.inference.out_of_distribution import Likeness
from brainstage.models.engines.base import Engine, pool_of_cores
from brainstage.models.folder import ONNX, PROCESSOR, class_names, read_config, refuse_pickles, weights_file
from brainstage.models.histograms import orientation_histograms
from brainstage.models.patient_model import PatientModel, is_patient_model, people_rows
from brainstage.models.weights import BUNDLED, DEFAULT, bundled_folder
from brainstage.stats.calibration import Calibration, softened

BATCH = 32
"""Slices a forward pass: more do not fit the caches of a laptop's processor, and take longer each."""


class Answer(NamedTuple):
    """What a model says of slices.

    Attributes:
        probabilities: float32 of shape (N, classes).
        least: Least probability of a stage that is in the 90 % set, of shape (N,); None where the model is not
            calibrated (:mod:`brainstage.stats.calibration`).
    """

    probabilities: NDArray[np.float32]
    least: NDArray[np.float64] | None


class Predictor:
    """A trained classifier, ready for slices: a network, or the patient model.

    Attributes:
        classes: Class names, in the order of the probabilities.
        hash: SHA-256 of the weights file.
        about: The run's manifest: protocol, leakage verdict, whether the data was synthetic.
    """

    def __init__(
        self,
        model: SliceClassifier | PatientClassifier,
        weights_hash: str,
        about: dict[str, Any],
        likeness: Likeness | None = None,
    ):
        self._model = model
        self._likeness = likeness
        self.hash = weights_hash
        self.about = about
        self.classes = model.classes

    @classmethod
    def open(cls, path: Path | str = DEFAULT) -> Predictor:
        """Open a run folder, an exported one, or by its name a model that comes with the package.

        Only safetensors weights of the architectures that brainstage trains and what ``brainstage export`` made of
        them are opened; nothing in the folder is executed, and one that holds a pickle is refused.

        Raises:
            RunError: The folder or a file of it is missing, damaged or of another kind.
            ConfigError: What runs an exported network is not installed.
        """
        run = RunFolder(bundled_folder(str(path)) if path in BUNDLED else path)
        if not run.path.is_dir():
            raise RunError(f"{path}: no such run; `brainstage train --name NAME` makes runs/NAME")
        with _usable(run.model):
            about = json.loads(run.manifest.read_text(encoding="utf-8")) if run.finished else {}
            return cls(open_model(run.model), sha256(weights_file(run.model)), about, Likeness.open(run.model))

    def predict(
        self,
        images: Sequence[Pixels],
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
        *,
        progress: Progress = silent,
    ) -> NDArray[np.float32]:
        """Return class probabilities for slices.

        Args:
            images: Grey slices, each uint8 of shape (H, W).
            patients: Whose slice each is. Slices of one person are answered together: the patient model reads
                them as one, a network's probabilities are averaged. None, for all or for one, answers it alone.
            levels: Place of each slice among the 32 of the training data, from 0, the lowest. None, for all or
                for one, leaves it to the model, which may err by a few.
            progress: How to show progress.

        Returns:
            float32 of shape (N, classes).
        """
        return self.answer(self.look(images, progress=progress), patients, levels).probabilities

    @property
    def calibrated(self) -> bool:
        """Whether probabilities were fitted to people that the model was not fitted on; else they are scores."""
        return self._model.calibrated

    @property
    def network(self) -> Any | None:
        """The network as a ``torch.nn.Module``, None where the model is none or was exported."""
        return self._model.network

    @property
    def engine(self) -> str:
        """What computes: ``torch``, ``onnx`` or, of the patient model, ``numpy``."""
        return self._model.engine

    @property
    def by_slice(self) -> bool:
        """Whether each slice is staged alone, as a network does it; the patient model reads a person's together."""
        return self._model.by_slice

    def pool(self) -> AbstractContextManager[Executor]:
        """Return threads to call this model from, one a core: its arithmetic is then done on one core each."""
        return self._model.pool()

    @property
    def preprocessing(self) -> Preprocessing:
        """From slices to what the model looks at."""
        return self._model.preprocessing

    def levels(self, seen: NDArray[np.float32], known: Sequence[int | None]) -> list[int | None]:
        """Return the level of each slice as the model takes it: as it is known, or as it looks to it."""
        return self._model.levels(seen, known)

    def randomised(self, seed: int) -> Predictor:
        """Return a model of the same form that knows nothing: a network's weights, or people's stages, shuffled.

        Raises:
            ConfigError: The model was exported, so its weights cannot be had.
        """
        return Predictor(self._model.randomised(seed), "", self.about, self._likeness)

    @property
    def refuses(self) -> bool:
        """Whether the model knows what its training slices look like; runs of earlier versions do not."""
        return self._likeness is not None

    def refusals(self, images: Sequence[Pixels]) -> list[str | None]:
        """Return why each picture should not be staged, as it is unlike the training slices; None where it may be.

        :meth:`predict` does not ask: whatever it is given, it answers.
        """
        return self._likeness.refusals(images) if self._likeness else [None] * len(images)

    def look(self, images: Sequence[Pixels], *, progress: Progress = silent) -> NDArray[np.float32]:
        """Return what the model sees in each slice, float32 of shape (N, …): the costly half of an answer."""
        seen = [np.zeros((0,), np.float32)] if not len(images) else []
        with progress("Predicting", len(images)) as advance:
            for start in range(0, len(images), BATCH):
                seen.append(self._model.look(images[start : start + BATCH]))
                advance(len(seen[-1]))
        return np.concatenate(seen)

    def answer(
        self,
        seen: NDArray[np.float32],
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> Answer:
        """Answer from what :meth:`look` saw; other arguments as for :meth:`predict`."""
        if not len(seen):
            return Answer(np.zeros((0, len(self.classes)), np.float32), np.zeros(0) if self.calibrated else None)
        return self._model.answer(seen, patients, levels)


class SliceClassifier:
    """A network: each slice is staged alone."""

    by_slice = True

    def __init__(self, engine: Engine, preprocessing: Preprocessing, calibration: Calibration | None = None):
        self._engine = engine
        self.preprocessing = preprocessing
        self._calibration = calibration
        self.calibrated = calibration is not None
        self.engine, self.classes, self.network, self.pool = (
            engine.name,
            engine.classes,
            engine.network,
            engine.pool,
        )

    def look(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return the scores of each slice, (N, classes)."""
        return softmax(self.logits(images))

    def logits(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return the logits of each slice, (N, classes)."""
        return self._engine.logits(self.pixels(images))

    def pixels(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return the network's input, (N, C, H, W)."""
        return self.preprocessing.normalise(self.preprocessing.resize(images))

    def levels(self, _scores: NDArray[np.float32], known: Sequence[int | None]) -> list[int | None]:
        """Return the levels as they are known: a network has no use for them."""
        return list(known)

    def randomised(self, seed: int) -> SliceClassifier:
        """Return the same network with the values of each weight tensor shuffled."""
        return SliceClassifier(self._engine.randomised(seed), self.preprocessing)

    def answer(
        self,
        scores: NDArray[np.float32],
        patients: Sequence[str | None] | None,
        _levels: Sequence[int | None] | None,
    ) -> Answer:
        """Average the probabilities of each person's slices, at whatever levels."""
        fits = self._calibration
        probabilities = softened(scores, fits.slice.temperature) if fits else scores.astype(np.float64)
        least = np.full(len(scores), fits.slice.least) if fits else None
        for rows in people_rows(patients) if patients else ():
            if len(rows) > 1:
                of_slices = softened(scores[rows], fits.person.temperature) if fits else probabilities[rows]
                probabilities[rows] = of_slices.mean(axis=0)
                if fits and least is not None:
                    least[rows] = fits.person.least
        return Answer(probabilities.astype(np.float32), least)


class PatientClassifier:
    """The patient model: slices are looked at one by one and judged by person."""

    calibrated = True
    network = None
    engine = "numpy"
    by_slice = False
    pool = staticmethod(pool_of_cores)

    def __init__(self, model: PatientModel, preprocessing: Preprocessing):
        self.preprocessing = preprocessing
        self._model, self.classes = model, model.classes

    def look(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return the histograms of each slice, (N, 8, 8, 8)."""
        return orientation_histograms(self.preprocessing.resize(images))

    def levels(self, histograms: NDArray[np.float32], known: Sequence[int | None]) -> list[int | None]:
        """Return the level of each slice, told by its look where it is not known."""
        told = self._model.levels(histograms).tolist()
        return [look if level is None else level for look, level in zip(told, known, strict=True)]

    def randomised(self, seed: int) -> PatientClassifier:
        """Return the same model with the stages dealt out to its people at random."""
        return PatientClassifier(self._model.shuffled(seed), self.preprocessing)

    def answer(
        self,
        histograms: NDArray[np.float32],
        patients: Sequence[str | None] | None,
        levels: Sequence[int | None] | None,
    ) -> Answer:
        """Judge each person by all slices at hand."""
        return Answer(*self._model.answer(histograms, patients, levels))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores (N, classes) of logits (N, classes): from 0 to 1, each row adding up to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return scores


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Turn whatever is found wrong with a model folder's files into one sentence."""
    try:
        yield
    except DataError as error:
        raise RunError(str(error)) from error
    except BrainstageError:
        raise
    except Exception as error:  # whatever safetensors, transformers or torch find wrong with foreign files
        reason = shorten(str(error), 200) or type(error).__name__
        raise RunError(f"{folder}: not a usable model folder ({reason})") from error


def open_model(folder: Path) -> SliceClassifier | PatientClassifier:
    """Return the model of a model folder.

    Raises:
        RunError, ConfigError: As :meth:`Predictor.open`.
    """
    with _usable(folder):
        return _open(folder)


def _open(folder: Path) -> SliceClassifier | PatientClassifier:
    """Import the library that a model needs, and that alone: a fresh process waits for no other."""
    refuse_pickles(folder)
    preprocessing = Preprocessing.open(folder)
    if is_patient_model(folder):
        return PatientClassifier(PatientModel.open(folder), preprocessing)
    weights = weights_file(folder)
    config, grey = read_config(folder, weights=weights.name), preprocessing.one_channel()
    engine: Engine
    if weights.name == ONNX:
        from brainstage.models.engines.onnx import OnnxEngine

        engine = OnnxEngine.open(weights, class_names(config), preprocessing.size)
        one_channel = engine.channels == 1
    else:
        from brainstage.models.engines.torch import TorchEngine

        one_channel = config["model_type"] == "resnet" and grey is not None
        engine = TorchEngine.open(folder, grey=one_channel)
    seen = grey if one_channel else preprocessing
    if seen is None:
        raise DataError(f"{weights}: takes one channel, but its {PROCESSOR} makes three that differ")
    return SliceClassifier(engine, seen, Calibration.open(folder))


def prediction_table(
    slices: SliceTable,
    slice_ids: Sequence[str],
    probabilities: NDArray[np.float32],
    *,
    split: Sequence[str],
    fold: int,
    model: str,
    metadata: dict[str, Any],
    least: NDArray[np.float64] | None = None,
) -> pa.Table:
    """Return a prediction table (:func:`brainstage.core.schema.validate_predictions`) of some slices.

    Args:
        slices: The slice table that the slices are in.
        slice_ids: The slices.
        probabilities: float32 of shape (len(slice_ids), classes).
        split: Side of each slice.
        fold: Number of the fold.
        model: SHA-256 of the weights.
        metadata: What is written beside the columns; ``protocol`` and ``leakage`` are read by ``evaluate``.
        least: Least probability of a stage that is in the 90 % set, of each slice, where the model knows it.
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
    if least is not None:
        columns[LEAST] = least
    return with_metadata(pa.table(columns), metadata)
