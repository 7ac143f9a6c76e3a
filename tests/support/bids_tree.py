"""A small BIDS dataset for tests: the template's brain, bent, moved and turned anew for each person."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from brainstage.scans.volume import Volume
from volumes import ORIENTATIONS, brain, turned, write_nifti

STAGES = ("CN", "MCI", "AD")


def write_brain(file, seed):
    """Write a brain of its own shape, size, place and orientation."""
    rng = np.random.default_rng(seed)
    move = np.eye(4)
    move[:3, :3] *= rng.uniform(0.95, 1.05, 3)
    move[:3, 3] = rng.uniform(-10, 10, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    own = bent(brain((4.0, 4.0, 4.0), move), rng)
    write_nifti(file, turned(own, *ORIENTATIONS[rng.integers(48)]), dtype=np.int16)


def bent(volume, rng, voxels=0.8):
    """Return a brain of another shape inside: each point moved smoothly by about so many voxels along each axis."""
    ways = [gaussian_filter(rng.normal(size=volume.voxels.shape), 3) for _ in range(3)]
    at = [
        index + voxels * way / way.std() for index, way in zip(np.indices(volume.voxels.shape), ways, strict=True)
    ]
    return Volume(map_coordinates(volume.voxels, at, order=1), volume.affine)


def write_bids(folder, people=6, rows=()):
    for number in range(people):
        write_brain(folder / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz", number)
    lines = ["participant_id\tage\tsex\tdiagnosis"]
    lines += [
        f"sub-{number:02d}\t{60 + number}\t{'MF'[number % 2]}\t{STAGES[number % 3]}" for number in range(people)
    ]
    (folder / "participants.tsv").write_text("\n".join([*lines, *rows]) + "\n")
    return folder
