"""Predictor: slices to stage probabilities, for any model folder."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.arrays import FeatureArray, Float32Array, Pixels
from brainstage.core.errors import RunError
from brainstage.core.files import sha256, size_and_time
from brainstage.core.levels import LevelSet
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import is_ordered
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.inference.classifiers import PatientClassifier, Prediction, SliceClassifier, open_model, usable
from brainstage.inference.out_of_distribution import OutOfDistributionDetector
from brainstage.models.find import find_folder
from brainstage.models.folder import WEIGHTS, read_json, weights_file
from brainstage.models.patient_model import Contributions
from brainstage.models.weights import DEFAULT

BATCH = 32
"""Slices of one forward pass: larger batches exceed the caches of a laptop's processor and are slower."""


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
        with usable(Path(path)):
            run = RunFolder(find_folder(path))
        if not run.path.is_dir():
            raise RunError(f"{run.path}: no such run; `brainstage train --name NAME` makes runs/NAME")
        with usable(run.model):
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


def open_once(model: str) -> Predictor:
    """Return a model that a process opens for its first task and keeps for the others, until it is trained anew.

    Raises:
        RunError, ConfigError: As :meth:`Predictor.open`.
    """
    run = RunFolder(model)
    return _opened(model, size_and_time(run.manifest), size_and_time(run.model / WEIGHTS))


@lru_cache(1)
def _opened(model: str, _manifest: tuple[int, ...], _weights: tuple[int, ...]) -> Predictor:
    return Predictor.open(model)


def _on_new_people(run: RunFolder) -> dict[str, str]:
    """Return what an evaluation of the test people found, in words, where no person was on both sides."""
    judged = read_json(run.patient_metrics) if run.patient_metrics.is_file() else {}
    tested = judged.get("protocol") == "patient" and judged.get("split") == "test"
    clean = tested and judged.get("leakage", {}).get("status") == "clean"
    return {"new_people": judged["headline"]} if clean else {}
