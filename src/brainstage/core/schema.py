"""Names that every artifact shares: the stages in clinical order, the columns, the notices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from brainstage.core.errors import DataError

STAGES = ("Non_Demented", "Very_Mild_Demented", "Mild_Demented", "Moderate_Demented")
"""The dataset's classes in clinical order (Clinical Dementia Rating 0, 0.5, 1 and 2)."""

RESEARCH_NOTICE = "Research software. Not a medical device, never a diagnosis."
SYNTHETIC_NOTICE = "synthetic: says nothing about real brains"

PROB_PREFIX = "prob_"
SET_PREFIX = "in_set_"
CONFORMAL_THRESHOLD = "conformal_threshold"
"""Column of the probability from which on a stage belongs to the 90 % set; only calibrated models have it."""
SPLIT_NAMES = ("train", "validation", "test")
PREDICTION_COLUMNS = ("slice_id", "patient_id", "split", "fold", "label", "model")


def figure_title(
    what: str,
    protocol: str,
    leakage: str,
    synthetic: bool,
    *,
    fold: str | None = None,
    optimistic: str | None = None,
) -> str:
    """Return what stands above every table and chart of figures: it names the protocol and the leakage verdict.

    Args:
        what: What the figures are of.
        protocol: ``official`` or ``patient``.
        leakage: The leakage verdict's sentence.
        synthetic: Whether the data was the phantom cohort.
        fold: Which fold was judged, ``fold 0 of 5``; None where all were, or where there is one.
        optimistic: Why the figures are too good; None where nothing is known against them.
    """
    stamp = f"{SYNTHETIC_NOTICE} · " if synthetic else ""
    of_fold = f", {fold}" if fold else ""
    caution = f" · optimistic: {optimistic}" if optimistic else ""
    return f"{stamp}{what} · protocol {protocol}{of_fold} · {leakage}{caution}"


def choice_caution(fold: str) -> str:
    """Return what must be said of a choice made on the validation people of one fold, ``fold 0 of 5``."""
    return (
        f"chosen on validation people of {fold}, who are test people of other folds: "
        "a cross-validated figure of this choice is optimistic"
    )


def clinical_order(names: Iterable[str], order: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the class names from the least to the most severe stage.

    Args:
        names: The class names found in the data.
        order: The order to use. Without it the public dataset's own names are put in clinical order, and
            names that are not known keep the order in which they came.

    Raises:
        DataError: ``order`` does not hold exactly the names found.
    """
    found = tuple(dict.fromkeys(names))
    if order is not None:
        if set(order) != set(found) or len(order) != len(found):
            raise DataError(
                f"the class order names {', '.join(order)}, but the data holds {', '.join(found)}; "
                "give each class once"
            )
        return tuple(order)
    if set(found) <= set(STAGES):
        return tuple(stage for stage in STAGES if stage in found)
    return found


def class_names(predictions: pa.Table) -> tuple[str, ...]:
    """Return the class names of a prediction table, in the order of its probability columns."""
    return tuple(
        name.removeprefix(PROB_PREFIX) for name in predictions.column_names if name.startswith(PROB_PREFIX)
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Return class names as words, without the last one where all have it in common."""
    words = [name.split("_") for name in names]
    common = len(names) > 1 and len({last for *_, last in words}) == 1 and all(len(one) > 1 for one in words)
    return [" ".join(one[:-1] if common else one) for one in words]


def require_columns(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raise :class:`DataError` naming the columns found and expected when one is missing."""
    found = list(found)
    missing = [name for name in expected if name not in found]
    if missing:
        raise DataError(
            f"{where}: column {', '.join(missing)} not found; it has {', '.join(found) or 'no columns'}"
        )


def validate_predictions(table: pa.Table, where: str = "prediction table") -> pa.Table:
    """Return ``table`` when it is a prediction table that can be judged.

    A prediction table has ``slice_id``, ``patient_id`` (or null), ``split`` (train, validation or test),
    ``fold``, ``label`` (class name), ``model`` and one ``prob_<class name>`` column for each class; it may have
    ``conformal_threshold``.

    Raises:
        DataError: A column is missing, a probability is not a number from 0 to 1, a row's probabilities do
            not add up to 1, or a label is not one of the classes.
    """
    require_columns(table.column_names, PREDICTION_COLUMNS, where)
    names = class_names(table)
    if len(names) < 2:
        raise DataError(f"{where}: expected a {PROB_PREFIX}<class> column for each class, found {len(names)}")
    unknown = sorted({label for label in table["label"].to_pylist() if label not in names}, key=str)
    if unknown:
        raise DataError(f"{where}: label {unknown[0]!r} is not one of the classes {', '.join(names)}")
    splits = sorted({split for split in table["split"].to_pylist() if split not in SPLIT_NAMES}, key=str)
    if splits:
        raise DataError(f"{where}: split {splits[0]!r} is not one of {', '.join(SPLIT_NAMES)}")
    _check_probabilities(table, names, where)
    return table


def _check_probabilities(table: pa.Table, names: Sequence[str], where: str) -> None:
    import numpy as np

    try:
        columns = [table[PROB_PREFIX + name].to_numpy().astype(np.float64) for name in names]
    except (ValueError, TypeError, pa.ArrowInvalid) as error:
        raise DataError(f"{where}: a probability column does not hold numbers") from error
    probabilities = np.stack(columns, axis=1)
    sums_to_one = np.abs(probabilities.sum(axis=1) - 1.0) <= 1e-3
    in_range = (probabilities >= 0.0).all(axis=1) & (probabilities <= 1.0).all(axis=1)
    bad = np.flatnonzero(~(sums_to_one & in_range))
    if len(bad):
        raise DataError(
            f"{where}: row {bad[0]} has probabilities {probabilities[bad[0]].round(4).tolist()}, "
            "expected numbers from 0 to 1 that add up to 1"
        )


def read_metadata(table: pa.Table) -> dict[str, Any]:
    """Return what brainstage wrote beside a table's columns: protocol, verdict, whether it is synthetic."""
    import json

    raw = (table.schema.metadata or {}).get(b"brainstage")
    return json.loads(raw) if raw else {}


def with_metadata(table: pa.Table, metadata: dict[str, Any]) -> pa.Table:
    """Return ``table`` with ``metadata`` stored beside its columns."""
    import json

    kept = {**(table.schema.metadata or {}), b"brainstage": json.dumps(metadata).encode()}
    return table.replace_schema_metadata(kept)
