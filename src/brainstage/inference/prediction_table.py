"""The table of a model's predictions of slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.schema import CONFORMAL_THRESHOLD, PROB_PREFIX, with_metadata
from brainstage.datasets.table import SliceTable


def prediction_table(
    slices: SliceTable,
    slice_ids: Sequence[str],
    probabilities: Float32Array,
    *,
    split: Sequence[str],
    fold: int,
    model: str,
    metadata: dict[str, Any],
    conformal_threshold: Float64Array | None = None,
) -> pa.Table:
    """Return a prediction table (:func:`brainstage.core.schema.validate_predictions`) of some slices.

    Args:
        slices: The slice table.
        slice_ids: The slices that were predicted, all of them in the slice table.
        probabilities: float32 of shape (len(slice_ids), classes).
        split: Side of each slice.
        fold: Number of the fold.
        model: SHA-256 of the weights.
        metadata: Stored beside the columns; ``evaluate`` reads ``protocol`` and ``leakage`` there.
        conformal_threshold: Probability from which on a stage belongs to the 90 % prediction set, for each slice,
            float64 of shape (len(slice_ids),); None where not calibrated.
    """
    rows = [slices.row_of[slice_id] for slice_id in slice_ids]
    columns: dict[str, Any] = {
        "slice_id": list(slice_ids),
        "patient_id": pa.array([slices.patients[row] for row in rows], pa.string()),
        "split": list(split),
        "fold": pa.array([fold] * len(rows), pa.int32()),
        "label": pa.array([slices.labels[row] for row in rows], pa.string()),
        "model": [model] * len(rows),
    }
    if slices.stacks != slices.patients:  # of all slices, so that the tables of all folds have the same columns
        columns["scan_id"] = pa.array([slices.stacks[row] for row in rows], pa.string())
    columns |= {PROB_PREFIX + name: probabilities[:, number] for number, name in enumerate(slices.classes)}
    if conformal_threshold is not None:
        columns[CONFORMAL_THRESHOLD] = conformal_threshold
    return with_metadata(pa.table(columns), metadata)
