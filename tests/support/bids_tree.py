"""A small BIDS dataset for tests: the template's brain, of another size, place and orientation for each person."""

import numpy as np

from volumes import ORIENTATIONS, brain, turned, write_nifti

STAGES = ("CN", "MCI", "AD")


def write_brain(file, seed):
    """Write a brain of its own size, place and orientation."""
    rng = np.random.default_rng(seed)
    move = np.eye(4)
    move[:3, :3] *= rng.uniform(0.95, 1.05, 3)
    move[:3, 3] = rng.uniform(-10, 10, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(file, turned(brain((4.0, 4.0, 4.0), move), *ORIENTATIONS[rng.integers(48)]), dtype=np.int16)


def write_bids(folder, people=6, rows=()):
    for number in range(people):
        write_brain(folder / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz", number)
    lines = ["participant_id\tage\tsex\tdiagnosis"]
    lines += [
        f"sub-{number:02d}\t{60 + number}\t{'MF'[number % 2]}\t{STAGES[number % 3]}" for number in range(people)
    ]
    (folder / "participants.tsv").write_text("\n".join([*lines, *rows]) + "\n")
    return folder
