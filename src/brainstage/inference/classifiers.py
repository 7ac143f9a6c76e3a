"""The two kinds of classifiers: a network, and the patient model; from features to probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np

from brainstage.core.arrays import Float32Array, Float64Array, Pixels
from brainstage.core.errors import BrainstageError, DataError, RunError
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.core.parallel import worker_pool
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.models.engines.base import Engine
from brainstage.models.folder import (
    ONNX,
    PROCESSOR,
    class_names,
    read_config,
    refuse_pickles,
    trained_levels,
    weights_file,
)
from brainstage.models.patient_features import patient_features
from brainstage.models.patient_model import (
    PREDICTION_SEEDS,
    Contributions,
    PatientModel,
    is_patient_model,
    people_rows,
)
from brainstage.stats.calibration import Calibration, apply_temperature


class Prediction(NamedTuple):
    """Stage probabilities of slices.

    Attributes:
        probabilities: float32 of shape (N, classes).
        conformal_threshold: Probability from which on a stage belongs to the 90 % prediction set, float64 of shape
            (N,); None where the model is not calibrated (:mod:`brainstage.stats.calibration`).
        stability: Share of the acquisitions looked at whose most probable stage is that of the prediction, float64
            of shape (N,); None where the model looks at the scan as it is alone.
        spread: Standard deviation over these acquisitions of the probability of that stage, float64 of shape (N,).
    """

    probabilities: Float32Array
    conformal_threshold: Float64Array | None
    stability: Float64Array | None = None
    spread: Float64Array | None = None


class SliceClassifier:
    """A network: each slice is predicted alone."""

    by_slice = True

    def __init__(
        self,
        engine: Engine,
        preprocessing: Preprocessing,
        calibration: Calibration | None = None,
        level_set: LevelSet = PUBLIC,
    ):
        self._engine = engine
        self.preprocessing, self.level_set = preprocessing, level_set
        self._calibration = calibration
        self.calibrated = calibration is not None
        self.engine, self.classes, self.network, self.pool = (
            engine.name,
            engine.classes,
            engine.network,
            engine.pool,
        )

    def extract_features(self, images: Sequence[Pixels], *, as_it_is: bool = False) -> Float32Array:
        """Return the softmax scores of each slice, as it is, float32 of shape (N, classes)."""
        return softmax(self.logits(images))

    def logits(self, images: Sequence[Pixels]) -> Float32Array:
        """Return the logits of each slice, float32 of shape (N, classes)."""
        return self._engine.logits(self.pixels(images))

    def pixels(self, images: Sequence[Pixels]) -> Float32Array:
        """Return the network's input, float32 of shape (N, C, H, W)."""
        return self.preprocessing.normalise(self.preprocessing.resize(images))

    def levels(self, _scores: Float32Array, known: Sequence[int | None]) -> list[int | None]:
        """Return the known levels: a network does not use them."""
        return list(known)

    def contributions(self, _scores: Float32Array, _levels: Sequence[int | None] | None) -> None:
        """Return None: a network is not linear in what it sees."""

    def randomised(self, seed: int) -> SliceClassifier:
        """Return the same network with the values of each weight tensor shuffled."""
        return SliceClassifier(self._engine.randomised(seed), self.preprocessing, level_set=self.level_set)

    def predict_features(
        self,
        scores: Float32Array,
        patients: Sequence[str | None] | None,
        _levels: Sequence[int | None] | None,
    ) -> Prediction:
        """Average the probabilities of each person's slices, calibrated for their number.

        Args:
            scores: Softmax scores of N slices, float32 of shape (N, classes).
            patients: Patient of each slice; None predicts each slice alone.
            _levels: Not used.
        """
        probabilities = scores.astype(np.float64)
        people = [rows for rows in people_rows(patients) if len(rows) > 1] if patients else []
        if self._calibration is None:
            for rows in people:
                probabilities[rows] = probabilities[rows].mean(axis=0)
            return Prediction(probabilities.astype(np.float32), None)
        alone = self._calibration.for_slices(1)
        probabilities = apply_temperature(scores, alone.temperature)
        thresholds = np.full(len(scores), alone.conformal_threshold)
        for rows in people:
            parameters = self._calibration.for_slices(len(rows))
            probabilities[rows] = apply_temperature(scores[rows], parameters.temperature).mean(axis=0)
            thresholds[rows] = parameters.conformal_threshold
        return Prediction(probabilities.astype(np.float32), thresholds)


class PatientClassifier:
    """The patient model: features slice by slice, one prediction for each person."""

    calibrated = True
    network = None
    engine = "numpy"
    by_slice = False
    pool = staticmethod(worker_pool)

    def __init__(self, model: PatientModel, preprocessing: Preprocessing):
        self.preprocessing = preprocessing
        self._model, self.classes, self.level_set = model, model.classes, model.level_set

    def extract_features(self, images: Sequence[Pixels], *, as_it_is: bool = False) -> Pixels:
        """Return what the model sees of each slice in some acquisitions (:func:`patient_features`)."""
        seeds = PREDICTION_SEEDS[:1] if as_it_is else PREDICTION_SEEDS
        return patient_features(list(self.preprocessing.resize(images)), seeds)

    def levels(self, features: Pixels, known: Sequence[int | None]) -> list[int | None]:
        """Return the level of each slice, estimated from its features where it is not known."""
        estimates = self._model.levels(features).tolist()
        return [estimate if level is None else level for estimate, level in zip(estimates, known, strict=True)]

    def contributions(self, features: Pixels, levels: Sequence[int | None] | None) -> Contributions:
        """Return what each feature of a person's slices adds to the severity."""
        return self._model.contributions(features, levels)

    def randomised(self, seed: int) -> PatientClassifier:
        """Return the same model with the stages of its training people shuffled."""
        return PatientClassifier(self._model.shuffled(seed), self.preprocessing)

    def predict_features(
        self,
        features: Pixels,
        patients: Sequence[str | None] | None,
        levels: Sequence[int | None] | None,
    ) -> Prediction:
        """Predict each person from all slices given.

        Args:
            features: Of N slices in each of some acquisitions, uint8 of shape (N, a, FEATURES).
            patients: Patient of each slice; None predicts each slice alone.
            levels: Level of each slice, None where it is to be estimated.
        """
        probabilities, threshold, stability, spread = self._model.predict(features, patients, levels)
        if features.shape[1] == 1:
            return Prediction(probabilities, threshold)
        return Prediction(probabilities, threshold, stability, spread)


def softmax(logits: Float32Array) -> Float32Array:
    """Return the softmax of logits, both float32 of shape (N, classes): scores from 0 to 1 that add up to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Float32Array = powers / powers.sum(axis=1, keepdims=True)
    return scores


def open_model(folder: Path) -> SliceClassifier | PatientClassifier:
    """Return the model of a model folder.

    Raises:
        RunError, ConfigError: As :meth:`Predictor.open`.
    """
    with usable(folder):
        return _open(folder)


def _open(folder: Path) -> SliceClassifier | PatientClassifier:
    """Open a model and import only the library that it needs, so that a new process starts fast."""
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
    input_steps = grey if one_channel else preprocessing
    if input_steps is None:
        raise DataError(
            f"{weights}: takes one channel, but its {PROCESSOR} makes three different ones"
            "; give all three the same mean and standard deviation"
        )
    return SliceClassifier(engine, input_steps, Calibration.open(folder), trained_levels(config, str(folder)))


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn any error about a model folder's files into one sentence."""
    try:
        yield
    except DataError as error:
        raise RunError(str(error)) from error
    except BrainstageError:
        raise
    except Exception as error:  # safetensors, transformers and torch raise many kinds for damaged files
        reason = shorten(str(error), 200) or type(error).__name__
        raise RunError(
            f"{folder}: not a usable model folder ({reason}); train the model or get its folder anew"
        ) from error
