"""The pixels of slices as one array, in memory or in a file that is mapped into it; a slice table in a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow.parquet as pq

from brainstage.core.arrays import IntArray, Pixels
from brainstage.core.files import atomic, make_folder, size_and_time, write_json, write_table
from brainstage.core.levels import named_levels
from brainstage.datasets.table import SliceTable

PIXELS = "pixels.uint8"
"""File of the pixels in a stored slice table's folder: of all slices, one after the other, row by row."""
_ROWS, _SHAPES, _ABOUT = "rows.parquet", "shapes.npy", "slices.json"


class PixelArray(Sequence[Pixels]):
    """The grey values of slices, one after the other in one array.

    Attributes:
        values: uint8 of shape (total pixels,), in memory or mapped.
        shapes: Height and width of each slice, int64 of shape (n, 2).
        file: The file that the values are mapped from; None where they are in memory.
    """

    def __init__(self, values: Pixels, shapes: IntArray, file: Path | None = None):
        self.values, self.shapes, self.file = values, shapes, file
        self._ends = np.cumsum(shapes.prod(axis=1))

    @classmethod
    def map(cls, file: Path, shapes: IntArray) -> PixelArray:
        """Return slices that stay in a file until they are looked at.

        Args:
            file: Their pixels.
            shapes: Height and width of each, int64 of shape (n, 2).
        """
        values = np.memmap(file, np.uint8, "r") if len(shapes) else np.zeros(0, np.uint8)
        return cls(np.asarray(values), shapes, file)

    def __len__(self) -> int:
        return len(self.shapes)

    @overload
    def __getitem__(self, row: int) -> Pixels: ...
    @overload
    def __getitem__(self, row: slice) -> list[Pixels]: ...
    def __getitem__(self, row: int | slice) -> Pixels | list[Pixels]:
        """Return a view of one slice, uint8 of shape (H, W), or a list of them."""
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        height, width = self.shapes[row]
        end = int(self._ends[row])
        return self.values[end - int(height * width) : end].reshape(height, width)


class PixelWriter:
    """Takes slices one by one and makes a :class:`PixelArray` of them.

    Args:
        file: A new file for the pixels; None keeps them in memory.
    """

    def __init__(self, file: Path | None = None):
        self._stream = BytesIO() if file is None else file.open("xb")
        self._shapes: list[tuple[int, ...]] = []

    def add(self, image: Pixels) -> None:
        """Append a slice, uint8 of shape (H, W)."""
        self._stream.write(image.tobytes())
        self._shapes.append(image.shape)

    def finish(self) -> PixelArray:
        """Return the slices; nothing can be added after that."""
        shapes = np.array(self._shapes, dtype=np.int64).reshape(-1, 2)
        if isinstance(self._stream, BytesIO):
            return PixelArray(np.frombuffer(self._stream.getbuffer().toreadonly(), np.uint8), shapes)
        self._stream.close()
        return PixelArray.map(Path(self._stream.name), shapes)


def store_slices(slices: SliceTable, folder: Path) -> Path:
    """Write a slice table into a folder, and return the folder; one that holds the same table is left as it is.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    about = {
        "classes": list(slices.classes),
        "unreadable": list(slices.unreadable),
        "synthetic": slices.synthetic,
        "skipped": list(slices.skipped),
        "ordered": slices.ordered,
        "stated_levels": slices.stated_levels and slices.stated_levels.name,
    }
    if (folder / _ABOUT).is_file():
        # rows have the hashes of their pixels
        if _read_about(folder) == about and pq.read_table(folder / _ROWS).equals(slices.rows):
            return folder
        (folder / _ABOUT).unlink()
    make_folder(folder)
    write_table(folder / _ROWS, slices.rows)
    with atomic(folder / _SHAPES) as part, part.open("wb") as stream:
        np.save(stream, _store_pixels(slices.images, folder / PIXELS))
    write_json(folder / _ABOUT, about)  # last: a folder with it is whole
    return folder


def _store_pixels(images: Sequence[Pixels], target: Path) -> IntArray:
    """Write slices into a file, unless they are there, and return their shapes, int64 of shape (n, 2)."""
    if not (isinstance(images, PixelArray) and images.file):
        with atomic(target) as part:
            part.unlink()
            writer = PixelWriter(part)
            for image in images:
                writer.add(image)
            return writer.finish().shapes
    if images.file != target:
        target.unlink(missing_ok=True)
        try:
            os.link(images.file, target)  # takes no room
        except OSError:  # on another disk
            with atomic(target) as part:
                shutil.copyfile(images.file, part)
    return images.shapes


def open_slices(folder: Path) -> SliceTable:
    """Return a slice table that :func:`store_slices` wrote; its pixels stay on the disk until they are read."""
    return _open(folder, when_stored(folder))


def when_stored(folder: Path) -> tuple[int, ...]:
    """Return what tells slices from others that are stored in the same folder later.

    A worker of Dask outlives the command that stored them.
    """
    return size_and_time(folder / _ABOUT)


@lru_cache(1)
def _open(folder: Path, _stored: tuple[int, ...]) -> SliceTable:
    about = _read_about(folder)
    levels = about["stated_levels"]
    return SliceTable(
        pq.read_table(folder / _ROWS),
        PixelArray.map(folder / PIXELS, np.load(folder / _SHAPES)),
        tuple(about["classes"]),
        tuple(about["unreadable"]),
        about["synthetic"],
        tuple(about["skipped"]),
        about["ordered"],
        levels and named_levels(levels, str(folder)),
    )


def _read_about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    return about
