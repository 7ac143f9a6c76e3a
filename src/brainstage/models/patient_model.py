"""The patient model: stages a person from slices together, whichever levels of the brain they show.

The model *is* its training people: histograms of their slices, of edge directions by place and of grey values,
level by level. For a person of whom some levels are given, ridge regression is fitted to the training people at
those levels (a linear model of 200 people takes milliseconds), and proportional odds to their out-of-fold scores.
So a prediction from one slice is calibrated as one from one slice, and a prediction from a whole stack as one from
a stack.

Kernel methods keep their training points; a file of coefficients would know the whole stack only.

**Acquisitions.** Another scanner shows the same head otherwise (:mod:`brainstage.models.acquisitions`). The model
is fitted to several acquisitions of each person. Least squares on them all is least squares on each person's mean
plus a penalty on the variance of the score within a person, so it is enough to keep the means and the principal
directions in which acquisitions move people: rows of the ridge whose target is 0. A person who is staged is looked
at in several acquisitions too; the prediction is their mean, and how far they spread is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.special import ndtri

from brainstage.core.arrays import Float32Array, Float64Array, IntArray, Pixels
from brainstage.core.errors import DataError
from brainstage.core.levels import BRAIN, LEVELS_KEY, PUBLIC, LevelSet
from brainstage.core.parallel import one_blas_thread
from brainstage.models.coordinates import fit_line, out_of_fold
from brainstage.models.folder import CONFIG, WEIGHTS, read_json, trained_levels
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE
from brainstage.models.patient_features import (
    EDGES,
    STEP,
    as_roots,
    feature_blocks,
    given_levels,
    nearest_slices,
    stack_of,
)
from brainstage.models.ridge import FeatureScaling, RidgeLine
from brainstage.models.training_scans import FeatureRows, TrainingScans
from brainstage.stats.calibration import conformal_threshold
from brainstage.stats.ordinal import ProportionalOdds

MODEL_TYPE = "brainstage-patient"
POWER = 0.5
"""The regression's target is the stage's number to this power: the first step counts most."""
PREDICTION_SEEDS = (None, 0, 1, 2, 3)
"""Acquisitions in which a person who is staged is looked at; the first is the scan as it is."""
NODES = ndtri((np.arange(9) + 0.5) / 9)
"""Nine equally likely places of an acquisition's score around the person's mean, in standard deviations."""
FOCAL_SHARES = {PUBLIC: (0.0,), BRAIN: (0.0, 0.5)}
"""By the levels: what may be the share of weight of features that are correlated with the stage
(:mod:`brainstage.models.ridge`). Taken is the one that predicts training people best out of fold."""
_FOLDS = 5


class PatientPrediction(NamedTuple):
    """The predictions for n slices, each of its person.

    Attributes:
        probabilities: Mean over the acquisitions, float32 of shape (n, classes).
        conformal_threshold: Probability from which on a stage belongs to the 90 % set
            (:mod:`brainstage.stats.calibration`), float64 of shape (n,).
        stability: Share of acquisitions whose most probable stage is that of the mean, float64 of shape (n,).
        spread: Standard deviation over the acquisitions of the probability of that stage, float64 of shape (n,).
    """

    probabilities: Float32Array
    conformal_threshold: Float64Array
    stability: Float64Array
    spread: Float64Array


class Contributions(NamedTuple):
    """A person's severity, taken apart: ``severity`` is ``mean_severity`` and the sum of all contributions.

    Attributes:
        severity: Log-odds that the stages' probabilities come from (:mod:`brainstage.stats.ordinal`), the mean over
            the acquisitions.
        mean_severity: That of the mean of the training people at the same levels.
        thresholds: The severity from which on later stages than each but the last are likelier than not, float64 of
            shape (classes - 1,).
        levels: Of the n slices, int64 of shape (n,).
        edges: Contributions of edges by slice, row and column of the cell, and direction, float64 of shape
            (n, SIDE / CELL, SIDE / CELL, DIRECTIONS).
        tones: Contributions of the grey values of a whole slice, by bin, float64 of shape (n, TONES).
        people: Number of the training people.
    """

    severity: float
    mean_severity: float
    thresholds: Float64Array
    levels: IntArray
    edges: Float64Array
    tones: Float64Array
    people: int


class PatientModel:
    """A classifier of people, fitted when it predicts.

    Attributes:
        classes: Class names, from the least to the most severe stage.
        level_set: The levels of its training people.
    """

    def __init__(
        self,
        scans: TrainingScans,
        labels: IntArray,
        classes: Sequence[str],
        people: IntArray | None = None,
        level_set: LevelSet = PUBLIC,
    ) -> None:
        """Take training scans.

        Args:
            scans: The scans.
            labels: Their stages (n,).
            classes: Names of the stages.
            people: Number of each one's person (n,); None where everyone has one scan.
            level_set: The levels of the scans.
        """
        self.classes, self.level_set = tuple(classes), level_set
        self._scans, self._labels = scans, labels
        self._people = np.arange(len(scans)) if people is None else people
        edges = scans.mean_slices()[:, :EDGES]
        self._centre = edges.mean(axis=0)
        self._atlas = _unit(edges - self._centre)
        self._fits, self._fitting = lru_cache(maxsize=256)(self._fit), Lock()

    def __len__(self) -> int:
        """Return the number of training people."""
        return len(np.unique(self._people))

    @classmethod
    def fit(
        cls,
        features: FeatureRows,
        stacks: Sequence[str],
        places: Float64Array,
        labels: IntArray,
        classes: Sequence[str],
        people: Sequence[str] | None = None,
        level_set: LevelSet = PUBLIC,
    ) -> PatientModel:
        """Return a model of training slices with known people and places along the stack.

        Args:
            features: Of each slice in each of ``a`` acquisitions (:func:`patient_features`): uint8 of shape
                (n, a, FEATURES), or what reads some rows of it; acquisitions of one number belong together.
            stacks: Of each slice, its scan: a person's name where everyone has one.
            places: Of each slice along the stack, from 0 to 1.
            labels: Number of each slice's stage; the same for all slices of a scan.
            classes: Names of the stages.
            people: Of each slice; None where everyone has one scan.
            level_set: The levels that places from 0 to 1 stand for.
        """
        _, first, number = np.unique(np.array(stacks), return_index=True, return_inverse=True)
        scans = TrainingScans.gather(features, number, places, level_set.count)
        person = None if people is None else np.unique(np.array(people)[first], return_inverse=True)[1]
        return cls(scans, labels[first], classes, person, level_set)

    def predict_proba(
        self,
        features: Pixels,
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> Float32Array:
        """Return the probabilities of the stages for each slice's person, float32 of shape (n, classes).

        Args:
            features: As for :meth:`predict`.
            patients: As for :meth:`predict`.
            levels: As for :meth:`predict`.
        """
        return self.predict(features, patients, levels).probabilities

    def predict(
        self,
        features: Pixels,
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> PatientPrediction:
        """Predict each slice's person.

        Args:
            features: Of each slice in each of ``a`` acquisitions (:func:`patient_features`), uint8 of shape
                (n, a, FEATURES); acquisitions of one number belong together.
            patients: Patient of each slice; slices of one patient are predicted together. A slice of None is
                predicted alone.
            levels: Level of each slice, from 0; None where it is to be estimated from the slice.

        Raises:
            DataError: A level is none of the model's.
        """
        places = self._places(features, levels)
        people = list(people_rows(patients or [None] * len(features)))
        alike: dict[bytes, list[IntArray]] = {}
        for rows in people:
            alike.setdefault(given_levels(places[rows], self.level_set.count).tobytes(), []).append(rows)
        each = np.empty((*features.shape[:2], len(self.classes)))
        thresholds = np.empty(len(features))
        for key, members in alike.items():
            given = np.frombuffer(key, dtype=np.int64)
            fitted = self._fitted(given)
            for rows in members:
                each[rows] = fitted.odds.predict(self._scores(fitted, features[rows], places[rows], given))
                thresholds[rows] = fitted.conformal_threshold
        means = each.mean(axis=1)
        stage = means.argmax(axis=1)
        return PatientPrediction(
            means.astype(np.float32),
            thresholds,
            (each.argmax(axis=2) == stage[:, None]).mean(axis=1),
            each[np.arange(len(each)), :, stage].std(axis=1),
        )

    def contributions(self, features: Pixels, levels: Sequence[int | None] | None = None) -> Contributions:
        """Take a person's severity apart: what each feature of each slice adds to that of the mean training person.

        Between the roots of histograms and the severity all is linear (levels filled from their nearest slices,
        components, means over cells and slabs, scaling, ridge regression, the slope of the proportional odds), so
        nothing is approximated. The steps before are not: roots of histograms of pixels divided by the slice's
        white matter. So a contribution is that of a measured feature, not of a pixel. Nor is the step after:
        the prediction is the mean of the acquisitions' probabilities, taken apart is the mean of their severities.

        Args:
            features: As for :meth:`predict`, of one person.
            levels: As for :meth:`predict`.

        Raises:
            DataError: A level is none of the model's.
        """
        places = self._places(features, levels)
        given = given_levels(places, self.level_set.count)
        fitted = self._fitted(given)
        weights = self._scans.weights_of_roots(fitted.weights, given)
        shares = nearest_slices(places, given).astype(np.float64)
        roots, means = as_roots(features).mean(axis=1, dtype=np.float64), self._scans.mean_slices()[given]
        each = (shares.T @ weights) * roots - shares.T @ (weights * means)
        cells = SIDE // CELL
        return Contributions(
            float(fitted.odds.severity(self._scores(fitted, features, places, given)).mean()),
            float(fitted.odds.severity(fitted.scores(feature_blocks(means[None], given)))[0]),
            fitted.odds.thresholds,
            places,
            each[:, :EDGES].reshape(-1, cells, cells, DIRECTIONS),
            each[:, EDGES:],
            len(self),
        )

    def levels(self, features: Pixels) -> IntArray:
        """Return the level of each slice, from 0: where training people's mean edges are nearest.

        Args:
            features: As for :meth:`predict`.
        """
        rows = features[..., :EDGES].mean(axis=1, dtype=np.float32) * np.float32(STEP)
        levels: IntArray = (_unit(rows - self._centre) @ self._atlas.T).argmax(axis=1)
        return levels

    def shuffled(self, seed: int) -> PatientModel:
        """Return a model whose training people's stages are shuffled."""
        labels = np.random.default_rng(seed).permutation(self._labels)
        return PatientModel(self._scans, labels, self.classes, self._people, self.level_set)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": MODEL_TYPE, "classes": list(self.classes), LEVELS_KEY: self.level_set.name}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        tensors = self._scans.tensors() | {"labels": self._labels}
        if len(self) < len(self._scans):
            tensors["people"] = self._people
        # safetensors writes an array's memory as it lies, and would not say that it is transposed
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)

    @classmethod
    def open(cls, folder: Path) -> PatientModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            OSError, ValueError, KeyError, DataError, SafetensorError: A file is missing, damaged or does not fit.
        """
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        classes, level_set = config["classes"], trained_levels(config, str(folder / CONFIG))
        tensors = load_file(folder / WEIGHTS)
        scans, labels = TrainingScans.of_tensors(tensors, level_set.count), tensors["labels"]
        people = tensors.get("people")
        if labels.shape != (len(scans),) or not set(np.unique(labels)) == set(range(len(classes))):
            raise ValueError("labels do not fit the stacks and the classes")
        if people is not None and people.shape != labels.shape:
            raise ValueError("people do not fit the stacks")
        return cls(scans, labels.astype(np.int64), classes, people, level_set)

    def _places(self, features: Pixels, levels: Sequence[int | None] | None) -> IntArray:
        """Return the level of each slice: the known one, else the estimate.

        Raises:
            DataError: A level is none of the model's.
        """
        places = self.levels(features)
        for row, level in enumerate(() if levels is None else levels):
            places[row] = places[row] if level is None else level
        if len(places) and not 0 <= places.min() <= places.max() < self.level_set.count:
            raise DataError(f"level {places.max()}: expected 0 to {self.level_set.count - 1}, the model's levels")
        return places

    def _scores(self, fitted: _Fitted, features: Pixels, places: IntArray, given: IntArray) -> Float64Array:
        """Return the score of a person in each acquisition, float64 of shape (a,), by the model at given levels."""
        stacks = stack_of(as_roots(features), places, given).swapaxes(0, 1)  # (a, levels, …)
        return fitted.scores(feature_blocks(self._scans.seen(stacks, given), given))

    def _fitted(self, levels: IntArray) -> _Fitted:
        """Return the model at some levels; who asks while it is being fitted waits, and does not fit it again."""
        with self._fitting:
            return self._fits(tuple(levels.tolist()))

    @one_blas_thread
    def _fit(self, levels: tuple[int, ...]) -> _Fitted:
        """Fit to the training people at some levels; odds and threshold are fitted to out-of-fold scores."""
        people, scaling = self._scans.at(np.array(levels))
        targets, folds = self._labels.astype(np.float64) ** POWER, list(self._folds())
        shares = FOCAL_SHARES[self.level_set]
        held_out = {share: out_of_fold(people, folds, targets, share) for share in shares}
        share = min(shares, key=lambda share: float(np.square(held_out[share][0] - targets).sum()))
        scores, spread = held_out[share]
        acquired = scores[:, None] + spread[:, None] * NODES
        odds = ProportionalOdds(acquired.ravel(), np.repeat(self._labels, len(NODES)), len(self.classes))
        # a prediction is the mean over acquisitions of what is an acquisition itself
        again = acquired[:, :, None] + spread[:, None, None] * NODES
        means = odds.predict(again.ravel()).reshape(len(scores), *again.shape[1:], -1).mean(axis=2)
        true = means[np.arange(len(scores)), :, self._labels].ravel()
        line = fit_line(people, targets, share)
        return _Fitted(scaling, line, odds, conformal_threshold(true, len(self)))

    def _folds(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield inner folds; all scans of a person are on one side."""
        strata, rows = _strata(self._labels), np.arange(len(self._labels))
        if len(self) == len(rows):
            fold = stratified_folds(strata, _FOLDS)
            yield from ((rows[fold != number], rows[fold == number]) for number in range(_FOLDS))
        else:
            from sklearn.model_selection import StratifiedGroupKFold  # a second, others need not wait

            folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
            yield from folds.split(rows, strata, self._people)


def is_patient_model(folder: Path) -> bool:
    """Return whether a model folder holds a patient model."""
    file = folder / CONFIG
    return file.is_file() and read_json(file).get("model_type") == MODEL_TYPE


def _strata(labels: IntArray) -> IntArray:
    """Return the stages, with those of fewer people than folds joined to the largest."""
    counts = np.bincount(labels)
    return np.where(counts[labels] < _FOLDS, counts.argmax(), labels)


def stratified_folds(strata: IntArray, folds: int) -> IntArray:
    """Return the test fold of each row, as scikit-learn's ``StratifiedKFold`` shuffles them with seed 0.

    The patient model is fitted when it is first asked for some levels, and importing scikit-learn takes longer than
    the rest of that prediction.

    Args:
        strata: Number of each row's stratum, shape (n,); each has as many rows as folds or more.
        folds: Number of folds.
    """
    _, first, number = np.unique(strata, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[number]  # scikit-learn numbers strata as they come
    in_order = np.sort(number)
    counts = [np.bincount(in_order[fold::folds], minlength=len(first)) for fold in range(folds)]
    random, fold = np.random.RandomState(0), np.empty(len(strata), np.int64)
    for stratum, count in enumerate(np.transpose(counts)):
        chosen = np.arange(folds).repeat(count)
        random.shuffle(chosen)
        fold[number == stratum] = chosen
    return fold


def people_rows(patients: Sequence[str | None]) -> Iterator[IntArray]:
    """Yield the rows of each person."""
    rows: dict[object, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(row if patient is None else patient, []).append(row)
    for members in rows.values():
        yield np.array(members)


@dataclass(frozen=True)
class _Fitted:
    """The model at some levels."""

    scaling: FeatureScaling
    line: RidgeLine
    odds: ProportionalOdds
    conformal_threshold: float

    def scores(self, blocks: list[Float32Array]) -> Float64Array:
        """Return the scores of n people, float64 of shape (n,), from blocks of features."""
        return self.line(self.scaling(blocks))

    @property
    def weights(self) -> Float64Array:
        """What one unit of each feature, not scaled, adds to the severity, float64 of shape (p,)."""
        return self.line.weights * np.concatenate(self.scaling.scales) * self.odds.severity_per_score


def _unit(rows: Float32Array) -> Float32Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
