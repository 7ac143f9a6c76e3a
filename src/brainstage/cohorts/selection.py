"""Which scans of a source are prepared, what their classes are, and whether a given split keeps people apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brainstage.cohorts.sources import CohortScan, CohortSource
from brainstage.core.config import did_you_mean
from brainstage.core.errors import ConfigError, DataError, LeakageError
from brainstage.core.schema import recognised_order


def without_excluded(scans: list[CohortScan], exclude: Path | None) -> list[CohortScan]:
    """Return the scans; those that a file names are not tried."""
    if exclude is None:
        return scans
    try:
        lines = [line.strip() for line in exclude.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{exclude}: cannot be read as text ({error}); save it as text in UTF-8") from error
    names = {line for line in lines if line and not line.startswith("#")}
    known = [one.scan_id for one in scans]
    for name in sorted(names.difference(known)):
        raise ConfigError(f"{exclude}: {name} is no scan of this source{did_you_mean(name, known)}")
    why = f"left out by {exclude.name}"
    return [
        replace(one, scan=None, problem=why, untried="refused") if one.scan_id in names else one for one in scans
    ]


def with_classes(source: CohortSource, order: tuple[str, ...] | None) -> tuple[CohortSource, tuple[str, ...], bool]:
    """Return the scans, the class names, and whether they stand in clinical order.

    Scans with a label that is none of the classes are not tried. Without an order these are the labels of which two
    or more are those of a usual staging, else all.
    """
    scans, column = source.scans, source.label_column
    found = sorted({one.label for one in scans if one.label is not None})
    known = [name for name in found if recognised_order([name], column or "")]
    usual = recognised_order(found, column or "") or (recognised_order(known) if len(known) > 1 else None)
    classes = order or usual or tuple(found)
    unknown = f"expected one of {', '.join(classes)}; correct it, or list all classes with --class-order"
    checked = [
        one
        if one.label is None or one.label in classes
        else replace(one, scan=None, label=None, problem=f"unknown label {one.label}, {unknown}")
        for one in scans
    ]
    notes = list(source.notes)
    if not (order or usual) and len(classes) > 1:
        notes.append(
            f"the order of the classes {', '.join(classes)} is not known, so they stand in that of the alphabet"
            "; give it from the least to the most severe with --class-order"
        )
    return replace(source, scans=checked, notes=tuple(notes)), classes, bool(order or usual)


def check_split(scans: Sequence[CohortScan]) -> None:
    """Refuse a split that some scans lack, or that puts a person on both sides."""
    sides: dict[str, set[str | None]] = {}
    for one in scans:
        if one.scan:
            sides.setdefault(one.participant_id, set()).add(one.split)
    given = {side for found in sides.values() for side in found}
    for person, found in sides.items():
        if len(found - {None}) > 1:
            raise LeakageError(
                f"column split of the participants: {person} is on both sides; a person's sessions belong on one"
            )
        if None in found and len(given) > 1:
            raise DataError(
                f"column split of the participants: {person} has none; give one to everyone or to nobody"
            )
