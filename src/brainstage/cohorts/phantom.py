"""The phantom cohort of volumes: a BIDS dataset of synthetic brains whose differences are known.

Each brain is the MNI152 template, bent at random, with ventricles and hippocampi that follow the diagnosis with as
much overlap as makes staging hard. It says nothing about real brains.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, label, map_coordinates

from brainstage.core.arrays import Float32Array, Float64Array, IntArray
from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, make_folder, write_json, write_text
from brainstage.core.parallel import parallel_map
from brainstage.core.progress import Progress, silent
from brainstage.core.run import StrPath
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.volume import Volume

GENERATOR = "brainstage data phantom"
"""Name of what made a dataset, in its ``dataset_description.json``."""
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
EFFECTS = ("ventricles", "hippocampus")
"""What can change with atrophy."""

RESOLUTION = 2
"""Millimetres between voxels of the template that is bent."""
VENTRICLE_SEEDS = ((14, -30, 20), (-14, -30, 20))
"""A point in each lateral ventricle of MNI152, in millimetres."""
MAX_FLUID = 0.42
"""Grey value of the template below which a voxel is fluid: between its fluid, 0.3, and grey matter, 0.65."""
VENTRICLE_SHIFT, VENTRICLE_BLUR = 2.0, 4.0
"""Millimetres by which a unit of atrophy moves the ventricles' walls, and how far around them that reaches."""
HIPPOCAMPI = ((27, -21, -16), (-27, -21, -16))
"""Centres of the hippocampi in MNI152, in millimetres."""
HIPPOCAMPUS_WIDTH = (6.0, 10.0, 5.0)
"""Standard deviations in millimetres of the bell in which a hippocampus changes: to the right, front and top."""
HIPPOCAMPUS_SHRINKAGE, HIPPOCAMPUS_DARKENING = 0.15, 0.10
"""Shares by which a unit of atrophy shrinks and darkens a hippocampus."""
BEND_SHIFT, BEND_COSINES = 2.0, 6
"""Standard deviation of the random displacement in millimetres, and how many cosines along each axis make it up."""
FIELD_OF_VIEW = ((-92.0, -126.0, -92.0), (92.0, 98.0, 104.0))
"""Corners of the field of view in millimetres, before some are cut."""

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


class _Template(NamedTuple):
    """MNI152 at :data:`RESOLUTION`, and how atrophy changes it."""

    brain: Float32Array  # grey values from 0 to 1, 0 around the brain, shape (I, J, K)
    affine: Float64Array  # from voxels to millimetres, shape (4, 4)
    to_ventricles: Float32Array  # voxels towards the lateral ventricles' walls, at most 1, shape (3, I, J, K)
    from_hippocampi: Float32Array  # voxels away from the hippocampi's centres, shape (3, I, J, K)
    hippocampi: Float32Array  # bells around those centres, from 0 to 1, shape (I, J, K)


def write_phantom_bids(
    folder: StrPath,
    *,
    participants: int = 60,
    effects: tuple[str, ...] = EFFECTS,
    defects: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, str]:
    """Write a cohort of T1-weighted brains without skull as a BIDS dataset. Equal arguments write equal bytes.

    A third of the people have two sessions, and a few of these convert to the next diagnosis. Volumes differ in
    orientation, spacing, field of view, brightness, bias field and noise as those of scanners do.

    Args:
        folder: Folder to write to; it must be empty or missing.
        participants: Number of people, those with a defect among them.
        effects: What changes with atrophy, of :data:`EFFECTS`.
        defects: Whether the last people have one defect each, of :data:`DEFECTS`; only from 12 people on.
        seed: Seed of the cohort.
        progress: How to show progress.

    Returns:
        What is wrong with each scan that has a defect, by its path in ``folder``; by the participant's folder where
        there is no scan.

    Raises:
        ConfigError: There are fewer than 5 people, an effect is not known, or the folder is not empty.
        RunError: The folder is not writable.
    """
    folder = Path(folder)
    if participants < MIN_PARTICIPANTS:
        raise ConfigError(f"participants: {participants} is too few; give {MIN_PARTICIPANTS} or more")
    unknown = sorted(set(effects) - set(EFFECTS))
    if unknown:
        raise ConfigError(f"effects: {unknown[0]!r} is not one of {', '.join(EFFECTS)}")
    if any(make_folder(folder).iterdir()):
        raise ConfigError(f"{folder}: is not empty; choose another folder")
    people = draw_participants(participants, defects=defects, seed=seed)
    scans = [(person, session) for person in people if person.defect != NO_SCAN for session in person.sessions]
    _write_tables(folder, people)
    _template()  # once, not in each thread
    write = partial(_write_scan, folder=folder, effects=effects, seed=seed)
    with progress("Drawing the phantom cohort", len(scans)) as advance:
        parallel_map(write, scans, done=lambda _: advance(1))
    return {_place_of_defect(person): person.defect for person in people if person.defect}


# --- people -----------------------------------------------------------------------------------------------------


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


# --- brains -----------------------------------------------------------------------------------------------------


def draw_brain(
    person: Participant, session: Session, *, effects: tuple[str, ...] = EFFECTS, seed: int = 0
) -> Volume:
    """Draw the brain of a participant at a session: whole grey values, 0 around the brain, axes in RAS+ order.

    The shape is the person's own; position, voxels and noise are those of the session.

    Args:
        person: The participant.
        session: One of the person's sessions.
        effects: What changes with atrophy, of :data:`EFFECTS`.
        seed: Seed of the cohort.
    """
    scanner = np.random.default_rng([seed, person.number, int(session.name[-2:])])
    anatomy = draw_anatomy(person.number, session.atrophy, effects=effects, seed=seed)
    size = anatomy.affine[:3, :3] @ np.linalg.inv(_template().affine[:3, :3])
    return _acquired(anatomy.voxels, _turn(scanner) @ size, FIELD_STRENGTHS[person.site], scanner)


def draw_anatomy(number: int, atrophy: float, *, effects: tuple[str, ...] = EFFECTS, seed: int = 0) -> Volume:
    """Draw a brain before any scanner: the template, bent and of another size, where the template lies.

    Args:
        number: Number of the brain.
        atrophy: What the effects follow: about 0 for CN and 1.1 for AD.
        effects: What changes with atrophy, of :data:`EFFECTS`.
        seed: Seed of the cohort.
    """
    rng = np.random.default_rng([seed, number])
    size = np.diag([*rng.normal(1, 0.03, 3), 1.0])
    return Volume(_bent(_random_bend(rng), atrophy, effects), size @ _template().affine)


@cache
def _template() -> _Template:
    """Return the template, which comes with the package (Fonov et al. 2011, NeuroImage 54, 313)."""
    file = files("brainstage.scans").joinpath(f"templates/mni152_{RESOLUTION}mm.nii.gz")
    volume = decode_nifti(file.read_bytes(), file.name)
    brain, affine = volume.voxels / np.float32(255), volume.affine
    return _Template(brain, affine, _to_ventricles(brain, affine), *_around_hippocampi(brain.shape, affine))


def _to_ventricles(brain: Float32Array, affine: Float64Array) -> Float32Array:
    """Return directions of shape (3, I, J, K) along which the lateral ventricles come nearer, at most 1 long."""
    fluid, _ = label((brain > 0) & (brain < MAX_FLUID))
    seeds = np.linalg.inv(affine) @ np.vstack([np.transpose(VENTRICLE_SEEDS), np.ones(len(VENTRICLE_SEEDS))])
    i, j, k = seeds[:3].round().astype(int)
    ventricles = np.isin(fluid, fluid[i, j, k]).astype(np.float32)
    slopes = np.stack(np.gradient(gaussian_filter(ventricles, VENTRICLE_BLUR / RESOLUTION)))
    return slopes / np.linalg.norm(slopes, axis=0).max()


def _around_hippocampi(shape: tuple[int, ...], affine: Float64Array) -> tuple[Float32Array, Float32Array]:
    """Return the steps from the hippocampi's centres in voxels, (3, I, J, K), times bells, and these, (I, J, K)."""
    millimetres = np.tensordot(affine[:3, :3], np.indices(shape), axes=1) + affine[:3, 3, None, None, None]
    steps, bells = np.zeros((3, *shape), np.float32), np.zeros(shape, np.float32)
    for centre in HIPPOCAMPI:
        away = millimetres - np.reshape(centre, (3, 1, 1, 1))
        bell = np.exp(-np.square(away / np.reshape(HIPPOCAMPUS_WIDTH, (3, 1, 1, 1))).sum(axis=0) / 2)
        steps += (away * bell / RESOLUTION).astype(np.float32)
        bells += bell.astype(np.float32)
    return steps, bells


def _random_bend(rng: np.random.Generator) -> Float32Array:
    """Return a smooth random displacement of the template's voxels, in voxels, shape (3, I, J, K).

    It is a sum of cosines, as in SPM's spatial normalisation (Ashburner and Friston 1999, Human Brain Mapping 7,
    254).
    """
    i, j, k = (_cosines(side) for side in _template().brain.shape)
    weights = rng.standard_normal((3, *[BEND_COSINES] * 3))
    bend = np.einsum("abcd,bi,cj,dk->aijk", weights, i, j, k, optimize=True)
    return (bend * (BEND_SHIFT / RESOLUTION / bend.std())).astype(np.float32)


def _cosines(side: int) -> Float64Array:
    """Return half a wave, a whole one and so on along an axis, shape (BEND_COSINES, side)."""
    waves: Float64Array = np.cos(np.pi * np.outer(np.arange(BEND_COSINES), (np.arange(side) + 0.5) / side))
    return waves


def _bent(bend: Float32Array, atrophy: float, effects: tuple[str, ...]) -> Float32Array:
    """Return the template's grey values, each taken from the place that displacement and atrophy point to."""
    template = _template()
    places = np.indices(template.brain.shape, dtype=np.float32) + bend
    shading = np.ones_like(template.brain)
    if "ventricles" in effects:
        places += template.to_ventricles * np.float32(atrophy * VENTRICLE_SHIFT / RESOLUTION)
    if "hippocampus" in effects:
        places += template.from_hippocampi * np.float32(atrophy * HIPPOCAMPUS_SHRINKAGE)
        shading -= template.hippocampi * np.float32(atrophy * HIPPOCAMPUS_DARKENING)
    return map_coordinates(template.brain, places, order=1) * shading


def _turn(rng: np.random.Generator) -> Float64Array:
    """Return a rotation by a few degrees about each axis, shape (3, 3)."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(rng.normal(0, 5, 3))):
        plane = np.ix_(*[[(axis + 1) % 3, (axis + 2) % 3]] * 2)
        turn[plane] = turn[plane] @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def _acquired(brain: Float32Array, shape: Float64Array, tesla: float, rng: np.random.Generator) -> Volume:
    """Return a brain on the template's voxels as a scanner shows it.

    Args:
        brain: float32 of shape (I, J, K).
        shape: From millimetres of the template to those of the scanner, shape (3, 3).
        tesla: Field strength, to which the signal is proportional.
        rng: Position, voxels, brightness and noise are drawn from it.
    """
    low, high = _field_of_view(rng)
    spacing = rng.uniform(1, 2.2, 3) if rng.random() < 0.4 else np.full(3, rng.uniform(1, 2.2))
    sides = np.floor((high - low) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    to_template = np.eye(4)
    to_template[:3, :3] = np.linalg.inv(shape)
    to_voxels = np.linalg.inv(_template().affine) @ to_template @ affine
    values = affine_transform(brain, to_voxels, output_shape=tuple(sides), order=1)
    signal = values * _bias(values.shape, rng)
    noise = rng.uniform(0.02, 0.04) / tesla * rng.standard_normal((2, *sides), np.float32)
    greys = np.hypot(signal + noise[0], noise[1]) * 10 ** rng.uniform(2.3, 4)
    greys = np.where(values > MAX_FLUID / 2, greys, 0).astype(np.float32)
    affine[:3, 3] += rng.normal(0, 10, 3)  # the origin of a scanner is not that of MNI152
    return Volume(greys.round(), affine)


def _field_of_view(rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    """Return its corners in millimetres; a fifth lack the base of the brain, a fifth its top."""
    low, high = (np.add(corner, rng.uniform(-6, 6, 3)) for corner in FIELD_OF_VIEW)
    cut = rng.random()
    if cut < 0.2:
        low[2] = rng.uniform(-60, -40)
    elif cut < 0.4:
        high[2] = rng.uniform(60, 75)
    return low, high


def _bias(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Return a bias field of that shape: one to within some tenths, smooth, the exponential of a parabola."""
    field = np.zeros(shape, np.float32)
    for axis, (slope, curve) in enumerate(rng.normal(0, 0.08, (3, 2))):
        at = np.linspace(-1, 1, shape[axis], dtype=np.float32)
        field += np.expand_dims(slope * at + curve * at**2, tuple({0, 1, 2} - {axis})).astype(np.float32)
    return np.exp(field)


# --- files ------------------------------------------------------------------------------------------------------


def _write_scan(scan: tuple[Participant, Session], *, folder: Path, effects: tuple[str, ...], seed: int) -> None:
    """Write a session's volume and its sidecar."""
    person, session = scan
    path = folder / _scan_path(person, session)
    make_folder(path.parent)
    with atomic(path) as part:
        part.write_bytes(b"" if person.defect == EMPTY else _encoded(person, session, effects, seed))
    write_json(
        path.with_name(path.name.replace(".nii.gz", ".json")),
        {
            "Manufacturer": "phantom",
            "ManufacturersModelName": f"brainstage {version('brainstage')}",
            "MagneticFieldStrength": FIELD_STRENGTHS[person.site],
            "InstitutionName": f"Site {person.site}",
        },
    )


def _encoded(person: Participant, session: Session, effects: tuple[str, ...], seed: int) -> bytes:
    """Return the bytes of a session's NIfTI file."""
    volume = draw_brain(person, session, effects=effects, seed=seed)
    voxels = volume.voxels
    if person.defect == NOT_T1W:
        voxels = np.where(voxels > 0, voxels.max() - voxels, 0)
    if person.defect == FOUR_DIMENSIONAL:
        voxels = np.stack([voxels, voxels], axis=-1)
    image: Any = nib.Nifti1Image(voxels.astype(np.int16), volume.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    stored = image.as_reoriented(_storage_order(person, session, seed))
    return gzip.compress(stored.to_bytes(), compresslevel=1, mtime=0)


def _storage_order(person: Participant, session: Session, seed: int) -> IntArray:
    """Return where each axis is stored and in which direction: nibabel's orientation, shape (3, 2)."""
    rng = np.random.default_rng([seed, person.number, int(session.name[-2:]), 1])
    order = np.stack([rng.permutation(3), rng.choice([-1, 1], 3)], axis=1)
    if person.defect == DUPLICATE:
        order[:, 0] = (order[:, 0] + 1) % 3
    return order


def _scan_path(person: Participant, session: Session) -> str:
    return f"{person.name}/{session.name}/anat/{person.name}_{session.name}_T1w.nii.gz"


def _place_of_defect(person: Participant) -> str:
    return person.name if person.defect == NO_SCAN else _scan_path(person, person.sessions[0])


def _write_tables(folder: Path, people: Sequence[Participant]) -> None:
    """Write what a BIDS dataset has beside its scans."""
    write_json(folder / "dataset_description.json", _description())
    write_text(folder / "README", _README)
    write_json(folder / "participants.json", _COLUMNS)
    listed = [person for person in people if person.defect != NOT_LISTED]
    _write_tsv(
        folder / "participants.tsv",
        ("participant_id", "age", "sex", "site", "diagnosis"),
        ((one.name, one.age, one.sex, one.site, one.sessions[0].diagnosis) for one in listed),
    )
    for person in people:
        if len(person.sessions) > 1:
            file = make_folder(folder / person.name) / f"{person.name}_sessions.tsv"
            rows = ((session.name, session.diagnosis) for session in person.sessions)
            _write_tsv(file, ("session_id", "diagnosis"), rows)
            write_json(file.with_suffix(".json"), {"diagnosis": _COLUMNS["diagnosis"]})


def _write_tsv(target: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([header, *rows])
    write_text(target, text.getvalue())


def _description() -> dict[str, object]:
    return {
        "Name": f"brainstage phantom cohort ({SYNTHETIC_NOTICE})",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "Authors": ["The brainstage developers"],
        "GeneratedBy": [{"Name": GENERATOR, "Version": version("brainstage"), "Description": SYNTHETIC_NOTICE}],
        "ReferencesAndLinks": ["Fonov et al. 2011, NeuroImage 54, 313"],
    }


_COLUMNS: dict[str, object] = {
    "age": {"Description": "Age at the first session", "Units": "year"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "site": {
        "Description": "Where the scans were drawn to have been made",
        "Levels": {site: f"{tesla} tesla" for site, tesla in FIELD_STRENGTHS.items()},
    },
    "diagnosis": {
        "Description": "Diagnosis; in participants.tsv that of the first session",
        "Levels": {
            "CN": "cognitively normal",
            "MCI": "mild cognitive impairment",
            "AD": "dementia due to Alzheimer's disease",
        },
    },
}

_README = f"""\
# Phantom cohort

These brains are {SYNTHETIC_NOTICE}. No person was scanned.

`brainstage data phantom --bids` made them from the ICBM 152 nonlinear symmetric 2009a template (Fonov et al. 2011,
NeuroImage 54, 313), bent at random. Ventricles and hippocampi follow the diagnosis. The brains have no skull.

The template is Copyright (C) 1993–2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University.
"""
