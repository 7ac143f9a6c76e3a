"""Paired comparison: runs judged on the same slices, with the interval of every difference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.run import RunFolder
from brainstage.core.schema import RESEARCH_NOTICE, choice_caution
from brainstage.evaluation.slices import Evaluation, Side, judge, read_side
from brainstage.stats import metrics


@dataclass(frozen=True)
class Candidate:
    """One of the runs that are compared.

    Attributes:
        name: The run.
        evaluation: Its scores.
        behind: Each overall score of the leader less this one's, on the same slices; empty for the leader.
        seconds: Time of features and training; None where it is not known.
        parameters: Number of the network's weights; None where it is not known.
    """

    name: str
    evaluation: Evaluation
    behind: dict[str, metrics.Score]
    seconds: float | None
    parameters: int | None

    @property
    def is_behind(self) -> bool:
        """Whether its accuracy is below the leader's beyond chance: the interval of the difference is above 0."""
        return bool(self.behind) and self.behind["accuracy"].low > 0


@dataclass(frozen=True)
class Comparison:
    """Runs on the same slices, the one of the highest accuracy first.

    Attributes:
        candidates: The runs.
    """

    candidates: tuple[Candidate, ...]

    @property
    def leader(self) -> Candidate:
        """The candidate of the highest accuracy."""
        return self.candidates[0]

    @property
    def title(self) -> str:
        """What the table says above its figures."""
        evaluation = self.leader.evaluation
        if evaluation.fold and evaluation.protocol == "patient" and evaluation.split == "validation":
            return f"{evaluation.title} · {choice_caution(evaluation.fold)}"
        return evaluation.title

    @property
    def verdict(self) -> str:
        """What these slices can and cannot tell."""
        level = [candidate.name for candidate in self.candidates[1:] if not candidate.is_behind]
        count = f"{self.leader.evaluation.slices:,} {self.leader.evaluation.split} slices"
        if level:
            return f"{count} cannot tell {self.leader.name} from {_joined(level)} (95 % intervals of accuracy)."
        return f"On {count} the accuracy of {self.leader.name} is above that of all others (95 % intervals)."

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a JSON file."""
        return {
            "notice": RESEARCH_NOTICE,
            "title": self.title,
            "verdict": self.verdict,
            "candidates": [
                {
                    "name": candidate.name,
                    "seconds": candidate.seconds,
                    "parameters": candidate.parameters,
                    "behind_leader": {name: score.to_dict() for name, score in candidate.behind.items()},
                    **candidate.evaluation.to_dict(),
                }
                for candidate in self.candidates
            ],
        }


def _joined(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def compare(
    sources: Sequence[RunFolder | Path | str],
    *,
    split: str = "validation",
    protocol: str | None = None,
) -> Comparison:
    """Compare runs, or prediction tables of any tool, on the slices that all of them answered.

    Who is to be chosen by the comparison is compared on ``validation``; the test side is for the one chosen.

    Args:
        sources: Two or more run folders or prediction tables.
        split: The side to judge.
        protocol: Protocol of tables that do not say under which they were made.

    Raises:
        ConfigError: There is only one source.
        DataError: They were not judged on the same slices, classes or protocol, or one has no such side.
        RunError, LeakageError: As :func:`brainstage.evaluate`.
    """
    if len(sources) < 2:
        raise ConfigError("a comparison needs two runs or more")
    paths = [source.path if isinstance(source, RunFolder) else Path(source) for source in sources]
    sides = [read_side(path, split=split, protocol=protocol) for path in paths]
    sides = [sides[0], *(_aligned(side, sides[0]) for side in sides[1:])]
    evaluations = [judge(side) for side in sides]
    first = max(range(len(sides)), key=lambda number: evaluations[number].scores.overall["accuracy"].value)
    candidates = [
        Candidate(path.name, evaluation, {} if side is sides[first] else _behind(sides[first], side), *_costs(path))
        for path, evaluation, side in zip(paths, evaluations, sides, strict=True)
    ]
    candidates.sort(key=lambda candidate: (bool(candidate.behind), -_accuracy(candidate)))
    return Comparison(tuple(candidates))


def _accuracy(candidate: Candidate) -> float:
    return candidate.evaluation.scores.overall["accuracy"].value


def _aligned(side: Side, first: Side) -> Side:
    """Return the side with its rows in the order of the first."""
    if (side.protocol, side.classes) != (first.protocol, first.classes):
        raise DataError(f"{side.file}: has another protocol or other classes than {first.file}")
    if set(side.slice_ids) != set(first.slice_ids) or len(side.slice_ids) != len(first.slice_ids):
        shared = len(set(side.slice_ids) & set(first.slice_ids))
        raise DataError(
            f"{side.file}: its {side.name} side and that of {first.file} share {shared} of "
            f"{len(first.slice_ids)} slices; compare runs of the same data, split and seed"
        )
    row_of = {slice_id: row for row, slice_id in enumerate(side.slice_ids)}
    rows = np.array([row_of[slice_id] for slice_id in first.slice_ids])
    if (side.labels[rows] != first.labels).any():
        raise DataError(f"{side.file}: gives some slices another label than {first.file}")
    return replace(first, file=side.file, about=side.about, probabilities=side.probabilities[rows])


def _behind(leader: Side, side: Side) -> dict[str, metrics.Score]:
    behind = metrics.paired_difference(leader.labels, leader.probabilities, side.probabilities, leader.patients)
    return behind if leader.ordinal else metrics.without_ordinal(behind)


def _costs(path: Path) -> tuple[float | None, int | None]:
    """Return the seconds and the number of weights that a run's manifest tells."""
    manifest = RunFolder(path).manifest
    if not manifest.is_file():
        return None, None
    about = json.loads(manifest.read_text(encoding="utf-8"))
    return about.get("feature_seconds", 0.0) + about["training_seconds"], about.get("parameters")
