"""The people of the phantom cohort: diagnoses, sessions, and what is wrong with the last of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

DIAGNOSES = ("CN", "MCI", "AD")
"""Cognitively normal, mild cognitive impairment, Alzheimer's disease."""
DIAGNOSIS_SHARES = (0.5, 0.3, 0.2)
SECOND_SESSION_SHARE = 1 / 3
CONVERSION_SHARE = 0.25
"""Share of the people with two sessions and without Alzheimer's disease whose diagnosis is worse at the second."""
ATROPHY_STEP, ATROPHY_SPREAD = 0.55, 0.55
"""Atrophy from one diagnosis to the next, and its standard deviation between people of one diagnosis."""
FIELD_STRENGTHS = {"A": 1.5, "B": 3.0, "C": 3.0}
"""Tesla of each site's scanner."""
MIN_PARTICIPANTS = 5
MIN_PARTICIPANTS_WITH_DEFECTS = 12
FOUR_DIMENSIONAL = "holds two volumes (4D)"
EMPTY = "is empty (0 bytes)"
NOT_T1W = "is not T1-weighted: its contrast is inverted"
NO_SCAN = "is in participants.tsv and has no scan"
NOT_LISTED = "is not in participants.tsv"
DUPLICATE = "shows the same brain as sub-001, its voxels stored in another order"
NO_DIAGNOSIS = "has no diagnosis (n/a)"
UNKNOWN_DIAGNOSIS = "has the unknown diagnosis XX"
DEFECTS = (FOUR_DIMENSIONAL, EMPTY, NOT_T1W, NO_SCAN, NOT_LISTED, DUPLICATE, NO_DIAGNOSIS, UNKNOWN_DIAGNOSIS)
"""What is wrong with the last participants, in their order."""


@dataclass(frozen=True)
class Session:
    """One visit of a participant.

    Attributes:
        name: ``ses-01`` or ``ses-02``.
        diagnosis: One of :data:`DIAGNOSES`, or that of a defect.
        atrophy: What the effects follow: about 0 for CN and 1.1 for AD.
    """

    name: str
    diagnosis: str
    atrophy: float


@dataclass(frozen=True)
class Participant:
    """A synthetic person.

    Attributes:
        name: ``sub-001`` and so on.
        number: Number of the brain: of equal numbers the brains are equal.
        age: Years at the first session.
        sex: ``F`` or ``M``.
        site: One of :data:`FIELD_STRENGTHS`.
        sessions: One or two.
        defect: One of :data:`DEFECTS`, or None.
    """

    name: str
    number: int
    age: int
    sex: str
    site: str
    sessions: tuple[Session, ...]
    defect: str | None = None


def draw_participants(count: int, *, defects: bool = True, seed: int = 0) -> list[Participant]:
    """Draw the people of a cohort.

    Args:
        count: Number of people.
        defects: Whether the last have one defect each; only from 12 people on.
        seed: Seed of the cohort.
    """
    rng = np.random.default_rng([seed, count])
    kinds = DEFECTS if defects and count >= MIN_PARTICIPANTS_WITH_DEFECTS else ()
    sound = count - len(kinds)
    people = [_participant(number, stage, rng) for number, stage in enumerate(_stages(sound, rng), start=1)]
    for number, defect in enumerate(kinds, start=sound + 1):
        person = _participant(number, int(rng.integers(len(DIAGNOSES))), rng)
        people.append(_with_defect(person, defect, people[0]))
    return people


def _stages(count: int, rng: np.random.Generator) -> list[int]:
    """Return the diagnoses of people, as indices into :data:`DIAGNOSES` in random order."""
    ends = np.round(np.cumsum(DIAGNOSIS_SHARES) * count)
    stages = np.searchsorted(ends, np.arange(count), side="right")
    return [int(stage) for stage in rng.permutation(stages)]


def _participant(number: int, stage: int, rng: np.random.Generator) -> Participant:
    atrophy = ATROPHY_STEP * stage + rng.normal(0, ATROPHY_SPREAD)
    sessions = [Session("ses-01", DIAGNOSES[stage], atrophy)]
    converts = stage < len(DIAGNOSES) - 1 and rng.random() < CONVERSION_SHARE
    if rng.random() < SECOND_SESSION_SHARE:
        later = ATROPHY_STEP if converts else 0.2 * ATROPHY_STEP
        sessions.append(Session("ses-02", DIAGNOSES[stage + converts], atrophy + later))
    return Participant(
        name=f"sub-{number:03d}",
        number=number,
        age=int(np.clip(rng.normal(71 + 4 * atrophy, 6), 55, 90)),
        sex=str(rng.choice(["F", "M"])),
        site=str(rng.choice(list(FIELD_STRENGTHS))),
        sessions=tuple(sessions),
    )


def _with_defect(person: Participant, defect: str, original: Participant) -> Participant:
    """Return a person with one session and a defect; a duplicate is all that the original is."""
    if defect == DUPLICATE:
        return replace(original, name=person.name, sessions=original.sessions[:1], defect=defect)
    diagnoses = {NO_DIAGNOSIS: "n/a", UNKNOWN_DIAGNOSIS: "XX"}
    first = person.sessions[0]
    session = replace(first, diagnosis=diagnoses.get(defect, first.diagnosis))
    return replace(person, sessions=(session,), defect=defect)
