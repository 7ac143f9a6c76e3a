"""What a person's contributions say: where they lie in the brain, and the largest of them in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.ndimage import binary_erosion

from brainstage.core.arrays import BoolArray, Float64Array, IntArray, Pixels
from brainstage.core.levels import LevelSet
from brainstage.inference.attribution import head_mask
from brainstage.models.histograms import CELL, DIRECTIONS, SIDE
from brainstage.models.patient_features import SLABS, TONE_SLAB
from brainstage.models.patient_model import Contributions
from brainstage.scans.registration import mapped
from brainstage.scans.stack import GRIDS

CELLS = SIDE // CELL
"""Cells along a side of a slice."""
RIM_DEPTH = 3
"""Pixels from the edge of the head inwards that a cell may not reach to lie inside: simulated acquisitions move the
head by two."""
MIDLINE = 15.0
"""Millimetres to either side of the brain's middle that are near the midline: those of the two middle cells."""
BACK, FRONT = -45.0, 10.0
"""Millimetres of MNI152, from back to front, that part the brain into thirds."""
SLABS_LISTED, CELLS_LISTED = 4, 6
"""How many of the largest contributions are told in words: of grey values of whole slices, and of cells."""
EDGES, GREY_VALUES = "edges", "grey values"


@dataclass(frozen=True)
class Part:
    """What the model sees as one: a cell in neighbouring levels, or the grey values of neighbouring whole slices.

    Attributes:
        value: What it adds to the severity.
        slices: Numbers of the slices, from 0.
        where: Where it lies, in words.
        levels: The first and the last of its levels.
        cell: Row and column, from 0; None for grey values.
        rim: Whether the cell lies at the rim of the brain, in most of the slices.
        position: Millimetres of MNI152 of its middle; None for grey values, and where the slices' position in the
            head is not known.
    """

    value: float
    slices: tuple[int, ...]
    where: str
    levels: tuple[int, int]
    cell: tuple[int, int] | None = None
    rim: bool = False
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ExplainedSeverity:
    """A person's contributions with what is needed to tell them.

    Attributes:
        contributions: Of n slices.
        rim: Which cells the outline of the head passes through, or lie outside, bool of shape (n, CELLS, CELLS).
        classes: Class names, from the least to the most severe stage.
        level_set: The model's levels.
        registered: Whether the slices were cut out of a registered volume: then their levels, and left and right,
            are known.
    """

    contributions: Contributions
    rim: BoolArray
    classes: tuple[str, ...]
    level_set: LevelSet
    registered: bool

    @cached_property
    def cells(self) -> Float64Array:
        """Contributions of the edges by slice and cell, all directions together, shape (n, CELLS, CELLS)."""
        cells: Float64Array = self.contributions.edges.sum(axis=3)
        return cells

    @cached_property
    def grey_values(self) -> Float64Array:
        """Contributions of the grey values of each slice, shape (n,)."""
        whole: Float64Array = self.contributions.tones.sum(axis=1)
        return whole

    @property
    def difference(self) -> float:
        """The person's severity less that of the mean training person: the sum of all contributions."""
        return self.contributions.severity - self.contributions.mean_severity

    @cached_property
    def rim_shares(self) -> Float64Array:
        """Share of the rim of the brain in the size of each slice's contributions of edges, shape (n,)."""
        size = np.abs(self.cells)
        whole = size.sum(axis=(1, 2))
        shares: Float64Array = (size * self.rim).sum(axis=(1, 2)) / np.where(whole > 0, whole, 1)
        return shares

    @property
    def rim_share(self) -> float:
        """The same of all slices together."""
        size = np.abs(self.cells)
        return float((size * self.rim).sum() / max(size.sum(), 1e-300))

    @cached_property
    def largest(self) -> dict[str, Part]:
        """The largest contributions by their marks: A, B … of grey values, 1, 2 … of cells, the largest first."""
        slabs, cells = (
            sorted(parts, key=lambda part: -abs(part.value)) for parts in (self._whole_slices(), self._cells())
        )
        return dict(zip(ascii_uppercase[:SLABS_LISTED], slabs, strict=False)) | {
            str(number): part for number, part in enumerate(cells[:CELLS_LISTED], 1)
        }

    @cached_property
    def ends(self) -> tuple[str, str]:
        """The stages that lower and that higher severities point to."""
        return spoken(self.classes[0]), spoken(self.classes[-1])

    def towards(self, value: float) -> str:
        """Return the stage that a contribution points to, the first or the last."""
        return self.ends[value > 0]

    def words(self, part: Part) -> str:
        """Return what a part adds, where, and towards which stage: a phrase."""
        what = EDGES if part.cell else GREY_VALUES
        return (
            f"{part.value:+.2f} towards {self.towards(part.value)} (odds × {math.exp(part.value):.2g}): {what}, "
            f"{part.where}"
        )

    @property
    def summary(self) -> list[str]:
        """What moved the score, a sentence each."""
        side = "above" if self.difference > 0 else "below"
        outline = "registration" if self.registered else "skull stripping"
        return [
            f"The score is {abs(self.difference):.2f} {side} that of the mean of the {self.contributions.people:,} "
            f"training people, towards {self.towards(self.difference)}: the odds of a later stage are "
            f"{math.exp(self.difference):.2g} times theirs.",
            f"Of this, {self.grey_values.sum():+.2f} comes from the grey values of whole slices and "
            f"{self.cells.sum():+.2f} from the edges in their cells. Neighbouring levels see much the same and are "
            "weighed against each other, so large parts cancel: read these sums before the parts.",
            f"{self.rim_share:.0%} of what edges add, by size, lies at the rim of the brain: the outline there "
            f"can be the {outline}'s, not the person's.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: severities in log-odds, contributions of cells in the rows of the slices."""
        facts = self.contributions
        return {
            "registered": self.registered,
            "severity": round(facts.severity, 6),
            "mean_severity": round(facts.mean_severity, 6),
            "thresholds": [round(float(threshold), 6) for threshold in facts.thresholds],
            "grey_values": round(float(self.grey_values.sum()), 6),
            "edges": round(float(self.cells.sum()), 6),
            "rim": round(self.rim_share, 4),
            "summary": self.summary,
            "largest": [self._part_to_dict(mark, part) for mark, part in self.largest.items()],
        }

    def slice_to_dict(self, number: int) -> dict[str, Any]:
        """Return what a slice adds: its grey values, and its cells row by row with where they lie."""
        return {
            "grey_values": round(float(self.grey_values[number]), 6),
            "cells": self.cells[number].round(6).tolist(),
            "rim_cells": self.rim[number].tolist(),
            "rim": round(float(self.rim_shares[number]), 4),
        }

    def table(self) -> pa.Table:
        """Return every contribution in a row: slice, level, feature, place, rim and contribution."""
        shape = self.contributions.edges.shape
        number, row, column, direction = (index.ravel() for index in np.indices(shape))
        slices, bin_ = (index.ravel() for index in np.indices(self.contributions.tones.shape))
        count = len(bin_)
        nothing = pa.nulls(count, pa.int64())
        both = np.concatenate([number, slices])
        columns = {
            "slice": both + 1,
            "level": self.contributions.levels[both],
            "feature": [EDGES] * len(number) + [GREY_VALUES] * count,
            "row": _joined(row, nothing),
            "column": _joined(column, nothing),
            "degrees": _joined(direction * 180 / DIRECTIONS, pa.nulls(count, pa.float64())),
            "bin": _joined(pa.nulls(len(number), pa.int64()), bin_),
            "rim": _joined(self.rim[number, row, column], pa.nulls(count, pa.bool_())),
            **self._positions(number, row, column, count),
            "contribution": 0.0  # no zero with a minus
            + np.concatenate([self.contributions.edges.ravel(), self.contributions.tones.ravel()]),
        }
        return pa.table(columns)

    def _positions(self, number: IntArray, row: IntArray, column: IntArray, others: int) -> dict[str, Any]:
        """Return the columns of the cells' positions, null for ``others`` features without one."""
        if not self.registered:
            return {}
        points = self._points(self.contributions.levels[number], row, column).round(1)
        names = ("mni_x", "mni_y", "mni_z")
        return {
            name: _joined(axis, pa.nulls(others, pa.float64())) for name, axis in zip(names, points, strict=True)
        }

    def _points(self, level: Any, row: Any, column: Any) -> Float64Array:
        """Return millimetres of MNI152 of the middles of cells, shape (3, n)."""
        middles = [CELL * np.asarray(index, dtype=np.float64) + (CELL - 1) / 2 for index in (row, column)]
        return mapped(GRIDS[self.level_set], np.stack([np.asarray(level, dtype=np.float64), *middles]))

    def _cells(self) -> Iterator[Part]:
        for slices, levels in self._slabs(SLABS[0]):
            values, rim = self.cells[slices].sum(axis=0), self.rim[slices].mean(axis=0) >= 0.5
            for row, column in np.ndindex(CELLS, CELLS):
                at_rim, position = bool(rim[row, column]), self._position(levels, row, column)
                place = _words_of(position) if position else _words_in_picture(row, column)
                depth = "at the rim of the brain" if at_rim else "inside the brain"
                where = f"{place}, {depth}, {self._words_of_levels(levels)}"
                if position:
                    where += " (MNI {:.0f}, {:.0f}, {:.0f} mm)".format(*position)
                yield Part(
                    float(values[row, column]),
                    tuple(slices.tolist()),
                    where,
                    levels,
                    (row, column),
                    at_rim,
                    position,
                )

    def _whole_slices(self) -> Iterator[Part]:
        for slices, levels in self._slabs(TONE_SLAB):
            where = f"whole slice{'s' if len(slices) > 1 else ''}, {self._words_of_levels(levels)}"
            yield Part(float(self.grey_values[slices].sum()), tuple(slices.tolist()), where, levels)

    def _slabs(self, count: int) -> Iterator[tuple[IntArray, tuple[int, int]]]:
        """Yield the slices of each slab of so many levels, and its first and last level."""
        levels = self.contributions.levels
        for slab in np.unique(levels // count):
            slices = np.flatnonzero(levels // count == slab)
            yield slices, (int(levels[slices].min()), int(levels[slices].max()))

    def _position(self, levels: tuple[int, int], row: int, column: int) -> tuple[float, float, float] | None:
        if not self.registered:
            return None
        x, y, z = self._points([sum(levels) / 2], [row], [column])[:, 0].tolist()
        return x, y, z

    def _words_of_levels(self, levels: tuple[int, int]) -> str:
        first, last = levels
        words = f"level {first}" if first == last else f"levels {first} to {last}"
        return words if self.registered else f"{words}, estimated"

    def _part_to_dict(self, mark: str, part: Part) -> dict[str, Any]:
        return {
            "mark": mark,
            "contribution": round(part.value, 6),
            "towards": self.classes[-1 if part.value > 0 else 0],
            "feature": EDGES if part.cell else GREY_VALUES,
            "slices": [number + 1 for number in part.slices],
            "levels": list(part.levels),
            "cell": part.cell and list(part.cell),
            "rim": part.rim if part.cell else None,
            "mni": part.position and [round(axis, 1) for axis in part.position],
            "words": self.words(part),
        }


def rim_cells(images: Sequence[Pixels]) -> BoolArray:
    """Return which cells do not lie well inside of the head.

    Args:
        images: Slices as the model sees them, each uint8 of shape (SIDE, SIDE).

    Returns:
        bool of shape (n, CELLS, CELLS).
    """
    deep = np.stack([binary_erosion(head_mask(image), iterations=RIM_DEPTH) for image in images])
    rim: BoolArray = (~deep).reshape(-1, CELLS, CELL, CELLS, CELL).max(axis=(2, 4))
    return rim


def spoken(stage: str) -> str:
    """Return a class name as it is read out."""
    return stage.replace("_", " ")


def _words_of(position: tuple[float, float, float]) -> str:
    x, y, _ = position
    side = "near the midline" if abs(x) < MIDLINE else "right" if x > 0 else "left"
    return f"{side}, {'back' if y < BACK else 'front' if y > FRONT else 'middle'}"


def _words_in_picture(row: int, column: int) -> str:
    """Return where a cell lies in a picture of which left and right are not known."""
    third = 3 * CELLS // 8
    height = "top" if row < third else "bottom" if row >= CELLS - third else "middle"
    side = "left" if column < third else "right" if column >= CELLS - third else "centre"
    return f"{height} {side} of the picture"


def _joined(first: Any, second: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(first), pa.array(second)])
