"""What a source holds: rows, classes, sizes, exact duplicates, patients."""

from __future__ import annotations

from collections import Counter
from typing import Any

from brainstage.core.schema import Value
from brainstage.datasets.table import SliceTable


def describe(slices: SliceTable) -> dict[str, Any]:
    """Count what a slice table holds.

    Returns:
        A JSON-ready mapping: ``rows``, ``classes`` (by side), ``sizes`` (``width×height``), ``modes``,
        ``patients``, ``patient_id_source``, ``unlabelled``, ``unreadable`` (a sentence for each row), ``skipped``
        (a sentence for each kind of files that are not read), ``class_order`` (the classes from the least to the
        most severe; None where that is not known), ``levels`` (name of the set of levels), ``covariates`` (each
        with the number of people of whom it is known), ``duplicates`` (rows that repeat an earlier row's pixels,
        and how many images are on both sides or carry two labels), ``data_hash`` and ``synthetic``.
    """
    sides = [side or "all" for side in slices.rows["split"].to_pylist()]
    labels = [label or "(no label)" for label in slices.labels]
    return {
        "rows": len(slices),
        "classes": {
            side: {name: count for name in (*slices.classes, "(no label)") if (count := counts[side, name])}
            for counts in [Counter(zip(sides, labels, strict=True))]
            for side in dict.fromkeys(sides)
        },
        "sizes": dict(Counter(f"{image.shape[1]}×{image.shape[0]}" for image in slices.images).most_common()),
        "modes": dict(Counter(slices.rows["mode"].to_pylist()).most_common()),
        "patients": len({patient for patient in slices.patients if patient is not None}) or None,
        "patient_id_source": slices.patient_source,
        "unlabelled": slices.labels.count(None),
        "unreadable": list(slices.unreadable),
        "skipped": list(slices.skipped),
        "class_order": list(slices.classes) if slices.ordered else None,
        "levels": slices.level_set.name,
        "covariates": {name: _known_people(slices, values) for name, values in slices.covariates.items()},
        "duplicates": _duplicates(slices, sides),
        "data_hash": slices.data_hash,
        "synthetic": slices.synthetic,
    }


def _known_people(slices: SliceTable, values: list[Value]) -> int:
    known = (patient for patient, value in zip(slices.patients, values, strict=True) if value is not None)
    return len(set(known) - {None})


def _duplicates(slices: SliceTable, sides: list[str]) -> dict[str, int]:
    rows: dict[str, list[int]] = {}
    for row, slice_id in enumerate(slices.slice_ids):
        rows.setdefault(slice_id, []).append(row)
    groups = [group for group in rows.values() if len(group) > 1]
    return {
        "rows": sum(len(group) - 1 for group in groups),
        "on_both_sides": sum(len({sides[row] for row in group}) > 1 for group in groups),
        "with_two_labels": sum(len({slices.labels[row] for row in group}) > 1 for group in groups),
    }
