"""Brains taken out of heads: what the training data shows, whatever the light and the header."""

import numpy as np
import pytest

from brainstage.core.errors import ConfigError, RefusalError
from brainstage.scans import skull_strip
from brainstage.scans.registration import mapped, register
from brainstage.scans.skull_strip import brain_mask, extract_brain
from brainstage.scans.stack import MAX_OUTSIDE, refusal, training_stack
from brainstage.scans.volume import Volume
from volumes import brain, with_skull

MOVED = np.array([[0.98, -0.17, 0, 20.0], [0.17, 0.98, 0, -35.0], [0, 0, 1, 15.0], [0, 0, 0, 1.0]])
"""Turned by ten degrees, and moved."""


def lit(volume, strength=0.3):
    """Return a volume that is brighter on one side."""
    field = np.exp(np.linspace(-strength, strength, volume.voxels.shape[0]))
    return Volume((volume.voxels * field[:, None, None]).astype(np.float32), volume.affine)


@pytest.fixture(scope="module")
def head():
    return with_skull(brain((3.0, 3.0, 3.0), MOVED))


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Correct the bias field in fewer iterations: a smooth field needs no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skull_strip, "N4_ITERATIONS", (20, 20, 20, 20))
        yield


@pytest.fixture(scope="module")
def extraction(head, _quick):
    return extract_brain(lit(head), "a")


def test_the_brain_is_found_where_it_lies(extraction):
    corners = np.array([[-60, 60, -60, 60], [-90, 60, 60, -90], [-40, -40, 70, 70]], dtype=float)
    affine = extraction.registration.affine
    away = np.linalg.norm(mapped(affine, corners) - mapped(MOVED, corners), axis=0)
    assert away.max() < 3
    assert extraction.similarity > 0.8


def test_what_is_outside_is_gone_and_what_is_inside_stays(head, extraction):
    inside = brain_mask(head, MOVED, skull_strip.TEMPLATE_BRAIN_EDGE)
    shell = (head.voxels == 250) & ~brain_mask(head, MOVED)
    assert (extraction.brain.voxels[shell] == 0).mean() > 0.99
    assert (extraction.brain.voxels[inside] > 0).mean() > 0.98
    assert register(extraction.brain).outside < MAX_OUTSIDE


def test_its_slices_are_those_of_the_brain_alone(extraction):
    taken, levels = training_stack(extraction.brain, "a")
    alone, _ = training_stack(brain((3.0, 3.0, 3.0), MOVED), "b")
    assert len(levels) == 32
    assert np.corrcoef(taken.ravel(), alone.ravel())[0, 1] > 0.97


def test_light_from_one_side_is_taken_away(head, extraction):
    both = head.voxels > 60
    slopes = []
    for volume in (lit(head), extraction.head):
        change = np.log(volume.voxels[both] / head.voxels[both])
        slopes.append(abs(np.polyfit(np.nonzero(both)[0], change, 1)[0]))
    assert slopes[1] < slopes[0] / 4


def test_a_brain_alone_is_not_taken_out_again():
    with pytest.raises(RefusalError, match=r"x\.nii: shows a brain without its skull; `brainstage predict`"):
        extract_brain(brain((4, 4, 4)), "x.nii")


@pytest.mark.parametrize("what", ["noise", "inverted", "ball"])
def test_what_is_no_head_is_refused(head, what):
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, head.voxels.shape)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in head.voxels.shape), indexing="ij"))
    ball = 200.0 * (np.square(place).sum(axis=0) < 0.6)
    inverted = np.where(head.voxels > 0, 260 - head.voxels, 0)
    voxels = {"noise": noise, "inverted": inverted, "ball": ball + noise / 50}[what]
    with pytest.raises(RefusalError, match="no T1-weighted brain was found in it"):
        extract_brain(Volume(voxels.astype(np.float32), head.affine), "x")


def test_without_the_extra_its_install_command_is_told(head, monkeypatch):
    monkeypatch.setattr(skull_strip, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r'pip install "brainstage\[heads\]"'):
        extract_brain(head, "x")


@pytest.mark.parametrize(
    ("shape", "spacing"), [((256, 256, 11), (0.7, 0.7, 0.5)), ((160, 160, 12), (1.0, 1.0, 1.0))]
)
def test_a_thin_slab_is_refused_with_its_skull_and_without(shape, spacing):
    voxels = np.random.default_rng(0).random(shape, dtype=np.float32)
    slab = Volume(voxels, np.diag([*spacing, 1.0]))
    assert refusal(register(slab))
    with pytest.raises(RefusalError, match="^a: no T1-weighted brain was found"):
        extract_brain(slab, "a")


def test_a_volume_without_brightness_shows_no_head():
    dark = Volume(np.linspace(-2, -1, 1000, dtype=np.float32).reshape(10, 10, 10), np.eye(4))
    with pytest.raises(RefusalError, match="^a: no voxel is brighter than 0"):
        extract_brain(dark, "a")
