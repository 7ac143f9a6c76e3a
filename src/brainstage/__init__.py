"""brainstage: stages dementia from brain MRI slices, and says under which protocol each figure holds.

Research software. Not a medical device, never a diagnosis.

>>> from brainstage import evaluate, load_slices, train
>>> run = train(load_slices("alzheimer_mri/"), "compact")
>>> print(evaluate(run).title)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainstage.config import TrainConfig
    from brainstage.data.audit import describe
    from brainstage.data.hub import fetch
    from brainstage.data.phantom import write_phantom
    from brainstage.data.sources import Columns, load_slices
    from brainstage.data.splits import Splits, make_splits
    from brainstage.data.table import SliceTable
    from brainstage.errors import BrainstageError, ConfigError, DataError, LeakageError, RunError
    from brainstage.evaluate import Evaluation, evaluate
    from brainstage.models.recipes import load_recipe
    from brainstage.predict import Predictor
    from brainstage.run import RunFolder
    from brainstage.train import train

__version__ = "0.1.0"

__all__ = [
    "BrainstageError",
    "Columns",
    "ConfigError",
    "DataError",
    "Evaluation",
    "LeakageError",
    "Predictor",
    "RunError",
    "RunFolder",
    "SliceTable",
    "Splits",
    "TrainConfig",
    "describe",
    "evaluate",
    "fetch",
    "load_recipe",
    "load_slices",
    "make_splits",
    "train",
    "write_phantom",
]

_HOME = {
    "BrainstageError": "errors",
    "Columns": "data.sources",
    "ConfigError": "errors",
    "DataError": "errors",
    "Evaluation": "evaluate",
    "LeakageError": "errors",
    "Predictor": "predict",
    "RunError": "errors",
    "RunFolder": "run",
    "SliceTable": "data.table",
    "Splits": "data.splits",
    "TrainConfig": "config",
    "describe": "data.audit",
    "evaluate": "evaluate",
    "fetch": "data.hub",
    "load_recipe": "models.recipes",
    "load_slices": "data.sources",
    "make_splits": "data.splits",
    "train": "train",
    "write_phantom": "data.phantom",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import brainstage`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'brainstage' has no attribute {name!r}")
    value = getattr(import_module(f"brainstage.{_HOME[name]}"), name)
    globals()[name] = value  # also takes the place of the submodule of the same name (train, evaluate)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
