"""Claim: probabilities are calibrated for people outside the training set, and 90 % sets cover nine of ten people.

    python benchmarks/calibration.py            # the patient model, and the linear baseline as a slice classifier
    python benchmarks/calibration.py RUN        # a cross-validated network instead of the linear baseline

Patient model: five times five folds of the public dataset's people (once for single slices), each predicted by a
model that was fitted and calibrated on the others: from all slices, from some, from each slice alone. Calibration
error: 15 bins. If perfect: what a perfectly calibrated model would show on so few people (mean, 95 % range).
Intervals over people.

Slice classifier: its scores of slices, calibrated on the people of the other folds as ``brainstage evaluate`` does
and averaged over neighbouring slices from the middle of the brain. Last column: coverage with the parameters of
whole stacks, which few slices had before each number of slices had its own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from brainstage.core.schema import STACK_LEVELS as LEVELS
from brainstage.core.schema import short_names
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.aggregation import find_repeats
from brainstage.evaluation.slices import read_side
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel
from brainstage.models.recipes import load_recipe
from brainstage.stats import metrics
from brainstage.stats.calibration import Calibration, apply_temperature, in_set
from brainstage.training.baselines import linear_baseline
from brainstage.training.patient import acquired_features, training_seeds

REPEATS, FOLDS = 5, 5
INPUTS = {"all 32 slices": range(LEVELS), "8 slices, 12 to 19": range(12, 20), "4 slices, 14 to 17": range(14, 18)}

COUNTS = (1, 2, 4, 8, 16, 32)

Reals = NDArray[np.float64]
Row = tuple[int, bool, int, bool]
"""Person, whether the set covers, its size, whether it covers with the parameters of whole stacks."""


def main() -> None:
    """Print calibration and coverage by the slices that are given."""
    start = time.perf_counter()
    slices = load_slices()
    patient_model(slices)
    slice_classifier(slices, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"{time.perf_counter() - start:.0f} s")


def patient_model(slices: SliceTable) -> None:
    """Print calibration and coverage of the patient model by the slices that are given."""
    rows = range(len(slices))
    trained = acquired_features(slices, rows, training_seeds(slices, rows))
    shown = acquired_features(slices, rows, [PREDICTION_SEEDS] * len(slices))
    levels = np.array(slices.rows["slice_index"].to_pylist())
    people, number = np.unique(np.array(slices.patients), return_inverse=True)
    order = np.lexsort((levels, number)).reshape(len(people), LEVELS)
    trained, stacks = trained[order], shown[order]
    stages = slices.targets(range(len(slices)))[np.unique(number, return_index=True)[1]]
    print(f"patient protocol · {len(people)} people × {REPEATS} · calibrated on people of the training side")
    print(f"{'':20} {'calibration error':17}  {'if perfect':18}  {'90 % sets cover':18}  stages  ", end="")
    print(f"by stage: {', '.join(short_names(slices.classes))}")
    predictions: dict[str, list[tuple[Reals, Reals]]] = {name: [] for name in INPUTS}
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat).split(stacks, np.minimum(stages, 2))
        models = [(fitted(trained, stages, train, slices.classes), test) for train, test in folds]
        for name, given in INPUTS.items():
            predictions[name].append(predict(models, stacks, given, len(slices.classes)))
        if repeat == 0:
            alone = [predict(models, stacks, [level], len(slices.classes)) for level in range(LEVELS)]
    for name, repeats in predictions.items():
        error = metrics.score_repeats(stages, [repeat for repeat, _ in repeats])["calibration_error"].value
        perfect = metrics.calibration_error_if_perfect([repeat for repeat, _ in repeats])
        interval = f"{perfect.value:.3f} [{perfect.low:.2f}, {perfect.high:.2f}]"
        show(name, f"{error:.3f}", interval, stages, repeats)
    every = np.concatenate([probabilities for probabilities, _ in alone])
    owners = np.tile(people, LEVELS).tolist()
    single = metrics.score(np.tile(stages, LEVELS), every, slices.classes, owners).overall["calibration_error"]
    show("one slice, of 6,400", f"{single.value:.3f} [{single.low:.2f}, {single.high:.2f}]", "", stages, alone)


def slice_classifier(slices: SliceTable, run: Path | None) -> None:
    """Print coverage of a slice classifier by the number of slices that are averaged."""
    with tempfile.TemporaryDirectory() as temporary:
        side = read_side(run or baseline_table(slices, Path(temporary)))
    level_of = dict(zip(slices.slice_ids, slices.rows["slice_index"].to_pylist(), strict=True))
    levels = np.array([level_of[slice_id] for slice_id in side.slice_ids])
    people, number = np.unique(np.array(side.patients), return_inverse=True)
    repeat_of_fold = find_repeats(side)
    results: dict[int, list[Row]] = {count: [] for count in COUNTS}
    for fold, repeat in repeat_of_fold.items():
        others = [other for other, its_repeat in repeat_of_fold.items() if its_repeat == repeat and other != fold]
        fitted_on = np.isin(side.folds, others)
        calibration = Calibration.fit(side.probabilities[fitted_on], side.labels[fitted_on], number[fitted_on])
        for person in np.unique(number[side.folds == fold]):
            rows = np.flatnonzero((side.folds == fold) & (number == person))
            rows = rows[np.argsort(levels[rows])]
            for count in COUNTS:
                first = (len(rows) - count) // 2
                scores, label = side.probabilities[rows[first : first + count]], side.labels[rows[0]]
                own, stacks = (prediction_set(calibration, scores, size) for size in (count, len(rows)))
                results[count].append((int(person), own[label], own.sum(), stacks[label]))
    print(f"\nslice classifier · {len(people)} people × {max(repeat_of_fold.values()) + 1}")
    print("slices  90 % sets cover     stages  with the parameters of whole stacks")
    for count, rows_of_count in results.items():
        show_count(count, np.array(rows_of_count, dtype=np.float64))


def baseline_table(slices: SliceTable, folder: Path) -> Path:
    """Write the linear baseline's predictions of everyone out of fold."""
    settings = {"protocol": "patient", "folds": FOLDS, "repeats": REPEATS, "validation_share": 0}
    splits = make_splits(slices, load_recipe("compact", **settings))
    file = folder / "baseline.parquet"
    pq.write_table(linear_baseline(slices, splits, {"protocol": "patient"}), file)
    return file


def prediction_set(calibration: Calibration, scores: Reals, size: int) -> NDArray[np.bool_]:
    """Return the 90 % set, (K,), of the mean over slices (n, K), with the parameters for ``size`` slices."""
    parameters = calibration.for_slices(size)
    mean = apply_temperature(scores, parameters.temperature).mean(axis=0, keepdims=True)
    return in_set(mean, np.array([parameters.conformal_threshold]), ordered=True)[0]


def show_count(count: int, results: Reals) -> None:
    """Print coverage and size from rows of person, covered, size, covered with the parameters of whole stacks."""
    each = [results[results[:, 0] == person, 1:].mean(axis=0) for person in np.unique(results[:, 0])]
    covered, size, before = np.array(each).T
    now, old = (
        f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"
        for score in map(metrics.mean_over_people, (covered, before))
    )
    print(f"{count:6}  {now}  {size.mean():6.2f}  {old}")


def fitted(
    stacks: NDArray[np.uint8], stages: NDArray[np.int64], train: NDArray[np.int64], classes: Sequence[str]
) -> PatientModel:
    """Return a model of some people."""
    return PatientModel.fit(
        stacks[train].reshape(-1, *stacks.shape[2:]),
        np.repeat(train, LEVELS).astype(str).tolist(),
        np.tile(np.arange(LEVELS) / (LEVELS - 1), len(train)),
        np.repeat(stages[train], LEVELS),
        classes,
    )


def predict(
    models: Sequence[tuple[PatientModel, NDArray[np.int64]]],
    stacks: NDArray[np.uint8],
    given: Sequence[int],
    classes: int,
) -> tuple[Reals, Reals]:
    """Predict everyone from some levels out of fold: probabilities (n, K), conformal thresholds (n,)."""
    probabilities, thresholds = np.zeros((len(stacks), classes)), np.zeros(len(stacks))
    for model, test in models:
        features = stacks[test][:, list(given)].reshape(-1, *stacks.shape[2:])
        owners = np.repeat(test, len(given)).astype(str).tolist()
        predicted = model.predict(features, owners, list(given) * len(test))
        probabilities[test] = predicted.probabilities[:: len(given)]
        thresholds[test] = predicted.conformal_threshold[:: len(given)]
    return probabilities, thresholds


def show(
    name: str, error: str, perfect: str, stages: NDArray[np.int64], predictions: list[tuple[Reals, Reals]]
) -> None:
    """Print a row: errors, coverage, size of the sets, coverage of each stage."""
    inside = np.stack([in_set(*prediction, ordered=True) for prediction in predictions])
    covered = inside[:, np.arange(len(stages)), stages].mean(axis=0)
    coverage = metrics.mean_over_people(covered)
    by_stage = ", ".join(f"{covered[stages == stage].mean():.2f}" for stage in np.unique(stages))
    shown = f"{coverage.value:.3f} [{coverage.low:.2f}, {coverage.high:.2f}]"
    print(f"{name:20} {error:17}  {perfect:18}  {shown:18}  {inside.sum(axis=2).mean():6.2f}  {by_stage}")


if __name__ == "__main__":
    main()
