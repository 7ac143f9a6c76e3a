"""The models that a server answers with, and the threads that they work in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.errors import ConfigError
from brainstage.core.parallel import usable_cpus
from brainstage.datasets.images import CHUNK
from brainstage.inference.attribution import default_method
from brainstage.inference.explanations import Explanations, SliceExplanation, check_request, explain_scan
from brainstage.inference.predictions import Person, PersonPrediction, Predictions, group_people, predict_people
from brainstage.inference.predictor import Predictor
from brainstage.models.weights import BUNDLED
from brainstage.scans.discover import File, Scan, scans_of
from brainstage.scans.stack import LEVELS, SIDE
from brainstage.serve.micro_batcher import MicroBatcher
from brainstage.serve.problems import Problem


class LoadedModel:
    """One model at work.

    Attributes:
        predictor: The model.
        threads: In which it works.
    """

    def __init__(self, predictor: Predictor, threads: Executor, workers: int):
        """Take a model, its threads, and how many of them there are."""
        self.predictor = predictor
        self.threads = threads
        work = partial(predict_people, predictor)
        self._pictures: MicroBatcher[Person, PersonPrediction] = MicroBatcher(work, threads, workers, CHUNK)
        self._volumes: MicroBatcher[Person, PersonPrediction] = MicroBatcher(work, threads, workers, 1)
        threads.submit(_warm, predictor)

    async def predict(self, people: Sequence[Person]) -> list[PersonPrediction]:
        """Stage people. Volumes take seconds each, so pictures never wait in a batch with one."""
        slow = [any(scan.volume for scan in scans) for _, scans in people]
        groups = ((self._volumes, True), (self._pictures, False))
        found = await asyncio.gather(
            *(
                batches.submit([one for one, is_slow in zip(people, slow, strict=True) if is_slow == chosen])
                for batches, chosen in groups
            )
        )
        volumes, pictures = map(iter, found)
        return [next(volumes if is_slow else pictures) for is_slow in slow]


class ModelRegistry:
    """The models, open, each by its name.

    Attributes:
        names: Of the models; the first answers where none is named.
    """

    def __init__(self, models: Sequence[str]):
        """Open models.

        Args:
            models: Run folders, or names of bundled models.

        Raises:
            ConfigError: Two of them have one name.
            RunError: One cannot be opened.
        """
        paths = {model if model in BUNDLED else Path(model).resolve().name: model for model in models}
        if len(paths) < len(models):
            raise ConfigError(f"{', '.join(models)}: two models have one name; rename a run folder")
        self.names = list(paths)
        self._pools = ExitStack()
        self._served = {name: self._serve(Predictor.open(path)) for name, path in paths.items()}
        self._explaining = asyncio.Lock()

    def _serve(self, predictor: Predictor) -> LoadedModel:
        return LoadedModel(predictor, self._pools.enter_context(predictor.pool()), usable_cpus())

    def close(self) -> None:
        """Let the threads go, once they have done what they began."""
        self._pools.close()

    def model(self, name: str | None) -> LoadedModel:
        """Return a model by its name; None gives the first.

        Raises:
            Problem: There is none of that name.
        """
        found = self._served.get(name or self.names[0])
        if found is None:
            raise Problem(404, "unknown-model", f"the models served are {', '.join(self.names)}")
        return found

    def describe(self) -> list[dict[str, Any]]:
        """Return what each model is and what it is worth."""
        return [self._described(name) for name in self.names]

    def _described(self, name: str) -> dict[str, Any]:
        predictor = self.model(name).predictor
        return {
            "name": name,
            "default": name == self.names[0],
            **identity(predictor),
            "calibrated": predictor.calibrated,
            "refuses": predictor.refuses,
            "classes": list(predictor.classes),
            "explained_by": default_method(predictor),
            "performance": predictor.about.get("performance"),
            "figures": predictor.about.get("figures"),
        }

    async def scans(self, files: Sequence[File]) -> list[Scan]:
        """Tell what uploaded files are."""
        return await asyncio.to_thread(scans_of, files)

    async def predict(
        self, model: str | None, scans: Sequence[Scan], one_person: bool
    ) -> tuple[Predictions, list[PersonPrediction]]:
        """Stage scans.

        Returns:
            The answers, and those of each person with the slices that they are about.
        """
        served = self.model(model)
        people = group_people(scans, one_person)
        answered = await served.predict(people)
        return Predictions.collect(served.predictor, answered), answered

    async def explain(
        self, model: str | None, scan: Scan, method: str | None, stage: str | None
    ) -> tuple[Explanations, list[SliceExplanation]]:
        """Explain a scan.

        Raises:
            Problem: The method does not suit the model, or there is no such stage.
        """
        served = self.model(model)
        predictor = served.predictor
        try:
            method = check_request(predictor, method, stage)
        except ConfigError as error:
            raise Problem(400, "cannot-explain", str(error)) from error
        work = partial(explain_scan, predictor, scan, method, stage)
        async with self._explaining:  # one at a time: it takes long, and answers should not wait for it
            maps = await asyncio.get_running_loop().run_in_executor(served.threads, work)
        return Explanations([one.row for one in maps], method, predictor.hash, predictor.about), maps


def identity(predictor: Predictor) -> dict[str, Any]:
    """Return what every answer says of its model: hash, recipe, protocol and verdict."""
    about = {key: predictor.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic")}
    return {"hash": predictor.hash, **about}


def _warm(predictor: Predictor) -> None:
    """Have a model answer once: the patient model is fitted to the levels that it sees, which takes a moment."""
    noise = np.random.default_rng(0).integers(0, 255, (LEVELS, SIDE, SIDE), dtype=np.uint8)
    features = predictor.extract_features(list(noise))
    for patients in (["one"] * LEVELS, None):
        predictor.predict_features(features, patients, range(LEVELS))
