"""Evaluation by person: calibrated predictions averaged over slices, beside baselines that need no model.

How slices become predictions of people is in :mod:`brainstage.evaluation.aggregation`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.arrays import Float64Array
from brainstage.core.errors import DataError, LeakageError
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.run import AGE_AND_SEX, BASELINE, NEAREST_SLICE, RunFolder
from brainstage.core.schema import (
    RESEARCH_NOTICE,
    SYNTHETIC_NOTICE,
    figure_title,
    is_dementia_stage,
    why_optimistic,
)
from brainstage.evaluation.aggregation import People, aggregate
from brainstage.evaluation.slices import Side, read_side
from brainstage.stats import metrics
from brainstage.stats.calibration import COVERAGE, in_set

ALWAYS_LARGEST = "always the largest"
"""Row of a baseline: everyone gets the shares of the stages, so that the largest is the answer."""
MEAN_OF_SLICES = "mean of the slices' probabilities"
"""How a person is predicted by a model that sees one slice at a time."""
REST = "any other"
"""Name of all stages but the first, joined."""
WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@dataclass(frozen=True)
class StageView:
    """Scores with some stages counted as one.

    Attributes:
        name: What a reader sees.
        classes: The names of the stages, or of the joined stages, in clinical order.
        rows: Scores of each row of the table: the model first, then the baselines that need no model.
    """

    name: str
    classes: tuple[str, ...]
    rows: dict[str, dict[str, metrics.Score]]

    @property
    def in_words(self) -> str:
        """What the scores are of: ``four stages``, or which of two groups is the one to recognise."""
        if self.classes[1:] == (REST,):
            return "any dementia" if is_dementia_stage(self.classes[0]) else f"{REST} than {self.classes[0]}"
        count = len(self.classes)
        return f"{WORDS.get(count, count)} stages"


@dataclass(frozen=True)
class PredictionSets:
    """Coverage and size of the 90 % prediction sets.

    Attributes:
        coverage: Share of people whose stage is in their set.
        by_stage: The same for the people of each stage.
        size: Number of stages in a set.
        shares: Share of predictions with each set, the most frequent first; stages joined by a plus sign.
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
class PatientEvaluation(Displayed, Plotted, Tabular):
    """The performance of a run's predictions of people.

    Attributes:
        views: The scores of all stages, of the last two joined, and of the first against the rest; of all stages
            alone where the order of the classes is not known.
        ordinal: Whether that order is known, or there are but two classes.
        people: Number of people of each stage; someone whose scans have several stages counts in each.
        repeats: How often people were predicted. Where some were predicted less often than others, as on the
            validation side, this is the largest number: their predictions are repeated in turn, so that everyone
            weighs the same in every figure.
        fewest_repeats: How often the person with the fewest predictions was predicted.
        temperatures: Of each fold, by its number; 1 where a fold has no people to calibrate it.
        calibrated_on: Who calibrated: ``people of the other folds`` or ``validation people``; None where nobody
            did.
        together: Whether the slices of each scan have one prediction, as those of a patient model have.
        sets: Coverage and size of the 90 % sets; None where there are no people to fit them to.
        calibration_error_if_perfect: The calibration error of all stages that a perfectly calibrated model would
            show on so few people.
        split: The side that was judged.
        title: Protocol and verdict.
        synthetic: Whether the data was the phantom cohort.
        protocol: ``official`` or ``patient``.
        leakage: The leakage verdict.
        unlabelled: Number of slices of that side that were left out because their label is not known.
        optimistic: Why the figures are too good; None where nothing is known against them.
        age_and_sex: What must be said of the row of age and sex, or why there is none; None where nothing is known.
    """

    views: tuple[StageView, ...]
    ordinal: bool
    people: dict[str, int]
    repeats: int
    fewest_repeats: int
    temperatures: dict[int, float]
    calibrated_on: str | None
    together: bool
    sets: PredictionSets | None
    calibration_error_if_perfect: metrics.Score
    split: str
    title: str
    synthetic: bool
    protocol: str
    leakage: dict[str, Any]
    unlabelled: int
    optimistic: str | None = None
    age_and_sex: str | None = None

    @property
    def headline(self) -> str:
        """The performance in one line: the accuracy of all stages beside the largest one's share, and the AUROC."""
        everything, last = self.views[0], self.views[-1]
        model, largest = (everything.rows[row]["accuracy"].value for row in ("model", ALWAYS_LARGEST))
        auroc = last.rows["model"]["auroc_ovr"].value
        stamp = "synthetic, " * self.synthetic + "optimistic: " * bool(self.optimistic)
        line = f"{stamp}{everything.in_words} {model:.2f}, {ALWAYS_LARGEST} {largest:.2f}"
        if isnan(auroc):
            return line
        return f"{line}; {'' if last is everything else f'{last.in_words} '}AUROC {auroc:.2f}"

    @property
    def few(self) -> list[str]:
        """Stages with too few people for a claim."""
        return [name for name, count in self.people.items() if count < metrics.FEW]

    @property
    def caution(self) -> str | None:
        """What must be said of stages with few people."""
        if not self.few:
            return None
        counts = ", ".join(f"{self.people[name]} people in {name}" for name in self.few)
        alone = "that stage" if len(self.few) == 1 else "any of these stages"
        return f"With {counts} nothing can be claimed for {alone} alone."

    @property
    def aggregation(self) -> str:
        """How a person's slices become one prediction."""
        after = f", after a temperature fitted on {self.calibrated_on}" if self.calibrated_on else ""
        how = "prediction from all slices together" if self.together else MEAN_OF_SLICES
        return f"{how}{after}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``patient_metrics.json``."""
        return {
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.synthetic else None,
            "protocol": self.protocol,
            "leakage": self.leakage,
            "optimistic": self.optimistic,
            "level": "patient",
            "split": self.split,
            "title": self.title,
            "headline": self.headline,
            "class_order_known": self.ordinal,
            "joined_by": self.aggregation,
            "people": self.people,
            "caution": self.caution,
            "age_and_sex": self.age_and_sex,
            "unlabelled": self.unlabelled,
            "repeats": self.repeats,
            "fewest_repeats": self.fewest_repeats,
            "interval": f"95 % bootstrap over people, {metrics.DRAWS} draws",
            "temperatures": {str(fold): round(value, 4) for fold, value in self.temperatures.items()},
            "calibration_error_if_right": self.calibration_error_if_perfect.to_dict(),
            "sets": self.sets.to_dict() if self.sets else None,
            "views": {
                view.name: {
                    "classes": list(view.classes),
                    "rows": {
                        row: {name: score.to_dict() for name, score in scores.items()}
                        for row, scores in view.rows.items()
                    },
                }
                for view in self.views
            },
        }


def evaluate_patients(
    source: RunFolder | Path | str,
    *,
    split: str = "test",
    protocol: str | None = None,
    class_order: Sequence[str] | None = None,
) -> PatientEvaluation:
    """Evaluate a run, or a prediction table of any tool, by person. No model is opened.

    A figure is that of the mean over the slices of a scan in a fold; someone with several scans has several, and
    intervals draw the person with all of them. People who are predicted several times count
    once: with repeats every score is the mean over the repeats, and intervals draw people. Slices without a label
    are left out and counted in ``unlabelled``.

    Args:
        source: A run folder, or a parquet file with the columns of a prediction table.
        split: The side to evaluate.
        protocol: ``official`` or ``patient``, for a table that does not say under which it was made.
        class_order: As for :func:`brainstage.evaluate`.

    Raises:
        RunError, ConfigError: As :func:`brainstage.evaluate`.
        DataError: As there, or a scan has slices of more than one stage, or a baseline beside the run predicts
            other people.
        LeakageError: A slice has no patient.
    """
    read = partial(read_side, protocol=protocol, class_order=class_order)
    side = read(source, split=split)
    if side.patients is None:
        raise LeakageError(
            f"{side.file}: figures by patient need the patient of every slice; recover them with `brainstage audit`"
        )
    people = aggregate(side, _validation(read, source, split))
    rows = {
        "model": people.repeats,
        ALWAYS_LARGEST: [_shares(people, len(side.classes))],
        **_baselines(side, people, read),
    }
    leakage = side.about.get("leakage", {})
    synthetic = bool(side.about.get("synthetic"))
    count, scans = len(set(people.patients)), len(people.names)
    what = f"{split} · {count} people{f', {scans} scans' if scans > count else ''}{_times(people)}"
    optimistic = why_optimistic(side.about.get("optimistic"), side.about.get("selection"))
    return PatientEvaluation(
        views=tuple(_view(name, groups, people, rows, side) for name, groups in _views(side.classes, side.ordinal)),
        ordinal=side.ordinal,
        people={name: _count(people, number) for number, name in enumerate(side.classes)},
        repeats=len(people.repeats),
        fewest_repeats=people.fewest,
        temperatures=people.temperatures,
        calibrated_on=people.calibrated_on,
        together=people.together,
        sets=_sets(people, side.classes, ordered=side.ordinal),
        calibration_error_if_perfect=metrics.calibration_error_if_perfect(
            people.repeats, groups=metrics.groups_of(people.patients)
        ),
        split=split,
        title=figure_title(
            what,
            side.protocol,
            leakage.get("sentence", "leakage unknown"),
            synthetic,
            fold=side.about.get("fold"),
            optimistic=optimistic,
        ),
        optimistic=optimistic,
        age_and_sex=side.about.get("age_and_sex"),
        synthetic=synthetic,
        protocol=side.protocol,
        leakage=leakage,
        unlabelled=side.unlabelled,
    )


def _baselines(side: Side, people: People, read: Callable[..., Side]) -> dict[str, list[Float64Array]]:
    """Return the predictions of what stands beside the model in the run's folder, as repeats of the same people."""
    rows = {}
    files = {"age and sex": AGE_AND_SEX, "nearest training slice": NEAREST_SLICE, "linear baseline": BASELINE}
    for name, file in files.items():
        beside = side.file.with_name(file)
        if beside.is_file() and beside != side.file:
            baseline = aggregate(read(beside, split=side.name), _validation(read, beside, side.name))
            rows[name] = baseline.in_order(people.names, str(beside)).repeats
    return rows


def _count(people: People, stage: int) -> int:
    """Return how many people have a scan of a stage."""
    return len({person for person, label in zip(people.patients, people.labels, strict=True) if label == stage})


def _times(people: People) -> str:
    """Return how often people were predicted, for the title; nothing where it is once."""
    most = len(people.repeats)
    if most == 1:
        return ""
    return f" × {most}" if people.fewest == most else f" × {people.fewest} to {most}"


def _validation(read: Callable[..., Side], source: RunFolder | Path | str, split: str) -> Side | None:
    """Return the validation side, for the calibration; None where it is the side to evaluate, or has no slices."""
    if split == "validation":
        return None
    try:
        return read(source, split="validation")
    except DataError:
        return None


def _sets(people: People, classes: Sequence[str], *, ordered: bool) -> PredictionSets | None:
    """Return coverage and size of everyone's sets, the mean over repeats."""
    if people.conformal_thresholds is None:
        return None
    repeats = zip(people.repeats, people.conformal_thresholds, strict=True)
    inside = np.stack([in_set(*repeat, ordered=ordered) for repeat in repeats])
    covered = inside[:, np.arange(len(people.labels)), people.labels].mean(axis=0)
    groups = metrics.groups_of(people.patients)
    person = None if groups is None else np.array(groups)
    of_stage = {name: people.labels == number for number, name in enumerate(classes)}
    names = [" + ".join(np.array(classes)[row]) for row in inside.reshape(-1, len(classes))]
    return PredictionSets(
        coverage=metrics.mean_over_people(covered, groups=groups),
        by_stage={
            name: metrics.mean_over_people(covered[rows], groups=None if person is None else person[rows].tolist())
            for name, rows in of_stage.items()
            if rows.any()
        },
        size=metrics.mean_over_people(inside.sum(axis=2).mean(axis=0), groups=groups),
        shares={name: count / len(names) for name, count in Counter(names).most_common()},
    )


def _shares(people: People, classes: int) -> Float64Array:
    """Return for everyone the shares of the stages: a baseline that needs no model."""
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
    people: People,
    rows: dict[str, list[Float64Array]],
    side: Side,
) -> StageView:
    """Score every row with some stages joined."""
    group_of = {member: group for group, members in enumerate(groups) for member in members}
    grouped_labels = np.array([group_of[label] for label in people.labels.tolist()])
    grouped = {
        row: [np.stack([repeat[:, members].sum(axis=1) for members in groups], axis=1) for repeat in repeats]
        for row, repeats in rows.items()
    }
    persons = metrics.groups_of(people.patients)
    scores = {
        row: metrics.score_repeats(grouped_labels, repeats, groups=persons) for row, repeats in grouped.items()
    }
    scores["shuffled labels"] = metrics.shuffled_labels(grouped_labels, grouped["model"], groups=persons)
    if not side.ordinal:
        scores = {row: metrics.without_ordinal(overall) for row, overall in scores.items()}
    names = tuple(" or ".join(side.classes[member] for member in members) for members in groups)
    return StageView(name, names if len(groups) > 2 or len(side.classes) == 2 else (names[0], REST), scores)
