"""From scans to predictions: the stage and the probabilities of each person and each slice."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from brainstage.core.arrays import BoolArray, Float32Array, Pixels
from brainstage.core.errors import ConfigError, RunError
from brainstage.core.hub import HubId
from brainstage.core.levels import check_levels
from brainstage.core.notebooks import Displayed, Tabular
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.core.schema import (
    PROB_PREFIX,
    RESEARCH_NOTICE,
    SET_PREFIX,
    SYNTHETIC_NOTICE,
    define_stages,
    short_names,
    with_metadata,
)
from brainstage.datasets.images import CHUNK
from brainstage.datasets.patient_map import is_public
from brainstage.datasets.table import slice_id
from brainstage.inference.classifiers import Prediction
from brainstage.inference.predictor import Predictor
from brainstage.inference.scan_slices import PREDICTED, REFUSED, ScanSlice, images_of, mark_refused, read_scan
from brainstage.models.find import hub_id_of
from brainstage.models.weights import BUNDLED, DEFAULT
from brainstage.scans.discover import Scan
from brainstage.scans.skull_strip import OUTLINE_CHECK
from brainstage.stats.calibration import describe_set, in_set

CALIBRATED = (
    "The stages that are not ruled out hold the true one for nine of ten people like those of its data, and for "
    "fewer of those with a rare stage."
)
UNCALIBRATED = "Scores, not probabilities: the model was not calibrated on people outside its training set."
ELSEWHERE = "How often it is wrong on scans from elsewhere, as these volumes are, is not known."
UNKNOWN_PERFORMANCE = "How often it is wrong on people whom it has not seen is not known."
OWN_PERFORMANCE = "On people of its own cohort whom it had not seen: {}."
TRAINING_PEOPLE = (
    "{:,} of {:,} slices show people in the model's training set; predictions for them are no test of it."
)
SKULLS_REMOVED = f"The skull was taken off {{}}: in its picture {OUTLINE_CHECK}, else do not use the prediction."
REFUSES_NOTHING = (
    "This run cannot detect out-of-distribution images, so it predicts a stage for any image; train it again to "
    "have them refused."
)
MIN_ACCEPTED_SHARE = 0.5
"""Smallest share of a person's slices that must be accepted for a prediction from all of them."""

Person = tuple[str, Sequence[Scan]]
"""A person's name and scans."""


class PersonPrediction(NamedTuple):
    """The prediction for one person."""

    rows: list[dict[str, Any]]
    """As in :class:`Predictions`, without the person's number."""
    images: list[Pixels | None]
    """The slice of each row as the model got it; None for a row of several slices or of none."""


@dataclass(frozen=True)
class Predictions(Displayed, Tabular):
    """The predictions for some scans.

    Attributes:
        rows: One mapping for each prediction: ``person`` (number, from 1), ``source``, ``slices`` (number of slices
            that it is made from), ``level``, ``slice_id``, ``status`` (``predicted``, ``refused``, ``failed``),
            ``stage``, ``prob_<class>`` …, ``in_set_<class>`` … (whether the stage cannot be ruled out at 90 %) and
            ``words`` (what that means, and whether it hangs on how the scan was acquired), the last two None where
            the model is not calibrated; ``stability`` (share of the acquisitions looked at whose most probable
            stage is ``stage``) and ``spread`` (standard deviation of its probability over them), None where the
            model looks at the scan as it is alone; ``reason`` (of a refusal or a failure). A person of several
            slices has a row for all of them, then one for each.
        classes: Class names, in clinical order.
        about: The run's manifest.
        model: SHA-256 of the weights.
        calibrated: Whether probabilities were calibrated on people outside the training set; else they are raw
            scores.
        refuses: Whether out-of-distribution slices were refused.
        skulls_removed: The sources whose skull was taken off first.
    """

    rows: list[dict[str, Any]]
    classes: tuple[str, ...]
    about: dict[str, Any]
    model: str
    calibrated: bool
    refuses: bool
    skulls_removed: tuple[str, ...] = ()

    @classmethod
    def collect(cls, predictor: Predictor, people: Iterable[PersonPrediction]) -> Predictions:
        """Join the predictions for several people, numbered in their order."""
        rows = [{"person": number, **row} for number, person in enumerate(people, 1) for row in person.rows]
        return cls(
            rows, predictor.classes, predictor.about, predictor.hash, predictor.calibrated, predictor.refuses
        )

    @property
    def table(self) -> pa.Table:
        """The rows as an Arrow table; what stands beside them in :meth:`to_dict` is in its metadata.

        :func:`brainstage.core.schema.read_metadata` reads it: the notice, the model's hash, protocol and leakage.
        """
        beside = {key: value for key, value in self.to_dict().items() if key != "predictions"}
        return with_metadata(pa.Table.from_pylist(self.rows), beside)

    @cached_property
    def people(self) -> list[list[dict[str, Any]]]:
        """The rows of each person; the first is the person's prediction."""
        return [list(rows) for _, rows in groupby(self.rows, key=itemgetter("person"))]

    @property
    def reasons(self) -> list[str]:
        """Why scans have no prediction, a sentence each; single slices of a volume are not listed."""
        return [row["reason"] for row in self.rows if row["reason"] and row["level"] is None]

    @property
    def notice(self) -> str:
        """What accompanies every prediction: research use, what it is worth, and whose skull was taken off."""
        skulls = SKULLS_REMOVED.format(", ".join(self.skulls_removed)) if self.skulls_removed else ""
        return f"{RESEARCH_NOTICE} {self.worth} {skulls}".strip()

    @property
    def worth(self) -> str:
        """What the predictions are worth: the model's performance, and for whom it is not known."""
        shown = [row["slice_id"] for row in self.rows if row["slice_id"]]
        known = sum(map(is_public, shown))
        return describe_worth(
            self.about,
            calibrated=self.calibrated,
            refuses=self.refuses,
            volumes=self._has_volumes,
            slices=(known, len(shown)),
        )

    @property
    def details(self) -> list[str]:
        """What else there is to know, a sentence or a few each: the stages, the people, the figures."""
        registered = "Volumes were resampled to the training data's levels and size by registration to MNI152."
        found = [
            define_stages(self.classes),
            *self.about.get("details", []),
            CALIBRATED if self.calibrated else None,
            registered if self._has_volumes else None,
        ]
        return [sentence for sentence in found if sentence]

    @property
    def _has_volumes(self) -> bool:
        return any(row["level"] is not None for row in self.rows)

    @property
    def title(self) -> str:
        """Which model predicts, and under which protocol it was evaluated."""
        leakage = self.about.get("leakage", {}).get("sentence", "leakage unknown")
        return f"model {self.model[:12]} · protocol {self.about.get('protocol', 'unknown')} · {leakage}"

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions for a JSON file."""
        about = {
            key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic", "nested", "figures")
        }
        return {
            "notice": self.notice,
            "details": self.details,
            "model": self.model,
            "calibrated": self.calibrated,
            **about,
            "skulls_removed": list(self.skulls_removed),
            "predictions": self.rows,
        }


def describe_worth(
    about: dict[str, Any], *, calibrated: bool, refuses: bool, volumes: bool, slices: tuple[int, int]
) -> str:
    """Say what predictions are worth.

    Args:
        about: The run's manifest.
        calibrated: As in :class:`Predictions`.
        refuses: Likewise.
        volumes: Whether any was made from a volume.
        slices: How many slices are of the public dataset, and how many there are.
    """
    known, shown = slices
    sentences = [
        describe_performance(about),
        f"Model trained on phantoms, {SYNTHETIC_NOTICE}." if about.get("synthetic") else None,
        None if calibrated else UNCALIBRATED,
        ELSEWHERE if volumes else None,
        # a bundled model, which has a performance, was trained on the public dataset's people
        TRAINING_PEOPLE.format(known, shown) if known and "performance" in about else None,
        None if refuses else REFUSES_NOTHING,
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def describe_performance(about: Mapping[str, Any]) -> str:
    """Return what is known of a model's performance on people whom it has not seen.

    Args:
        about: As :attr:`brainstage.Predictor.about`.
    """
    if "performance" in about:
        return str(about["performance"])
    return OWN_PERFORMANCE.format(about["new_people"]) if "new_people" in about else UNKNOWN_PERFORMANCE


def find_model(inputs: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Separate the model from the scans among the names that a user typed: the model may come first.

    Args:
        inputs: A run folder, a bundled model or one on the hub, which may be left out; then files, folders or
            globs.

    Returns:
        The model and the names of the scans.

    Raises:
        RunError: The first name is neither a model nor a scan. The hub is not asked: what may be the name of a scan
            stays here.
        ConfigError: There is a model but no scan.
    """
    first, rest = inputs[0], inputs[1:]
    named = first in BUNDLED or (Path(first) / "model").is_dir() or RunFolder(first).started
    if not named and not _is_there(first):
        if hub_id_of(first) is None or not rest:
            remedy = _AS_ON_THE_HUB if HubId.parse(first) else "check the name"
            raise RunError(f"{first}: no such run, file or folder; {remedy}")
        if not any(map(_is_there, rest)):
            raise RunError(f"{rest[0]}: no such file or folder, so {first} was not looked for on the hub")
        named = True
    if named and not rest:
        raise ConfigError(f"{first}: is a model; name files or folders with scans after it")
    return (first, rest) if named else (DEFAULT, inputs)


_AS_ON_THE_HUB = "a model on the hub is named ORG/NAME@main, with scans after it"


def _is_there(name: str) -> bool:
    return Path(name).exists() or glob.has_magic(name)


def predict_scans(
    predictor: Predictor, scans: Sequence[Scan], *, one_person: bool = False, progress: Progress = silent
) -> Predictions:
    """Predict every scan that can be read: each as one person, or all as one person's.

    Each thread takes some people from file to prediction, so that few scans are in memory at a time.

    Args:
        predictor: The model.
        scans: As :func:`brainstage.find_scans` returns them.
        one_person: All scans show one person: one prediction from all of them, then one for each slice.
        progress: How to show progress.

    Returns:
        The predictions, in the order of the scans; ``.table`` has them as an Arrow table.

    Raises:
        DataError: A file states other levels than the model's.
    """
    check_scans(predictor, scans)
    batches = batch_people(scans, one_person)
    predictions: list[PersonPrediction] = []
    with predictor.pool() as pool, progress("Predicting", sum(map(len, batches))) as advance:
        for part in pool.map(partial(predict_people, predictor), batches):
            predictions += part
            advance(len(part))
    return Predictions.collect(predictor, predictions)


def check_scans(predictor: Predictor, scans: Iterable[Scan]) -> None:
    """Refuse slices whose file states that they show other levels than those that the model was trained on.

    Raises:
        DataError: There is one.
    """
    for scan in scans:
        if scan.level_set:
            check_levels(predictor.level_set, scan.level_set, scan.name)


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
