"""A slice table in a folder: its rows as parquet, its pixels as one array that processes map into memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow.parquet as pq

from brainstage.core.arrays import IntArray, Pixels
from brainstage.core.files import atomic, make_folder, write_json, write_table
from brainstage.core.levels import named_levels
from brainstage.datasets.table import SliceTable

_ROWS, _PIXELS, _SHAPES, _ABOUT = "rows.parquet", "pixels.npy", "shapes.npy", "slices.json"


class PixelArray(Sequence[Pixels]):
    """The grey values of slices, one after the other in one array.

    Attributes:
        values: uint8 of shape (total pixels,), in memory or mapped.
        shapes: Height and width of each slice, int64 of shape (n, 2).
    """

    def __init__(self, values: Pixels, shapes: IntArray):
        self.values, self.shapes = values, shapes
        self._ends = np.cumsum(shapes.prod(axis=1))

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
        return np.asarray(self.values[end - int(height * width) : end]).reshape(height, width)


def store_slices(slices: SliceTable, folder: Path) -> Path:
    """Write a slice table into a folder, and return the folder; one that is whole is left as it is.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    if (folder / _ABOUT).is_file():
        return folder
    make_folder(folder)
    shapes = np.array([image.shape for image in slices.images], dtype=np.int64).reshape(-1, 2)
    write_table(folder / _ROWS, slices.rows)
    with atomic(folder / _SHAPES) as part, part.open("wb") as stream:
        np.save(stream, shapes)
    with atomic(folder / _PIXELS) as part:
        values = np.lib.format.open_memmap(part, "w+", np.uint8, (int(shapes.prod(axis=1).sum()),))
        place = 0
        for image in slices.images:
            values[place : place + image.size] = image.ravel()
            place += image.size
        values.flush()
    about = {
        "classes": slices.classes,
        "unreadable": slices.unreadable,
        "synthetic": slices.synthetic,
        "skipped": slices.skipped,
        "ordered": slices.ordered,
        "stated_levels": slices.stated_levels and slices.stated_levels.name,
    }
    write_json(folder / _ABOUT, about)  # last: a folder with it is whole
    return folder


@lru_cache(1)
def open_slices(folder: Path) -> SliceTable:
    """Return a slice table that :func:`store_slices` wrote; its pixels stay on the disk until they are read."""
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    levels = about["stated_levels"]
    return SliceTable(
        pq.read_table(folder / _ROWS),
        PixelArray(np.load(folder / _PIXELS, mmap_mode="r"), np.load(folder / _SHAPES)),
        tuple(about["classes"]),
        tuple(about["unreadable"]),
        about["synthetic"],
        tuple(about["skipped"]),
        about["ordered"],
        levels and named_levels(levels, str(folder)),
    )
