"""People from their scans to rows of predictions: from all of a person's slices, then from each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from brainstage.core.arrays import BoolArray, Float32Array, Pixels
from brainstage.core.schema import PROB_PREFIX, SET_PREFIX, short_names
from brainstage.datasets.images import CHUNK
from brainstage.datasets.table import slice_id
from brainstage.inference.classifiers import Prediction
from brainstage.inference.predictor import Predictor
from brainstage.inference.scan_slices import PREDICTED, REFUSED, ScanSlice, images_of, mark_refused, read_scan
from brainstage.scans.discover import Scan
from brainstage.stats.calibration import describe_set, in_set

MIN_ACCEPTED_SHARE = 0.5
"""Smallest share of a person's slices that must be accepted for a prediction from all of them."""

Person = tuple[str, Sequence[Scan]]
"""A person's name and scans."""


class PersonPrediction(NamedTuple):
    """The prediction for one person."""

    rows: list[dict[str, Any]]
    """As in :class:`~brainstage.inference.predictions.Predictions`, without the person's number."""
    images: list[Pixels | None]
    """The slice of each row as the model got it; None for a row of several slices or of none. Of
    :func:`predict_rows` there are none."""


def group_people(scans: Sequence[Scan], one_person: bool) -> list[Person]:
    """Return the scans of each person: one scan for each, or all of one person."""
    return [("one person", scans)] if one_person else [(scan.name, [scan]) for scan in scans]


def batch_people(scans: Sequence[Scan], one_person: bool = False) -> list[list[Person]]:
    """Return people in batches whose slices pass through a model together; a volume alone, since it takes seconds.

    Args:
        scans: Their scans.
        one_person: As for :func:`group_people`.
    """
    people = group_people(scans, one_person)
    size = 1 if any(scan.volume for scan in scans) else CHUNK
    return [people[start : start + size] for start in range(0, len(people), size)]


class _Stages(NamedTuple):
    """The probabilities of a slice or a person, float32 of shape (classes,)."""

    probabilities: Float32Array
    in_set: BoolArray | None = None
    """Which stages cannot be ruled out; None where the model is not calibrated."""
    stability: float | None = None
    """Share of the acquisitions looked at that agree; None where it looked at the scan as it is alone."""
    spread: float | None = None
    """Standard deviation over them of the probability of the most probable stage."""


@dataclass
class _Slice(ScanSlice):
    """A slice on its way to a prediction, or a scan without slices."""

    alone: _Stages | None = None
    """Predicted from this slice."""
    joint: _Stages | None = None
    """Predicted from all slices of its person."""


def predict_people(predictor: Predictor, people: Sequence[Person]) -> list[PersonPrediction]:
    """Predict people in this thread. The slices of all of them pass through the model in the same batches."""
    slices_by_person = [
        [item for scan in scans for item in read_scan(_Slice, scan, predictor.level_set)] for _, scans in people
    ]
    mark_refused(predictor, chain.from_iterable(slices_by_person))
    accepted = [
        (str(number), item)
        for number, slices in enumerate(slices_by_person)
        for item in slices
        if item.status == PREDICTED
    ]
    owners, levels = [owner for owner, _ in accepted], [item.level for _, item in accepted]
    features = predictor.extract_features(images_of(item for _, item in accepted))
    alone, joint = (
        _stages(predictor.predict_features(features, who, levels), ordered=predictor.ordered)
        for who in (None, owners)
    )
    for number, (_, item) in enumerate(accepted):
        item.alone, item.joint = alone[number], joint[number]
    rows = _RowWriter.of(predictor)
    return [rows.person(name, slices) for (name, _), slices in zip(people, slices_by_person, strict=True)]


def predict_rows(predictor: Predictor, people: Sequence[Person]) -> list[PersonPrediction]:
    """Predict people as :func:`predict_people` does, without the images: those of many people fill the memory."""
    return [PersonPrediction(person.rows, []) for person in predict_people(predictor, people)]


def _stages(prediction: Prediction, *, ordered: bool) -> list[_Stages]:
    probabilities, threshold, stability, spread = prediction
    nothing = [None] * len(probabilities)
    inside = nothing if threshold is None else list(in_set(probabilities, threshold, ordered=ordered))
    steady = nothing if stability is None or spread is None else list(zip(stability, spread, strict=True))
    return [
        _Stages(row, members, *(map(float, both) if both else ()))
        for row, members, both in zip(probabilities, inside, steady, strict=True)
    ]


@dataclass(frozen=True)
class _RowWriter:
    """How a model's predictions become rows."""

    classes: tuple[str, ...]
    population: str

    @classmethod
    def of(cls, predictor: Predictor) -> _RowWriter:
        return cls(predictor.classes, predictor.about.get("population", "those of its training data"))

    def person(self, name: str, slices: Sequence[_Slice]) -> PersonPrediction:
        """Return the rows of a person."""
        rows = [*self._together(name, slices), *map(self._alone, slices)]
        images = [None] * (len(rows) - len(slices)) + [item.image for item in slices]
        return PersonPrediction(rows, images)

    def _together(self, name: str, slices: Sequence[_Slice]) -> Iterator[dict[str, Any]]:
        """Yield the row of a person's slices together, where there are several."""
        shown = [item for item in slices if item.image is not None]
        accepted = [item for item in shown if item.status == PREDICTED]
        if len(shown) > 1 and len(accepted) >= MIN_ACCEPTED_SHARE * len(shown):
            yield self._row(name, accepted[0].joint, slices=len(accepted))
        elif len(shown) > 1:
            reason = (
                f"{name}: only {len(accepted)} of {len(shown)} slices look like those that the model was trained "
                "on; the reason for each other slice is in its row"
            )
            yield self._row(name, slices=0, status=REFUSED, reason=reason)

    def _alone(self, item: _Slice) -> dict[str, Any]:
        """Return the row of a slice, or of a scan without slices."""
        identity = None if item.image is None else slice_id(item.image)
        slices = int(item.alone is not None)
        return self._row(item.source, item.alone, slices, item.level, identity, item.status, item.reason)

    def _row(
        self,
        source: str,
        stages: _Stages | None = None,
        slices: int = 0,
        level: int | None = None,
        identity: str | None = None,
        status: str = PREDICTED,
        reason: str | None = None,
    ) -> dict[str, Any]:
        probabilities = stages.probabilities.tolist() if stages else [None] * len(self.classes)
        members = [None] * len(self.classes) if stages is None or stages.in_set is None else stages.in_set.tolist()
        return {
            "source": source,
            "slices": slices,
            "level": level,
            "slice_id": identity,
            "status": status,
            "stage": self.classes[int(stages.probabilities.argmax())] if stages else None,
            **{PROB_PREFIX + name: value for name, value in zip(self.classes, probabilities, strict=True)},
            **{SET_PREFIX + name: value for name, value in zip(self.classes, members, strict=True)},
            "words": self._words(members, stages) if stages and stages.in_set is not None else None,
            "stability": stages.stability if stages else None,
            "spread": stages.spread if stages else None,
            "reason": reason,
        }

    def _words(self, members: Sequence[bool | None], stages: _Stages) -> str:
        names = [name for name, member in zip(short_names(self.classes), members, strict=True) if member]
        words = describe_set(names, len(self.classes), self.population)
        if stages.stability is None:
            return words
        if stages.stability == 1:
            return f"{words}. The most probable stage is the same in every simulated acquisition looked at"
        return (
            f"{words}. It hangs on how the scan was acquired: in {1 - stages.stability:.0%} of simulated "
            "acquisitions another stage is the most probable"
        )
