"""Which slices the settings were chosen on: a figure of slices that played a part in the choice is optimistic."""

from __future__ import annotations

from brainstage.core.config import TrainConfig
from brainstage.datasets.patient_map import is_public
from brainstage.datasets.public import DATA_HASH
from brainstage.datasets.splits import Fold, make_splits
from brainstage.datasets.table import SliceTable


def tuned_on(config: TrainConfig, slices: SliceTable, fold: Fold) -> dict[str, str | None]:
    """Return the fields of a configuration that say what a choice was made on.

    Args:
        config: The settings that the choice started from.
        slices: The data.
        fold: The fold in which the choice was made. Its test slices played no part, unless they pick the epoch, or
            the settings that the choice started from were themselves chosen on them.
    """
    without = None if config.selection == "test" else _test_side(config, slices, fold)
    if config.tuned_on == slices.data_hash and config.tuned_without != without:
        without = None
    return {"tuned_on": slices.data_hash, "tuned_without": without}


def optimism(config: TrainConfig, slices: SliceTable, fold: Fold) -> str | None:
    """Return why the figures of a fold's test slices are too good; None where nothing is known against them.

    Args:
        config: The settings.
        slices: The data.
        fold: The fold that is tested.
    """
    if not fold.test or not (config.tuned_on == slices.data_hash or _of_public_people(config, fold)):
        return None
    if config.tuned_without == _test_side(config, slices, fold):
        return None
    who = "people" if config.protocol == "patient" else "slices"
    return f"the settings were tuned on these same {who}"


def _test_side(config: TrainConfig, slices: SliceTable, fold: Fold) -> str:
    """Return the SHA-256 of a fold's test slices, before a number of them was drawn."""
    if config.test_rows:
        whole = make_splits(slices, config.replace(test_rows=0)).chosen(config)
        if set(fold.test) <= set(whole.test):
            return whole.tested
    return fold.tested


def _of_public_people(config: TrainConfig, fold: Fold) -> bool:
    """Return whether settings chosen on the public dataset are tested on people of it, in whatever selection."""
    return config.protocol == "patient" and config.tuned_on == DATA_HASH and any(map(is_public, fold.test))
