"""People of every stage, moved as a scanner might: they are read, where they belong."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brainstage.core.levels import PUBLIC
from brainstage.core.parallel import parallel_map
from brainstage.core.schema import STACK_LEVELS, STAGES
from brainstage.datasets.sources import load_slices
from brainstage.scans.registration import grid_points, mapped, register
from brainstage.scans.stack import TRAINING_GRID, cut, refusal, too_few
from brainstage.scans.volume import Volume
from volumes import turned

MOVED = np.eye(4)
MOVED[:3, :3] = Rotation.from_euler("xyz", [8, -6, 7], degrees=True).as_matrix()
MOVED[:3, 3] = (-12, 14, -15)


@pytest.fixture(scope="module")
def stacks(real_folder):
    """Return the slices of three people of each stage, two of Moderate, as volumes that their headers move."""
    slices = load_slices(real_folder)
    levels = slices.rows["slice_index"].to_pylist()
    volumes = {}
    for stage in STAGES:
        people = sorted(
            {patient for patient, label in zip(slices.patients, slices.labels, strict=True) if label == stage}
        )
        for person in people[:3]:
            rows = [row for row, patient in enumerate(slices.patients) if patient == person]
            stack = np.stack([slices.images[row] for row in sorted(rows, key=lambda row: levels[row])])
            volume = Volume(stack.astype(np.float32), MOVED @ TRAINING_GRID)
            volumes[f"{stage} {person}"] = turned(volume, (2, 0, 1), (-1, 1, -1))
    return volumes


def test_slabs_of_every_stage_are_read_within_six_millimetres_of_their_place(stacks):
    assert len(stacks) == 11
    for name, registration in zip(stacks, parallel_map(register, list(stacks.values())), strict=True):
        points = mapped(TRAINING_GRID, grid_points((STACK_LEVELS, 128, 128))[:, ::101])
        apart = np.linalg.norm(mapped(registration.affine, points) - mapped(MOVED, points), axis=0)
        assert apart.mean() < 6, name
        assert refusal(registration) is None, name
        assert too_few(cut(stacks[name], registration)[1], PUBLIC) is None, name


@pytest.mark.parametrize("signs", [(-1, -1, 1), (1, -1, -1)], ids=["nose to the back", "upside down"])
def test_slabs_with_a_wrong_header_are_refused(stacks, signs):
    volume = next(iter(stacks.values()))
    wrong = register(Volume(volume.voxels, np.diag([*signs, 1.0]) @ volume.affine))
    assert "does not look like a T1-weighted brain" in refusal(wrong)


def test_the_contrast_of_t2_is_refused(stacks):
    volume = next(iter(stacks.values()))
    inverted = np.where(volume.voxels > 20, 260 - volume.voxels, 0).astype(np.float32)
    assert "does not look like a T1-weighted brain" in refusal(register(Volume(inverted, volume.affine)))
