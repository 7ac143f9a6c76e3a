"""From predictions of slices to figures of people: joined, calibrated, beside what would do without a model.

**How slices are joined.** The probabilities of a person's slices, after temperature, are averaged.
**Temperature.** One number for each fold divides the logits (Guo et al. 2017, ICML): the one that makes the fold's
validation people least surprising, once joined. Test people play no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from brainstage import metrics
from brainstage.errors import DataError, LeakageError
from brainstage.evaluate import Side, read_side
from brainstage.files import write_json
from brainstage.run import RunFolder
from brainstage.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE, figure_title

FEW = 10
"""People of a stage below which no claim is made for it: the interval of a share of so few spans half of all."""


@dataclass(frozen=True)
class View:
    """One way to ask: which stages count as one.

    Attributes:
        name: What a reader sees.
        classes: The names of the joined stages, in clinical order.
        rows: Scores of each row of the table: the model first, then what would do without it.
    """

    name: str
    classes: tuple[str, ...]
    rows: dict[str, dict[str, metrics.Score]]


@dataclass(frozen=True)
class PatientEvaluation:
    """What a run's predictions are worth for people.

    Attributes:
        views: Four stages, three, two.
        people: Number of people of each stage.
        repeats: How often everyone was predicted out of fold.
        temperatures: Of each fold, by its number; 1 where a fold has no validation people.
        title: Protocol and verdict.
        synthetic: Whether the data was the phantom cohort.
        protocol: ``official`` or ``patient``.
        leakage: The leakage verdict.
    """

    views: tuple[View, ...]
    people: dict[str, int]
    repeats: int
    temperatures: dict[int, float]
    title: str
    synthetic: bool
    protocol: str
    leakage: dict[str, Any]

    @property
    def few(self) -> list[str]:
        """Stages with too few people for a claim."""
        return [name for name, count in self.people.items() if count < FEW]

    @property
    def caution(self) -> str | None:
        """What must be said of stages with few people."""
        if not self.few:
            return None
        counts = " and ".join(f"{self.people[name]} people in {name}" for name in self.few)
        return f"With {counts} nothing can be claimed for that stage alone."

    @property
    def joined_by(self) -> str:
        """How a person's slices were joined."""
        after = (
            "" if set(self.temperatures.values()) == {1.0} else ", after a temperature fitted on validation people"
        )
        return f"mean of the slices' probabilities{after}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``patient_metrics.json``."""
        return {
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.synthetic else None,
            "protocol": self.protocol,
            "leakage": self.leakage,
            "level": "patient",
            "joined_by": self.joined_by,
            "people": self.people,
            "caution": self.caution,
            "repeats": self.repeats,
            "interval": f"95 % bootstrap over people, {metrics.DRAWS} draws",
            "temperatures": {str(fold): round(value, 4) for fold, value in self.temperatures.items()},
            "views": {
                view.name: {
                    "classes": list(view.classes),
                    "rows": {
                        row: {name: one.to_dict() for name, one in scores.items()}
                        for row, scores in view.rows.items()
                    },
                }
                for view in self.views
            },
        }


@dataclass(frozen=True)
class _People:
    """Probabilities of people: ``repeats`` arrays of shape (n, K), the same people in each."""

    names: tuple[str, ...]
    labels: metrics.Ints
    repeats: list[metrics.Floats]
    temperatures: dict[int, float]


def evaluate_patients(
    source: RunFolder | Path | str, *, split: str = "test", protocol: str | None = None
) -> PatientEvaluation:
    """Judge a run, or a prediction table of any tool, by people. No model is opened.

    Args:
        source: A run folder, or a parquet file with the columns of a prediction table.
        split: The side to judge.
        protocol: ``official`` or ``patient``, for a table that does not say under which it was made.

    Raises:
        RunError, DataError, ConfigError: As :func:`brainstage.evaluate`.
        LeakageError: A slice has no patient.
    """
    side = read_side(source, split=split, protocol=protocol)
    if side.patients is None:
        raise LeakageError(
            f"{side.file}: figures by patient need the patient of every slice; recover them with `brainstage audit`"
        )
    people = _join(side, _validation(source, split, protocol))
    rows = {"model": people.repeats, "always the largest": [_shares(people, len(side.classes))]}
    baseline = side.file.with_name("baseline.parquet")
    if baseline.is_file():
        rows["linear baseline"] = _join(
            read_side(baseline, split=split), _validation(baseline, split, protocol)
        ).repeats
    leakage = side.about.get("leakage", {})
    synthetic = bool(side.about.get("synthetic"))
    what = f"{split} · {len(people.names)} people" + (
        f" × {len(people.repeats)}" if len(people.repeats) > 1 else ""
    )
    return PatientEvaluation(
        views=tuple(
            _view(name, groups, people.labels, rows, side.classes) for name, groups in _views(side.classes)
        ),
        people={name: int((people.labels == number).sum()) for number, name in enumerate(side.classes)},
        repeats=len(people.repeats),
        temperatures=people.temperatures,
        title=figure_title(what, side.protocol, leakage.get("sentence", "leakage unknown"), synthetic),
        synthetic=synthetic,
        protocol=side.protocol,
        leakage=leakage,
    )


def _validation(source: RunFolder | Path | str, split: str, protocol: str | None) -> Side | None:
    """Return the validation side, for the temperature; None where it is what is judged, or is not there."""
    if split == "validation":
        return None
    try:
        return read_side(source, split="validation", protocol=protocol)
    except DataError:
        return None


def _join(side: Side, validation: Side | None) -> _People:
    """Join slices to people, fold by fold, and order each person's predictions by repeat."""
    people: dict[str, list[metrics.Floats]] = {}
    label_of: dict[str, int] = {}
    temperatures = {}
    for fold in np.unique(side.folds).tolist():
        temperatures[fold] = _temperature(validation, fold)
        names, labels, joined = _joined(side, side.folds == fold, temperatures[fold])
        for name, label, one in zip(names, labels.tolist(), joined, strict=True):
            people.setdefault(name, []).append(one)
            label_of[name] = label
    counts = {len(predictions) for predictions in people.values()}
    if len(counts) > 1:
        raise DataError(f"{side.file}: some people were predicted {min(counts)} times and some {max(counts)} times")
    labels = np.array([label_of[name] for name in people])
    repeats = [np.stack([predictions[repeat] for predictions in people.values()]) for repeat in range(counts.pop())]
    return _People(tuple(people), labels, repeats, temperatures)


def _joined(side: Side, rows: metrics.Ints, temperature: float) -> tuple[list[str], metrics.Ints, metrics.Floats]:
    """Average the slices of each person in some rows: names, labels (n,), probabilities (n, K)."""
    logits = np.log(np.clip(side.probabilities[rows], 1e-7, 1)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled /= scaled.sum(axis=1, keepdims=True)
    names, first, number, counts = np.unique(
        np.array(side.patients)[rows], return_index=True, return_inverse=True, return_counts=True
    )
    labels = side.labels[rows]
    mixed = np.flatnonzero(labels != labels[first][number])
    if len(mixed):
        raise DataError(f"{side.file}: patient {names[number[mixed[0]]]} has slices of more than one stage")
    sums = np.zeros((len(names), scaled.shape[1]))
    np.add.at(sums, number, scaled)
    return names.tolist(), labels[first], sums / counts[:, None]


def _temperature(validation: Side | None, fold: int) -> float:
    """Return the temperature that suits a fold's validation people best; 1 where there are none."""
    if validation is None or validation.patients is None or not (validation.folds == fold).any():
        return 1.0
    rows = validation.folds == fold

    def surprise(log_temperature: float) -> float:
        _, labels, joined = _joined(validation, rows, float(np.exp(log_temperature)))
        return float(-np.log(np.clip(joined[np.arange(len(labels)), labels], 1e-7, 1)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x))


def _shares(people: _People, classes: int) -> metrics.Floats:
    """Return for everyone the shares of the stages: what would do without a look at any picture."""
    shares = np.bincount(people.labels, minlength=classes) / len(people.labels)
    return np.tile(shares, (len(people.labels), 1))


def _views(classes: Sequence[str]) -> list[tuple[str, list[list[int]]]]:
    """Return which stages are joined: all apart, the last two joined, and the first against the rest."""
    each = [[number] for number in range(len(classes))]
    views = [(f"{len(classes)} stages", each)]
    if len(classes) > 3:
        views.append((f"{len(classes) - 1} stages", [*each[:-2], each[-2] + each[-1]]))
    if len(classes) > 2:
        views.append(("2 stages", [each[0], [number for [number] in each[1:]]]))
    return views


def _view(
    name: str,
    groups: list[list[int]],
    labels: metrics.Ints,
    rows: dict[str, list[metrics.Floats]],
    classes: Sequence[str],
) -> View:
    """Score every row with some stages joined."""
    number = {one: group for group, members in enumerate(groups) for one in members}
    joined_labels = np.array([number[label] for label in labels.tolist()])
    joined = {
        row: [np.stack([one[:, members].sum(axis=1) for members in groups], axis=1) for one in repeats]
        for row, repeats in rows.items()
    }
    scores = {row: metrics.score_repeats(joined_labels, repeats) for row, repeats in joined.items()}
    scores["shuffled labels"] = metrics.shuffled_labels(joined_labels, joined["model"])
    names = tuple(" or ".join(classes[member] for member in members) for members in groups)
    return View(name, names if len(groups) > 2 or len(classes) == 2 else (names[0], "any other"), scores)


def write_patient_evaluation(evaluation: PatientEvaluation, folder: Path) -> Path:
    """Write ``patient_metrics.json`` and return it."""
    file = folder / "patient_metrics.json"
    write_json(file, evaluation.to_dict())
    return file
