"""The phantom cohort of volumes: a BIDS dataset of synthetic brains whose differences are known."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainstage.cohorts.phantom_brains import EFFECTS, draw_brain, load_template
from brainstage.cohorts.phantom_people import (
    DUPLICATE,
    EMPTY,
    FIELD_STRENGTHS,
    FOUR_DIMENSIONAL,
    MIN_PARTICIPANTS,
    NO_SCAN,
    NOT_LISTED,
    NOT_T1W,
    Participant,
    Session,
    draw_participants,
)
from brainstage.core.arrays import IntArray
from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, make_folder, write_json, write_text
from brainstage.core.parallel import parallel_map
from brainstage.core.progress import Progress, silent
from brainstage.core.run import StrPath
from brainstage.core.schema import SYNTHETIC_NOTICE

GENERATOR = "brainstage data phantom"
"""Name of what made a dataset, in its ``dataset_description.json``."""


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
    load_template()  # once, not in each thread
    write = partial(_write_scan, folder=folder, effects=effects, seed=seed)
    with progress("Drawing the phantom cohort", len(scans)) as advance:
        parallel_map(write, scans, done=lambda _: advance(1))
    return {_place_of_defect(person): person.defect for person in people if person.defect}


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
