import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import ConvNextImageProcessorPil, ViTImageProcessorPil

from brainstage.core.errors import DataError
from brainstage.datasets.preprocessing import Preprocessing, draw_mirrored, draw_shifts, shift
from helpers import picture


def processor_of(ours):
    """Return transformers' own processor of the same settings."""
    kinds = {"ViTImageProcessor": ViTImageProcessorPil, "ConvNextImageProcessor": ConvNextImageProcessorPil}
    return kinds[ours.settings["image_processor_type"]].from_dict(ours.settings)


@given(
    st.tuples(st.integers(40, 150), st.integers(40, 150)),
    st.sampled_from([32, 64, 96]),
    st.sampled_from([0.7, 0.875, 1.0, None]),
    st.sampled_from([0.28, (0.485, 0.456, 0.406)]),
    st.sampled_from([2, 3]),
)
@settings(max_examples=40)
def test_arrays_get_what_the_saved_image_processor_gives(shape, size, crop_share, mean, resample):
    pixels = picture(1, shape)
    ours = Preprocessing(size, crop_share, mean=mean, std=0.33, resample=resample)
    processor = processor_of(ours)
    theirs = processor(Image.fromarray(pixels).convert("RGB"), return_tensors="np")["pixel_values"]
    assert theirs.shape == (1, 3, size, size)
    values = ours.normalise(ours.resize([pixels]))
    assert values.shape == (1, 1 if mean == 0.28 else 3, size, size)
    np.testing.assert_allclose(np.broadcast_to(values, theirs.shape), theirs, atol=2e-6)


@pytest.mark.parametrize(
    "ours", [Preprocessing(64, 0.9, 0.3, 0.2), Preprocessing(224, None, (0.1, 0.2, 0.3), (0.1, 0.2, 0.3), 2)]
)
def test_what_is_saved_is_what_transformers_would_save_and_is_read_again(ours, tmp_path):
    ours.save(tmp_path)
    processor_of(ours).save_pretrained(tmp_path / "theirs")
    name = "preprocessor_config.json"
    assert json.loads((tmp_path / name).read_text()) == json.loads((tmp_path / "theirs" / name).read_text())
    read = Preprocessing.open(tmp_path)
    assert (read.one_channel() or read) == ours


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"do_resize": False}, "leaves out one of"),
        ({"size": {"height": 64, "width": 32}}, "not square"),
        ({"image_processor_type": "CLIPImageProcessor"}, "is a CLIPImageProcessor, expected that of a ViT"),
    ],
)
def test_a_processor_of_another_kind_is_told(change, says):
    with pytest.raises(ValueError, match=says):
        Preprocessing.of_processor({**Preprocessing(64, None).settings, **change})


def test_slices_of_different_shapes_keep_their_places():
    shapes = [(128, 128), (90, 70), (128, 128), (70, 90)]
    images = [picture(number, shape) for number, shape in enumerate(shapes)]
    ours = Preprocessing(64, 0.875)
    together = ours.resize(images, margin=1)
    assert all(np.array_equal(together[i], ours.resize([image], margin=1)[0]) for i, image in enumerate(images))


def test_the_margin_surrounds_the_crop():
    images = [picture(number, (128, 128)) for number in range(3)]
    ours = Preprocessing(64, 0.875)
    wide = ours.resize(images, margin=2)
    assert wide.shape == (3, 68, 68)
    assert np.array_equal(wide[:, 2:-2, 2:-2], ours.resize(images))


def test_the_margin_is_black_where_the_slice_ends():
    wide = Preprocessing(64, 1.0).resize([np.full((64, 64), 9, np.uint8)], margin=3)
    assert wide[0, :3].max() == 0
    assert wide[0, 3:-3, 3:-3].min() == 9


def test_shifts_depend_on_seed_and_epoch_alone():
    assert np.array_equal(draw_shifts(50, 2, 7, 3), draw_shifts(50, 2, 7, 3))
    assert not np.array_equal(draw_shifts(50, 2, 7, 3), draw_shifts(50, 2, 7, 4))
    assert set(draw_shifts(500, 2, 0, 0).ravel()) == {0, 1, 2, 3, 4}


def test_half_of_the_slices_are_mirrored_anew_each_epoch():
    mirrored = draw_mirrored(500, 7, 3)
    assert np.array_equal(mirrored, draw_mirrored(500, 7, 3))
    assert not np.array_equal(mirrored, draw_mirrored(500, 7, 4))
    assert 200 < mirrored.sum() < 300


def test_shift_cuts_the_window_that_was_asked_for():
    pixels = picture(0, (2, 10, 10))
    cut = shift(pixels, np.array([[0, 2], [1, 0]]), 8)
    assert np.array_equal(cut[0], pixels[0, 0:8, 2:10])
    assert np.array_equal(cut[1], pixels[1, 1:9, 0:8])


def test_mean_and_deviation_are_those_of_the_pixels():
    pixels = np.stack([picture(number) // (1 + number) for number in range(3)])
    fitted = Preprocessing(32, 1.0).fitted(pixels)
    assert fitted == Preprocessing(32, 1.0, round(pixels.mean() / 255, 3), round(pixels.std() / 255, 3))


def test_blank_training_pixels_are_told():
    with pytest.raises(DataError, match="same value"):
        Preprocessing(32, 1.0).fitted(np.zeros((2, 32, 32), np.uint8))
