"""From a cohort of labelled slices to one prediction for each scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from brainstage.core.arrays import Float64Array
from brainstage.core.errors import DataError, LeakageError
from brainstage.core.levels import check_levels
from brainstage.core.progress import Progress, silent
from brainstage.datasets.table import SliceTable
from brainstage.inference.people import MIN_ACCEPTED_SHARE
from brainstage.inference.predictor import Predictor

SCANS_A_BATCH = 16
"""Scans that are predicted at once: 500 to 1,000 slices."""


@dataclass(frozen=True)
class ScanPredictions:
    """The predictions for n scans.

    Attributes:
        scans: Names.
        patients: The person of each.
        labels: Class name in the cohort.
        probabilities: float64 of shape (n, classes of the model).
        conformal_thresholds: float64 of shape (n,); None where the model is not calibrated.
        slices: Row of a slice from the middle of each scan, to show it.
        refused: Names of the scans of which the model refused too many slices.
    """

    scans: tuple[str, ...]
    patients: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: Float64Array
    conformal_thresholds: Float64Array | None
    slices: tuple[int, ...]
    refused: tuple[str, ...]


def predict_cohort(predictor: Predictor, slices: SliceTable, progress: Progress = silent) -> ScanPredictions:
    """Predict every labelled scan of a cohort, each from all of its slices.

    Slices that the model refuses are left out; a scan of which it refuses more than half is not predicted.

    Args:
        predictor: The model.
        slices: The cohort; every labelled slice has a patient.
        progress: How to show progress.

    Raises:
        LeakageError: A labelled slice has no patient.
        DataError: No slice has a label, the slices show other levels than the model's, or no scan can be predicted.
    """
    check_levels(predictor.level_set, slices.level_set, "the data")
    rows_of = _rows_of_scans(slices)
    found: list[tuple[str, int, Float64Array, float | None]] = []
    refused: list[str] = []
    names = list(rows_of)
    with progress("Predicting", len(names)) as advance:
        for start in range(0, len(names), SCANS_A_BATCH):
            batch = names[start : start + SCANS_A_BATCH]
            accepted = {name: _accepted(predictor, slices, rows_of[name]) for name in batch}
            kept = {name: rows for name, rows in accepted.items() if rows}
            refused += [name for name in batch if name not in kept]
            found += _predict(predictor, slices, kept)
            advance(len(batch))
    if not found:
        raise DataError(
            f"the model refuses too many slices of each of the {len(names)} labelled scans"
            "; check that they show brains as the model knows them"
        )
    scans, first, probabilities, thresholds = zip(*found, strict=True)
    known = None if None in thresholds else np.array(thresholds, dtype=np.float64)
    return ScanPredictions(
        scans=scans,
        patients=tuple(str(slices.patients[row]) for row in first),
        labels=tuple(str(slices.labels[row]) for row in first),
        probabilities=np.stack(probabilities),
        conformal_thresholds=known,
        slices=first,
        refused=tuple(refused),
    )


def _rows_of_scans(slices: SliceTable) -> dict[str, list[int]]:
    """Return the rows of each labelled scan."""
    rows_of: dict[str, list[int]] = {}
    for row, (label, patient, stack) in enumerate(zip(slices.labels, slices.patients, slices.stacks, strict=True)):
        if label is None:
            continue
        if patient is None:
            raise LeakageError(
                "a labelled slice has no patient, so figures of people cannot be had; name the column with "
                "--patient-column, or recover people with `brainstage audit` and give its table with --patients"
            )
        rows_of.setdefault(str(stack), []).append(row)
    if not rows_of:
        raise DataError(
            "no slice has a label, so there is nothing to validate against; name their column with --label-column"
        )
    for name, rows in rows_of.items():
        labels = {slices.labels[row] for row in rows}
        if len(labels) > 1:
            raise DataError(
                f"scan {name} has slices of more than one label: {', '.join(sorted(map(str, labels)))}"
                "; give all of them one"
            )
    return rows_of


def _accepted(predictor: Predictor, slices: SliceTable, rows: list[int]) -> list[int]:
    """Return the rows that the model accepts; none where it refuses more than half."""
    reasons = predictor.refusals([slices.images[row] for row in rows])
    accepted = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    return accepted if len(accepted) >= MIN_ACCEPTED_SHARE * len(rows) else []


def _predict(
    predictor: Predictor, slices: SliceTable, rows_of: Mapping[str, list[int]]
) -> Iterator[tuple[str, int, Float64Array, float | None]]:
    """Yield name, a row from the middle, probabilities and conformal threshold of each scan."""
    if not rows_of:
        return
    rows = [row for of_scan in rows_of.values() for row in of_scan]
    owners = [name for name, of_scan in rows_of.items() for _ in of_scan]
    features = predictor.extract_features([slices.images[row] for row in rows])
    prediction = predictor.predict_features(features, owners, [slices.levels[row] for row in rows])
    start = 0
    for name, of_scan in rows_of.items():
        threshold = prediction.conformal_threshold
        yield (
            name,
            of_scan[len(of_scan) // 2],
            prediction.probabilities[start].astype(np.float64),
            None if threshold is None else float(threshold[start]),
        )
        start += len(of_scan)
