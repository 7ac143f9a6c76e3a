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
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.ndimage import binary_closing
from scipy.special import ndtri

from brainstage.core.arrays import Float16Array, Float32Array, Float64Array, IntArray, Pixels
from brainstage.core.errors import DataError
from brainstage.core.levels import BRAIN, LEVELS_KEY, PUBLIC, LevelSet
from brainstage.core.parallel import parallel_map
from brainstage.models.acquisitions import Acquisition
from brainstage.models.folder import CONFIG, WEIGHTS, read_json, trained_levels
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE, orientation_histograms
from brainstage.models.ridge import FeatureScaling, RidgeLine
from brainstage.stats.calibration import conformal_threshold
from brainstage.stats.ordinal import ProportionalOdds
from brainstage.stats.tones import TONES, in_units_of_power, tone_roots

MODEL_TYPE = "brainstage-patient"
SLABS = (4, 8)
"""Numbers of neighbouring levels that are averaged; both kinds of means are features, fine and coarse."""
TONE_SLAB = 8
"""Neighbouring levels whose tones are averaged."""
POWER = 0.5
"""The regression's target is the stage's number to this power: the first step counts most."""
PREDICTION_SEEDS = (None, 0, 1, 2, 3)
"""Acquisitions in which a person who is staged is looked at; the first is the scan as it is."""
DIRECTIONS_KEPT = 64
"""Principal directions of acquisitions that are kept. With 16 a larger head changes more predictions; 200 are no
better (``docs/decisions/patient.md``)."""
NODES = ndtri((np.arange(9) + 0.5) / 9)
"""Nine equally likely places of an acquisition's score around the person's mean, in standard deviations."""
STEP = 1 / 255
"""Size of one unit of a saved histogram's square root: in the square root of white matter a pixel for edges, of a
share of the pixels for tones."""
EDGES = (SIDE // CELL) ** 2 * DIRECTIONS
"""Number of a slice's features that are edges."""
FEATURES = EDGES + TONES
"""Number of a slice's features."""
FOCAL_SHARES = {PUBLIC: (0.0,), BRAIN: (0.0, 0.5)}
"""By the levels: what may be the share of weight of features that are correlated with the stage
(:mod:`brainstage.models.ridge`). Taken is the one that predicts training people best out of fold."""
GAP = 5
"""Fewer missing levels than this between two given ones are filled from their neighbours."""
_FOLDS = 5
_SCANS_OF_DIRECTIONS = 200
"""Scans from which the directions are measured: a cohort of thousands needs no more."""


def patient_features(images: Sequence[Pixels], seeds: Sequence[int | None]) -> Pixels:
    """Return what the patient model sees of slices in several acquisitions.

    Args:
        images: Grey slices, each uint8 of shape (SIDE, SIDE).
        seeds: Of the ``a`` acquisitions; None shows a slice as it is.

    Returns:
        Square roots of the orientation histogram, then of the tones, in steps of :data:`STEP`: uint8 of shape
        (n, a, FEATURES).
    """
    acquisitions = [None if seed is None else Acquisition.draw(seed) for seed in seeds]

    def features_of(image: Pixels) -> Pixels:
        shown = [one.apply(image) if one else image for one in acquisitions]
        edges = np.sqrt(orientation_histograms(shown)).reshape(len(shown), -1)
        tones = tone_roots(in_units_of_power(np.stack(shown).astype(np.float32)))
        return _in_steps(np.concatenate([edges, tones], axis=1))

    if not len(images):
        return np.zeros((0, len(seeds), FEATURES), np.uint8)
    return np.stack(parallel_map(features_of, images))


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


class PatientModel:
    """A classifier of people, fitted when it predicts.

    Attributes:
        classes: Class names, from the least to the most severe stage.
        level_set: The levels of its training people.
    """

    def __init__(
        self,
        stacks: Pixels,
        directions: Float16Array,
        labels: IntArray,
        classes: Sequence[str],
        people: IntArray | None = None,
        level_set: LevelSet = PUBLIC,
    ) -> None:
        """Take training scans.

        Args:
            stacks: Roots of their histograms, means over acquisitions, in steps of :data:`STEP`: uint8 of shape
                (n, levels, FEATURES).
            directions: In which acquisitions move people, float16 of shape (d, levels, FEATURES): the sum of their
                outer products is the covariance within a person.
            labels: Their stages (n,).
            classes: Names of the stages.
            people: Number of each one's person (n,); None where everyone has one scan.
            level_set: The levels of the stacks.
        """
        self.classes, self.level_set = tuple(classes), level_set
        self._stacks, self._directions, self._labels = stacks, directions, labels
        self._people = np.arange(len(stacks)) if people is None else people
        edges = _roots(stacks[..., :EDGES])
        self._centre = edges.mean(axis=(0, 1))
        self._atlas = _unit(edges.mean(axis=0) - self._centre)
        self._fitted = lru_cache(maxsize=256)(self._fit)

    def __len__(self) -> int:
        """Return the number of training people."""
        return len(np.unique(self._people))

    @classmethod
    def fit(
        cls,
        features: Pixels,
        stacks: Sequence[str],
        places: Float64Array,
        labels: IntArray,
        classes: Sequence[str],
        people: Sequence[str] | None = None,
        level_set: LevelSet = PUBLIC,
    ) -> PatientModel:
        """Return a model of training slices with known people and places along the stack.

        Args:
            features: Of each slice in each of ``a`` acquisitions (:func:`patient_features`), uint8 of shape
                (n, a, FEATURES); acquisitions of one number belong together.
            stacks: Of each slice, its scan: a person's name where everyone has one.
            places: Of each slice along the stack, from 0 to 1.
            labels: Number of each slice's stage; the same for all slices of a scan.
            classes: Names of the stages.
            people: Of each slice; None where everyone has one scan.
            level_set: The levels that places from 0 to 1 stand for.
        """
        names, first, number = np.unique(np.array(stacks), return_index=True, return_inverse=True)
        acquisitions, count = features.shape[1], level_set.count
        roots = np.full((len(names), count, FEATURES), np.nan, np.float32)
        chosen = np.linspace(0, len(names) - 1, min(len(names), _SCANS_OF_DIRECTIONS)).round().tolist()
        place = {scan: number for number, scan in enumerate(chosen)}
        deviations = np.zeros((len(chosen), acquisitions, count, FEATURES), np.float32)
        for scan in range(len(names)):
            rows = np.flatnonzero(number == scan)
            levels = (places[rows] * (count - 1)).round().astype(np.int64)
            given = _given(levels, count)
            acquired = _stack(_roots(features[rows]), levels, given)
            roots[scan, given] = acquired.mean(axis=1)
            if scan in place:
                moved = acquired - acquired.mean(axis=1, keepdims=True)
                deviations[place[scan]][:, given] = moved.swapaxes(0, 1)
        there = ~np.isnan(roots)
        means = np.nansum(roots, axis=0) / np.maximum(there.sum(axis=0), 1)
        roots = np.where(there, roots, means)  # a level that a scan lacks says nothing about its person
        person = None if people is None else np.unique(np.array(people)[first], return_inverse=True)[1]
        directions = _principal_directions(deviations, roots)
        return cls(_in_steps(roots), directions, labels[first], classes, person, level_set)

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
        places = self.levels(features)
        for row, level in enumerate(() if levels is None else levels):
            places[row] = places[row] if level is None else level
        if len(places) and not 0 <= places.min() <= places.max() < self.level_set.count:
            raise DataError(f"level {places.max()}: expected 0 to {self.level_set.count - 1}, the model's levels")
        people = list(people_rows(patients or [None] * len(features)))
        alike: dict[bytes, list[IntArray]] = {}
        for rows in people:
            alike.setdefault(_given(places[rows], self.level_set.count).tobytes(), []).append(rows)
        each = np.empty((*features.shape[:2], len(self.classes)))
        thresholds = np.empty(len(features))
        for key, members in alike.items():
            given = np.frombuffer(key, dtype=np.int64)
            fitted = self._fitted(tuple(given.tolist()))
            for rows in members:
                stacks = _stack(_roots(features[rows]), places[rows], given).swapaxes(0, 1)  # (a, levels, …)
                each[rows], thresholds[rows] = fitted.predict(_features(stacks, given)), fitted.conformal_threshold
        means = each.mean(axis=1)
        stage = means.argmax(axis=1)
        return PatientPrediction(
            means.astype(np.float32),
            thresholds,
            (each.argmax(axis=2) == stage[:, None]).mean(axis=1),
            each[np.arange(len(each)), :, stage].std(axis=1),
        )

    def levels(self, features: Pixels) -> IntArray:
        """Return the level of each slice, from 0: where training people's mean edges are nearest.

        Args:
            features: As for :meth:`predict`.
        """
        rows = _roots(features[..., :EDGES]).mean(axis=1)
        found: IntArray = (_unit(rows - self._centre) @ self._atlas.T).argmax(axis=1)
        return found

    def shuffled(self, seed: int) -> PatientModel:
        """Return a model whose training people's stages are shuffled."""
        labels = np.random.default_rng(seed).permutation(self._labels)
        return PatientModel(self._stacks, self._directions, labels, self.classes, self._people, self.level_set)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": MODEL_TYPE, "classes": list(self.classes), LEVELS_KEY: self.level_set.name}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        tensors: dict[str, np.ndarray] = {
            "stacks": self._stacks,
            "directions": self._directions,
            "labels": self._labels,
        }
        if len(self) < len(self._stacks):
            tensors["people"] = self._people
        save_file(tensors, folder / WEIGHTS)

    @classmethod
    def open(cls, folder: Path) -> PatientModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            OSError, ValueError, KeyError, DataError, SafetensorError: A file is missing, damaged or does not fit.
        """
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        classes, level_set = config["classes"], trained_levels(config, str(folder / CONFIG))
        tensors = load_file(folder / WEIGHTS)
        stacks, directions, labels = (tensors[name] for name in ("stacks", "directions", "labels"))
        people = tensors.get("people")
        shape = (level_set.count, FEATURES)
        for name, rows, dtype in (("stacks", stacks, np.uint8), ("directions", directions, np.float16)):
            if rows.shape[1:] != shape or rows.dtype != dtype:
                raise ValueError(f"{name} of shape {rows.shape[1:]}, {rows.dtype}")
        if not np.isfinite(directions).all():
            raise ValueError("directions that are not numbers")
        if labels.shape != stacks.shape[:1] or not set(np.unique(labels)) == set(range(len(classes))):
            raise ValueError("labels do not fit the stacks and the classes")
        if people is not None and people.shape != labels.shape:
            raise ValueError("people do not fit the stacks")
        return cls(stacks, directions, labels.astype(np.int64), classes, people, level_set)

    def _fit(self, levels: tuple[int, ...]) -> _Fitted:
        """Fit to the training people at some levels; odds and threshold are fitted to out-of-fold scores."""
        blocks = _features(_roots(self._stacks[:, levels]), np.array(levels))
        within = _features(self._directions[:, levels].astype(np.float32), np.array(levels))
        scaling = FeatureScaling.of(blocks, within)
        features, directions = scaling(blocks), scaling.directions(within)
        targets = self._labels.astype(np.float64) ** POWER
        shares = FOCAL_SHARES[self.level_set]
        out_of_fold = {share: self._out_of_fold(features, targets, directions, share) for share in shares}
        share = min(shares, key=lambda share: float(np.square(out_of_fold[share][0] - targets).sum()))
        scores, spread = out_of_fold[share]
        acquired = scores[:, None] + spread[:, None] * NODES
        odds = ProportionalOdds(acquired.ravel(), np.repeat(self._labels, len(NODES)), len(self.classes))
        # a prediction is the mean over acquisitions of what is an acquisition itself
        again = acquired[:, :, None] + spread[:, None, None] * NODES
        means = odds.predict(again.ravel()).reshape(len(scores), *again.shape[1:], -1).mean(axis=2)
        true = means[np.arange(len(scores)), :, self._labels].ravel()
        line = RidgeLine.fit(features, targets, directions, share)
        return _Fitted(scaling, line, odds, conformal_threshold(true, len(self)))

    def _out_of_fold(
        self, features: Float32Array, targets: Float64Array, directions: Float32Array, focal_share: float
    ) -> tuple[Float64Array, Float64Array]:
        """Return each training person's score and its spread over acquisitions, from a line fitted to others.

        Args:
            features, targets, directions, focal_share: As for :meth:`RidgeLine.fit`.

        Returns:
            Two arrays of float64 of shape (n,).
        """
        scores, spread = np.empty(len(features)), np.empty(len(features))
        for rest, held in self._folds():
            line = RidgeLine.fit(features[rest], targets[rest], directions, focal_share)
            scores[held], spread[held] = line(features[held]), line.spread(directions)
        return scores, spread

    def _folds(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield inner folds; all scans of a person are on one side."""
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # a second, others need not wait

        strata = _strata(self._labels)
        if len(self) == len(self._stacks):
            yield from StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(self._stacks, strata)
        else:
            folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
            yield from folds.split(self._stacks, strata, self._people)


def is_patient_model(folder: Path) -> bool:
    """Return whether a model folder holds a patient model."""
    file = folder / CONFIG
    return file.is_file() and read_json(file).get("model_type") == MODEL_TYPE


def _strata(labels: IntArray) -> IntArray:
    """Return the stages, with those of fewer people than folds joined to the largest."""
    counts = np.bincount(labels)
    return np.where(counts[labels] < _FOLDS, counts.argmax(), labels)


def people_rows(patients: Sequence[str | None]) -> Iterator[IntArray]:
    """Yield the rows of each person."""
    rows: dict[object, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(row if patient is None else patient, []).append(row)
    for members in rows.values():
        yield np.array(members)


def _given(levels: IntArray, count: int) -> IntArray:
    """Return which of ``count`` levels are given: those of the slices, and small gaps between them."""
    given = np.zeros(count + 2 * GAP, dtype=bool)  # a margin, or closing would wear off the ends
    given[levels + GAP] = True
    found: IntArray = np.flatnonzero(binary_closing(given, np.ones(GAP))[GAP:-GAP])
    return found


def _stack(roots: Float32Array, levels: IntArray, given: IntArray) -> Float32Array:
    """Put a person's slices on the levels given, (len(given), a, FEATURES): each takes the mean of the nearest."""
    distance = np.abs(given[:, None] - levels)
    nearest = (distance == distance.min(axis=1, keepdims=True)).astype(np.float32)
    stack: Float32Array = np.tensordot(nearest / nearest.sum(axis=1, keepdims=True), roots, axes=1)
    return stack


def _roots(stacks: Pixels) -> Float32Array:
    return stacks.astype(np.float32) * np.float32(STEP)


def _in_steps(roots: Float32Array) -> Pixels:
    return (roots / np.float32(STEP)).round().clip(0, 255).astype(np.uint8)


def _principal_directions(deviations: Float32Array, stacks: Float32Array) -> Float16Array:
    """Return the directions in which acquisitions move people most, float16 of shape (d, levels, FEATURES).

    Most is measured in the model's features: over slabs of levels, where the noise of single slices averages out.

    Args:
        deviations: Of some people's acquisitions from their mean, shape (n, a, levels, FEATURES).
        stacks: The means of all people, shape (people, levels, FEATURES).
    """
    people, acquisitions, *shape = deviations.shape
    if acquisitions == 1:
        return np.zeros((0, *shape), np.float16)
    rows = deviations.reshape(people * acquisitions, *shape) * np.float32((people * acquisitions) ** -0.5)
    every = np.arange(stacks.shape[1])
    blocks = _features(rows, every)
    features = FeatureScaling.of(_features(stacks, every), blocks).directions(blocks)
    _, vectors = np.linalg.eigh(features @ features.T)
    directions = vectors[:, ::-1][:, :DIRECTIONS_KEPT].T @ rows.reshape(len(rows), -1)
    return directions.reshape(-1, *shape).astype(np.float16)


def _features(stacks: Float32Array, levels: IntArray) -> list[Float32Array]:
    """Average roots of histograms over slabs of levels: the blocks (n, …) that ``ridge.BLOCKS`` weighs.

    Edges are averaged in cells of one size and twice that. All of it is linear, so directions of stacks become
    directions of features.
    """
    fine = stacks[..., :EDGES].reshape(*stacks.shape[:2], SIDE // CELL, SIDE // CELL, DIRECTIONS)
    pairs = fine[:, :, ::2] + fine[:, :, 1::2]
    coarse: Float32Array = (pairs[:, :, :, ::2] + pairs[:, :, :, 1::2]) * np.float32(0.25)
    edges = [_slabs(roots, levels // slab) for roots in (fine, coarse) for slab in SLABS]
    return [*edges, _slabs(stacks[..., EDGES:], levels // TONE_SLAB)]


def _slabs(roots: Float32Array, slabs: IntArray) -> Float32Array:
    length = math.prod(roots.shape[2:])  # there may be no direction
    means = [roots[:, slabs == slab].mean(axis=1).reshape(len(roots), length) for slab in np.unique(slabs)]
    return np.concatenate(means, axis=1)


@dataclass(frozen=True)
class _Fitted:
    """The model at some levels."""

    scaling: FeatureScaling
    line: RidgeLine
    odds: ProportionalOdds
    conformal_threshold: float

    def predict(self, blocks: list[Float32Array]) -> Float64Array:
        """Return the probabilities of the stages, float64 of shape (n, classes), from blocks of features."""
        return self.odds.predict(self.line(self.scaling(blocks)))


def _unit(rows: Float32Array) -> Float32Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
