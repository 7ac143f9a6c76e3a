"""JPEG and PNG images, from files or bytes, to grey slices."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from brainstage.core.arrays import Pixels
from brainstage.core.errors import DataError
from brainstage.core.quiet import silence

silence("PIL")  # of a damaged EXIF block; sizes are checked below

IMAGE_FORMATS = ("JPEG", "PNG")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_FILE_BYTES = 2**30
"""Largest file that is read."""
MAX_PIXELS = 4096 * 4096
"""Largest image that is decoded; a file of a few bytes can ask for gigabytes."""
_TOO_LARGE = f"too large, expected at most {MAX_PIXELS:,} pixels in all; scale it down first"


class Picture(NamedTuple):
    """A decoded image."""

    pixels: Pixels
    """Grey values, shape (H, W)."""
    mode: str
    """How the file stores them (Pillow's mode: L, RGB, I;16 …)."""


Reader = Callable[[], Picture]
"""Reads one image; raises :class:`DataError` where it cannot."""

CHUNK = 32
"""Images of one task of a thread: decoding one takes less time than handing over a task."""


def read_chunk(readers: Sequence[Reader]) -> list[Picture | str]:
    """Return the image of each reader, or the sentence that says why it cannot be read."""
    return [_picture_or_reason(read) for read in readers]


def _picture_or_reason(read: Reader) -> Picture | str:
    try:
        return read()
    except DataError as error:
        return str(error)


def is_picture(start: bytes) -> bool:
    """Return whether a file's first bytes are those of a JPEG or PNG image."""
    return start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))


def read_bytes(open_file: Callable[[], BinaryIO], where: str) -> bytes:
    """Return all bytes of a file.

    Raises:
        DataError: The file is missing, unreadable or larger than :data:`MAX_FILE_BYTES`.
    """
    try:
        with open_file() as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{where}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); check its permissions") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(
            f"{where}: larger than {MAX_FILE_BYTES / 2**30:g} GiB, more than a scan needs; give a smaller file"
        )
    return data


def read_slice(path: Path) -> Picture:
    """Read one image file as grey values.

    Raises:
        DataError: The file is missing, unreadable, of another format, damaged or too large.
    """
    return decode_slice(read_bytes(partial(open_path, path), str(path)), where=str(path))


def open_path(path: Path) -> BinaryIO:
    """Open a file for its bytes."""
    return path.open("rb")


def decode_slice(data: Any, where: str) -> Picture:
    """Decode the bytes of a JPEG or PNG file into grey values.

    Colours become grey by ITU-R 601; 16-bit grey is scaled to 8 bits; an EXIF orientation is applied.

    Raises:
        DataError: The bytes are not a whole JPEG or PNG, or the image is larger than :data:`MAX_PIXELS`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except UnidentifiedImageError:
        raise DataError(f"{where}: not a JPEG or PNG image; save it as one of these") from None
    except Image.DecompressionBombError:
        raise DataError(f"{where}: {_TOO_LARGE}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: not a usable image ({error}); save it again") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where}: {image.width}×{image.height} pixels are {_TOO_LARGE}")
    try:
        return Picture(_grey(ImageOps.exif_transpose(image)), image.mode)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise DataError(f"{where}: damaged image ({error}); save it again") from error


def _grey(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit values at 255 when it converts them
        return (np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8)
    return np.asarray(image if image.mode == "L" else image.convert("L"))
