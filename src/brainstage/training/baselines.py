"""The simple linear baseline that stands beside every model: logistic regression on coarse pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from brainstage.core.arrays import Float32Array
from brainstage.core.progress import Progress, silent
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.splits import Fold, Splits
from brainstage.datasets.table import SliceTable
from brainstage.inference.predictor import prediction_table

NAME = "linear baseline"


def linear_baseline(
    slices: SliceTable, splits: Splits, about: dict[str, Any], *, progress: Progress = silent
) -> pa.Table:
    """Fit the baseline on every fold and predict its validation and test slices.

    Each slice is described by 32×32 pixels less the mean of their surroundings; a logistic regression of fixed
    regularisation on their first 100 principal components predicts the stage.

    Args:
        slices: The data.
        splits: Who trains and who is tested.
        about: What is written beside the columns: protocol, leakage verdict.
        progress: How to show progress.

    Returns:
        A prediction table.
    """
    coarse = describe_slices(slices.images).coarse
    tables = []
    with progress("Fitting the linear baseline", len(splits.folds)) as advance:
        for number, fold in enumerate(splits.folds):
            tables.append(_fold_table(slices, coarse, fold, number, about))
            advance(1)
    return pa.concat_tables(tables)


def _fold_table(
    slices: SliceTable, coarse: Float32Array, fold: Fold, number: int, about: dict[str, Any]
) -> pa.Table:
    train = [slices.row_of[slice_id] for slice_id in fold.train]
    predicted = fold.validation + fold.test
    components = min(100, len(train) - 1)
    model = make_pipeline(
        PCA(components, whiten=True, svd_solver="randomized", random_state=0),
        LogisticRegression(C=0.01, max_iter=1000),
    )
    model.fit(coarse[train], slices.targets(train))
    probabilities = np.zeros((len(predicted), len(slices.classes)), dtype=np.float32)
    rows = [slices.row_of[slice_id] for slice_id in predicted]
    probabilities[:, model.classes_] = model.predict_proba(coarse[rows])
    return prediction_table(
        slices,
        predicted,
        probabilities,
        split=["validation"] * len(fold.validation) + ["test"] * len(fold.test),
        fold=number,
        model=NAME,
        metadata=about,
    )
