"""What stands beside every model: the nearest training slice, and regressions on coarse pixels and on age and sex.

All are prediction tables, so they are evaluated like a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from brainstage.core.arrays import Float32Array, Float64Array, IntArray, Pixels
from brainstage.core.progress import Progress, silent
from brainstage.datasets.neighbours import Neighbours, shortened
from brainstage.datasets.signatures import (
    BLOCK_ROWS,
    COARSE_SIDE,
    EXACT_LIMIT,
    SQUARE_SIDE,
    blocks,
    describe_coarse,
    shrink,
    square,
    unit,
)
from brainstage.datasets.splits import Fold, Splits
from brainstage.datasets.table import SliceTable
from brainstage.inference.prediction_table import prediction_table
from brainstage.stats.age_and_sex import age_and_sex, regression

LINEAR, NEAREST, AGE_AND_SEX = "linear baseline", "nearest training slice", "age and sex"
"""What stands in the ``model`` column of the tables."""
KNOWN_PEOPLE, KNOWN_SHARE = 20, 0.8
"""Fewest people, and smallest share of them, whose age and sex must be known."""
_ROWS_IN_MEMORY = 2000
"""Test slices that are compared at once: 131 MB of pixels."""
MANY_SLICES = 50_000
"""Number of slices above which not all pairs are compared, and the linear baseline is fitted to so many of them."""


def nearest_training_slice(
    slices: SliceTable, folds: Mapping[int, Fold], about: dict[str, Any], *, progress: Progress = silent
) -> pa.Table:
    """Give each validation and test slice the stage of the training slice with the most similar pixels.

    There is nothing to train and nothing to choose, so for test slices the validation slices are training slices
    too. Similarity is Pearson's correlation of the grey values, of slices that are fitted into 128×128 pixels where
    they are of another size; above 10,000 slices of those of 32×32, and above :data:`MANY_SLICES` of 128 principal
    components of these, searched in cells (:class:`brainstage.datasets.neighbours.Neighbours`). Where people are on
    both sides this finds another slice of the same person, so it shows what a score on such a split means.

    Args:
        slices: The data.
        folds: Who trains and who is tested, by the number of the fold.
        about: What is written beside the columns: protocol, leakage verdict.
        progress: How to show progress.

    Returns:
        A prediction table: probability 1 for that slice's stage.
    """
    sides = [[(fold.validation, fold.train), (fold.test, fold.train + fold.validation)] for fold in folds.values()]
    stages = iter(_find_nearest(slices, list(chain(*sides)), progress))
    certain = np.eye(len(slices.classes), dtype=np.float32)
    tables = [
        _fold_table(slices, fold, number, certain[np.concatenate([next(stages), next(stages)])], NEAREST, about)
        for number, fold in folds.items()
    ]
    return pa.concat_tables(tables)


def nearest_stages(slices: SliceTable, asked: Sequence[str], fold: Fold) -> IntArray:
    """Return the stage of the most similar training slice, as :func:`nearest_training_slice` finds it.

    Args:
        slices: The data.
        asked: Ids of n slices.
        fold: The fold whose training slices are searched.

    Returns:
        Class numbers, int64 of shape (n,).
    """
    return _find_nearest(slices, [(asked, fold.train)], silent)[0]


class _Search:
    """The most similar known row of each asked row, among the blocks of pairs that were compared so far."""

    def __init__(self, asked: list[int], known: list[int]):
        self.asked, self.known = np.array(asked, dtype=np.int64), np.array(known, dtype=np.int64)
        self._highest = np.full(len(asked), -np.inf, dtype=np.float32)
        self.nearest = np.zeros(len(asked), dtype=np.int64)

    def take(self, similarity: Float32Array, rows: IntArray, columns: IntArray) -> None:
        """Take over what is higher in a block.

        Args:
            similarity: Of each row with each column, float32 of shape (r, c).
            rows: Numbers of r slices, sorted.
            columns: Numbers of c slices, sorted.
        """
        own = np.flatnonzero(np.isin(self.asked, rows))
        candidates = np.flatnonzero(np.isin(columns, self.known))
        if not len(own) or not len(candidates):
            return
        block = similarity[np.ix_(np.searchsorted(rows, self.asked[own]), candidates)]
        best, highest = block.argmax(axis=1), block.max(axis=1)
        higher = highest > self._highest[own]
        self._highest[own[higher]] = highest[higher]
        self.nearest[own[higher]] = columns[candidates[best[higher]]]


def _find_nearest(
    slices: SliceTable, sides: Sequence[tuple[Sequence[str], Sequence[str]]], progress: Progress
) -> list[IntArray]:
    """Return, for each pair of asked and known slices, the stage of the known slice most similar to each asked one.

    Two slices are compared once, however many folds ask for it.
    """
    if len(slices) > MANY_SLICES:
        return _find_among_many(slices, sides, progress)
    images = slices.images
    side = SQUARE_SIDE if len(images) <= EXACT_LIMIT else COARSE_SIDE
    searches = [_Search(*([slices.row_of[one] for one in ids] for ids in pair)) for pair in sides]
    asked, known = (
        np.unique(np.concatenate(rows))
        for rows in zip(*((search.asked, search.known) for search in searches), strict=True)
    )
    queries, columns = blocks(len(asked), _ROWS_IN_MEMORY), blocks(len(known), BLOCK_ROWS)
    with progress("Finding the nearest training slices", len(queries) * len(columns)) as advance:
        for query in queries:
            pixels = _standardised([images[row] for row in asked[query]], side)
            for column in columns:
                similarity = pixels @ _standardised([images[row] for row in known[column]], side).T
                for search in searches:
                    search.take(similarity, asked[query], known[column])
                advance(1)
    return [slices.targets(search.nearest.tolist()) for search in searches]


def _find_among_many(
    slices: SliceTable, sides: Sequence[tuple[Sequence[str], Sequence[str]]], progress: Progress
) -> list[IntArray]:
    """Return what :func:`_find_nearest` does, at a cost that grows with the number of slices, not of pairs."""
    short = shortened(
        len(slices), lambda rows: _standardised([slices.images[row] for row in rows.tolist()], COARSE_SIDE)
    )
    stages = []
    with progress("Finding the nearest training slices", len(sides)) as advance:
        for pair in sides:
            asked, known = (np.array([slices.row_of[one] for one in ids], dtype=np.int64) for ids in pair)
            search = Neighbours(short[known])
            best = [search.search(short[asked[part]], 1)[0][:, 0] for part in blocks(len(asked), MANY_SLICES)]
            stages.append(slices.targets(known[np.concatenate(best)].tolist() if best else []))
            advance(1)
    return stages


def _standardised(images: Sequence[Pixels], side: int) -> Float32Array:
    """Return pictures whose dot product is their correlation, float32 of shape (n, side * side)."""
    pixels = shrink(square(images), side).reshape(len(images), -1)
    return unit(pixels - pixels.mean(axis=1, keepdims=True))


def linear_baseline(
    slices: SliceTable, splits: Splits, about: dict[str, Any], *, progress: Progress = silent
) -> pa.Table:
    """Fit the baseline on every fold and predict its validation and test slices.

    Each slice is described by 32×32 pixels less the mean of their surroundings; a logistic regression of fixed
    regularisation on their first 100 principal components predicts the stage. Of many training slices
    :data:`MANY_SLICES` are drawn at random.

    Args:
        slices: The data.
        splits: Who trains and who is tested.
        about: What is written beside the columns: protocol, leakage verdict.
        progress: How to show progress.

    Returns:
        A prediction table.
    """
    coarse = describe_coarse(slices.images)
    tables = []
    with progress("Fitting the linear baseline", len(splits.folds)) as advance:
        for number, fold in enumerate(splits.folds):
            probabilities = _fit_and_predict(slices, coarse, fold)
            tables.append(_fold_table(slices, fold, number, probabilities, LINEAR, about))
            advance(1)
    return pa.concat_tables(tables)


def _fit_and_predict(slices: SliceTable, coarse: Float32Array, fold: Fold) -> Float32Array:
    """Return the linear baseline's probabilities for a fold's validation and test slices."""
    train = [slices.row_of[slice_id] for slice_id in fold.train]
    if len(train) > MANY_SLICES:
        train = [train[number] for number in np.random.default_rng(0).permutation(len(train))[:MANY_SLICES]]
    rows = [slices.row_of[slice_id] for slice_id in fold.validation + fold.test]
    model = make_pipeline(
        PCA(min(100, len(train) - 1), copy=False, whiten=True, svd_solver="randomized", random_state=0),
        LogisticRegression(C=0.01, max_iter=1000),
    )
    model.fit(coarse[train], slices.targets(train))
    probabilities = np.zeros((len(rows), len(slices.classes)), dtype=np.float32)
    for part in blocks(len(rows), 10 * BLOCK_ROWS):
        probabilities[part, model.classes_] = model.predict_proba(coarse[rows[part]])
    return probabilities


def age_and_sex_baseline(slices: SliceTable, splits: Splits, about: dict[str, Any]) -> tuple[pa.Table | None, str]:
    """Predict the stages of each fold's validation and test people from their age and sex alone.

    Multinomial logistic regression on age, its square and sex, fitted to the scans of the fold's training people.
    People whose age or sex is not known get the shares of the stages among those.

    Args:
        slices: The data.
        splits: Who trains and who is tested.
        about: What is written beside the columns: protocol, leakage verdict.

    Returns:
        A prediction table, and what must be said of it. None in place of the table where age and sex are not known
        of enough people, of every stage in the training set of each fold; the sentence then says why.
    """
    missing = [name for name in ("age", "sex") if name not in slices.covariates]
    if missing:
        return None, _not_shown(f"the data have no column {' and no column '.join(missing)}")
    columns = age_and_sex(slices.covariates["age"], slices.covariates["sex"])
    ids = {one for fold in splits.folds for one in fold.train + fold.validation + fold.test}
    people = {splits.patient_of[one] for one in ids}
    lacking = {splits.patient_of[one] for one in ids if np.isnan(columns[slices.row_of[one]]).any()}
    having = f"both are known of {len(people) - len(lacking)} of {len(people)} people"
    if len(people) - len(lacking) < max(KNOWN_PEOPLE, KNOWN_SHARE * len(people)):
        return None, _not_shown(f"{having}; {KNOWN_PEOPLE} people and {KNOWN_SHARE:.0%} of all are needed")
    tables = []
    for number, fold in enumerate(splits.folds):
        probabilities = _from_columns(slices, columns, fold)
        if probabilities is None:
            return None, _not_shown(f"{having}, and of nobody of one stage in the training set of fold {number}")
        tables.append(_fold_table(slices, fold, number, probabilities, AGE_AND_SEX, about))
    gaps = f" Of {len(lacking)} of {len(people)} people one is not known: they get the stages' shares."
    sentence = "Age and sex: logistic regression on age, its square and sex, fitted to each fold's training people."
    return pa.concat_tables(tables), sentence + gaps * bool(lacking)


def _from_columns(slices: SliceTable, columns: Float64Array, fold: Fold) -> Float32Array | None:
    """Return the probabilities of a fold's validation and test slices; None where a stage cannot be fitted.

    Args:
        slices: The data.
        columns: What the stage is predicted from, of each row, NaN where not known, float64 of shape (rows, k).
        fold: The fold.
    """
    train = _row_of_each_scan(slices, fold.train)
    stages, inputs = slices.targets(train), columns[train]
    asked = columns[[slices.row_of[one] for one in fold.validation + fold.test]]
    known, answerable = (~np.isnan(rows).any(axis=1) for rows in (inputs, asked))
    shares = np.bincount(stages, minlength=len(slices.classes)) / len(stages)
    probabilities = np.tile(shares.astype(np.float32), (len(asked), 1))
    if set(stages[known].tolist()) != set(range(len(slices.classes))):
        return None
    if answerable.any():
        probabilities[answerable] = regression().fit(inputs[known], stages[known]).predict_proba(asked[answerable])
    return probabilities


def _not_shown(reason: str) -> str:
    return f"What age and sex alone give is not shown: {reason}."


def _row_of_each_scan(slices: SliceTable, slice_ids: Sequence[str]) -> list[int]:
    """Return the row of one slice of each scan."""
    return list({slices.stacks[row]: row for row in (slices.row_of[one] for one in slice_ids)}.values())


def _fold_table(
    slices: SliceTable, fold: Fold, number: int, probabilities: Float32Array, model: str, about: dict[str, Any]
) -> pa.Table:
    return prediction_table(
        slices,
        fold.validation + fold.test,
        probabilities,
        split=["validation"] * len(fold.validation) + ["test"] * len(fold.test),
        fold=number,
        model=model,
        metadata=about,
    )
