"""The patient model: what it sees of the training people, and its fit."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from brainstage.audits.recovery import find_levels
from brainstage.core.arrays import Float64Array, IntArray, Pixels
from brainstage.core.errors import DataError, LeakageError
from brainstage.core.parallel import is_worker, parallel_map, usable_cpus
from brainstage.core.progress import Progress, silent
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.signatures import describe_coarse
from brainstage.datasets.splits import Fold
from brainstage.datasets.table import SliceTable
from brainstage.inference.classifiers import Prediction
from brainstage.models.acquisitions import VERSION as FAMILY_VERSION
from brainstage.models.features import FeatureCache
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE, VERSION
from brainstage.models.patient_features import FEATURES, patient_features
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel
from brainstage.stats.tones import TONES
from brainstage.training.fitted import Fitted, seconds_since

WHOLE_SLICE = Preprocessing(SIDE, crop_share=None)
"""Preprocessing of the patient model: it uses the whole slice."""
ACQUISITIONS = 8
"""Random acquisitions of each training person, beside the person's slices as they are."""


def fit_people(slices: SliceTable, fold: Fold, progress: Progress = silent) -> Fitted:
    """Fit the patient model to a fold's training people, and predict the others.

    Args:
        slices, fold, progress: As for :func:`fit_patient_model`.

    Raises:
        LeakageError, RunError: As :func:`fit_patient_model`.
    """
    started = time.monotonic()
    model = fit_patient_model(slices, fold, progress)
    about = {"people": len(model), "threads": 1 if is_worker() else usable_cpus(), **seconds_since(started)}
    rows = [slices.row_of[slice_id] for slice_id in fold.validation + fold.test]
    features = acquired_features(slices, rows, [PREDICTION_SEEDS] * len(rows), progress)
    prediction = Prediction(
        *model.predict(features, [slices.stacks[row] for row in rows], [slices.levels[row] for row in rows])
    )
    return Fitted(model.save, WHOLE_SLICE, about, prediction)


def fit_patient_model(
    slices: SliceTable, fold: Fold, progress: Progress = silent, *, acquisitions: int = ACQUISITIONS
) -> PatientModel:
    """Return the patient model of the training people of a fold; slices without a patient are left out.

    Args:
        slices: The data.
        fold: The slices of each side.
        progress: How to show progress.
        acquisitions: As for :func:`training_seeds`.

    Raises:
        LeakageError: No training slice has a patient.
        RunError: The cache of histograms cannot be written.
    """
    rows = [row for row in map(slices.row_of.__getitem__, fold.train) if slices.patients[row]]
    if not rows:
        raise LeakageError(
            "the patient model needs the patient of each slice; recover them with `brainstage audit`"
        )
    places = _places(slices, rows)
    rows, places = (
        [row for row, known in zip(rows, ~np.isnan(places), strict=True) if known],
        places[~np.isnan(places)],
    )
    return PatientModel.fit(
        AcquiredFeatures(slices, rows, training_seeds(slices, rows, acquisitions), progress),
        [str(slices.stacks[row]) for row in rows],
        places,
        slices.targets(rows),
        slices.classes,
        [str(slices.patients[row]) for row in rows],
        slices.level_set,
    )


def training_seeds(
    slices: SliceTable, rows: Sequence[int], acquisitions: int = ACQUISITIONS
) -> list[tuple[int | None, ...]]:
    """Return the acquisitions of each training slice: the slice as it is, and random ones of its person's own.

    A person's are drawn from the pixels of the person's first slice, so they do not depend on names or order.

    Args:
        slices: The data.
        rows: Rows of slices with a patient.
        acquisitions: Number of random acquisitions of each person.
    """
    first: dict[str | None, str] = {}
    for row in rows:
        patient = slices.patients[row]
        first[patient] = min(first.get(patient, slices.slice_ids[row]), slices.slice_ids[row])
    start = {patient: int(slice_id[:8], 16) for patient, slice_id in first.items()}
    return [(None, *range(start[one], start[one] + acquisitions)) for one in map(slices.patients.__getitem__, rows)]


def acquired_features(
    slices: SliceTable, rows: Sequence[int], seeds: Sequence[Sequence[int | None]], progress: Progress = silent
) -> Pixels:
    """Return what the patient model sees of some slices, from the cache where they are in it.

    Args:
        slices, rows, seeds, progress: As for :class:`AcquiredFeatures`.

    Returns:
        uint8 of shape (n, a, FEATURES).

    Raises:
        RunError: The cache cannot be written.
    """
    if not len(rows):
        return patient_features([], PREDICTION_SEEDS)
    return AcquiredFeatures(slices, rows, seeds, progress)[np.arange(len(rows))]


class AcquiredFeatures:
    """What the patient model sees of some slices: computed once, kept in the cache, read where it is asked for.

    Args:
        slices: The data.
        rows: Rows of n slices.
        seeds: Of the ``a`` acquisitions of each slice; None shows it as it is.
        progress: How to show progress.

    Raises:
        RunError: The cache cannot be written.
    """

    def __init__(
        self,
        slices: SliceTable,
        rows: Sequence[int],
        seeds: Sequence[Sequence[int | None]],
        progress: Progress = silent,
    ) -> None:
        self._slices = slices
        self._names = [
            f"{slices.slice_ids[row]} {','.join('' if seed is None else str(seed) for seed in of_row)}"
            for row, of_row in zip(rows, seeds, strict=True)
        ]
        histograms = [VERSION, SIDE, CELL, DIRECTIONS, TONES]
        key = {"histograms": histograms, "acquisitions": FAMILY_VERSION, "row": "a slice in all its acquisitions"}
        self._cache = FeatureCache(key)
        self._cache.fill(self._names, self._compute, progress)

    def __getitem__(self, numbers: IntArray, /) -> Pixels:
        """Return the features of some of the slices, uint8 of shape (len(numbers), a, FEATURES)."""
        names = [self._names[number] for number in numbers.tolist()]
        return self._cache.get(names, self._compute).reshape(len(names), -1, FEATURES)

    def _compute(self, names: Sequence[str]) -> Pixels:
        asked = [name.partition(" ")[::2] for name in names]
        images = [self._slices.images[self._slices.row_of[slice_id]] for slice_id, _ in asked]
        seeds = [[int(seed) if seed else None for seed in spelt.split(",")] for _, spelt in asked]
        shown = list(zip(WHOLE_SLICE.resize(images), seeds, strict=True))
        return np.stack(parallel_map(lambda one: patient_features([one[0]], one[1])[0].ravel(), shown))


def _places(slices: SliceTable, rows: list[int]) -> Float64Array:
    """Return the place of each slice along the stack, from 0 to 1; NaN where it is not known.

    Where the data does not number a person's slices, their places are recovered from the similarity of slices of
    different people.

    Raises:
        DataError: They cannot be recovered.
    """
    if slices.stated_levels:
        known = [np.nan if slices.levels[row] is None else slices.levels[row] for row in rows]
        return np.array(known, dtype=np.float64) / (slices.level_set.count - 1)
    index = [slices.rows["slice_index"][row].as_py() for row in rows]
    if None not in index:
        levels = np.array(index, dtype=np.float64)
        return (levels - levels.min()) / max(1, np.ptp(levels))
    place, series = find_levels(describe_coarse([slices.images[row] for row in rows]))
    if not (series >= 0).any():
        raise DataError(
            f"the patient model needs the level of each slice, and {len(rows)} training slices are too few or too "
            "unlike to recover it from; give more, or number each person's slices in a column slice_index"
        )
    largest = np.bincount(series + 1)[1:].argmax()
    return np.where(series == largest, place, np.nan)
