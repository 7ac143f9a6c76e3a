"""The sets of axial levels that brains are cut at: a property of a cohort, and of every model trained on it."""

from __future__ import annotations

from dataclasses import dataclass

from brainstage.core.errors import DataError
from brainstage.core.schema import SLICE_SIDE, STACK_LEVELS

LEVELS_KEY = "brainstage_levels"
"""Entry of a parquet schema's metadata and of a model's ``config.json``: the name of a set of levels."""
MIN_SHARE = 0.5
"""Smallest share of the levels that a volume must show: of slabs with 12 of the public dataset's 32 or fewer one in
ten comes to lie more than 9 mm off (``python benchmarks/volumes.py``)."""


@dataclass(frozen=True)
class LevelSet:
    """Axial levels of the brain, evenly spaced, numbered from 0, the lowest.

    Where they lie in the head is in :data:`brainstage.scans.stack.GRIDS`.

    Attributes:
        name: As ``prepare --levels`` takes it.
        count: Number of levels.
        spacing: Millimetres from one to the next.
        extent: What they show, in words.
    """

    name: str
    count: int
    spacing: float
    extent: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a person's stack of slices: level, row, column."""
        return self.count, SLICE_SIDE, SLICE_SIDE

    @property
    def min_count(self) -> int:
        """Fewest levels that a volume must show."""
        return round(MIN_SHARE * self.count)

    def __str__(self) -> str:
        return f"{self.name} ({self.count} levels, {self.spacing:g} mm apart, {self.extent})"


PUBLIC = LevelSet("public", STACK_LEVELS, 1.03, "from the thalamus upwards")
"""Those of the public dataset, and of all data that states none."""
BRAIN = LevelSet("brain", 64, 2.0, "from the temporal poles to the vertex")
"""The whole cerebrum, so that the hippocampus and the medial temporal lobe are seen."""
LEVEL_SETS = {levels.name: levels for levels in (PUBLIC, BRAIN)}


def named_levels(name: str, where: str) -> LevelSet:
    """Return a set of levels by its name.

    Args:
        name: The name.
        where: The file that states it, for the error.

    Raises:
        DataError: There is no such set.
    """
    if name not in LEVEL_SETS:
        raise DataError(
            f"{where}: states the levels {name!r}, expected one of {', '.join(LEVEL_SETS)}; a newer brainstage may "
            "know them"
        )
    return LEVEL_SETS[name]


def check_levels(model: LevelSet, data: LevelSet, where: str) -> None:
    """Refuse slices of other levels than those that a model was trained on.

    Args:
        model: The model's levels.
        data: The slices' levels.
        where: What holds the slices, for the error.

    Raises:
        DataError: They differ.
    """
    if model != data:
        raise DataError(
            f"{where}: shows the levels {data}, but the model was trained on {model}; prepare the scans in a new "
            f"folder with --levels {model.name}, or take a model that was trained on {data.name}"
        )
