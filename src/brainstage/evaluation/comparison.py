"""Paired comparison: runs evaluated on the same slices, with the interval of every difference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.run import RunFolder
from brainstage.core.schema import RESEARCH_NOTICE, choice_caution
from brainstage.evaluation.slices import Baseline, Evaluation, Side, judge, labelled_sides, read_side
from brainstage.stats import metrics


@dataclass(frozen=True)
class Candidate:
    """A run that is compared with others.

    Attributes:
        name: The run.
        evaluation: Its scores.
        behind: Each overall score of the leader less that of this run, on the same slices; empty for the leader.
            The intervals of a score hold simultaneously for all pairs of runs
            (:func:`brainstage.stats.metrics.differences_from_leader`).
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
class Comparison(Displayed, Plotted, Tabular):
    """Runs on the same slices, the run of the highest accuracy first.

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
        """What the table says above its figures; with several folds validation people are test people of others."""
        evaluation = self.leader.evaluation
        of_several = evaluation.fold is not None or evaluation.folds > 1
        if of_several and evaluation.protocol == "patient" and evaluation.split == "validation":
            return f"{evaluation.title} · {choice_caution(evaluation.fold)}"
        return evaluation.title

    @property
    def baselines(self) -> dict[str, Baseline]:
        """What needs no learning, on the same slices: of the first candidate whose folder says most of it."""
        return max((candidate.evaluation.baselines for candidate in self.candidates), key=len)

    @property
    def names(self) -> list[str]:
        """The name of each candidate, marked where its figures are optimistic and the title does not say so."""
        return [f"{one.name} (optimistic)" if self._own_caution(one) else one.name for one in self.candidates]

    @property
    def cautions(self) -> list[str]:
        """Why figures are optimistic of which the title does not say so, a sentence each."""
        found = [(one.name, self._own_caution(one)) for one in self.candidates]
        return [f"The figures of {name} are optimistic: {caution}." for name, caution in found if caution]

    def _own_caution(self, candidate: Candidate) -> str | None:
        caution = candidate.evaluation.caution
        return caution if caution != self.leader.evaluation.caution else None

    @property
    def verdict(self) -> str:
        """Which candidates these slices can distinguish from the leader, and whose figures are optimistic."""
        return " ".join([self._distinguished, *self.cautions])

    @property
    def _distinguished(self) -> str:
        close = [candidate.name for candidate in self.candidates[1:] if not candidate.is_behind]
        slices = f"{self.leader.evaluation.slices:,} {self.leader.evaluation.split} slices"
        basis = "95 % intervals of accuracy, simultaneous for all pairs"
        if close:
            return f"{slices} cannot distinguish {self.leader.name} from {_in_words(close)} ({basis})."
        first = f"On {slices} the accuracy of {self.leader.name} is above that of all other runs ({basis})."
        own = self.leader.evaluation.scores.overall["accuracy"].value
        above = [one for one in self.baselines.values() if one.accuracy.value > own]
        return " ".join([first, *(f"Above it is what needs no learning: {one.name}." for one in above)])

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


def _in_words(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def compare(
    sources: Sequence[RunFolder | Path | str],
    *,
    split: str | None = None,
    protocol: str | None = None,
) -> Comparison:
    """Compare runs, or prediction tables of any tool, on the slices that all of them predicted.

    Predictions are paired by fold and slice, so cross-validated runs are compared fold by fold. A choice between
    runs belongs on the ``validation`` side; the test side is for the run that was chosen.

    Args:
        sources: Two or more run folders or prediction tables.
        split: The side to compare on. None takes ``validation`` where all have labelled slices of it, else
            ``test``; :attr:`Comparison.title` says which.
        protocol: Protocol of tables that do not say under which they were made.

    Raises:
        ConfigError: There is only one source.
        DataError: They do not predict the same slices of the same folds, or have different classes or protocols, or
            one has no such side.
        RunError, LeakageError: As :func:`brainstage.evaluate`.
    """
    if len(sources) < 2:
        raise ConfigError("a comparison needs two runs or more")
    paths = [source.path if isinstance(source, RunFolder) else Path(source) for source in sources]
    split = split or _shared_side(paths)
    sides = [read_side(path, split=split, protocol=protocol) for path in paths]
    sides = [_aligned(side, sides[0]) for side in sides]
    evaluations = [judge(side) for side in sides]
    leader = int(np.argmax([evaluation.scores.overall["accuracy"].value for evaluation in evaluations]))
    differences = metrics.differences_from_leader(
        sides[0].labels, [side.probabilities for side in sides], leader, sides[0].patients
    )
    if not sides[0].ordinal:
        differences = [metrics.without_ordinal(difference) for difference in differences]
    candidates = [
        Candidate(path.name, evaluation, {} if number == leader else difference, *_costs(path))
        for number, (path, evaluation, difference) in enumerate(zip(paths, evaluations, differences, strict=True))
    ]
    candidates.sort(key=lambda candidate: (bool(candidate.behind), -_accuracy(candidate)))
    return Comparison(tuple(candidates))


def _accuracy(candidate: Candidate) -> float:
    return candidate.evaluation.scores.overall["accuracy"].value


def _shared_side(paths: Sequence[Path]) -> str:
    """Return the side to compare on: the validation side where all have it, else the test side."""
    shared = set.intersection(*(set(labelled_sides(path)) for path in paths))
    for name in ("validation", "test"):
        if name in shared:
            return name
    raise DataError(
        f"{', '.join(map(str, paths))}: no side (validation, test) has labelled slices in all of them; "
        "compare runs of the same data and splits"
    )


def _aligned(side: Side, first: Side) -> Side:
    """Return the side with its rows in the order of the first, paired by fold and slice."""
    if (side.protocol, side.classes) != (first.protocol, first.classes):
        raise DataError(
            f"{side.file}: has another protocol or other classes than {first.file}"
            "; compare runs that have both in common"
        )
    row_of, wanted = _rows(side), _rows(first)
    if row_of.keys() != wanted.keys():
        raise DataError(
            f"{side.file}: its {side.name} side and that of {first.file} share "
            f"{len(row_of.keys() & wanted.keys())} of {len(wanted)} slices in the same folds; "
            "compare runs of the same data, splits and seed"
        )
    rows = np.array([row_of[key] for key in wanted])
    if (side.labels[rows] != first.labels).any():
        raise DataError(
            f"{side.file}: gives some slices another label than {first.file}; compare runs of the same data"
        )
    return replace(
        first,
        file=side.file,
        about=side.about,
        probabilities=side.probabilities[rows],
        unlabelled=side.unlabelled,
    )


def _rows(side: Side) -> dict[tuple[int, str], int]:
    """Return the row of each fold and slice."""
    keys = list(zip(side.folds.tolist(), side.slice_ids, strict=True))
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) < len(keys):
        raise DataError(
            f"{side.file}: {len(keys) - len(rows)} rows of its {side.name} side have the fold and slice_id of "
            "another row; give each prediction once"
        )
    return rows


def _costs(path: Path) -> tuple[float | None, int | None]:
    """Return the seconds and the number of weights in a run's manifest."""
    manifest = RunFolder(path).manifest
    if not manifest.is_file():
        return None, None
    about = json.loads(manifest.read_text(encoding="utf-8"))
    return about.get("feature_seconds", 0.0) + about["training_seconds"], about.get("parameters")
