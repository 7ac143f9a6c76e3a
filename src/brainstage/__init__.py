"""brainstage: stages dementia from brain MRI slices, and says under which protocol each figure holds.

Research software. Not a medical device, never a diagnosis.

>>> from brainstage import evaluate, load_slices, train
>>> run = train(load_slices("alzheimer_mri/"), "compact")
>>> print(evaluate(run).title)
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainstage.audits.audit import Audit, audit
    from brainstage.cohorts.assemble import Cohort
    from brainstage.cohorts.bids import open_bids
    from brainstage.cohorts.prepare import prepare
    from brainstage.core.cluster import open_cluster
    from brainstage.core.config import TrainConfig
    from brainstage.core.errors import BrainstageError, ConfigError, DataError, LeakageError, RunError
    from brainstage.core.parallel import Processes
    from brainstage.core.progress import progress_bar
    from brainstage.core.run import RunFolder
    from brainstage.datasets.describe import describe
    from brainstage.datasets.layouts import Columns
    from brainstage.datasets.phantom import write_phantom
    from brainstage.datasets.public import fetch
    from brainstage.datasets.sources import load_slices
    from brainstage.datasets.splits import Splits, make_splits
    from brainstage.datasets.table import SliceTable
    from brainstage.evaluation.comparison import Comparison, compare
    from brainstage.evaluation.patients import PatientEvaluation, evaluate_patients
    from brainstage.evaluation.slices import Evaluation, evaluate
    from brainstage.exports.export import Export, export
    from brainstage.inference.classifiers import Prediction
    from brainstage.inference.predictions import Predictions, predict_scans
    from brainstage.inference.predictor import Predictor
    from brainstage.models.recipes import load_recipe
    from brainstage.report.derivatives import run_participants
    from brainstage.report.explanations import explain
    from brainstage.report.predictions import write_predictions
    from brainstage.report.results import write_evaluation, write_patient_evaluation
    from brainstage.report.validation_page import write_validation
    from brainstage.scans.discover import Scan, find_scans
    from brainstage.scans.extraction import extract, write_brain
    from brainstage.studies.bids_app import BidsApp
    from brainstage.studies.external_validation import ExternalValidation, validate
    from brainstage.studies.protocols import ProtocolComparison, compare_protocols
    from brainstage.studies.study import Study, run_study
    from brainstage.training.cross_validation import cross_validate
    from brainstage.training.sweep import Sweep, sweep
    from brainstage.training.sweep_trials import Factor
    from brainstage.training.train import train

__version__ = "0.1.0"

# tqdm, which other libraries import, misses ipywidgets in notebooks; the bars of this package do without
warnings.filterwarnings("ignore", message="IProgress not found")

__all__ = [
    "Audit",
    "BidsApp",
    "BrainstageError",
    "Cohort",
    "Columns",
    "Comparison",
    "ConfigError",
    "DataError",
    "Evaluation",
    "Export",
    "ExternalValidation",
    "Factor",
    "LeakageError",
    "PatientEvaluation",
    "Prediction",
    "Predictions",
    "Predictor",
    "Processes",
    "ProtocolComparison",
    "RunError",
    "RunFolder",
    "Scan",
    "SliceTable",
    "Splits",
    "Study",
    "Sweep",
    "TrainConfig",
    "audit",
    "compare",
    "compare_protocols",
    "cross_validate",
    "describe",
    "evaluate",
    "evaluate_patients",
    "explain",
    "export",
    "extract",
    "fetch",
    "find_scans",
    "load_recipe",
    "load_slices",
    "make_splits",
    "open_bids",
    "open_cluster",
    "predict_scans",
    "prepare",
    "progress_bar",
    "run_participants",
    "run_study",
    "sweep",
    "train",
    "validate",
    "write_brain",
    "write_evaluation",
    "write_patient_evaluation",
    "write_phantom",
    "write_predictions",
    "write_validation",
]

_HOME = {
    "Audit": "audits.audit",
    "BidsApp": "studies.bids_app",
    "BrainstageError": "core.errors",
    "Cohort": "cohorts.assemble",
    "Columns": "datasets.sources",
    "Comparison": "evaluation.comparison",
    "ConfigError": "core.errors",
    "DataError": "core.errors",
    "Evaluation": "evaluation.slices",
    "Export": "exports.export",
    "ExternalValidation": "studies.external_validation",
    "Factor": "training.sweep_trials",
    "LeakageError": "core.errors",
    "PatientEvaluation": "evaluation.patients",
    "Prediction": "inference.classifiers",
    "Predictions": "inference.predictions",
    "Predictor": "inference.predictor",
    "Processes": "core.parallel",
    "ProtocolComparison": "studies.protocols",
    "RunError": "core.errors",
    "RunFolder": "core.run",
    "Scan": "scans.discover",
    "SliceTable": "datasets.table",
    "Splits": "datasets.splits",
    "Study": "studies.study",
    "Sweep": "training.sweep",
    "TrainConfig": "core.config",
    "audit": "audits.audit",
    "compare": "evaluation.comparison",
    "compare_protocols": "studies.protocols",
    "cross_validate": "training.cross_validation",
    "describe": "datasets.describe",
    "evaluate": "evaluation.slices",
    "evaluate_patients": "evaluation.patients",
    "explain": "report.explanations",
    "export": "exports.export",
    "extract": "scans.extraction",
    "fetch": "datasets.public",
    "find_scans": "scans.discover",
    "load_recipe": "models.recipes",
    "load_slices": "datasets.sources",
    "make_splits": "datasets.splits",
    "open_bids": "cohorts.bids",
    "open_cluster": "core.cluster",
    "predict_scans": "inference.predictions",
    "prepare": "cohorts.prepare",
    "progress_bar": "core.progress",
    "run_participants": "report.derivatives",
    "run_study": "studies.study",
    "sweep": "training.sweep",
    "train": "training.train",
    "validate": "studies.external_validation",
    "write_brain": "scans.extraction",
    "write_evaluation": "report.results",
    "write_patient_evaluation": "report.results",
    "write_phantom": "datasets.phantom",
    "write_predictions": "report.predictions",
    "write_validation": "report.validation_page",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import brainstage`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'brainstage' has no attribute {name!r}")
    value = getattr(import_module(f"brainstage.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
