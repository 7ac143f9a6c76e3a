"""Brains in any position to slices as the training data has them."""

import numpy as np
import pytest

from brainstage.core.errors import DataError
from brainstage.core.schema import SLICE_SIDE, STACK_LEVELS
from brainstage.scans.dicom import decode_dicom
from brainstage.scans.registration import mapped, register
from brainstage.scans.stack import training_slice, training_stack
from brainstage.scans.volume import Volume
from volumes import brain, turned, with_skull, write_series

MOVED = np.array(
    [
        [1.05, 0.10, -0.05, 12.0],
        [-0.10, 0.95, 0.20, -20.0],
        [0.05, -0.20, 1.00, 31.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Turned by about a dozen degrees, shifted by four centimetres, a few per cent longer and narrower."""


@pytest.fixture(scope="module")
def straight():
    stack, levels = training_stack(brain(), "a")
    assert levels == list(range(STACK_LEVELS))
    return stack


def test_a_moved_brain_is_found_again_to_a_fraction_of_a_millimetre():
    straight, moved = register(brain()), register(brain(moved=MOVED))
    corners = np.array([[-60, 60, -60, 60], [-90, 60, 60, -90], [-40, -40, 70, 70]], dtype=float)
    expected = mapped(MOVED @ straight.affine, corners)
    assert np.linalg.norm(mapped(moved.affine, corners) - expected, axis=0).max() < 0.5
    assert np.linalg.norm(mapped(straight.affine, corners) - corners, axis=0).max() < 1.5
    assert moved.similarity > 0.85
    assert moved.outside < 0.01


def test_the_stack_does_not_hang_on_how_the_brain_lies_in_the_file(straight):
    assert straight.shape == (STACK_LEVELS, SLICE_SIDE, SLICE_SIDE)
    assert straight.dtype == np.uint8
    volume = turned(brain((2.0, 1.5, 2.5), MOVED), (2, 0, 1), (-1, 1, -1))
    stack, _ = training_stack(Volume(volume.voxels * 7, volume.affine), "a")
    apart = np.abs(stack.astype(int) - straight)
    assert apart.mean() < 3


def test_the_nose_points_down_and_levels_rise(straight):
    # the front of the brain is narrower than the back, and the brain narrows towards the top
    width = (straight > 60).sum(axis=2)
    middle = width[16]
    inside = np.flatnonzero(middle)
    back, front = inside[: len(inside) // 4], inside[-(len(inside) // 4) :]
    assert middle[back].mean() > middle[front].mean()
    assert width[0].sum() > width[-1].sum()


def test_the_right_side_comes_first():
    volume = brain()
    right = mapped(volume.affine, np.stack(np.nonzero(volume.voxels >= 0)).astype(float))[0] > 0
    dimmed = Volume(
        np.where(right.reshape(volume.voxels.shape), 1.0, 0.8).astype(np.float32) * volume.voxels, volume.affine
    )
    stack = training_stack(dimmed, "a")[0].astype(float)
    assert stack[:, :, :64].sum() > 1.1 * stack[:, :, 64:].sum()


def test_levels_that_a_volume_lacks_are_left_out(straight):
    volume = brain()
    top = round((22 - volume.affine[2, 3]) / 2)  # 22 mm above the template's origin
    stack, levels = training_stack(Volume(volume.voxels[:, :, :top], volume.affine), "a")
    assert 16 <= len(levels) == len(stack) <= 24
    assert levels == list(range(len(levels)))
    assert np.abs(stack.astype(int) - straight[levels]).mean() < 6
    with pytest.raises(DataError, match="of the 32 levels from the thalamus upwards, too few"):
        training_stack(Volume(volume.voxels[:, :, : top - 6], volume.affine), "a")


def noise(volume):
    return Volume(np.random.default_rng(0).random(volume.voxels.shape).astype(np.float32), volume.affine)


def ball(volume):
    index = np.stack(np.meshgrid(*map(np.arange, volume.voxels.shape), indexing="ij")).reshape(3, -1)
    near = np.linalg.norm(mapped(volume.affine, index.astype(float)).T - [0, -20, 10], axis=1) < 65
    return Volume(near.reshape(volume.voxels.shape).astype(np.float32), volume.affine)


@pytest.mark.parametrize(
    ("change", "says"),
    [(with_skull, "with its skull"), (noise, "with its skull|does not look like"), (ball, "does not look like")],
)
def test_what_is_no_bare_brain_is_refused(change, says):
    with pytest.raises(DataError, match=says) as told:
        training_stack(change(brain((3, 3, 3))), "scan.nii")
    assert str(told.value).startswith("scan.nii: ")


def test_a_single_axial_picture_is_oriented_and_scaled(tmp_path, straight):
    volume = turned(brain(), (1, 0, 2), (-1, 1, 1))
    number = round((20 - volume.affine[2, 3]) / 2)
    (file,) = write_series(tmp_path / "a", volume, order=[number]).iterdir()
    slice_ = training_slice(decode_dicom([("a", file.read_bytes())], "a"), "a")
    assert slice_.shape == (SLICE_SIDE, SLICE_SIDE)
    alike = [np.corrcoef(slice_.ravel(), one.ravel())[0, 1] for one in straight]
    assert max(alike) > 0.95
    assert abs(int(np.argmax(alike)) - 20) < 4


def test_a_single_picture_in_another_plane_is_refused(tmp_path):
    (file,) = write_series(tmp_path / "a", turned(brain(), (2, 1, 0), (1, 1, 1)), order=[50]).iterdir()
    with pytest.raises(DataError, match="not axial"):
        training_slice(decode_dicom([("a", file.read_bytes())], "a"), "a")
