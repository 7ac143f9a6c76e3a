"""Who is in the picture: copies, inferred patients, who is on both sides, and what that means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from brainstage.audits.duplicates import find_copies
from brainstage.audits.recovery import UNKNOWN, People, recover_people
from brainstage.core.errors import DataError
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE, with_metadata
from brainstage.datasets.signatures import Floats, describe_slices, nearest
from brainstage.datasets.splits import Verdict, find_leaks
from brainstage.datasets.table import SliceTable

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Audit:
    """What was found in a slice table.

    Attributes:
        slices: The slice table, with inferred patients where none was given.
        copy_of: Row of the first slice that shows the same picture, for each row; int64 of shape (n,).
        people: The people recovered from the pictures, whether patients were given or not.
        grain_agrees: Share of slices whose nearest slice by the scan's grain alone is of the same person; None
            where nobody was recovered.
        closest: For each row of the test side its most similar row of the train side, and their similarity.
    """

    slices: SliceTable
    copy_of: Ints
    people: People
    grain_agrees: float | None
    closest: dict[int, tuple[int, float]]

    @cached_property
    def verdict(self) -> Verdict | None:
        """Whether the source's own test side shares people with its train side; None where it has no sides."""
        test, train = ([self.slices.slice_ids[row] for row in self.rows_of(side)] for side in ("test", "train"))
        if not (test and train):
            return None
        patients = dict(zip(self.slices.slice_ids, self.slices.patients, strict=True))
        return find_leaks(test, train, patients, inferred=self.slices.patient_source == "inferred")

    def rows_of(self, side: str) -> list[int]:
        """Return the rows that the source puts on one side."""
        return [row for row, name in enumerate(self.slices.rows["split"].to_pylist()) if name == side]

    @cached_property
    def members(self) -> dict[str, list[int]]:
        """Rows of each person, by level."""
        rows: dict[str, list[int]] = {}
        for row in np.argsort(self.people.level, kind="stable").tolist():
            patient = self.slices.patients[row]
            if patient is not None:
                rows.setdefault(patient, []).append(row)
        return dict(sorted(rows.items()))

    @property
    def table(self) -> pa.Table:
        """One row a slice: ``slice_id``, ``patient_id``, where it comes from, ``level``, ``confidence``, copies."""
        rows = self.slices.rows
        known = ~np.isnan(self.people.level)
        table = pa.table(
            {
                "slice_id": rows["slice_id"],
                "patient_id": rows["patient_id"],
                "patient_id_source": rows["patient_id_source"],
                "slice_index": rows["slice_index"],
                "level": pa.array(self.people.level.round(2), mask=~known),
                "confidence": pa.array(self.people.confidence.round(4)),
                "copy_of": [self.slices.slice_ids[row] for row in self.copy_of.tolist()],
                "split": rows["split"],
                "label": rows["label"],
                "source": rows["source"],
            }
        )
        return with_metadata(table, {"data_hash": self.slices.data_hash, "synthetic": self.slices.synthetic})

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``audit.json``."""
        return {
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.slices.synthetic else None,
            "slices": len(self.slices),
            "data_hash": self.slices.data_hash,
            "copies": self._copies(),
            "people": self._people(),
            "checks": self._checks(),
            "leakage": self.verdict.to_dict() if self.verdict else None,
            "closest": self._closest(),
        }

    def _copies(self) -> dict[str, int]:
        """Count rows that show the picture of an earlier row, and pictures that stand on both sides."""
        ids, sides = self.slices.slice_ids, self.slices.rows["split"].to_pylist()
        repeats = np.flatnonzero(self.copy_of != np.arange(len(self.copy_of))).tolist()
        exact = len(ids) - len(set(ids))
        pictures: dict[int, set[int]] = {}
        for row in repeats:
            pictures.setdefault(int(self.copy_of[row]), {int(self.copy_of[row])}).add(row)
        return {
            "exact": exact,
            "altered": len(repeats) - exact,
            "on_both_sides": sum(len({sides[row] for row in rows}) > 1 for rows in pictures.values()),
            "with_two_labels": sum(
                len({self.slices.labels[row] for row in rows}) > 1 for rows in pictures.values()
            ),
        }

    def _people(self) -> dict[str, Any]:
        sizes = sorted(Counter(patient for patient in self.slices.patients if patient is not None).values())
        return {
            "patients": len(sizes),
            "patient_id_source": self.slices.patient_source,
            "slices_each": {"least": sizes[0], "median": int(np.median(sizes)), "most": sizes[-1]}
            if sizes
            else None,
            "unknown_slices": self.slices.patients.count(None),
            "by_class": self._by_class(),
        }

    def _by_class(self) -> dict[str, int]:
        """Count people by their class; a person with several is counted under each."""
        pairs = {(patient, label) for patient, label in zip(self.slices.patients, self.slices.labels, strict=True)}
        counts = Counter(label for patient, label in pairs if patient is not None and label is not None)
        return {name: counts[name] for name in self.slices.classes if counts[name]}

    def _checks(self) -> dict[str, Any]:
        """Return checks that need no truth: of inferred people, and of given ones against the pictures."""
        labels = [{self.slices.labels[row] for row in rows} - {None} for rows in self.members.values()]
        found = self.people.patient != UNKNOWN
        given = np.array([source == "given" for source in self.slices.rows["patient_id_source"].to_pylist()])
        both = found & given
        return {
            "people_with_one_label": sum(len(names) == 1 for names in labels),
            "people_with_several_labels": sum(len(names) > 1 for names in labels),
            "grain_agrees": self.grain_agrees,
            "agreement_with_given": float(
                adjusted_rand_score(np.array(self.slices.patients)[both], self.people.patient[both])
            )
            if both.any()
            else None,
        }

    def _closest(self) -> dict[str, float] | None:
        """Return how often the most similar training slice of a test slice is of the same person."""
        if not self.closest:
            return None
        patients = self.slices.patients
        known = [(row, other) for row, (other, _) in self.closest.items() if patients[row] is not None]
        own = sum(patients[row] == patients[other] for row, other in known)
        return {"test_slices": len(known), "same_person": own}


def audit(slices: SliceTable, *, progress: Progress = silent) -> Audit:
    """Find copies and people in a slice table, from the pixels alone.

    Labels, names and order of the rows are not looked at. Patients that the data gives stay; where none is given
    the recovered ones are filled in, marked ``inferred``, and slices that are not sure stay without one.

    Raises:
        DataError: The table is empty.
    """
    if not len(slices):
        raise DataError("the data holds no slices to audit")
    with progress("Looking for copies and people", 3) as advance:
        copy_of = find_copies(slices.images)
        advance(1)
        pictures, shown = np.unique(copy_of, return_inverse=True)
        signatures = describe_slices([slices.images[row] for row in pictures])
        advance(1)
        found = recover_people(signatures)
        advance(1)
    people = People(found.patient[shown], found.level[shown], found.confidence[shown])
    names = _names(slices.slice_ids, people)
    filled = slices.with_inferred(names, _index(found)[shown].tolist())
    return Audit(
        filled, copy_of, people, _grain_agrees(signatures.grain, found), _closest(filled, signatures.pattern[shown])
    )


def _names(slice_ids: list[str], people: People) -> list[str | None]:
    """Name each person after its first slice in the order of the hashes, so that names do not hang on the rows."""
    first: dict[int, str] = {}
    for patient, slice_id in sorted(zip(people.patient.tolist(), slice_ids, strict=True)):
        first.setdefault(patient, f"inferred-{slice_id[:8]}")
    return [None if patient == UNKNOWN else first[patient] for patient in people.patient.tolist()]


def _index(people: People) -> Ints:
    """Number the pictures of each person by level, from 0."""
    order = np.lexsort((people.level, people.patient))
    index = np.empty(len(order), dtype=np.int64)
    starts = np.searchsorted(people.patient[order], people.patient[order])
    index[order] = np.arange(len(order)) - starts
    return index


def _grain_agrees(grain: Floats, people: People) -> float | None:
    """Ask a second signature, which has no part in the first links, who is closest."""
    known = np.flatnonzero(people.patient != UNKNOWN)
    if len(known) < 2:
        return None
    rows = grain[known] - grain[known].mean(axis=0)
    rows /= np.maximum(rows.std(axis=0), 1e-6)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found, _ = nearest(rows, rows, 1, same=True)
    return float((people.patient[known][found[:, 0]] == people.patient[known]).mean())


def _closest(slices: SliceTable, pattern: Floats) -> dict[int, tuple[int, float]]:
    """Find the training slice that looks most like each test slice."""
    sides = np.array([side or "" for side in slices.rows["split"].to_pylist()])
    test, train = np.flatnonzero(sides == "test"), np.flatnonzero(sides == "train")
    if not (len(test) and len(train)):
        return {}
    found, similarity = nearest(pattern[test], pattern[train], 1)
    return {
        int(row): (int(train[one]), float(alike))
        for row, one, alike in zip(test, found[:, 0], similarity[:, 0], strict=True)
    }
