"""Predictor: slices to stage probabilities, for any model folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from brainstage.core.arrays import FeatureArray, Float32Array, Float64Array, Pixels
from brainstage.core.errors import BrainstageError, DataError, RunError
from brainstage.core.files import sha256
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.core.parallel import worker_pool
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import CONFORMAL_THRESHOLD, PROB_PREFIX, is_ordered, with_metadata
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.table import SliceTable
from brainstage.inference.out_of_distribution import OutOfDistributionDetector
from brainstage.models.engines.base import Engine
from brainstage.models.find import find_folder
from brainstage.models.folder import (
    ONNX,
    PROCESSOR,
    class_names,
    read_config,
    read_json,
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
from brainstage.models.weights import DEFAULT
from brainstage.stats.calibration import Calibration, apply_temperature

BATCH = 32
"""Slices of one forward pass: larger batches exceed the caches of a laptop's processor and are slower."""


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


class Predictor:
    """A trained classifier, ready for slices: a network, or the patient model.

    Attributes:
        classes: Class names, in the order of the probabilities.
        hash: SHA-256 of the weights file.
        about: The run's manifest: protocol, leakage verdict, whether the data was synthetic; and ``new_people``,
            its performance on people not in the training set in words, where it was evaluated on such.
    """

    def __init__(
        self,
        model: SliceClassifier | PatientClassifier,
        weights_hash: str,
        about: dict[str, Any],
        detector: OutOfDistributionDetector | None = None,
    ):
        self._model = model
        self._detector = detector
        self.hash = weights_hash
        self.about = about
        self.classes = model.classes

    @classmethod
    def open(cls, path: StrPath = DEFAULT) -> Predictor:
        """Open a run folder, an exported folder, a bundled model by its name, or one on the hub by its id.

        ``"ORG/NAME"`` or ``"ORG/NAME@REVISION"`` is downloaded unless the library ``huggingface_hub`` has it in its
        cache; a folder of that name comes first.

        Only safetensors weights of the architectures that brainstage trains, and ONNX files of ``brainstage
        export``, are opened. Nothing in the folder is executed, and a folder that holds a pickle is refused.

        Raises:
            RunError: The folder or a file is missing, damaged, of another kind, or changed since the run finished;
                or the hub has no such model, or cannot be reached.
            ConfigError: The library that runs exported networks is not installed.
        """
        with _usable(Path(path)):
            run = RunFolder(find_folder(path))
        if not run.path.is_dir():
            raise RunError(f"{run.path}: no such run; `brainstage train --name NAME` makes runs/NAME")
        with _usable(run.model):
            about = run.read_manifest() | _on_new_people(run) if run.finished else {}
            model, detector = open_model(run.model), OutOfDistributionDetector.open(run.model)
            hashes = run.verify(run.model) if run.finished else {}
            weights = weights_file(run.model)
            return cls(model, hashes.get(f"model/{weights.name}") or sha256(weights), about, detector)

    def predict_proba(
        self,
        images: Sequence[Pixels],
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
        *,
        progress: Progress = silent,
    ) -> Float32Array:
        """Return class probabilities for slices.

        Args:
            images: Grey slices, each uint8 of shape (H, W).
            patients: Patient of each slice. Slices of one patient are predicted together: the patient model takes
                them as one stack, a network's probabilities are averaged. None, for all or for one slice, predicts
                each slice alone.
            levels: Level of each slice in :attr:`level_set`, from 0, the lowest. None, for all or for one slice,
                has the model estimate it, which may be off by a few levels.
            progress: How to show progress.

        Returns:
            float32 of shape (N, classes).
        """
        features = self.extract_features(images, progress=progress)
        return self.predict_features(features, patients, levels).probabilities

    @property
    def ordered(self) -> bool:
        """Whether :attr:`classes` are known to be in clinical order."""
        return bool(self.about.get("ordered", is_ordered(self.classes)))

    @property
    def calibrated(self) -> bool:
        """Whether probabilities were calibrated on people outside the training set; else they are raw scores."""
        return self._model.calibrated

    @property
    def level_set(self) -> LevelSet:
        """The levels that the model was trained on, which volumes are cut at."""
        return self._model.level_set

    @property
    def network(self) -> Any | None:
        """The network as a ``torch.nn.Module``; None for the patient model and for exported networks."""
        return self._model.network

    @property
    def engine(self) -> str:
        """Library that runs the model: ``torch``, ``onnx`` or, for the patient model, ``numpy``."""
        return self._model.engine

    @property
    def by_slice(self) -> bool:
        """Whether each slice is predicted alone, as by networks; the patient model takes a person's together."""
        return self._model.by_slice

    def pool(self) -> AbstractContextManager[Executor]:
        """Return threads to call this model from, one for each processor; each call uses one processor."""
        return self._model.pool()

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of slices for this model."""
        return self._model.preprocessing

    def levels(self, features: FeatureArray, known: Sequence[int | None]) -> list[int | None]:
        """Return the level of each slice: the known one, else the model's estimate from the slice's features."""
        return self._model.levels(features, known)

    def randomised(self, seed: int) -> Predictor:
        """Return the same model, randomised: a network with shuffled weights, a patient model with shuffled stages.

        Raises:
            ConfigError: The model was exported, so its weights are not accessible.
        """
        return Predictor(self._model.randomised(seed), "", self.about, self._detector)

    @property
    def refuses(self) -> bool:
        """Whether the model detects out-of-distribution slices; runs of earlier versions do not."""
        return self._detector is not None

    def refusals(self, images: Sequence[Pixels]) -> list[str | None]:
        """Return for each image the reason why it is out of distribution, or None where it is not.

        :meth:`predict_proba` does not check this: it predicts a stage for any image.
        """
        return self._detector.refusals(images) if self._detector else [None] * len(images)

    def contributions(
        self, features: FeatureArray, levels: Sequence[int | None] | None = None
    ) -> Contributions | None:
        """Return what each feature of a person's slices adds to the severity; None where the model is a network.

        Args:
            features: Features of all slices of the person, shape (N, …).
            levels: As for :meth:`predict_proba`.
        """
        return self._model.contributions(features, levels)

    def extract_features(
        self, images: Sequence[Pixels], *, as_it_is: bool = False, progress: Progress = silent
    ) -> FeatureArray:
        """Return the model's features of each slice: the costly half of a prediction.

        Args:
            images: Grey slices, each uint8 of shape (H, W).
            as_it_is: Leave out the acquisitions that the patient model looks at beside the slices as they are.
            progress: How to show progress.

        Returns:
            Shape (N, …): float32 scores of a network, uint8 histograms of the patient model.
        """
        features: list[FeatureArray] = [] if len(images) else [np.zeros((0,), np.float32)]
        with progress("Predicting", len(images)) as advance:
            for start in range(0, len(images), BATCH):
                features.append(self._model.extract_features(images[start : start + BATCH], as_it_is=as_it_is))
                advance(len(features[-1]))
        return np.concatenate(features)

    def predict_features(
        self,
        features: FeatureArray,
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> Prediction:
        """Predict from features that :meth:`extract_features` returned.

        Args:
            features: Features of N slices, shape (N, …).
            patients, levels: As for :meth:`predict_proba`.

        Returns:
            Of each slice, or of its person where the person has several.
        """
        if not len(features):
            empty = np.zeros((0, len(self.classes)), np.float32)
            return Prediction(empty, np.zeros(0) if self.calibrated else None)
        return self._model.predict_features(features, patients, levels)


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


def _on_new_people(run: RunFolder) -> dict[str, str]:
    """Return what an evaluation by person found, in words, where no person was on both sides."""
    judged = read_json(run.patient_metrics) if run.patient_metrics.is_file() else {}
    clean = judged.get("protocol") == "patient" and judged.get("leakage", {}).get("status") == "clean"
    return {"new_people": judged["headline"]} if clean and "headline" in judged else {}


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
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


@cache
def open_once(model: str) -> Predictor:
    """Return a model that a process opens for its first task and keeps for the others.

    Raises:
        RunError, ConfigError: As :meth:`Predictor.open`.
    """
    return Predictor.open(model)


def open_model(folder: Path) -> SliceClassifier | PatientClassifier:
    """Return the model of a model folder.

    Raises:
        RunError, ConfigError: As :meth:`Predictor.open`.
    """
    with _usable(folder):
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


def prediction_table(
    slices: SliceTable,
    slice_ids: Sequence[str],
    probabilities: Float32Array,
    *,
    split: Sequence[str],
    fold: int,
    model: str,
    metadata: dict[str, Any],
    conformal_threshold: Float64Array | None = None,
) -> pa.Table:
    """Return a prediction table (:func:`brainstage.core.schema.validate_predictions`) of some slices.

    Args:
        slices: The slice table.
        slice_ids: The slices that were predicted, all of them in the slice table.
        probabilities: float32 of shape (len(slice_ids), classes).
        split: Side of each slice.
        fold: Number of the fold.
        model: SHA-256 of the weights.
        metadata: Stored beside the columns; ``evaluate`` reads ``protocol`` and ``leakage`` there.
        conformal_threshold: Probability from which on a stage belongs to the 90 % prediction set, for each slice,
            float64 of shape (len(slice_ids),); None where not calibrated.
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
    scans = [slices.stacks[row] for row in rows]
    if scans != columns["patient_id"].to_pylist():
        columns["scan_id"] = pa.array(scans, pa.string())
    columns |= {PROB_PREFIX + name: probabilities[:, number] for number, name in enumerate(slices.classes)}
    if conformal_threshold is not None:
        columns[CONFORMAL_THRESHOLD] = conformal_threshold
    return with_metadata(pa.table(columns), metadata)
