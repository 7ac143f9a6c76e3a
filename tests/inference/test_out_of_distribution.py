"""What looks like the training slices is accepted, everything else refused with a reason that helps."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from brainstage.datasets.sources import load_slices
from brainstage.inference.out_of_distribution import FILE, OutOfDistributionDetector
from helpers import picture


@pytest.fixture(scope="module")
def halves(phantom):
    people = sorted(set(phantom.patients))
    sides = [set(people[half::2]) for half in (0, 1)]
    return [
        [image for image, patient in zip(phantom.images, phantom.patients, strict=True) if patient in side]
        for side in sides
    ]


@pytest.fixture(scope="module")
def detector(halves):
    return OutOfDistributionDetector.fit(halves[0])


def test_slices_of_people_outside_the_training_set_are_accepted(detector, halves):
    assert np.mean([reason is None for reason in detector.refusals(halves[1])]) >= 0.98
    assert detector.refusals([]) == []


def resized(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: (image * 0.6).astype(np.uint8),
        lambda image: resized(image, 200),
        lambda image: resized(image, 70),
    ],
    ids=["darker", "larger", "smaller"],
)
def test_brightness_and_resolution_do_not_matter(detector, halves, change):
    assert np.mean([reason is None for reason in detector.refusals(list(map(change, halves[1][::7])))]) >= 0.95


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image: np.rot90(image), "turn it by 90 degrees to the right"),
        (lambda image: np.rot90(image, -1), "turn it by 90 degrees to the left"),
        (lambda image: np.pad(image, 40), "at another size or place"),
        (lambda image: np.zeros_like(image), "shows nothing"),
        (lambda image: picture(int(image.sum()), (128, 128)), "does not look like"),
        (lambda image: 255 - image, "does not look like"),
    ],
)
def test_a_refusal_says_what_to_do(detector, halves, change, says):
    reasons = detector.refusals([np.ascontiguousarray(change(image)) for image in halves[1][::11]])
    assert all(reasons)
    assert np.mean([says in reason for reason in reasons]) > 0.7


def test_a_long_strip_takes_no_more_memory_than_a_picture(detector):
    """The square around a strip of 128×33,531 pixels, a small JPEG with one byte wrong, has three gigabytes."""
    thin = np.zeros((20, 6000), np.uint8)
    thin[7, 3000] = 200  # gone when the strip is made smaller
    tracemalloc.start()
    for reason in detector.refusals([picture(0, (20, 6000)), thin]):
        assert "does not look like" in reason
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_it_is_read_as_it_was_written(detector, halves, tmp_path):
    assert OutOfDistributionDetector.open(tmp_path) is None
    detector.save(tmp_path)
    again = OutOfDistributionDetector.open(tmp_path)
    np.testing.assert_allclose(again.score(halves[1]), detector.score(halves[1]), atol=2e-3)
    assert again.threshold == pytest.approx(detector.threshold, abs=1e-4)


def test_a_file_that_does_not_fit_is_refused(detector, tmp_path):
    detector.save(tmp_path)
    centroids = load_file(tmp_path / FILE)["centroids"]
    save_file({"centroids": centroids[:, :7].copy()}, tmp_path / FILE, {"threshold": "0.5"})
    with pytest.raises(ValueError, match="centroids of shape"):
        OutOfDistributionDetector.open(tmp_path)
    save_file({"centroids": centroids}, tmp_path / FILE, {})
    with pytest.raises(ValueError, match="threshold"):
        OutOfDistributionDetector.open(tmp_path)


def test_few_and_odd_training_slices_are_enough():
    for images in ([picture()], [picture(seed) for seed in range(12)], [np.zeros((9, 9), np.uint8)] * 3):
        found = OutOfDistributionDetector.fit(images)
        assert 0 <= found.threshold <= 1


def test_real_slices_of_people_outside_the_training_set_are_accepted(real_folder):
    slices = load_slices(real_folder)
    people = sorted(set(slices.patients))
    train, test = (
        [image for image, one in zip(slices.images, slices.patients, strict=True) if one in set(people[half::2])]
        for half in (0, 1)
    )
    detector = OutOfDistributionDetector.fit(train)
    assert np.mean([reason is None for reason in detector.refusals(test[::3])]) >= 0.99
    flipped = detector.refusals([image[::-1] for image in test[::40]])
    assert all(reason and "top to bottom" in reason for reason in flipped)
