"""Claim: the patient model's cost grows linearly in people, and its file stays below 50 MB.

    python benchmarks/people.py [--sizes 200 1000 5000 20000]

Each size runs in a process of its own, so that its peak memory is that of the size. The first 200 people are those
of the public dataset, in nine acquisitions each; each further one is a mixture of two of them of one stage, with
deviations of their own along the stack. What the pixels cost is timed apart: it is the same for every person. Then
the principal components that a model of many people keeps are judged where people are real: five folds of the 200,
with as many components a slice as models of more people have.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from brainstage.core.arrays import IntArray, Pixels
from brainstage.datasets.sources import load_slices
from brainstage.models.patient_features import FEATURES, patient_features
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel
from brainstage.models.training_scans import FeatureRows
from brainstage.training.patient import acquired_features, training_seeds
from peak import peak_memory

Result = TypeVar("Result")
LEVELS = 32
CLASSES = ("none", "very mild", "mild", "moderate")
SIZES = (200, 1_000, 5_000, 20_000)
KEPT_BY = {5_000: 250, 10_000: 125, 20_000: 62, 50_000: 25}
"""Components a slice that a model of so many people keeps."""
ASKED = 20


class Drawn:
    """Features of slices of any number of people, drawn when they are asked for: 32 rows a person."""

    def __init__(self, real: Pixels, stages: IntArray, people: int) -> None:
        self._real, self.seconds = real, 0.0
        rng = np.random.default_rng(0)
        first = np.concatenate([np.arange(len(real)), rng.integers(0, len(real), people)])[:people]
        self.stages = stages[first]
        second = [rng.choice(np.flatnonzero(stages == stage)) for stage in self.stages.tolist()]
        self._parents = np.stack([first, np.where(np.arange(people) < len(real), first, second)], axis=1)

    def __getitem__(self, rows: IntArray, /) -> Pixels:
        """Return the features of some slices."""
        start = time.perf_counter()
        people, number = np.unique(rows // LEVELS, return_inverse=True)
        drawn = np.stack([self._person(person) for person in people.tolist()])[number, rows % LEVELS]
        self.seconds += time.perf_counter() - start
        return drawn

    def _person(self, person: int) -> Pixels:
        one, other = self._real[self._parents[person]]
        if person < len(self._real):
            return one
        rng = np.random.default_rng(person)
        share = np.float32(rng.uniform(0.3, 0.7))
        own = gaussian_filter1d(rng.normal(0, 20, (LEVELS, 1, FEATURES)).astype(np.float32), 2, axis=0)
        mixed = share * one + (1 - share) * other
        return (mixed + np.where(mixed > 2, own, 0)).round().clip(0, 255).astype(np.uint8)


def measure(people: int, real: Path) -> None:
    """Print a row: fit, file and prediction of a model of so many people."""
    stored = np.load(real)
    drawn = Drawn(stored["features"], stored["stages"], people + ASKED)
    model, fitting = timed(lambda: fit(drawn, drawn.stages[:people]))
    fitting -= drawn.seconds
    asked = drawn[np.arange(people * LEVELS, (people + ASKED) * LEVELS)][:, : len(PREDICTION_SEEDS)]
    levels = list(range(LEVELS))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        del model
        model, opening = timed(lambda: PatientModel.open(Path(folder)))
    _, first = timed(lambda: model.predict(asked[:LEVELS], ["x"] * LEVELS, levels))
    _, single = timed(lambda: model.predict(asked[:1], None, [16]))
    stacks = asked.reshape(ASKED, LEVELS, *asked.shape[1:])
    _, others = timed(lambda: [model.predict(stack, ["x"] * LEVELS, levels) for stack in stacks])
    print(
        f"{people:6,} {fitting:8.1f} s {size:8.1f} MB {opening:8.2f} s {first:8.2f} s {single:8.2f} s "
        f"{1e3 * others / ASKED:8.1f} ms {peak_memory():8.2f} GB",
        flush=True,
    )


def fit(features: FeatureRows, stages: IntArray) -> PatientModel:
    """Return the model of people whose slices stand person by person."""
    people, levels = np.repeat(np.arange(len(stages)), LEVELS), np.tile(np.arange(LEVELS), len(stages))
    names = [f"{person:05d}" for person in people.tolist()]
    return PatientModel.fit(features, names, levels / (LEVELS - 1), stages[people], CLASSES)


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what a function returns and the seconds it takes."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def judge_components(real: Pixels, stages: IntArray) -> None:
    """Print how well the public people are staged out of fold, with fewer and fewer components a slice."""
    print(f"protocol patient · {len(real)} people of the public dataset, five folds; AUROC and log loss from")
    print("components  as many as a model of    a whole stack      one slice (level 16)")
    for people, count in {0: FEATURES, **KEPT_BY}.items():
        whole, single = (np.zeros((len(real), len(CLASSES))) for _ in range(2))
        folds = StratifiedKFold(5, shuffle=True, random_state=0).split(real, np.minimum(stages, 2))
        for train, test in folds:
            with mock.patch("brainstage.models.slice_components.BYTES", count * len(train) * LEVELS):
                model = fit(real[train].reshape(-1, *real.shape[2:]), stages[train])
            asked = real[test][:, :, : len(PREDICTION_SEEDS)]
            names, levels = np.repeat(test, LEVELS).astype(str).tolist(), [*range(LEVELS)] * len(test)
            whole[test] = model.predict_proba(asked.reshape(-1, *asked.shape[2:]), names, levels)[::LEVELS]
            single[test] = model.predict_proba(asked[:, 16], None, [16] * len(test))
        true = [scores[np.arange(len(stages)), stages] for scores in (whole, single)]
        figures = [
            f"{roc_auc_score(stages > 0, 1 - scores[:, 0]):.3f}  {-np.log(chance).mean():.3f}"
            for scores, chance in zip((whole, single), true, strict=True)
        ]
        name = f"{people:,} people" if people else "all features"
        print(f"{count:10}  {name:22}  {figures[0]:>16}  {figures[1]:>16}", flush=True)


def store_real(file: Path) -> tuple[Pixels, IntArray]:
    """Write the features and stages of the public people to a file and return them."""
    slices = load_slices()
    index = slices.rows["slice_index"].to_pylist()
    rows = sorted(range(len(slices)), key=lambda row: (str(slices.patients[row]), index[row]))
    _, seconds = timed(lambda: patient_features([slices.images[row] for row in rows[:LEVELS]], (None, *range(8))))
    print(f"features of a person in nine acquisitions, where they are not cached: {seconds:.2f} s")
    features = acquired_features(slices, rows, training_seeds(slices, rows))
    real, stages = features.reshape(-1, LEVELS, *features.shape[1:]), slices.targets(rows)[::LEVELS]
    np.savez(file, features=real, stages=stages)
    return real, stages


def main() -> None:
    """Measure each size in a process of its own, then judge the components."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(int(options.measure[0]), Path(options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "real.npz"
        real, stages = store_real(file)
        print("                                        first      first       each        peak")
        print("people        fit        file     open      stack      slice      stack      memory")
        for people in options.sizes:
            subprocess.run([sys.executable, __file__, "--measure", str(people), str(file)], check=True)
    judge_components(real, stages)


if __name__ == "__main__":
    main()
