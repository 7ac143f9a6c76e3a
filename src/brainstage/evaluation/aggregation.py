"""From predictions of slices to predictions of people: calibrated fold by fold, then averaged over each scan.

A person has one scan, or several, each with a label and a prediction of its own. Whoever draws people draws all of
a person's scans.

**Calibration.** Where a table holds several folds, the people of the other folds of the same repeat calibrate a
fold: none of them is in the training set of the network that scored them, and none picked its epoch. Where it holds
one fold, its validation people do, who also picked the epoch. A model that brings its own prediction sets (the
patient model) is left as it is. Nobody calibrates their own prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from brainstage.core.arrays import BoolArray, Float64Array, IntArray
from brainstage.core.errors import DataError
from brainstage.evaluation.slices import Side
from brainstage.stats.calibration import Calibration, apply_temperature, mean_by_person


@dataclass(frozen=True)
class People:
    """Predictions of the n scans of people, once for each repeat.

    Attributes:
        names: The scans; the people themselves where everyone has one.
        patients: The person of each scan.
        labels: Class numbers, int64 of shape (n,).
        repeats: Probabilities of each repeat, float64 of shape (n, K), the same people in each.
        conformal_thresholds: Of each repeat, float64 of shape (n,); None where the model is not calibrated.
        temperatures: Of each fold, by its number (that for its largest number of slices); 1 where it has no people
            to calibrate it.
        calibrated_on: Who calibrated: ``people of the other folds`` or ``validation people``; None where nobody
            did.
        fewest: Number of predictions of the person with the fewest. Where it is below the number of repeats, such
            people's predictions are repeated in turn, so that each repeat holds everyone and everyone weighs the
            same.
        together: Whether the slices of each scan have one prediction, as those of a patient model have.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    labels: IntArray
    repeats: list[Float64Array]
    conformal_thresholds: list[Float64Array] | None
    temperatures: dict[int, float]
    calibrated_on: str | None
    fewest: int
    together: bool

    def in_order(self, names: Sequence[str], where: str) -> People:
        """Return the same people in another order.

        Args:
            names: The people in the order wanted.
            where: What is named where they are other people.

        Raises:
            DataError: They are other people.
        """
        if set(names) != set(self.names):
            raise DataError(
                f"{where}: predicts {len(self.names)} people, of whom {len(set(names) & set(self.names))} are "
                f"among the {len(names)} people of the run; make both on the same data and folds"
            )
        position = {name: index for index, name in enumerate(self.names)}
        order = np.array([position[name] for name in names])
        thresholds = self.conformal_thresholds
        return replace(
            self,
            names=tuple(names),
            patients=tuple(self.patients[index] for index in order.tolist()),
            labels=self.labels[order],
            repeats=[repeat[order] for repeat in self.repeats],
            conformal_thresholds=thresholds and [values[order] for values in thresholds],
        )


def _patient_of_scans(side: Side) -> dict[str, str]:
    """Return the patient of each scan."""
    patient_of: dict[str, str] = {}
    for scan, patient in zip(side.scans or (), side.patients or (), strict=True):
        if patient_of.setdefault(scan, patient) != patient:
            raise DataError(
                f"{side.file}: scan {scan} has slices of patients {patient_of[scan]} and {patient}; give each scan "
                "a name of its own in scan_id"
            )
    return patient_of


def aggregate(side: Side, validation: Side | None) -> People:
    """Calibrate and average the predictions of each scan's slices, fold by fold.

    Args:
        side: The side that is evaluated; the patient of every slice is known.
        validation: Its validation side; None where it is the one that is evaluated, or where there is none.

    Raises:
        DataError: A scan has slices of more than one stage, or of more than one patient.
    """
    predictions: dict[str, list[Float64Array]] = {}
    thresholds: dict[str, list[float]] = {}
    label_of: dict[str, int] = {}
    patient_of = _patient_of_scans(side)
    temperatures = {}
    repeat_of_fold = find_repeats(side)
    sources: set[str] = set()
    for fold in repeat_of_fold:
        rows = side.folds == fold
        names, labels, number = _number_scans(side, rows)
        counts = np.bincount(number)
        source, calibration = _calibrate(side, validation, fold, repeat_of_fold, counts)
        sources |= {source} if source else set()
        parameters = [calibration.for_slices(count) if calibration else None for count in counts.tolist()]
        temperature = np.array([entry.temperature if entry else 1.0 for entry in parameters])
        temperatures[fold] = float(temperature[counts.argmax()])
        means = mean_by_person(apply_temperature(side.probabilities[rows], temperature[number][:, None]), number)
        threshold = np.array([entry.conformal_threshold if entry else np.nan for entry in parameters])
        if side.conformal_threshold is not None:
            threshold = mean_by_person(side.conformal_threshold[rows, None], number)[:, 0]
        for index, name in enumerate(names):
            predictions.setdefault(name, []).append(means[index])
            thresholds.setdefault(name, []).append(float(threshold[index]))
            label_of[name] = int(labels[index])
    each = [len(of_person) for of_person in predictions.values()]
    repeats = [np.array([one[repeat % len(one)] for one in predictions.values()]) for repeat in range(max(each))]
    known = [np.array([one[repeat % len(one)] for one in thresholds.values()]) for repeat in range(max(each))]
    return People(
        names=tuple(predictions),
        patients=tuple(patient_of[name] for name in predictions),
        labels=np.array(list(label_of.values())),
        repeats=repeats,
        conformal_thresholds=None if np.isnan(known).any() else known,
        temperatures=temperatures,
        calibrated_on=" and ".join(sorted(sources)) or None,
        fewest=min(each),
        together=_predicted_together(side),
    )


def find_repeats(side: Side) -> dict[int, int]:
    """Return the repeat of each fold, in the folds' order: a new one starts where a person occurs again."""
    repeat_of_fold: dict[int, int] = {}
    repeat, people = 0, set[str]()
    patients = np.array(side.patients)
    for fold in np.unique(side.folds).tolist():
        tested = set(patients[side.folds == fold].tolist())
        if tested & people:
            repeat, people = repeat + 1, set()
        people |= tested
        repeat_of_fold[fold] = repeat
    return repeat_of_fold


def _predicted_together(side: Side) -> bool:
    """Return whether all slices of a scan have the same prediction in a fold, of scans that have several."""
    scans = np.unique(np.array(side.scans), return_inverse=True)[1]
    _, first, number = np.unique(np.stack([side.folds, scans]), axis=1, return_index=True, return_inverse=True)
    shared = np.array_equal(side.probabilities, side.probabilities[first][number.ravel()])
    return shared and len(first) < len(scans)


def _number_scans(side: Side, rows: BoolArray) -> tuple[list[str], IntArray, IntArray]:
    """Return the scans of some rows: names (n,), labels (n,), and the number of each row's scan."""
    names, first, number = np.unique(np.array(side.scans)[rows], return_index=True, return_inverse=True)
    labels = side.labels[rows]
    mixed = np.flatnonzero(labels != labels[first][number])
    if len(mixed):
        what = "patient" if side.scans == side.patients else "scan"
        raise DataError(
            f"{side.file}: {what} {names[number[mixed[0]]]} has slices of more than one stage"
            "; give all of them one label"
        )
    return names.tolist(), labels[first], number


def _calibrate(
    side: Side, validation: Side | None, fold: int, repeat_of_fold: dict[int, int], counts: IntArray
) -> tuple[str | None, Calibration | None]:
    """Return who calibrates a fold's predictions, and the calibration for stacks of ``counts`` slices."""
    if side.conformal_threshold is not None or side.name == "validation":
        return None, None
    others = [other for other, repeat in repeat_of_fold.items() if repeat == repeat_of_fold[fold] and other != fold]
    if others:
        who, source, rows = "people of the other folds", side, np.isin(side.folds, others)
    elif validation is not None and validation.patients is not None:
        who, source, rows = "validation people", validation, validation.folds == fold
    else:
        return None, None
    if not rows.any():
        return None, None
    _, _, number = _number_scans(source, rows)
    _, people = np.unique(np.array(source.patients)[rows], return_inverse=True)
    _, stacks = np.unique(np.stack([source.folds[rows], number]), axis=1, return_inverse=True)
    return who, Calibration.fit(
        source.probabilities[rows],
        source.labels[rows],
        people,
        stacks,
        counts=np.unique(counts).tolist(),
    )
