"""The patient model: stages a person from slices together, whichever levels of the brain they show.

The model *is* its training people: the orientation histograms of their slices, level by level. For a person of whom
some levels are given, ridge regression is fitted to the training people at those levels (a linear model of 200
people takes milliseconds), and proportional odds to their out-of-fold scores. So a prediction from one slice is
calibrated as one from one slice, and a prediction from a whole stack as one from a stack.

Kernel methods keep their training points; a file of coefficients would know the whole stack only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.ndimage import binary_closing

from brainstage.core.arrays import Float32Array, Float64Array, IntArray, Pixels
from brainstage.models.folder import CONFIG, WEIGHTS, read_json
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE
from brainstage.stats.calibration import conformal_threshold
from brainstage.stats.ordinal import ProportionalOdds

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge


MODEL_TYPE = "brainstage-patient"
LEVELS = 32
"""Levels of a person's stack."""
SLABS = (4, 8)
"""Numbers of neighbouring levels that are averaged; both kinds of means are features, fine and coarse."""
RIDGE = 0.1
"""Strength of the ridge, where the mean square length of a person's features is 1."""
POWER = 0.5
"""The regression's target is the stage's number to this power: the first step counts most."""
STEP = 1 / 255
"""Size of one unit of a saved histogram's square root, in the square root of white matter a pixel."""
GAP = 5
"""Fewer missing levels than this between two given ones are filled from their neighbours."""
_FOLDS = 5


class PatientModel:
    """A classifier of people, fitted when it predicts.

    Attributes:
        classes: Class names, from the least to the most severe stage.
    """

    def __init__(self, stacks: Pixels, labels: IntArray, classes: Sequence[str]) -> None:
        """Take training people: roots of histograms, uint8 of shape (n, LEVELS, 8, 8, 8), and their stages (n,)."""
        self.classes = tuple(classes)
        self._stacks, self._labels = stacks, labels
        slices = _roots(stacks).reshape(len(stacks), LEVELS, -1)
        self._centre = slices.mean(axis=(0, 1))
        self._atlas = _unit(slices.mean(axis=0) - self._centre)
        self._fitted = lru_cache(maxsize=256)(self._fit)

    def __len__(self) -> int:
        """Return the number of training people."""
        return len(self._stacks)

    @classmethod
    def fit(
        cls,
        histograms: Float32Array,
        patients: Sequence[str],
        places: Float64Array,
        labels: IntArray,
        classes: Sequence[str],
    ) -> PatientModel:
        """Return a model of training slices with known people and places along the stack.

        Args:
            histograms: Of each slice (:func:`orientation_histograms`), shape (n, 8, 8, 8).
            patients: Of each slice.
            places: Of each slice along the stack, from 0 to 1.
            labels: Number of each slice's stage.
            classes: Names of the stages.
        """
        people, first, number = np.unique(np.array(patients), return_index=True, return_inverse=True)
        roots = np.sqrt(histograms)
        stacks = np.full((len(people), LEVELS, *roots.shape[1:]), np.nan, np.float32)
        for person in range(len(people)):
            rows = np.flatnonzero(number == person)
            levels = (places[rows] * (LEVELS - 1)).round().astype(np.int64)
            given = _given(levels)
            stacks[person, given] = _stack(roots[rows], levels, given)
        there = ~np.isnan(stacks)
        means = np.nansum(stacks, axis=0) / np.maximum(there.sum(axis=0), 1)
        stacks = np.where(there, stacks, means)  # a level that a person lacks says nothing about that person
        return cls((stacks / STEP).round().clip(0, 255).astype(np.uint8), labels[first], classes)

    def predict_proba(
        self,
        histograms: Float32Array,
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> Float32Array:
        """Return the probabilities of the stages for each slice's person, float32 of shape (n, classes).

        Args:
            histograms: Of each slice, float32 of shape (n, 8, 8, 8).
            patients: As for :meth:`predict`.
            levels: As for :meth:`predict`.
        """
        return self.predict(histograms, patients, levels)[0]

    def predict(
        self,
        histograms: Float32Array,
        patients: Sequence[str | None] | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> tuple[Float32Array, Float64Array]:
        """Predict each slice's person.

        Args:
            histograms: Of each slice, shape (n, 8, 8, 8).
            patients: Patient of each slice; slices of one patient are predicted together. A slice of None is
                predicted alone.
            levels: Level of each slice, from 0 to LEVELS - 1; None where it is to be estimated from the slice.

        Returns:
            Probabilities of the stages, float32 of shape (n, classes), and the conformal threshold of each slice's
            90 % set (:mod:`brainstage.stats.calibration`), float64 of shape (n,).
        """
        roots, places = np.sqrt(histograms), self.levels(histograms)
        for row, level in enumerate(() if levels is None else levels):
            places[row] = places[row] if level is None else level
        people = list(people_rows(patients or [None] * len(roots)))
        alike: dict[bytes, list[IntArray]] = {}
        for rows in people:
            alike.setdefault(_given(places[rows]).tobytes(), []).append(rows)
        probabilities, thresholds = np.empty((len(roots), len(self.classes)), np.float32), np.empty(len(roots))
        for key, members in alike.items():
            given = np.frombuffer(key, dtype=np.int64)
            scaling, ridge, odds, threshold = self._fitted(tuple(given.tolist()))
            stacks = np.stack([_stack(roots[rows], places[rows], given) for rows in members])
            predictions = odds.predict(ridge.predict(scaling(_features(stacks, given)))).astype(np.float32)
            for rows, prediction in zip(members, predictions, strict=True):
                probabilities[rows], thresholds[rows] = prediction, threshold
        return probabilities, thresholds

    def levels(self, histograms: Float32Array) -> IntArray:
        """Return the level of each slice, from 0 to LEVELS - 1: that of the training people's most similar mean."""
        rows = np.sqrt(histograms).reshape(-1, len(self._centre))
        found: IntArray = (_unit(rows - self._centre) @ self._atlas.T).argmax(axis=1)
        return found

    def shuffled(self, seed: int) -> PatientModel:
        """Return a model whose training people's stages are shuffled."""
        return PatientModel(self._stacks, np.random.default_rng(seed).permutation(self._labels), self.classes)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": MODEL_TYPE, "classes": list(self.classes)}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file({"stacks": self._stacks, "labels": self._labels}, folder / WEIGHTS)

    @classmethod
    def open(cls, folder: Path) -> PatientModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            OSError, ValueError, KeyError, SafetensorError: A file is missing, damaged or does not fit.
        """
        classes = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["classes"]
        tensors = load_file(folder / WEIGHTS)
        stacks, labels = tensors["stacks"], tensors["labels"]
        cells = SIDE // CELL
        if stacks.shape[1:] != (LEVELS, cells, cells, DIRECTIONS) or stacks.dtype != np.uint8:
            raise ValueError(f"stacks of shape {stacks.shape[1:]}, {stacks.dtype}")
        if labels.shape != stacks.shape[:1] or not set(np.unique(labels)) == set(range(len(classes))):
            raise ValueError("labels do not fit the stacks and the classes")
        return cls(stacks, labels.astype(np.int64), classes)

    def _fit(self, levels: tuple[int, ...]) -> tuple[_Scaling, Ridge, ProportionalOdds, float]:
        """Fit to the training people at some levels; odds and threshold are fitted to out-of-fold scores."""
        from sklearn.model_selection import (  # a second, that other models need not wait
            StratifiedKFold,
            cross_val_predict,
        )

        blocks = _features(_roots(self._stacks[:, levels]), np.array(levels))
        scaling = _Scaling.of(blocks)
        features, targets = scaling(blocks), self._labels**POWER
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(features, _strata(self._labels))
        scores = cross_val_predict(_ridge(), features, targets, cv=list(folds))
        odds = ProportionalOdds(scores, self._labels, len(self.classes))
        threshold = conformal_threshold(odds.predict(scores)[np.arange(len(scores)), self._labels])
        return scaling, _ridge().fit(features, targets), odds, threshold


def is_patient_model(folder: Path) -> bool:
    """Return whether a model folder holds a patient model."""
    file = folder / CONFIG
    return file.is_file() and read_json(file).get("model_type") == MODEL_TYPE


def _ridge() -> Ridge:
    from sklearn.linear_model import Ridge

    return Ridge(RIDGE, solver="cholesky")


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


def _given(levels: IntArray) -> IntArray:
    """Return the levels that are given: those of the slices, and small gaps between them."""
    given = np.zeros(LEVELS + 2 * GAP, dtype=bool)  # a margin, or closing would wear off the ends
    given[levels + GAP] = True
    found: IntArray = np.flatnonzero(binary_closing(given, np.ones(GAP))[GAP:-GAP])
    return found


def _stack(roots: Float32Array, levels: IntArray, given: IntArray) -> Float32Array:
    """Put a person's slices on the levels given, (len(given), 8, 8, 8): each takes the mean of those nearest."""
    distance = np.abs(given[:, None] - levels)
    nearest = (distance == distance.min(axis=1, keepdims=True)).astype(np.float32)
    stack: Float32Array = np.tensordot(nearest / nearest.sum(axis=1, keepdims=True), roots, axes=1)
    return stack


def _roots(stacks: Pixels) -> Float32Array:
    return stacks.astype(np.float32) * np.float32(STEP)


def _features(stacks: Float32Array, levels: IntArray) -> list[Float32Array]:
    """Average people's histograms over slabs of levels, in cells of one size and twice that: four blocks (n, …)."""
    squares = np.square(stacks)
    coarse = squares[:, :, ::2] + squares[:, :, 1::2]
    coarse = np.sqrt((coarse[:, :, :, ::2] + coarse[:, :, :, 1::2]) / 4)
    return [_slabs(roots, levels // slab) for roots in (stacks, coarse) for slab in SLABS]


def _slabs(roots: Float32Array, slabs: IntArray) -> Float32Array:
    means = [roots[:, slabs == slab].mean(axis=1).reshape(len(roots), -1) for slab in np.unique(slabs)]
    return np.concatenate(means, axis=1)


@dataclass(frozen=True)
class _Scaling:
    """Features in units of their spread among the training people; each block counts alike, however long it is."""

    means: list[Float32Array]
    scales: list[Float32Array]

    @classmethod
    def of(cls, blocks: list[Float32Array]) -> _Scaling:
        scales = []
        for block in blocks:
            spread = block.std(axis=0)
            varies = spread > 1e-3 * spread.max()  # the corners of a picture are black in everyone
            scales.append(np.where(varies, 1 / np.where(varies, spread, 1) / np.sqrt(max(1, varies.sum())), 0))
        return cls([block.mean(axis=0) for block in blocks], scales)

    def __call__(self, blocks: list[Float32Array]) -> Float32Array:
        parts = [(b - mean) * scale for b, mean, scale in zip(blocks, self.means, self.scales, strict=True)]
        scaled: Float32Array = np.concatenate(parts, axis=1) / np.sqrt(np.float32(len(parts)))
        return scaled


def _unit(rows: Float32Array) -> Float32Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
