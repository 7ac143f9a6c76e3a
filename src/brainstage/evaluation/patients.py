"""From predictions of slices to figures of people: joined, calibrated, beside what would do without a model.

**How slices are joined.** The probabilities of a person's slices, after temperature, are averaged.
**Calibration.** A fold's validation people, once joined, give its temperature and its 90 % sets
(:mod:`brainstage.stats.calibration`), unless the model brought its own. Test people play no part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.errors import DataError, LeakageError
from brainstage.core.run import RunFolder
from brainstage.core.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE, figure_title
from brainstage.evaluation.slices import Side, read_side
from brainstage.stats import metrics
from brainstage.stats.calibration import COVERAGE, Calibration, Fit, in_set, joined, softened

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
class Sets:
    """What 90 % sets are worth.

    Attributes:
        coverage: Share of people whose stage is in their set.
        by_stage: The same of the people of each stage.
        size: Number of stages in a set.
        shares: Share of answers with each set, the most frequent first; stages joined by a plus sign.
    """

    coverage: metrics.Score
    by_stage: dict[str, metrics.Score]
    size: metrics.Score
    shares: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``patient_metrics.json``."""
        return {
            "wanted": COVERAGE,
            "coverage": self.coverage.to_dict(),
            "by_stage": {name: score.to_dict() for name, score in self.by_stage.items()},
            "size": self.size.to_dict(),
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
        }


@dataclass(frozen=True)
class PatientEvaluation:
    """What a run's predictions are worth for people.

    Attributes:
        views: Four stages, three, two; all stages alone where the order of the classes is not known.
        ordinal: Whether that order is known, or there are but two classes.
        people: Number of people of each stage.
        repeats: How often everyone was predicted out of fold.
        temperatures: Of each fold, by its number; 1 where a fold has no validation people.
        sets: What the 90 % sets are worth; None where there are no people to fit them to.
        right: The calibration error of four stages that so few people would show if each probability were right.
        title: Protocol and verdict.
        synthetic: Whether the data was the phantom cohort.
        protocol: ``official`` or ``patient``.
        leakage: The leakage verdict.
        optimistic: Why the figures are too good; None where nothing is known against them.
    """

    views: tuple[View, ...]
    ordinal: bool
    people: dict[str, int]
    repeats: int
    temperatures: dict[int, float]
    sets: Sets | None
    right: metrics.Score
    title: str
    synthetic: bool
    protocol: str
    leakage: dict[str, Any]
    optimistic: str | None = None

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
            "optimistic": self.optimistic,
            "level": "patient",
            "class_order_known": self.ordinal,
            "joined_by": self.joined_by,
            "people": self.people,
            "caution": self.caution,
            "repeats": self.repeats,
            "interval": f"95 % bootstrap over people, {metrics.DRAWS} draws",
            "temperatures": {str(fold): round(value, 4) for fold, value in self.temperatures.items()},
            "calibration_error_if_right": self.right.to_dict(),
            "sets": self.sets.to_dict() if self.sets else None,
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
    conformal_thresholds: list[metrics.Floats] | None
    """An array of shape (n,) for each repeat."""
    temperatures: dict[int, float]


def evaluate_patients(
    source: RunFolder | Path | str,
    *,
    split: str = "test",
    protocol: str | None = None,
    class_order: Sequence[str] | None = None,
) -> PatientEvaluation:
    """Judge a run, or a prediction table of any tool, by people. No model is opened.

    Args:
        source: A run folder, or a parquet file with the columns of a prediction table.
        split: The side to judge.
        protocol: ``official`` or ``patient``, for a table that does not say under which it was made.
        class_order: As for :func:`brainstage.evaluate`.

    Raises:
        RunError, DataError, ConfigError: As :func:`brainstage.evaluate`.
        LeakageError: A slice has no patient.
    """
    read = partial(read_side, protocol=protocol, class_order=class_order)
    side = read(source, split=split)
    if side.patients is None:
        raise LeakageError(
            f"{side.file}: figures by patient need the patient of every slice; recover them with `brainstage audit`"
        )
    people = _join(side, _validation(read, source, split))
    rows = {"model": people.repeats, "always the largest": [_shares(people, len(side.classes))]}
    baseline = side.file.with_name("baseline.parquet")
    if baseline.is_file():
        rows["linear baseline"] = _join(read(baseline, split=split), _validation(read, baseline, split)).repeats
    leakage = side.about.get("leakage", {})
    synthetic = bool(side.about.get("synthetic"))
    what = f"{split} · {len(people.names)} people" + (
        f" × {len(people.repeats)}" if len(people.repeats) > 1 else ""
    )
    return PatientEvaluation(
        views=tuple(
            _view(name, groups, people.labels, rows, side) for name, groups in _views(side.classes, side.ordinal)
        ),
        ordinal=side.ordinal,
        people={name: int((people.labels == number).sum()) for number, name in enumerate(side.classes)},
        repeats=len(people.repeats),
        temperatures=people.temperatures,
        sets=_sets(people, side.classes),
        right=metrics.calibration_error_if_right(people.repeats),
        title=figure_title(
            what,
            side.protocol,
            leakage.get("sentence", "leakage unknown"),
            synthetic,
            fold=side.about.get("fold"),
            optimistic=side.about.get("optimistic"),
        ),
        optimistic=side.about.get("optimistic"),
        synthetic=synthetic,
        protocol=side.protocol,
        leakage=leakage,
    )


def _validation(read: Callable[..., Side], source: RunFolder | Path | str, split: str) -> Side | None:
    """Return the validation side, for the temperature; None where it is what is judged, or is not there."""
    if split == "validation":
        return None
    try:
        return read(source, split="validation")
    except DataError:
        return None


def _join(side: Side, validation: Side | None) -> _People:
    """Join slices to people, fold by fold, and order each person's predictions by repeat."""
    people: dict[str, list[metrics.Floats]] = {}
    thresholds: dict[str, list[float]] = {}
    label_of: dict[str, int] = {}
    temperatures = {}
    for fold in np.unique(side.folds).tolist():
        rows = side.folds == fold
        fit = None if side.conformal_threshold is not None else _fit(validation, fold)
        temperatures[fold] = fit.temperature if fit else 1.0
        names, labels, number = _numbered(side, rows)
        means = joined(softened(side.probabilities[rows], temperatures[fold]), number)
        threshold = _threshold(side, rows, number, fit)
        for index, (name, label) in enumerate(zip(names, labels.tolist(), strict=True)):
            people.setdefault(name, []).append(means[index])
            thresholds.setdefault(name, []).append(threshold[index])
            label_of[name] = label
    counts = {len(predictions) for predictions in people.values()}
    if len(counts) > 1:
        raise DataError(f"{side.file}: some people were predicted {min(counts)} times and some {max(counts)} times")
    repeats, ordered = np.array(list(people.values())), np.array(list(thresholds.values()))
    known = None if np.isnan(ordered).any() else list(ordered.T)
    labels = np.array(list(label_of.values()))
    return _People(tuple(people), labels, list(repeats.transpose(1, 0, 2)), known, temperatures)


def _numbered(side: Side, rows: metrics.Ints) -> tuple[list[str], metrics.Ints, metrics.Ints]:
    """Return the people of some rows: names (n,), labels (n,), and the number of each row's person."""
    names, first, number = np.unique(np.array(side.patients)[rows], return_index=True, return_inverse=True)
    labels = side.labels[rows]
    mixed = np.flatnonzero(labels != labels[first][number])
    if len(mixed):
        raise DataError(f"{side.file}: patient {names[number[mixed[0]]]} has slices of more than one stage")
    return names.tolist(), labels[first], number


def _fit(validation: Side | None, fold: int) -> Fit | None:
    """Return what a fold's validation people make of it; None where there are none."""
    if validation is None or validation.patients is None or not (validation.folds == fold).any():
        return None
    rows = validation.folds == fold
    names, _, number = _numbered(validation, rows)
    return Calibration.fit(validation.probabilities[rows], validation.labels[rows], number, len(names)).person


def _threshold(side: Side, rows: metrics.Ints, number: metrics.Ints, fit: Fit | None) -> metrics.Floats:
    """Return the conformal threshold of each person, (n,); NaN where it is not known."""
    count = int(number.max()) + 1
    if side.conformal_threshold is None:
        return np.full(count, fit.conformal_threshold if fit else np.nan)
    return joined(side.conformal_threshold[rows, None], number)[:, 0]


def _sets(people: _People, classes: Sequence[str]) -> Sets | None:
    """Judge the sets of everyone, the mean over repeats."""
    if people.conformal_thresholds is None:
        return None
    inside = np.stack([in_set(*one) for one in zip(people.repeats, people.conformal_thresholds, strict=True)])
    held = inside[:, np.arange(len(people.labels)), people.labels].mean(axis=0)
    of_stage = {name: held[people.labels == number] for number, name in enumerate(classes)}
    names = [" + ".join(np.array(classes)[row]) for row in inside.reshape(-1, len(classes))]
    return Sets(
        coverage=metrics.mean_over_people(held),
        by_stage={name: metrics.mean_over_people(values) for name, values in of_stage.items() if len(values)},
        size=metrics.mean_over_people(inside.sum(axis=2).mean(axis=0)),
        shares={name: count / len(names) for name, count in Counter(names).most_common()},
    )


def _shares(people: _People, classes: int) -> metrics.Floats:
    """Return for everyone the shares of the stages: what would do without a look at any picture."""
    shares = np.bincount(people.labels, minlength=classes) / len(people.labels)
    return np.tile(shares, (len(people.labels), 1))


def _views(classes: Sequence[str], ordinal: bool) -> list[tuple[str, list[list[int]]]]:
    """Return which stages are joined: none, the last two, and all but the first; none without a known order."""
    each = [[number] for number in range(len(classes))]
    views = [(f"{len(classes)} stages", each)]
    if not ordinal:
        return views
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
    side: Side,
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
    if not side.ordinal:
        scores = {row: metrics.without_ordinal(overall) for row, overall in scores.items()}
    names = tuple(" or ".join(side.classes[member] for member in members) for members in groups)
    return View(name, names if len(groups) > 2 or len(side.classes) == 2 else (names[0], "any other"), scores)
