import numpy as np
import pytest

from brainstage.models.histograms import DIRECTIONS, orientation_histograms, white_matter


def waves(degrees, side=128):
    """Return a picture of waves that run in one direction."""
    down, right = np.mgrid[:side, :side]
    angle = np.deg2rad(degrees)
    phase = (right * np.cos(angle) + down * np.sin(angle)) / 24 * 2 * np.pi
    return (128 + 100 * np.sin(phase)).astype(np.uint8)


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_an_edge_counts_for_its_direction(direction):
    found = orientation_histograms([waves(direction * 180 / DIRECTIONS)])[0].sum(axis=(0, 1))
    assert found.argmax() == direction
    turned = orientation_histograms([255 - waves(direction * 180 / DIRECTIONS)])[0].sum(axis=(0, 1))
    assert turned.argmax() == direction  # dark to bright and bright to dark are one direction


def test_an_edge_counts_where_it_is():
    image = np.full((128, 128), 60, np.uint8)
    image[:, 64:] = 180
    found = orientation_histograms([image])[0].sum(axis=2)
    assert set(np.flatnonzero(found.sum(axis=0) > 1e-6)) == {3, 4}
    assert np.ptp(found.sum(axis=1)) < 1e-6


def test_a_slice_of_other_brightness_is_the_same(phantom):
    images = phantom.images[:20]
    darker = [(image * 0.7).round().astype(np.uint8) for image in images]
    one, other = orientation_histograms(images), orientation_histograms(darker)
    away = np.abs(one - other).mean() / one.mean()
    assert away < 0.15
    assert np.abs(one[1:] - other[:-1]).mean() / one.mean() > 2 * away


def test_large_cells_are_means_of_small_ones(phantom):
    small, large = (orientation_histograms(phantom.images[:3], cell) for cell in (8, 16))
    np.testing.assert_allclose(small.reshape(3, 8, 2, 8, 2, 8).mean(axis=(2, 4)), large, atol=1e-6)


def test_white_matter_is_the_brightest_peak():
    image = np.zeros((128, 128), np.uint8)
    image[20:100, 20:100] = 90
    image[25:95, 25:95] = 160
    image[60:62, 60:62] = 250  # a vessel
    assert white_matter(image) == pytest.approx(160, abs=2)
    assert white_matter(np.zeros((8, 8), np.uint8)) == 255


def test_no_slice_gives_no_row():
    assert orientation_histograms([]).shape == (0, 8, 8, 8)
