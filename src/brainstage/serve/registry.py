"""The models that a server serves, and the threads that each works in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from brainstage.core.errors import ConfigError
from brainstage.core.parallel import usable_cpus, worker_pool
from brainstage.datasets.images import CHUNK
from brainstage.inference.attribution import default_method, methods_for
from brainstage.inference.explanations import Explanations, PersonExplanation, check_request, explain_person
from brainstage.inference.people import Person, PersonPrediction, group_people, predict_people
from brainstage.inference.predictions import Predictions
from brainstage.inference.predictor import Predictor
from brainstage.models.find import hub_id_of
from brainstage.models.weights import BUNDLED
from brainstage.scans.discover import Scan
from brainstage.serve.micro_batcher import MicroBatcher
from brainstage.serve.pictures import png
from brainstage.serve.problems import Problem
from brainstage.serve.threads import run_in_thread

Result = TypeVar("Result")


class PredictionRequest(NamedTuple):
    """A person to stage."""

    person: Person
    pictures: bool


class Staged(NamedTuple):
    """The prediction of a person, without its images: those of many people would fill the memory."""

    prediction: PersonPrediction
    pictures: list[str | None]
    """The slice of each row, a PNG in base64; None for a row of several slices or of none."""


class ExplanationRequest(NamedTuple):
    """A person to explain."""

    person: Person
    method: str
    stage: str | None


class LoadedModel:
    """A model in memory with its workers.

    Pictures, volumes and explanations have workers of their own, because a picture takes milliseconds, a volume
    half a second and an explanation up to a minute: a picture waits for neither, only for the fraction of a second
    in which the patient model is fitted to levels that it has not met. All processors but one serve volumes;
    explanations are computed one at a time. Where several processes serve, each has its share of the processors.

    Attributes:
        name: The name that requests know the model by.
        predictor: The model.
        warm_up: Ends when the model predicts at full speed.
    """

    def __init__(self, name: str, predictor: Predictor, pools: ExitStack, processes: int = 1):
        """Start the workers.

        Args:
            name: The name that requests know the model by.
            predictor: The model.
            pools: Where its thread pools are entered; closing it ends them.
            processes: Number of processes that share the processors.
        """
        self.name, self.predictor = name, predictor
        cpus = max(1, usable_cpus() // processes)
        picture_threads = pools.enter_context(predictor.pool())
        volume_threads = pools.enter_context(predictor.pool())
        explanation_threads = pools.enter_context(predictor.pool())
        self._pictures: MicroBatcher[PredictionRequest, Staged] = MicroBatcher(
            self._predict, picture_threads, workers=cpus, batch_size=CHUNK
        )
        self._volumes: MicroBatcher[PredictionRequest, Staged] = MicroBatcher(
            self._predict, volume_threads, workers=max(1, cpus - 1), batch_size=1
        )
        self._explanations: MicroBatcher[ExplanationRequest, PersonExplanation] = MicroBatcher(
            self._explain, explanation_threads, workers=1, batch_size=1
        )
        self.warm_up = picture_threads.submit(_warm_up, predictor)

    @property
    def identity(self) -> dict[str, Any]:
        """What every reply says about its model: hash, recipe, protocol and leakage verdict."""
        about = {key: self.predictor.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic")}
        return {"hash": self.predictor.hash, **about}

    @property
    def methods(self) -> list[str]:
        """The explanation methods that suit the model; the first is its default."""
        return methods_for(self.predictor)

    def describe(self) -> dict[str, Any]:
        """Return what the model is, and its performance on people outside its training set."""
        predictor = self.predictor
        return {
            **self.identity,
            "calibrated": predictor.calibrated,
            "refuses": predictor.refuses,
            "classes": list(predictor.classes),
            "levels": predictor.level_set.name,
            "explained_by": default_method(predictor),
            "performance": predictor.about.get("performance"),
            "people": predictor.about.get("people"),
            "details": predictor.about.get("details", []),
            "figures": {**predictor.about.get("nested", {}), **predictor.about.get("figures", {})},
        }

    async def predict(
        self, scans: Sequence[Scan], one_person: bool = False, pictures: bool = False
    ) -> tuple[Predictions, list[str | None]]:
        """Stage scans.

        Args:
            scans: The scans of a request.
            one_person: Whether all show one person.
            pictures: Whether the slices are wanted.

        Returns:
            The predictions; and the slice of each row as in :class:`Staged`, none where they are not wanted.
        """
        requests = [PredictionRequest(person, pictures) for person in group_people(scans, one_person)]
        slow = [any(scan.volume for scan in scans) for (_, scans), _ in requests]
        marked = list(zip(requests, slow, strict=True))
        from_volumes, from_pictures = await asyncio.gather(
            self._volumes.submit([request for request, is_slow in marked if is_slow]),
            self._pictures.submit([request for request, is_slow in marked if not is_slow]),
        )
        volumes, others = iter(from_volumes), iter(from_pictures)
        staged = [next(volumes if is_slow else others) for is_slow in slow]
        predictions = Predictions.collect(self.predictor, [one.prediction for one in staged])
        return predictions, [picture for one in staged for picture in one.pictures]

    def _predict(self, requests: Sequence[PredictionRequest]) -> list[Staged]:
        people = predict_people(self.predictor, [request.person for request in requests])
        return [
            Staged(
                person._replace(images=[]),
                [image if image is None else png(image) for image in person.images] if request.pictures else [],
            )
            for person, request in zip(people, requests, strict=True)
        ]

    async def explain(
        self, scans: Sequence[Scan], method: str | None, stage: str | None, one_person: bool = False
    ) -> tuple[Explanations, list[PersonExplanation]]:
        """Explain the predictions for people, one after another.

        Args:
            scans: The scans of a request.
            method: One of :attr:`methods`; None for the first that suits the stage.
            stage: The stage to explain; None for the predicted one.
            one_person: Whether all show one person.

        Raises:
            Problem: The method does not suit the model or the stage, or there is no such stage.
        """
        try:
            method = check_request(self.predictor, method, stage)
        except ConfigError as error:
            raise Problem(400, "cannot-explain", str(error)) from error
        people = await self._explanations.submit(
            [ExplanationRequest(person, method, stage) for person in group_people(scans, one_person)]
        )
        return Explanations.collect(self.predictor, method, people), people

    def _explain(self, requests: Sequence[ExplanationRequest]) -> list[PersonExplanation]:
        return [explain_person(self.predictor, *request) for request in requests]


class ModelRegistry:
    """The models, each by its name.

    The default is opened at once, and so is every run folder, which may be damaged. Another bundled model is opened
    when it is first asked for: the network among them takes seconds, for PyTorch.

    Attributes:
        names: Names of the models; the first is the default.
    """

    def __init__(self, models: Sequence[str], processes: int = 1):
        """Open the default model and the run folders.

        Args:
            models: Run folders, names of bundled models, or ids of models on the hub, which are called ``NAME``.
            processes: Number of processes that open them, and share the processors.

        Raises:
            ConfigError: Two models have the same name.
            RunError: A model cannot be opened.
        """
        paths = {_name_of(model): model for model in models}
        if len(paths) < len(models):
            raise ConfigError(f"{', '.join(models)}: two models have the same name; rename a run folder")
        self.names = list(paths)
        self._paths, self._processes = paths, processes
        self._models: dict[str, LoadedModel] = {}
        self._pools, self._opening = ExitStack(), threading.Lock()
        self._threads, self._opener = (self._pools.enter_context(worker_pool(count)) for count in (None, 1))
        for name, path in paths.items():
            if name == self.names[0] or path not in BUNDLED:
                self.model(name)

    def close(self) -> None:
        """End the threads, once they have finished the work that they began."""
        self._pools.close()

    def model(self, name: str | None = None) -> LoadedModel:
        """Return a model by its name, opened if it is not yet; None for the default.

        Raises:
            Problem: There is no model of that name.
        """
        name = self.names[0] if name is None else name
        if name not in self._paths:
            raise Problem(404, "unknown-model", f"the models served are {', '.join(self.names)}")
        with self._opening:
            if name not in self._models:
                predictor = Predictor.open(self._paths[name])
                self._models[name] = LoadedModel(name, predictor, self._pools, self._processes)
        return self._models[name]

    def describe(self) -> list[dict[str, Any]]:
        """Return what each model is, and its performance on people outside its training set; opens them all."""
        return [
            {"name": name, "default": name == self.names[0], **self.model(name).describe()} for name in self.names
        ]

    async def opened(self, name: str | None = None) -> LoadedModel:
        """Return :meth:`model`, opened in a thread of its own if it is not yet.

        Raises:
            Problem: There is no model of that name.
        """
        model = self._models.get(self.names[0] if name is None else name)
        return await self.run_when_opened(partial(self.model, name)) if model is None else model

    async def run_when_opened(self, function: Callable[[], Result]) -> Result:
        """Call a function that may open models, which takes seconds, in the thread for that."""
        return await run_in_thread(self._opener, function)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Call a function that takes milliseconds, and needs no model, in a thread."""
        return await run_in_thread(self._threads, function)


def _name_of(model: str) -> str:
    """Return the name that requests know a model by."""
    hub_id = hub_id_of(model)
    if hub_id:
        return hub_id.repo.partition("/")[2]
    return model if model in BUNDLED else Path(model).resolve().name


def _warm_up(predictor: Predictor) -> None:
    """Predict once: the patient model is fitted to each set of levels that it meets, which takes a moment."""
    noise = np.random.default_rng(0).integers(0, 255, predictor.level_set.shape, dtype=np.uint8)
    features = predictor.extract_features(list(noise), as_it_is=True)
    for patients in (["one person"] * len(noise), None):
        predictor.predict_features(features, patients, range(len(noise)))
