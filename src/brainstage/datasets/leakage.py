"""The leakage verdict: whether a test side shares people, or identical slices, with what was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

NAMED = 3
"""People that an error names."""


@dataclass(frozen=True)
class Verdict:
    """Whether the test side shares people, or identical slices, with the side that was trained on."""

    status: Literal["clean", "leaky", "unknown"]
    shared_patients: int = 0
    shared_slices: int = 0
    """Test slices whose patient, or whose very pixels, are on the other side."""
    test_slices: int = 0
    inferred: bool = False
    """Whether the people were recovered from the pictures, not given with the data."""
    grouped_by: str | None = None
    """Covariate, such as ``site``, of which no value is on both sides either."""
    same_heads: int = 0
    """Patients whose head is that of another patient (:func:`brainstage.datasets.same_heads.same_heads`): the two
    are judged as one."""
    people: tuple[str, ...] = field(default=(), repr=False)
    """The first people on both sides, of those that are known: only errors name them."""

    def __str__(self) -> str:
        if self.status == "clean":
            group = f" and no {self.grouped_by}" if self.grouped_by else ""
            return f"clean: no {self._patient}{group} on both sides{self._kept}"
        if self.status == "unknown":
            return "leakage unknown: the data has no patient ids"
        several = "s" * (self.shared_patients != 1)
        who = f"{self.shared_patients} {self._patient}{several} on both sides, " if self.shared_patients else ""
        return f"leaky: {who}{self.shared_slices:,} of {self.test_slices:,} test slices affected"

    @property
    def _patient(self) -> str:
        return "inferred patient" if self.inferred else "patient"

    @property
    def _kept(self) -> str:
        if not self.same_heads:
            return ""
        who = f"{self.same_heads} {self._patient}{' has' if self.same_heads == 1 else 's have'}"
        return f" ({who} the head of another and counts as that one)"

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict for a JSON file, with its sentence."""
        grouped: dict[str, Any] = {"grouped_by": self.grouped_by} if self.grouped_by else {}
        same = {"same_heads": self.same_heads} if self.same_heads else {}
        return {
            "status": self.status,
            "shared_patients": self.shared_patients,
            "shared_slices": self.shared_slices,
            "test_slices": self.test_slices,
            "patient_id_source": "unknown"
            if self.status == "unknown"
            else "inferred"
            if self.inferred
            else "given",
            **grouped,
            **same,
            "sentence": str(self),
        }


def find_leaks(
    test: Sequence[str],
    train: Sequence[str],
    patient_of: Mapping[str, str | None],
    *,
    inferred: bool = False,
    same_heads: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """Judge one pair of sides. Identical slices on both sides are a leak even where no patient is known.

    Args:
        test: Slice ids of the side that is judged.
        train: Slice ids of the side that was learnt from.
        patient_of: Patient of each slice id, None where it is not known.
        inferred: Whether patients were recovered from the pictures.
        same_heads: Patients whose head is that of another, and that other: the two are judged as one.
    """
    trained = set(train)
    who = {slice_id: patient_of.get(slice_id) for slice_id in (*trained, *test)}
    who = {slice_id: same_heads.get(str(patient), patient) for slice_id, patient in who.items()}
    people = {who[slice_id] for slice_id in trained} - {None}
    shared = [slice_id for slice_id in test if slice_id in trained or who[slice_id] in people]
    status: Literal["clean", "leaky", "unknown"] = "unknown" if None in who.values() else "clean"
    patients = {who[slice_id] for slice_id in shared} & people
    return Verdict(
        "leaky" if shared else status,
        len(patients),
        len(shared),
        len(test),
        inferred,
        same_heads=len(same_heads),
        people=tuple(sorted(map(str, patients))[:NAMED]),
    )
