"""Acquisitions of a slice: each change does what its name says, and nothing depends on what else is acquired."""

import numpy as np
import pytest

from brainstage.models.acquisitions import Acquisition
from brainstage.models.histograms import BACKGROUND, white_matter


@pytest.fixture
def image(phantom):
    return phantom.images[3]


def dot(row, column):
    """Return a slice with one bright square of eight pixels."""
    picture = np.zeros((128, 128), np.uint8)
    picture[row - 4 : row + 4, column - 4 : column + 4] = 200
    return picture


def centre(picture):
    return np.argwhere(picture > 100).mean(axis=0) + 0.5


def test_no_change_changes_nothing(image):
    assert (Acquisition().apply(image) == image).all()


def test_position_turn_and_size():
    np.testing.assert_allclose(centre(Acquisition(shift=(2, -1)).apply(dot(64, 64))), [66, 63], atol=0.3)
    np.testing.assert_allclose(centre(Acquisition(zoom=1.1).apply(dot(64, 104))), [64, 108], atol=0.3)
    np.testing.assert_allclose(
        centre(Acquisition(turn=90).apply(dot(64, 104))), [24, 64], atol=0.3
    )  # anticlockwise


def test_lengths_grow_with_the_picture():
    large = np.kron(dot(64, 64), np.ones((2, 2), np.uint8))
    np.testing.assert_allclose(centre(Acquisition(shift=(2, 0)).apply(large)), [132, 128], atol=0.3)


def test_grey_values(image):
    white = round(white_matter(image))
    flat = np.full((128, 128), white, np.uint8)
    assert (Acquisition(gamma=1.3).apply(flat) == white).all()
    brain = (image > BACKGROUND) & (image < 0.9 * white)
    assert (Acquisition(gamma=1.3).apply(image)[brain] <= image[brain]).all()
    sloping = Acquisition(slope=(0.2, 0)).apply(np.full((128, 128), 100, np.uint8))
    assert (sloping[0, 0], sloping[-1, 0]) == (80, 120)
    assert np.abs(np.diff(Acquisition(blur=1).apply(image).astype(float), axis=1)).mean() < (
        0.9 * np.abs(np.diff(image.astype(float), axis=1)).mean()
    )


def test_noise_is_as_strong_as_said_and_leaves_the_black_around_the_head(image):
    flat = np.full((128, 128), 150, np.uint8)
    noise = Acquisition(noise=0.05).apply(flat).astype(float)
    assert noise.std() == pytest.approx(0.05 * white_matter(flat), rel=0.05)
    noisy = Acquisition(noise=0.05).apply(image)
    assert (noisy[image == 0] == 0).all()
    assert (noisy == Acquisition(noise=0.05).apply(image)).all()
    assert (noisy != Acquisition(noise=0.05, seed=1).apply(image)).any()


def test_random_acquisitions_stay_within_the_family(image):
    drawn = [Acquisition.draw(seed) for seed in range(500)]
    assert drawn[7] == Acquisition.draw(7) != Acquisition.draw(8)
    limits = {"noise": (0, 0.06), "blur": (0, 1.2), "gamma": (0.74, 1.351), "turn": (-3, 3), "zoom": (0.95, 1.05)}
    for name, (low, high) in limits.items():
        values = np.array([getattr(one, name) for one in drawn])
        assert low <= values.min() < low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) < values.max() <= high, name
    assert np.abs([one.shift for one in drawn]).max() <= 2
    assert np.abs([one.slope for one in drawn]).max() <= 0.3
