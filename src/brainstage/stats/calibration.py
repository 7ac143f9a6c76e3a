"""Calibrated probabilities, and the stages that cannot be ruled out. Arrays in, arrays out.

**Temperature.** One number divides the logits (Guo et al. 2017, ICML): the one with the lowest log loss on people
who are not in the training set.

**Sets.** A stage is in a prediction set where its probability is at least the conformal threshold: the probability
that nine of ten people outside the training set had for their true stage (Sadinle et al. 2019, JASA 114, 223). A
rare stage can be missed more often, a common one less.

**Different people for the two.** Cross-fitting over people: the people are dealt into five parts, and each part's
probabilities come from the temperature of the other four; all parts together give the threshold, and all people the
temperature that is kept. As in cross-conformal prediction (Vovk 2015, Ann. Math. Artif. Intell. 74, 9) coverage is
near 90 % and is measured (``docs/explanation/calibration.md``), not guaranteed for finite samples.

**Stacks.** The mean over many slices has another calibration than one slice has, so each number of slices (1, 2, 4,
8, …) has its own parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from brainstage.core.arrays import BoolArray, Float64Array, FloatArray, IntArray

COVERAGE = 0.9
"""Share of people whose stage is in their prediction set."""
PARTS = 5
"""Parts that people are dealt into, so that temperature and threshold come from different people."""
FILE = "calibration.json"
_SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class CalibrationParameters:
    """The parameters for stacks of some number of slices.

    Attributes:
        temperature: What the logits are divided by.
        conformal_threshold: Probability, after temperature, from which on a stage belongs to the 90 % set.
    """

    temperature: float
    conformal_threshold: float


@dataclass(frozen=True)
class Calibration:
    """How a network's scores become probabilities and sets.

    Attributes:
        people: Number of people that it was fitted on, none of whom is in the network's training set.
        by_slices: Parameters for the mean over 1, 2, 4, 8, … slices of a person, by that number; 1 is always there.
    """

    people: int
    by_slices: Mapping[int, CalibrationParameters]

    @classmethod
    def fit(
        cls,
        scores: FloatArray,
        labels: IntArray,
        people: IntArray,
        stacks: IntArray | None = None,
        *,
        counts: Iterable[int] | None = None,
        seed: int = 0,
    ) -> Calibration:
        """Fit to slices of people who are not in the training set of the network that scored them.

        Args:
            scores: Softmax scores without temperature, float of shape (n, K).
            labels: Class number of each slice, int64 of shape (n,); the same for all slices of a stack.
            people: Number of each slice's person, int64 of shape (n,).
            stacks: Number of each slice's stack, int64 of shape (n,): the slices of a scan that one network scored.
                Only slices of a stack are averaged. None where a person's slices are one stack.
            counts: How many slices the stacks to be calibrated have. None fits to 1, 2, 4, … slices, up to what
                half of the people have.
            seed: Seed of the draws of a person's slices.
        """
        names, people = np.unique(people, return_inverse=True)
        apart = np.zeros_like(people) if stacks is None else stacks
        _, stacks = np.unique(np.stack([people, apart]), axis=1, return_inverse=True)
        order = np.random.default_rng(seed).permutation(len(people))
        order = order[np.argsort(stacks[order], kind="stable")]
        largest = _power_of_two(int(np.median(np.bincount(stacks))))
        sizes = (
            {2**power for power in range(largest.bit_length())}
            if counts is None
            else {min(_power_of_two(count), largest) for count in counts}
        )
        by_slices = {}
        for size in sorted({1} | sizes):
            rows = order[np.array(list(_pieces(stacks[order], size)))]
            by_slices[size] = _fit(scores[rows], labels[rows[:, 0]], people[rows[:, 0]])
        return cls(len(names), by_slices)

    def for_slices(self, count: int) -> CalibrationParameters:
        """Return the parameters for the mean over ``count`` slices: those of the largest number not above it."""
        return self.by_slices[max(size for size in self.by_slices if size <= count)]

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
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        by_slices = {
            int(count): CalibrationParameters(float(entry["temperature"]), float(entry["conformal_threshold"]))
            for count, entry in dict(content["by_slices"]).items()
        }
        in_range = all(
            entry.temperature > 0 and 0 <= entry.conformal_threshold <= 1 for entry in by_slices.values()
        )
        if 1 not in by_slices or not in_range:
            raise ValueError(f"{FILE}: {content['by_slices']}")
        return cls(int(content["people"]), by_slices)


def apply_temperature(scores: FloatArray, temperature: float | Float64Array) -> Float64Array:
    """Return probabilities with their logits divided by a temperature, float64 of shape (…, K).

    Args:
        scores: Softmax scores, shape (…, K).
        temperature: Above 0, for all or of a shape that broadcasts with the scores; 1 changes nothing.
    """
    return _softmax(_log(scores), temperature)


def mean_by_person(probabilities: Float64Array, people: IntArray) -> Float64Array:
    """Return the mean over the slices of each person.

    Args:
        probabilities: Of each slice, float64 of shape (n, K).
        people: Number of each slice's person, from 0, int64 of shape (n,).

    Returns:
        float64 of shape (m, K) for m people.
    """
    sums = np.zeros((int(people.max()) + 1, probabilities.shape[1]))
    np.add.at(sums, people, probabilities)
    return sums / np.bincount(people)[:, None]


def conformal_threshold(true_probabilities: Float64Array, people: int | None = None) -> float:
    """Return the conformal threshold: the probability from which on a stage belongs to the 90 % set.

    Args:
        true_probabilities: Probability of the true stage, of people who are not in the training set, float64 of
            shape (n,).
        people: Number of different people, where some have several entries.

    Returns:
        0 where they are too few to rule anything out (eight people or fewer).
    """
    people = people or len(true_probabilities)
    needed = int(np.ceil((people + 1) * COVERAGE))  # plus one: the person to come
    if needed > people:
        return 0.0
    rank = int(np.ceil(len(true_probabilities) * needed / people))
    return float(np.sort(true_probabilities)[len(true_probabilities) - rank])


def in_set(probabilities: FloatArray, threshold: Float64Array, *, ordered: bool) -> BoolArray:
    """Return which stages are in each set, bool of shape (n, K).

    The likeliest stage is always in.

    Args:
        probabilities: Shape (n, K).
        threshold: Conformal threshold of each row, shape (n,).
        ordered: Whether the K stages are in clinical order; a stage between two that are in is then in too.
    """
    inside = (probabilities >= threshold[:, None]) | (
        probabilities == probabilities.max(axis=1, keepdims=True, initial=0)
    )
    if not ordered:
        return inside
    from_below = np.logical_or.accumulate(inside, axis=1)
    from_above = np.logical_or.accumulate(inside[:, ::-1], axis=1)[:, ::-1]
    return from_below & from_above


def describe_set(stages: Sequence[str], classes: int, population: str) -> str:
    """Say in words what a prediction set means: a statement about a population, not about a person.

    Args:
        stages: Names of the stages in the set.
        classes: Number of stages that there are.
        population: The people whom the sets were fitted to, such as ``the 200 of the OASIS-1 study``.
    """
    if len(stages) == classes:
        return f"Among people like {population}, no stage is ruled out"
    return f"Among people like {population}, not ruled out: {', '.join(stages)}"


def _power_of_two(count: int) -> int:
    """Return the largest power of two that is not above ``count``."""
    return int(2 ** (count.bit_length() - 1))


def _pieces(stacks: IntArray, size: int) -> Iterator[IntArray]:
    """Yield the rows of each piece of ``size`` slices that sorted stacks are cut into; a remainder is left out."""
    for rows in np.split(np.arange(len(stacks)), np.flatnonzero(np.diff(stacks)) + 1):
        yield from rows[: len(rows) // size * size].reshape(-1, size)


def _fit(scores: FloatArray, labels: IntArray, people: IntArray) -> CalibrationParameters:
    """Fit to stacks of equally many slices.

    Args:
        scores: Shape (m, slices, K).
        labels: Shape (m,).
        people: Person of each stack, shape (m,).
    """
    logits, rows = _log(scores), np.arange(len(labels))
    names, first, person = np.unique(people, return_index=True, return_inverse=True)
    part_of = np.empty(len(names), dtype=np.int64)
    part_of[np.argsort(labels[first], kind="stable")] = np.arange(len(names)) % PARTS  # each stage in every part
    parts = part_of[person]
    true_probabilities = np.zeros(len(labels))
    if len(names) > PARTS:  # fewer cannot rule out anything
        for part in range(PARTS):
            rest, held_out = rows[parts != part], rows[parts == part]
            temperature = _temperature(logits[rest], labels[rest])
            probabilities = _softmax(logits[held_out], temperature).mean(axis=1)
            true_probabilities[held_out] = probabilities[np.arange(len(held_out)), labels[held_out]]
    return CalibrationParameters(_temperature(logits, labels), conformal_threshold(true_probabilities, len(names)))


def _temperature(logits: Float64Array, labels: IntArray) -> float:
    """Return the temperature of the lowest log loss of stacks' means: logits (m, slices, K), labels (m,)."""
    from scipy.optimize import minimize_scalar  # prediction does not wait for its import

    rows = np.arange(len(labels))

    def log_loss(log_temperature: float) -> float:
        probabilities = _softmax(logits, float(np.exp(log_temperature))).mean(axis=1)[rows, labels]
        return float(-np.log(np.clip(probabilities, _SMALLEST_PROBABILITY, 1)).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-4}).x))


def _log(scores: FloatArray) -> Float64Array:
    logits: Float64Array = np.log(np.clip(scores.astype(np.float64), _SMALLEST_PROBABILITY, 1))
    return logits


def _softmax(logits: Float64Array, temperature: float | Float64Array) -> Float64Array:
    scaled = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    probabilities: Float64Array = scaled / scaled.sum(axis=-1, keepdims=True)
    return probabilities
