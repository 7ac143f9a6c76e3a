"""Names that every artifact shares: the stages in clinical order, the columns, the notices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from brainstage.core.errors import DataError

STAGES = ("Non_Demented", "Very_Mild_Demented", "Mild_Demented", "Moderate_Demented")
"""The dataset's classes in clinical order (Clinical Dementia Rating 0, 0.5, 1 and 2)."""
STACK_LEVELS = 32
"""Slices of a person in the training data, from the thalamus upwards, a millimetre apart."""
SLICE_SIDE = 128
"""Side of a slice of the training data, in pixels."""
STACK_SHAPE = (STACK_LEVELS, SLICE_SIDE, SLICE_SIDE)
"""Shape of all slices of a person: level, row, column."""

STAGES_DEFINED = "Non, Very mild, Mild and Moderate are Clinical Dementia Ratings 0, 0.5, 1 and 2."
"""Morris 1993, Neurology 43, 2412; the dataset's stages are those of OASIS-1."""
RESEARCH_NOTICE = "Research software. Not a medical device, never a diagnosis."
SYNTHETIC_NOTICE = "synthetic: says nothing about real brains"
UNORDERED_NOTICE = (
    "Quadratic kappa and joined stages are not given: the order of the classes is not known; give --class-order"
)

CHOSEN_ON_TEST = "epoch chosen on the test slices"

CLASS_ORDER = "brainstage_class_order"
"""Entry of a parquet schema's metadata: the class names from the least to the most severe stage, as JSON."""
PROB_PREFIX = "prob_"
SET_PREFIX = "in_set_"
CONFORMAL_THRESHOLD = "conformal_threshold"
"""Column of the probability from which on a stage belongs to the 90 % set; only calibrated models have it."""
SPLIT_NAMES = ("train", "validation", "test")
Value = str | float | None
"""Of a covariate: text or a number; None where it is not known."""
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


def why_optimistic(noted: str | None, selection: str | None) -> str | None:
    """Return why a run's figures are too good, by whatever was chosen on the slices that they are of.

    Args:
        noted: What the run's folder or table says of it (``optimistic``); None where it says nothing.
        selection: The slices that the epoch was chosen on; ``test``, as in the report, makes figures too good.
    """
    chosen = CHOSEN_ON_TEST if selection == "test" else None
    return "; ".join(reason for reason in (noted, chosen) if reason) or None


def choice_caution(fold: str | None) -> str:
    """Return what must be said of a choice made on validation people of ``fold 0 of 5``, or of all folds (None)."""
    who = f"{fold}, who are test people of other folds" if fold else "all folds, each a test person of another fold"
    return f"chosen on validation people of {who}: a cross-validated figure of this choice is optimistic"


_DEMENTIA_STAGES = (
    "nondemented nodemented noimpairment",
    "verymilddemented verymildimpairment",
    "milddemented mildimpairment",
    "moderatedemented moderateimpairment",
    "severedemented severeimpairment",
)
_DIAGNOSES = (
    "cn hc nc nl cu normal normalcontrol control controls healthy healthycontrol cognitivelynormal nondemented",
    "smc scd subjectivememoryconcern subjectivecognitivedecline",
    "emci earlymci",
    "mci mildcognitiveimpairment",
    "lmci latemci",
    "ad alzheimer alzheimers alzheimerdisease alzheimersdisease demented",
)
_CLINICAL_DEMENTIA_RATINGS = ("0", "0.5", "1", "2", "3")
"""Morris 1993, Neurology 43, 2412."""


def stage_key(name: str) -> str:
    """Return a class name without case, spaces, hyphens, underscores and apostrophes; dementia reads demented."""
    return re.sub(r"[\s_'\u2019-]+", "", name.casefold()).replace("dementia", "demented")


def recognised_order(names: Iterable[str], column: str = "") -> tuple[str, ...] | None:
    """Return class names from the least to the most severe stage, where they are those of a usual staging.

    Args:
        names: The class names, as the data spells them.
        column: Name of the column that they come from. Bare numbers are taken for Clinical Dementia Ratings where
            it is ``cdr``, or where 0.5 is among them: 0, 1, 2 may number anything.

    Returns:
        The names as they were given, in clinical order; None where one is not known, where they are of different
        stagings, or where two are names of one stage.
    """
    names = tuple(dict.fromkeys(names))
    keys = {name: stage_key(name) for name in names}
    return (
        _ranked(keys, _DEMENTIA_STAGES)
        or _ranked(keys, _DIAGNOSES)
        or _ranked(_ratings(keys, column), _CLINICAL_DEMENTIA_RATINGS)
    )


def is_dementia_stage(name: str) -> bool:
    """Return whether a class name is a stage of the public dataset, in any of the spellings of its copies."""
    return _ranked({name: stage_key(name)}, _DEMENTIA_STAGES) is not None


def define_stages(names: Iterable[str]) -> str | None:
    """Return what the stages are, where class names are those of the public dataset; None where they are not."""
    return STAGES_DEFINED if any(map(is_dementia_stage, names)) else None


def _ranked(keys: dict[str, str], staging: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names in the order of a staging's spellings, by their keys; None where they are not all of it."""
    rank_of = {spelling: rank for rank, spellings in enumerate(staging) for spelling in spellings.split()}
    ranks = {name: rank_of.get(key) for name, key in keys.items()}
    if not ranks or None in ranks.values() or len(set(ranks.values())) < len(ranks):
        return None
    return tuple(sorted(ranks, key=lambda name: ranks[name] or 0))


def _ratings(keys: dict[str, str], column: str) -> dict[str, str]:
    """Return the rating that each name stands for; nothing where they need not be ratings."""
    values = {name: key.removeprefix("cdr").removeprefix("=").removesuffix(".0") for name, key in keys.items()}
    named = stage_key(column) == "cdr" or all(key.startswith("cdr") for key in keys.values())
    return values if named or "0.5" in values.values() else {}


def is_ordered(names: Sequence[str]) -> bool:
    """Return whether class names are those of a usual staging and stand in its clinical order."""
    return recognised_order(names) == tuple(names)


def clinical_order(names: Iterable[str], order: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the class names from the least to the most severe stage.

    Args:
        names: The class names in the data.
        order: The order to use. Without it the names of the usual stagings are put in clinical order
            (:func:`recognised_order`), and names that are not known keep the order in which they came.

    Raises:
        DataError: ``order`` does not hold exactly the names in the data.
    """
    names = tuple(dict.fromkeys(names))
    if order is None:
        return recognised_order(names) or names
    if set(order) != set(names) or len(order) != len(names):
        raise DataError(
            f"the class order names {', '.join(order)}, but the data holds {', '.join(names)}; name each class once"
        )
    return tuple(order)


def class_names(predictions: pa.Table) -> tuple[str, ...]:
    """Return the class names of a prediction table, in the order of its probability columns."""
    return tuple(
        name.removeprefix(PROB_PREFIX) for name in predictions.column_names if name.startswith(PROB_PREFIX)
    )


def table_classes(predictions: pa.Table, order: Sequence[str] | None = None) -> tuple[tuple[str, ...], bool]:
    """Return the class names of a prediction table, and whether they stand in clinical order.

    Args:
        predictions: A prediction table of any tool. Where it does not say that its columns are in order, the names
            of the usual stagings are put in clinical order.
        order: Class names from the least to the most severe stage, for names that are not known.

    Raises:
        DataError: ``order`` does not hold exactly the table's classes.
    """
    names = class_names(predictions)
    if order is not None:
        return clinical_order(names, order), True
    if read_metadata(predictions).get("ordered"):
        return names, True
    ordered = clinical_order(names)
    return ordered, is_ordered(ordered)


def score_in_words(name: str) -> str:
    """Return what readers see of a score's name, such as ``weighted_f1``."""
    return "AUROC, mean of the stages" if name == "auroc_ovr" else name.replace("_", " ")


def short_names(names: Sequence[str]) -> list[str]:
    """Return class names as words, without the last word where all have it in common."""
    words = [name.split("_") for name in names]
    common = len(words) > 1 and len({parts[-1] for parts in words}) == 1 and all(len(parts) > 1 for parts in words)
    return [" ".join(parts[:-1] if common else parts) for parts in words]


def require_columns(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Refuse a table that lacks a column.

    Args:
        found: Names of its columns.
        expected: Names of those that it must have.
        where: The file, for the error.

    Raises:
        DataError: A column is missing; the message names the columns found.
    """
    found = list(found)
    missing = [name for name in expected if name not in found]
    if missing:
        raise DataError(
            f"{where}: column {', '.join(missing)} not found; it has {', '.join(found) or 'no columns'}"
            "; rename or add it"
        )


def validate_predictions(table: pa.Table, where: str = "prediction table") -> pa.Table:
    """Return ``table`` when it is a prediction table that can be judged.

    A prediction table has ``slice_id``, ``patient_id`` (or null), ``split`` (train, validation or test),
    ``fold``, ``label`` (class name, or null where it is not known), ``model`` and one ``prob_<class name>`` column
    for each class; it may have ``conformal_threshold``.

    Raises:
        DataError: A column is missing, a probability is not a number from 0 to 1, a row's probabilities do
            not add up to 1, a label is not one of the classes, or a fold is no whole number.
    """
    require_columns(table.column_names, PREDICTION_COLUMNS, where)
    names = class_names(table)
    if len(names) < 2:
        raise DataError(
            f"{where}: expected a {PROB_PREFIX}<class> column for each class, found {len(names)}"
            "; add what is missing"
        )
    unknown = sorted(set(table["label"].to_pylist()) - {None, *names}, key=str)
    if unknown:
        raise DataError(
            f"{where}: label {unknown[0]!r} is not one of the classes {', '.join(names)}"
            "; correct it, or add the column of its class"
        )
    splits = sorted({split for split in table["split"].to_pylist() if split not in SPLIT_NAMES}, key=str)
    if splits:
        raise DataError(f"{where}: split {splits[0]!r} is not one of {', '.join(SPLIT_NAMES)}")
    try:
        table["fold"].cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: column fold holds other than whole numbers; number the folds from 0") from error
    if table["fold"].null_count:
        raise DataError(f"{where}: column fold has empty rows; number the folds from 0")
    _check_probabilities(table, names, where)
    return table


def _check_probabilities(table: pa.Table, names: Sequence[str], where: str) -> None:
    import numpy as np

    try:
        columns = [table[PROB_PREFIX + name].to_numpy().astype(np.float64) for name in names]
    except (ValueError, TypeError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{where}: a probability column does not hold numbers; write numbers from 0 to 1"
        ) from error
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
