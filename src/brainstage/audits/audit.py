"""Duplicates, people recovered from the pixels, who is on both sides of the split, and what that means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import adjusted_rand_score

from brainstage.audits.duplicates import find_duplicates, find_exact_duplicates
from brainstage.audits.originals import choose_originals
from brainstage.audits.recovery import UNKNOWN, RecoveredPatients, recover_patients
from brainstage.core.arrays import Float16Array, Float32Array, IntArray
from brainstage.core.cache import scratch_array
from brainstage.core.errors import DataError
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE, with_metadata
from brainstage.datasets.leakage import Verdict, find_leaks
from brainstage.datasets.neighbours import most_similar, nearest
from brainstage.datasets.same_heads import same_heads
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.table import SliceTable

CHECKED_SLICES = 51_200
"""Number of slices that people are recovered from where their people are given."""


@dataclass(frozen=True)
class Audit(Displayed, Plotted, Tabular):
    """Duplicates and people in a slice table.

    Attributes:
        slices: The slice table, with inferred patients where none was given.
        duplicate_of: Row of the first slice that shows the same picture, for each row; int64 of shape (n,).
        recovered: The person that each slice belongs to by its pixels, whether patients were given or not.
        grain_agrees: Share of slices whose nearest slice by the scan's grain alone is of the same person; None
            where nobody was recovered.
        closest: For each row of the test side the most similar row of the train side, and their similarity.
        compared_people: Number of people whose slices were compared to recover people; None where all slices were.
    """

    slices: SliceTable
    duplicate_of: IntArray
    recovered: RecoveredPatients
    grain_agrees: float | None
    closest: dict[int, tuple[int, float]]
    compared_people: int | None = None

    @cached_property
    def verdict(self) -> Verdict | None:
        """Whether the source's own test side shares people with its train side; None where it has no sides."""
        test, train = ([self.slices.slice_ids[row] for row in self.rows_of(side)] for side in ("test", "train"))
        if not (test and train):
            return None
        patients = dict(zip(self.slices.slice_ids, self.slices.patients, strict=True))
        inferred = self.slices.patient_source == "inferred"
        return find_leaks(test, train, patients, inferred=inferred, same_heads=self.same_heads)

    @cached_property
    def same_heads(self) -> dict[str, str]:
        """Patients whose head is that of another patient, and that other."""
        return same_heads(self.slices)

    def rows_of(self, side: str) -> list[int]:
        """Return the rows that the source puts on one side."""
        return [row for row, name in enumerate(self.slices.rows["split"].to_pylist()) if name == side]

    @cached_property
    def members(self) -> dict[str, list[int]]:
        """Rows of each person, by level."""
        rows: dict[str, list[int]] = {}
        for row in np.argsort(self.recovered.level, kind="stable").tolist():
            patient = self.slices.patients[row]
            if patient is not None:
                rows.setdefault(patient, []).append(row)
        return dict(sorted(rows.items()))

    @property
    def table(self) -> pa.Table:
        """One row per slice: identity, patient, level, confidence, ``duplicate_of``, split, label and source."""
        rows = self.slices.rows
        known = ~np.isnan(self.recovered.level)
        table = pa.table(
            {
                "slice_id": rows["slice_id"],
                "patient_id": rows["patient_id"],
                "patient_id_source": rows["patient_id_source"],
                "slice_index": rows["slice_index"],
                "level": pa.array(self.recovered.level.round(2), mask=~known),
                "confidence": pa.array(self.recovered.confidence.round(4)),
                "duplicate_of": [self.slices.slice_ids[row] for row in self.duplicate_of.tolist()],
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
            "duplicates": self._duplicates(),
            "people": self._people(),
            "checks": self._checks(),
            "leakage": self.verdict.to_dict() if self.verdict else None,
            "closest": self._closest(),
        }

    def _duplicates(self) -> dict[str, int]:
        """Count rows that show the picture of an earlier row, and repeated pictures that are on both sides."""
        ids, sides = self.slices.slice_ids, self.slices.rows["split"].to_pylist()
        repeats = np.flatnonzero(self.duplicate_of != np.arange(len(self.duplicate_of))).tolist()
        exact = len(ids) - len(set(ids))
        pictures: dict[int, set[int]] = {}
        for row in repeats:
            pictures.setdefault(int(self.duplicate_of[row]), {int(self.duplicate_of[row])}).add(row)
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
            "slices_each": {"minimum": sizes[0], "median": int(np.median(sizes)), "maximum": sizes[-1]}
            if sizes
            else None,
            "unknown_slices": self.slices.patients.count(None),
            "by_class": self._by_class(),
            "same_heads": self.same_heads,
        }

    def _by_class(self) -> dict[str, int]:
        """Count people by class; a person with several classes is counted under each."""
        pairs = {(patient, label) for patient, label in zip(self.slices.patients, self.slices.labels, strict=True)}
        counts = Counter(label for patient, label in pairs if patient is not None and label is not None)
        return {name: counts[name] for name in self.slices.classes if counts[name]}

    def _checks(self) -> dict[str, Any]:
        """Return checks that need no known truth, and the agreement of given patients with the pictures."""
        labels = [{self.slices.labels[row] for row in rows} - {None} for rows in self.members.values()]
        recovered = self.recovered.patient != UNKNOWN
        given = np.array([source == "given" for source in self.slices.rows["patient_id_source"].to_pylist()])
        both = recovered & given
        return {
            "people_with_one_label": sum(len(names) == 1 for names in labels),
            "people_with_several_labels": sum(len(names) > 1 for names in labels),
            "grain_agrees": self.grain_agrees,
            "compared_people": self.compared_people,
            "agreement_with_given": float(
                adjusted_rand_score(np.array(self.slices.patients)[both], self.recovered.patient[both])
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
    """Find duplicates and people in a slice table, from the pixels alone.

    Labels, names and the order of the rows are not used. Given patients stay; where none is given, the recovered
    ones are filled in, marked ``inferred``, and slices whose person is uncertain stay without one.

    Slices with known levels were cut out of scans one by one, so only the same pixels are duplicates there, not
    what looks like a turned or zoomed copy; a scan that is there twice is found as a whole
    (:attr:`Audit.same_heads`). Where everyone's person is given, recovered people only check that; of many slices
    some :data:`CHECKED_SLICES`, of people drawn at random, are compared then.

    Raises:
        DataError: The table is empty.
    """
    if not len(slices):
        raise DataError("the data holds no slices to audit; name data with slices with --data")
    with progress("Finding duplicates and people", 3) as advance:
        find = find_exact_duplicates if slices.stated_levels else find_duplicates
        duplicate_of = find(slices.images)
        advance(1)
        compared = _compared_rows(slices)
        signatures = describe_slices([slices.images[row] for row in compared])
        advance(1)
        originals = choose_originals(signatures, duplicate_of[compared])
        picture = np.unique(duplicate_of[compared], return_inverse=True)[1]
        if len(originals) < len(compared):  # else a second copy would only take memory
            signatures = signatures.take(originals)
        recovered = recover_patients(signatures)
        advance(1)
    shown, index = RecoveredPatients.nobody(len(slices)), np.zeros(len(slices), np.int64)
    for name, values in vars(recovered.take(picture)).items():
        getattr(shown, name)[compared] = values
    index[compared] = _index(recovered)[picture]
    filled = slices.with_inferred(_names(slices.slice_ids, shown), index.tolist())
    return Audit(
        filled,
        duplicate_of,
        shown,
        _grain_agreement(signatures.grain, recovered),
        _closest(filled, signatures.pattern, compared, picture),
        len({slices.patients[row] for row in compared}) if len(compared) < len(slices) else None,
    )


def _compared_rows(slices: SliceTable) -> IntArray:
    """Return the rows that people are recovered from: all, unless their people are given and they are many."""
    rows_of: dict[str | None, list[int]] = {}
    for row, patient in enumerate(slices.patients):
        rows_of.setdefault(patient, []).append(row)
    if len(slices) <= CHECKED_SLICES or None in rows_of or slices.patient_source != "given":
        return np.arange(len(slices))
    people = list(rows_of.values())
    chosen: list[int] = []
    for number in np.random.default_rng(0).permutation(len(people)).tolist():
        if chosen and len(chosen) + len(people[number]) > CHECKED_SLICES:
            break
        chosen += people[number]
    return np.array(sorted(chosen), dtype=np.int64)


def _names(slice_ids: list[str], recovered: RecoveredPatients) -> list[str | None]:
    """Name each person after their first slice in the order of the hashes, so that names don't depend on rows."""
    first: dict[int, str] = {}
    for patient, slice_id in sorted(zip(recovered.patient.tolist(), slice_ids, strict=True)):
        first.setdefault(patient, f"inferred-{slice_id[:8]}")
    return [None if patient == UNKNOWN else first[patient] for patient in recovered.patient.tolist()]


def _index(recovered: RecoveredPatients) -> IntArray:
    """Number the pictures of each person by level, from 0."""
    order = np.lexsort((recovered.level, recovered.patient))
    index = np.empty(len(order), dtype=np.int64)
    starts = np.searchsorted(recovered.patient[order], recovered.patient[order])
    index[order] = np.arange(len(order)) - starts
    return index


def _grain_agreement(grain: Float32Array, recovered: RecoveredPatients) -> float | None:
    """Return how often the nearest slice by grain, which first links don't use, is of the same person."""
    known = np.flatnonzero(recovered.patient != UNKNOWN)
    if len(known) < 2:
        return None
    rows: Float32Array = scratch_array((len(known), grain.shape[1]), np.float32)
    np.take(grain, known, axis=0, out=rows)
    rows -= rows.mean(axis=0)
    rows /= np.maximum(rows.std(axis=0), 1e-6)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    neighbours, _ = nearest(rows, rows, 1, same=True)
    return float((recovered.patient[known][neighbours[:, 0]] == recovered.patient[known]).mean())


def _closest(
    slices: SliceTable, pattern: Float32Array | Float16Array, compared: IntArray, picture: IntArray
) -> dict[int, tuple[int, float]]:
    """Find the training slice most similar to each test slice.

    Args:
        slices: The slice table.
        pattern: Pattern of each picture, shape (pictures, 4096).
        compared: The rows that are compared, shape (n,).
        picture: Number of the picture that each of them shows, shape (n,).
    """
    sides = np.array([side or "" for side in slices.rows["split"].to_pylist()])[compared]
    test, train = np.flatnonzero(sides == "test"), np.flatnonzero(sides == "train")
    if not (len(test) and len(train)):
        return {}
    rows, similarity = most_similar(pattern, picture[test], picture[train])
    return {
        int(row): (int(other), float(value))
        for row, other, value in zip(compared[test], compared[train][rows], similarity, strict=True)
    }
