import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from brainstage.core.errors import DataError
from brainstage.datasets.images import decode_slice, read_slice
from helpers import encode, picture


def huge_png(width, height):
    """A valid header of a huge picture, a few bytes long."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, body, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_grey_png_is_read_as_it_is():
    pixels = picture()
    assert np.array_equal(decode_slice(encode(pixels), "a.png").pixels, pixels)


def test_formats_are_told_by_content_not_by_name(tmp_path):
    (tmp_path / "scan.jpg").write_bytes(encode(picture()))
    assert read_slice(tmp_path / "scan.jpg").pixels.shape == (40, 40)


def test_colour_and_sixteen_bits_become_eight_bit_grey():
    pixels = picture()
    colour = decode_slice(encode(np.stack([pixels] * 3, axis=-1)), "a")
    deep = decode_slice(encode(pixels.astype(np.uint16) * 257), "a")
    assert np.array_equal(colour.pixels, pixels)
    assert colour.mode == "RGB"
    assert np.array_equal(deep.pixels, pixels)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_slice(encode(picture(size=(20, 40)), "JPEG", exif=exif), "a").pixels.shape == (40, 20)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"this is a text", "not a JPEG or PNG"),
        (b"", "not a JPEG or PNG"),
        (encode(picture(size=(90, 90)), "JPEG")[:3000], "damaged"),
        (encode(picture(size=(90, 90)))[:4000], "damaged"),
        (encode(picture(), "GIF"), "not a JPEG or PNG"),
        (huge_png(30_000, 30_000), "too large, expected at most 16,777,216 pixels"),
        (huge_png(5_000, 5_000), "5000×5000"),
    ],
    ids=["text", "empty", "cut JPEG", "cut PNG", "GIF", "bomb", "large"],
)
def test_bad_bytes_are_one_sentence_that_names_the_file(data, says):
    with pytest.raises(DataError, match=says) as error:
        decode_slice(data, "scan.jpg")
    assert str(error.value).startswith("scan.jpg: ")
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_slice(tmp_path / "none.png")
