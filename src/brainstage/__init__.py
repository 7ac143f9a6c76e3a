"""brainstage: stages dementia from brain MRI slices, and says under which protocol each figure holds.

Research software. Not a medical device, never a diagnosis.

>>> from brainstage import evaluate, load_slices, train
>>> run = train(load_slices("alzheimer_mri/"), "compact")
>>> print(evaluate(run).title)
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainstage.compare import Comparison, compare
    from brainstage.config import TrainConfig
    from brainstage.crossval import cross_validate
    from brainstage.data.audit import Audit, audit
    from brainstage.data.describe import describe
    from brainstage.data.hub import fetch
    from brainstage.data.phantom import write_phantom
    from brainstage.data.sources import Columns, load_slices
    from brainstage.data.splits import Splits, make_splits
    from brainstage.data.table import SliceTable
    from brainstage.errors import BrainstageError, ConfigError, DataError, LeakageError, RunError
    from brainstage.evaluate import Evaluation, evaluate
    from brainstage.explain import explain
    from brainstage.export import Export, export
    from brainstage.extraction import extract
    from brainstage.models.recipes import load_recipe
    from brainstage.patients import PatientEvaluation, evaluate_patients
    from brainstage.predict import Predictor
    from brainstage.run import RunFolder
    from brainstage.study import Study, run_study
    from brainstage.sweep import Factor, Sweep, sweep
    from brainstage.train import train
    from brainstage.twin import Twin, twin

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "BrainstageError",
    "Columns",
    "Comparison",
    "ConfigError",
    "DataError",
    "Evaluation",
    "Export",
    "Factor",
    "LeakageError",
    "PatientEvaluation",
    "Predictor",
    "RunError",
    "RunFolder",
    "SliceTable",
    "Splits",
    "Study",
    "Sweep",
    "TrainConfig",
    "Twin",
    "audit",
    "compare",
    "cross_validate",
    "describe",
    "evaluate",
    "evaluate_patients",
    "explain",
    "export",
    "extract",
    "fetch",
    "load_recipe",
    "load_slices",
    "make_splits",
    "run_study",
    "sweep",
    "train",
    "twin",
    "write_phantom",
]

_HOME = {
    "Audit": "data.audit",
    "BrainstageError": "errors",
    "Columns": "data.sources",
    "Comparison": "compare",
    "ConfigError": "errors",
    "DataError": "errors",
    "Evaluation": "evaluate",
    "Export": "export",
    "Factor": "sweep",
    "LeakageError": "errors",
    "PatientEvaluation": "patients",
    "Predictor": "predict",
    "RunError": "errors",
    "RunFolder": "run",
    "SliceTable": "data.table",
    "Splits": "data.splits",
    "Study": "study",
    "Sweep": "sweep",
    "TrainConfig": "config",
    "Twin": "twin",
    "audit": "data.audit",
    "compare": "compare",
    "cross_validate": "crossval",
    "describe": "data.describe",
    "evaluate": "evaluate",
    "evaluate_patients": "patients",
    "explain": "explain",
    "export": "export",
    "extract": "extraction",
    "fetch": "data.hub",
    "load_recipe": "models.recipes",
    "load_slices": "data.sources",
    "make_splits": "data.splits",
    "run_study": "study",
    "sweep": "sweep",
    "train": "train",
    "twin": "twin",
    "write_phantom": "data.phantom",
}


class _Package(ModuleType):
    """A package whose function ``train`` is not hidden by its module ``train`` once that is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import brainstage`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'brainstage' has no attribute {name!r}")
    value = getattr(import_module(f"brainstage.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
