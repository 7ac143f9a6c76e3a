"""Claim: probabilities of the patient model mean what they say, and its 90 % sets hold nine of ten people's stage.

    python benchmarks/calibration.py

Five times five folds of the public dataset's people (one time for single slices), each staged by a model that was
fitted and calibrated on the others: from all slices, from some, from each one alone. Calibration error: expected,
15 bins. If right: what the same probabilities would show with so few people if each were right (mean, 95 % range).
Intervals over people.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from brainstage.core.schema import short_names
from brainstage.datasets.sources import load_slices
from brainstage.models.histograms import orientation_histograms
from brainstage.models.patient_model import LEVELS, PatientModel
from brainstage.stats import metrics
from brainstage.stats.calibration import in_set

REPEATS, FOLDS = 5, 5
SEEN = {"all 32 slices": range(LEVELS), "8 slices, 12 to 19": range(12, 20), "4 slices, 14 to 17": range(14, 18)}

Reals = NDArray[np.float64]


def main() -> None:
    """Print calibration and coverage by what was seen."""
    start = time.perf_counter()
    slices = load_slices()
    histograms = orientation_histograms(slices.images)
    levels = np.array(slices.rows["slice_index"].to_pylist())
    people, number = np.unique(np.array(slices.patients), return_inverse=True)
    stacks = histograms[np.lexsort((levels, number))].reshape(len(people), LEVELS, *histograms.shape[1:])
    stages = slices.targets(range(len(slices)))[np.unique(number, return_index=True)[1]]
    print(f"patient protocol · {len(people)} people × {REPEATS} · calibrated on people of the training side")
    print(f"{'':20} {'calibration error':17}  {'if right':18}  {'90 % sets hold':18}  stages  ", end="")
    print(f"by stage: {', '.join(short_names(slices.classes))}")
    said: dict[str, list[tuple[Reals, Reals]]] = {name: [] for name in SEEN}
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat).split(stacks, np.minimum(stages, 2))
        models = [(fitted(stacks, stages, train, slices.classes), test) for train, test in folds]
        for name, seen in SEEN.items():
            said[name].append(answers(models, stacks, seen, len(slices.classes)))
        if repeat == 0:
            alone = [answers(models, stacks, [level], len(slices.classes)) for level in range(LEVELS)]
    for name, repeats in said.items():
        error = metrics.score_repeats(stages, [one for one, _ in repeats])["calibration_error"].value
        right = metrics.calibration_error_if_perfect([one for one, _ in repeats])
        show(name, f"{error:.3f}", f"{right.value:.3f} [{right.low:.2f}, {right.high:.2f}]", stages, repeats)
    every = np.concatenate([one for one, _ in alone])
    owners = np.tile(people, LEVELS).tolist()
    single = metrics.score(np.tile(stages, LEVELS), every, slices.classes, owners).overall["calibration_error"]
    show("one slice, of 6,400", f"{single.value:.3f} [{single.low:.2f}, {single.high:.2f}]", "", stages, alone)
    print(f"{time.perf_counter() - start:.0f} s")


def fitted(
    stacks: NDArray[np.float32], stages: NDArray[np.int64], train: NDArray[np.int64], classes: Sequence[str]
) -> PatientModel:
    """Return a model of some people."""
    return PatientModel.fit(
        stacks[train].reshape(-1, *stacks.shape[2:]),
        np.repeat(train, LEVELS).astype(str).tolist(),
        np.tile(np.arange(LEVELS) / (LEVELS - 1), len(train)),
        np.repeat(stages[train], LEVELS),
        classes,
    )


def answers(
    models: Sequence[tuple[PatientModel, NDArray[np.int64]]],
    stacks: NDArray[np.float32],
    seen: Sequence[int],
    classes: int,
) -> tuple[Reals, Reals]:
    """Stage everyone from some levels out of fold: probabilities (n, K), least probability in the set (n,)."""
    probabilities, least = np.zeros((len(stacks), classes)), np.zeros(len(stacks))
    for model, test in models:
        histograms = stacks[test][:, list(seen)].reshape(-1, *stacks.shape[2:])
        owners = np.repeat(test, len(seen)).astype(str).tolist()
        found = model.predict(histograms, owners, list(seen) * len(test))
        probabilities[test], least[test] = (one[:: len(seen)] for one in found)
    return probabilities, least


def show(name: str, error: str, right: str, stages: NDArray[np.int64], said: list[tuple[Reals, Reals]]) -> None:
    """Print a row: errors, coverage, size of the sets, coverage of each stage."""
    inside = np.stack([in_set(probabilities, least) for probabilities, least in said])
    held = inside[:, np.arange(len(stages)), stages].mean(axis=0)
    coverage = metrics.mean_over_people(held)
    by_stage = ", ".join(f"{held[stages == stage].mean():.2f}" for stage in np.unique(stages))
    shown = f"{coverage.value:.3f} [{coverage.low:.2f}, {coverage.high:.2f}]"
    print(f"{name:20} {error:17}  {right:18}  {shown:18}  {inside.sum(axis=2).mean():6.2f}  {by_stage}")


if __name__ == "__main__":
    main()
