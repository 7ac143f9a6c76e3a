"""From scans on disk to answers for a user: stage and probabilities of each, in a file or on the screen."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brainstage.core.errors import ConfigError, DataError, RefusalError, RunError
from brainstage.core.files import atomic, write_json, write_table
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.core.schema import (
    PROB_PREFIX,
    RESEARCH_NOTICE,
    SET_PREFIX,
    SYNTHETIC_NOTICE,
    short_names,
    with_metadata,
)
from brainstage.datasets.images import CHUNK
from brainstage.datasets.patient_map import is_public
from brainstage.datasets.preprocessing import Pixels
from brainstage.datasets.table import slice_id
from brainstage.inference.predictor import Answer, Predictor
from brainstage.models.weights import BUNDLED, DEFAULT
from brainstage.scans.discover import Scan
from brainstage.stats.calibration import in_set, in_words

ANSWERED, REFUSED, FAILED = "answered", "refused", "failed"
CALIBRATED = (
    "The stages that cannot be ruled out hold the true one for nine of ten people like those of its data, and for "
    "fewer of those with a rare stage."
)
UNCALIBRATED = "Scores, not probabilities: it was not calibrated on people that it had not seen."
FEWEST = 0.5
"""Least share of a person's slices that must be like the training slices for an answer."""


Person = tuple[str, Sequence[Scan]]
"""What a person is called, and the scans."""


class Answered(NamedTuple):
    """What a model says of one person."""

    rows: list[dict[str, Any]]
    """As in :class:`Answers`, without the person's number."""
    images: list[Pixels | None]
    """The slice that each row is about, as the model was shown it; None where it is about several or none."""


@dataclass(frozen=True)
class Answers:
    """What a model says of some scans.

    Attributes:
        rows: One mapping an answer: ``person`` (number, from 1), ``source``, ``slices`` (how many the answer is
            from), ``level``, ``slice_id``, ``status`` (``answered``, ``refused``, ``failed``), ``stage``,
            ``prob_<class>`` …, ``in_set_<class>`` … (whether the stage cannot be ruled out at 90 %) and ``words``
            (what that means), all None where the model is not calibrated; ``reason`` (of a refusal or a failure).
            A person of several slices has a row for all of them, then one for each.
        classes: Class names, in clinical order.
        about: The run's manifest.
        model: SHA-256 of the weights.
        calibrated: Whether probabilities were fitted to people that the model was not fitted on; else they are
            scores.
        refuses: Whether scans that are unlike the training slices were refused.
    """

    rows: list[dict[str, Any]]
    classes: tuple[str, ...]
    about: dict[str, Any]
    model: str
    calibrated: bool
    refuses: bool

    @classmethod
    def of(cls, predictor: Predictor, answered: Iterable[Answered]) -> Answers:
        """Number people and put their answers together."""
        rows = [{"person": number, **row} for number, person in enumerate(answered, 1) for row in person.rows]
        return cls(
            rows, predictor.classes, predictor.about, predictor.hash, predictor.calibrated, predictor.refuses
        )

    @cached_property
    def people(self) -> list[list[dict[str, Any]]]:
        """The rows of each person; the first is the person's answer."""
        return [list(rows) for _, rows in groupby(self.rows, key=itemgetter("person"))]

    @property
    def reasons(self) -> list[str]:
        """Why scans have no answer, a sentence each; single slices of a volume are not told."""
        return [row["reason"] for row in self.rows if row["reason"] and row["level"] is None]

    @property
    def notice(self) -> str:
        """What stands beside every answer: what the model is worth, where that is known."""
        said = [RESEARCH_NOTICE, self.about.get("worth"), CALIBRATED if self.calibrated else UNCALIBRATED]
        said += [f"Model trained on phantoms, {SYNTHETIC_NOTICE}." if self.about.get("synthetic") else None]
        said += [self._registered, self._familiar, self._unchecked]
        return " ".join(one for one in said if one)

    @property
    def _registered(self) -> str | None:
        """Say what was done to volumes."""
        if all(row["level"] is None for row in self.rows):
            return None
        return (
            "Volumes were brought to the training data's levels and size by registration to MNI152; how good the "
            "answers are for scans from elsewhere is not known."
        )

    @property
    def _familiar(self) -> str | None:
        """Say when slices are of people that a model of this package was fitted on."""
        shown = [row["slice_id"] for row in self.rows if row["slice_id"]]
        known = sum(map(is_public, shown)) if "worth" in self.about else 0
        if not known:
            return None
        return f"Slices of people that it was fitted on: {known:,} of {len(shown):,}; their answers test nothing."

    @property
    def _unchecked(self) -> str | None:
        """Say when anything at all gets an answer."""
        if self.refuses:
            return None
        return (
            "This run does not know what its training slices look like, so it answers pictures of anything; "
            "train it again to have them refused."
        )

    @property
    def title(self) -> str:
        """Which model answers, and under which protocol it was judged."""
        leakage = self.about.get("leakage", {}).get("sentence", "leakage unknown")
        return f"model {self.model[:12]} · protocol {self.about.get('protocol', 'unknown')} · {leakage}"

    def to_dict(self) -> dict[str, Any]:
        """Return the answers for a JSON file."""
        about = {key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic", "figures")}
        return {
            "notice": self.notice,
            "model": self.model,
            "calibrated": self.calibrated,
            **about,
            "answers": self.rows,
        }


def find_model(inputs: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Tell the model from the scans in what a user typed: a run folder or a bundled model's name may come first.

    Returns:
        The model, and the names of the scans.

    Raises:
        RunError: The first name is nothing that is there.
        ConfigError: There is a model and no scan.
    """
    first = inputs[0]
    named = first in BUNDLED or (Path(first) / "model").is_dir() or RunFolder(first).started
    if not named and not Path(first).exists() and not glob.has_magic(first):
        raise RunError(f"{first}: no such run, and no such scan")
    if named and len(inputs) == 1:
        raise ConfigError(f"{first}: names a model; give files or folders after it")
    return (first, inputs[1:]) if named else (DEFAULT, inputs)


def answer(
    predictor: Predictor, scans: Sequence[Scan], *, one_person: bool = False, progress: Progress = silent
) -> Answers:
    """Stage every scan that can be read: each as a person of its own, or all as one person's.

    Each thread takes some people from file to answer, on one core. Few scans are in memory at a time.
    """
    people = people_of(scans, one_person)
    size = 1 if any(scan.volume for scan in scans) else CHUNK
    chunks = [people[start : start + size] for start in range(0, len(people), size)]
    answered: list[Answered] = []
    with predictor.pool() as pool, progress("Predicting", len(people)) as advance:
        for of_chunk in pool.map(partial(answer_people, predictor), chunks):
            answered += of_chunk
            advance(len(of_chunk))
    return Answers.of(predictor, answered)


def people_of(scans: Sequence[Scan], one_person: bool) -> list[Person]:
    """Return whose scans are whose: each a person's of its own, or all one person's."""
    return [("one person", scans)] if one_person else [(scan.name, [scan]) for scan in scans]


class _Said(NamedTuple):
    """What the model says of a slice, or of a person."""

    probabilities: NDArray[np.float32]
    inside: NDArray[np.bool_] | None
    """Which stages cannot be ruled out; None where the model is not calibrated."""


@dataclass
class _Shown:
    """A slice on its way to an answer, or a scan that gave none."""

    source: str
    image: Pixels | None = None
    level: int | None = None
    status: str = ANSWERED
    reason: str | None = None
    alone: _Said | None = None
    """From this slice."""
    joined: _Said | None = None
    """From all slices of its person."""


def answer_people(predictor: Predictor, people: Sequence[Person]) -> list[Answered]:
    """Stage people in this thread. The slices of all go through the model together."""
    found = [[one for scan in scans for one in _read(scan)] for _, scans in people]
    slices = [one for person in found for one in person if one.status == ANSWERED]
    for one, reason in zip(slices, predictor.refusals(_images(slices)), strict=True):
        if reason:
            one.status, one.reason = REFUSED, f"{one.source}: {reason}"
    kept = [(str(number), one) for number, person in enumerate(found) for one in person if one.status == ANSWERED]
    owners, levels = [owner for owner, _ in kept], [one.level for _, one in kept]
    seen = predictor.look(_images(one for _, one in kept))
    answers = (_said(predictor.answer(seen, who, levels)) for who in (None, owners))
    for (_, one), alone, joined in zip(kept, *answers, strict=True):
        one.alone, one.joined = alone, joined
    return [_answered(predictor.classes, name, person) for (name, _), person in zip(people, found, strict=True)]


def _said(answer: Answer) -> list[_Said]:
    if answer.least is None:
        return [_Said(one, None) for one in answer.probabilities]
    return [
        _Said(*one) for one in zip(answer.probabilities, in_set(answer.probabilities, answer.least), strict=True)
    ]


def _images(slices: Iterable[_Shown]) -> list[Pixels]:
    return [one.image for one in slices if one.image is not None]


def _read(scan: Scan) -> list[_Shown]:
    try:
        images, levels = scan.read()
    except RefusalError as error:
        return [_Shown(scan.name, status=REFUSED, reason=str(error))]
    except DataError as error:
        return [_Shown(scan.name, status=FAILED, reason=str(error))]
    return [_Shown(scan.name, image, level) for image, level in zip(images, levels, strict=True)]


def _answered(classes: Sequence[str], name: str, person: Sequence[_Shown]) -> Answered:
    rows = [*_whole(classes, name, person), *(_alone(classes, one) for one in person)]
    images = [None] * (len(rows) - len(person)) + [one.image for one in person]
    return Answered(rows, images)


def _whole(classes: Sequence[str], name: str, person: Sequence[_Shown]) -> Iterator[dict[str, Any]]:
    """Yield the row of all slices of a person, where there are several."""
    slices = [one for one in person if one.image is not None]
    kept = [one for one in slices if one.status == ANSWERED]
    if len(slices) > 1 and len(kept) >= FEWEST * len(slices):
        yield _row(classes, name, kept[0].joined, slices=len(kept))
    elif len(slices) > 1:
        reason = (
            f"{name}: only {len(kept)} of {len(slices)} slices look like those that the model was trained on; "
            "the reason of each stands in its row"
        )
        yield _row(classes, name, slices=0, status=REFUSED, reason=reason)


def _alone(classes: Sequence[str], one: _Shown) -> dict[str, Any]:
    """Return the row of a slice, or of a scan that gave none."""
    identity = None if one.image is None else slice_id(one.image)
    slices = int(one.alone is not None)
    return _row(classes, one.source, one.alone, slices, one.level, identity, one.status, one.reason)


def _row(
    classes: Sequence[str],
    source: str,
    said: _Said | None = None,
    slices: int = 0,
    level: int | None = None,
    identity: str | None = None,
    status: str = ANSWERED,
    reason: str | None = None,
) -> dict[str, Any]:
    probabilities = said.probabilities.tolist() if said else [None] * len(classes)
    inside = said.inside.tolist() if said and said.inside is not None else [None] * len(classes)
    held = [name for name, one in zip(short_names(classes), inside, strict=True) if one]
    return {
        "source": source,
        "slices": slices,
        "level": level,
        "slice_id": identity,
        "status": status,
        "stage": classes[int(said.probabilities.argmax())] if said else None,
        **{PROB_PREFIX + name: value for name, value in zip(classes, probabilities, strict=True)},
        **{SET_PREFIX + name: value for name, value in zip(classes, inside, strict=True)},
        "words": in_words(held, len(classes)) if held else None,
        "reason": reason,
    }


def check_target(path: Path) -> None:
    """Refuse a file that answers cannot be written to, before any work is done.

    Raises:
        ConfigError: The name does not end in .csv, .json or .parquet, or its folder does not exist.
    """
    if path.suffix not in (".csv", ".json", ".parquet"):
        raise ConfigError(f"{path}: answers are written as .csv, .json or .parquet; end the name in one of them")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder; make it first")


def write_answers(answers: Answers, path: Path) -> None:
    """Write answers to a .csv, .json or .parquet file; each carries the notice.

    Raises:
        ConfigError: The name has another ending.
        RunError: The disk is full or the folder is not writable.
    """
    check_target(path)
    if path.suffix == ".json":
        write_json(path, answers.to_dict())
    elif path.suffix == ".parquet":
        about = {key: value for key, value in answers.to_dict().items() if key != "answers"}
        write_table(path, with_metadata(pa.Table.from_pylist(answers.rows), about))
    else:
        with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*answers.rows[0], "notice"])
            writer.writeheader()
            writer.writerows({**row, "notice": answers.notice} for row in answers.rows)
