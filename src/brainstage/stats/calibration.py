"""Probabilities that mean what they say, and the stages that cannot be ruled out. Arrays in, arrays out.

**Temperature.** One number divides the logits (Guo et al. 2017, ICML): the one that makes people that the model was
not fitted on least surprising.
**Sets.** A stage is in an answer's set where its probability is at least what nine of ten people that the model was
not fitted on had for their true stage: split conformal prediction (Sadinle et al. 2019, JASA 114, 223). So nine of
ten people like them have their stage in their set; a rare stage can be missed more often, a common one less.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

COVERAGE = 0.9
"""Share of people whose stage is in their set."""
FILE = "calibration.json"
_SMALLEST = 1e-7


@dataclass(frozen=True)
class Fit:
    """What people that a network was not fitted on say of its scores."""

    temperature: float
    conformal_threshold: float
    """Probability, after temperature, from which on a stage belongs to the 90 % set."""


@dataclass(frozen=True)
class Calibration:
    """How a network's scores become probabilities and sets.

    Attributes:
        people: Number of people that it was fitted on, none of whom the network was fitted on.
        slice: For one slice alone.
        person: For the mean over a person's slices.
    """

    people: int
    slice: Fit
    person: Fit

    @classmethod
    def fit(cls, scores: Scores, labels: Ints, people: Ints, count: int) -> Calibration:
        """Fit to slices of people that the network was not fitted on.

        Args:
            scores: The network's, softmax without temperature, shape (n, K).
            labels: Class numbers, shape (n,).
            people: Number of each slice's person, from 0. One who was predicted by several networks counts as
                several.
            count: How many different people they are.
        """
        _, first = np.unique(people, return_index=True)
        return cls(
            count,
            slice=_fit(lambda temperature: softened(scores, temperature), labels, count),
            person=_fit(lambda temperature: joined(softened(scores, temperature), people), labels[first], count),
        )

    def save(self, folder: Path) -> None:
        """Write ``calibration.json`` into a model folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Path) -> Calibration | None:
        """Read what :meth:`save` wrote; None where a model has none.

        Raises:
            KeyError, TypeError, ValueError: The file is damaged.
        """
        if not (folder / FILE).is_file():
            return None
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        fits = [
            Fit(float(one["temperature"]), float(one["conformal_threshold"]))
            for one in (found["slice"], found["person"])
        ]
        if not all(fit.temperature > 0 and 0 <= fit.conformal_threshold <= 1 for fit in fits):
            raise ValueError(f"{FILE}: {fits}")
        return cls(int(found["people"]), *fits)


def softened(scores: Scores, temperature: float) -> Floats:
    """Return probabilities (n, K) with their logits divided by a temperature."""
    logits = np.log(np.clip(scores.astype(np.float64), _SMALLEST, 1)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return probabilities


def joined(probabilities: Floats, people: Ints) -> Floats:
    """Return the mean (m, K) over the slices of each person, numbered from 0."""
    sums = np.zeros((int(people.max()) + 1, probabilities.shape[1]))
    np.add.at(sums, people, probabilities)
    return sums / np.bincount(people)[:, None]


def conformal_threshold(of_truth: Floats, people: int | None = None) -> float:
    """Return the conformal threshold: the probability from which on a stage belongs to the 90 % set.

    Args:
        of_truth: Probability of the true stage, of people that the model was not fitted on.
        people: How many different people they are, where some stand there several times.

    Returns:
        0 where they are too few to rule anything out (eight people or fewer).
    """
    people = people or len(of_truth)
    needed = int(np.ceil((people + 1) * COVERAGE))  # one more than were seen: the person to come
    if needed > people:
        return 0.0
    rank = int(np.ceil(len(of_truth) * needed / people))
    return float(np.sort(of_truth)[len(of_truth) - rank])


def in_set(probabilities: Scores, threshold: Floats) -> NDArray[np.bool_]:
    """Return which stages are in each set, bool of shape (n, K).

    The likeliest stage is always in, and what lies between two stages that are in, since stages are ordered.

    Args:
        probabilities: Shape (n, K).
        threshold: Conformal threshold of each row, shape (n,).
    """
    inside = (probabilities >= threshold[:, None]) | (
        probabilities == probabilities.max(axis=1, keepdims=True, initial=0)
    )
    from_below = np.logical_or.accumulate(inside, axis=1)
    from_above = np.logical_or.accumulate(inside[:, ::-1], axis=1)[:, ::-1]
    return from_below & from_above


def in_words(stages: Sequence[str], of: int) -> str:
    """Say what a set means.

    Args:
        stages: Names of the stages in the set.
        of: How many stages there are.
    """
    if len(stages) == 1:
        return f"{stages[0]}; the other stages are unlikely"
    if len(stages) == of:
        return "cannot tell the stages apart"
    if len(stages) == 2:
        return f"cannot tell {stages[1]} from {stages[0]}"
    return f"cannot tell {', '.join(stages[:-1])} and {stages[-1]} apart"


def _fit(predict: Callable[[float], Floats], labels: Ints, people: int) -> Fit:
    from scipy.optimize import minimize_scalar  # prediction does not wait for its import

    rows = np.arange(len(labels))

    def surprise(log_temperature: float) -> float:
        probabilities = predict(float(np.exp(log_temperature)))[rows, labels]
        return float(-np.log(np.clip(probabilities, _SMALLEST, 1)).mean())

    temperature = float(np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x))
    return Fit(temperature, conformal_threshold(predict(temperature)[rows, labels], people))
