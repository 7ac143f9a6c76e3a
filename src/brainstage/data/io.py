"""Image files and bytes to arrays: one place that tells formats apart, by content."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from brainstage.errors import DataError

FORMATS = ("JPEG", "PNG")
SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 4096 * 4096
"""Largest image that is decoded; a file of a few bytes can ask for gigabytes."""
_TOO_LARGE = f"too large, expected at most {MAX_PIXELS:,} pixels in all; scale it down first"


class Picture(NamedTuple):
    """A decoded image."""

    pixels: NDArray[np.uint8]
    """Grey values, shape (H, W)."""
    mode: str
    """How the file stores them (Pillow's mode: L, RGB, I;16 …)."""


Reader = Callable[[], Picture]
"""Reads one image; raises :class:`DataError` where it cannot."""

CHUNK = 32
"""Images that a thread takes in one go: one takes less time than handing over a task."""


def read_chunk(readers: Sequence[Reader]) -> list[Picture | str]:
    """Return the picture of each reader, or the sentence that says why it cannot be read."""
    return [_picture_or_reason(read) for read in readers]


def _picture_or_reason(read: Reader) -> Picture | str:
    try:
        return read()
    except DataError as error:
        return str(error)


def read_slice(path: Path) -> Picture:
    """Read one image file as grey values.

    Raises:
        DataError: The file is missing, unreadable, of another format, damaged or too large.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_slice(data, where=str(path))


def decode_slice(data: Any, where: str) -> Picture:
    """Decode the bytes of a JPEG or PNG file into grey values.

    Colours become grey by ITU-R 601; 16-bit grey is scaled to 8 bits; an EXIF orientation is applied.

    Raises:
        DataError: The bytes are not a whole JPEG or PNG, or the image is larger than :data:`MAX_PIXELS`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise DataError(f"{where}: not a JPEG or PNG image") from None
    except Image.DecompressionBombError:
        raise DataError(f"{where}: {_TOO_LARGE}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: not a usable image ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where}: {image.width}×{image.height} pixels are {_TOO_LARGE}")
    try:
        return Picture(_grey(ImageOps.exif_transpose(image)), image.mode)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise DataError(f"{where}: damaged image ({error})") from error


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit values at 255 when it converts them
        return (np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8)
    return np.asarray(image if image.mode == "L" else image.convert("L"))
