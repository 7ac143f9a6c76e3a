"""External validation: a finished model on labelled people whom it has never seen, as a reviewer asks for it.

What is always given compares the first class with all others: the probability of any other class, judged by
discrimination, calibration, decision curve and subgroup. Where each label of the cohort has its class in the model,
by name or by a mapping, all classes are judged too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.cohorts.folder import CohortFolder
from brainstage.cohorts.ledger import count_reasons
from brainstage.core.arrays import BoolArray, Float64Array
from brainstage.core.config import did_you_mean
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.files import make_folder, write_table
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import (
    CONFORMAL_THRESHOLD,
    PROB_PREFIX,
    RESEARCH_NOTICE,
    SYNTHETIC_NOTICE,
    Value,
    short_names,
    with_metadata,
)
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import PatientEvaluation, evaluate_patients
from brainstage.evaluation.subgroups import Subgroup, subgroups
from brainstage.inference.cohort_predictions import ScanPredictions, predict_cohort
from brainstage.inference.predictor import Predictor
from brainstage.stats import metrics, validation
from brainstage.stats.age_and_sex import age_and_sex
from brainstage.studies.unseen import check_unseen, training_people

PREDICTIONS = "predictions.parquet"
MISSES = 12
"""Scans shown for which the probability of the true outcome was lowest."""


@dataclass(frozen=True)
class Miss:
    """A scan whose prediction was wrong.

    Attributes:
        scan_id: Its name.
        label: Its label in the cohort.
        probability: That the model gave to any other class than the first.
        row: Of a slice from its middle, in the slice table.
    """

    scan_id: str
    label: str
    probability: float
    row: int


@dataclass(frozen=True)
class ExternalValidation(Displayed, Plotted, Tabular):
    """The performance of a model on a cohort that it has never seen.

    Attributes:
        title: People, scans, model and leakage verdict.
        model: SHA-256 of the weights.
        about: The model's manifest.
        synthetic: Whether the cohort is the phantom cohort.
        leakage: Whether slices of the cohort were trained on, by :func:`brainstage.studies.unseen.check_unseen`.
        shared_ids: Number of people whose ids the model's own data has too: the same people, or the same numbers.
        classes: Class names of the model.
        mapped: Class of the model that each label stands for; None where the classes are not comparable.
        first: The class that is compared with all others, in words.
        flow: Status, reason and number of scans: what became of all that the cohort holds.
        people: Number of people.
        scans: Number of their scans.
        positive_people: Number of people with a scan of another class than the first.
        negative_people: Number of people with a scan of the first.
        scores: Discrimination at a probability of 0.5.
        line: Slope and intercept of the calibration.
        calibration_error: Expected calibration error.
        curve: Observed shares by predicted probability.
        decisions: Net benefit by threshold.
        subgroups: Scores by subgroup.
        with_covariates: AUROC of age and sex alone, of the model, and of both; None where age or sex is not known.
        stages: Figures of all classes; None where they are not comparable.
        misses: The worst first.
        predictions: A row a scan: its label, age, sex, the covariates of the subgroups, and probabilities.
    """

    title: str
    model: str
    about: dict[str, Any]
    synthetic: bool
    leakage: dict[str, str]
    shared_ids: int
    classes: tuple[str, ...]
    mapped: dict[str, str] | None
    first: str
    flow: list[tuple[str, str, int]]
    people: int
    scans: int
    positive_people: int
    negative_people: int
    scores: dict[str, metrics.Score]
    line: validation.CalibrationLine
    calibration_error: metrics.Score
    curve: list[validation.CalibrationBin]
    decisions: validation.DecisionCurve
    subgroups: list[Subgroup]
    with_covariates: validation.CovariateComparison | None
    stages: PatientEvaluation | None
    misses: list[Miss]
    predictions: pa.Table

    @property
    def figures(self) -> dict[str, metrics.Score]:
        """The figures that every summary shows, by their names."""
        names = ("auroc", "balanced_accuracy", "sensitivity", "specificity")
        return {
            **{name.replace("auroc", "AUROC").replace("_", " "): self.scores[name] for name in names},
            "calibration slope": self.line.slope,
            "calibration intercept": self.line.intercept,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``validation.json``."""
        covariates = self.with_covariates
        return {
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.synthetic else None,
            "title": self.title,
            "model": {
                "hash": self.model,
                **{key: self.about.get(key) for key in ("recipe", "protocol", "data_hash")},
            },
            "leakage": self.leakage,
            "shared_ids": self.shared_ids,
            "classes": list(self.classes),
            "mapped": self.mapped,
            "compared": f"{self.first} against any other",
            "flow": [{"status": status, "reason": reason, "scans": count} for status, reason, count in self.flow],
            "people": self.people,
            "scans": self.scans,
            "positive_people": self.positive_people,
            "negative_people": self.negative_people,
            "interval": f"95 % bootstrap over people, {metrics.DRAWS} draws",
            "threshold": validation.THRESHOLD,
            "scores": {name: score.to_dict() for name, score in self.scores.items()},
            "calibration": {
                "slope": self.line.slope.to_dict(),
                "intercept": self.line.intercept.to_dict(),
                "error": self.calibration_error.to_dict(),
                "curve": [asdict(one) for one in self.curve],
            },
            "decision_curve": {name: values.tolist() for name, values in vars(self.decisions).items()},
            "subgroups": [
                {**vars(one), "scores": {name: score.to_dict() for name, score in one.scores.items()}}
                for one in self.subgroups
            ],
            "age_and_sex": None
            if covariates is None
            else {
                "people": covariates.people,
                "scans": covariates.scans,
                "reason": covariates.reason,
                "auroc": {name: score.to_dict() for name, score in (covariates.auroc or {}).items()},
            },
            "stages": self.stages.to_dict() if self.stages else None,
            "misses": [
                {"scan_id": one.scan_id, "label": one.label, "probability": one.probability} for one in self.misses
            ],
        }


def validate(
    model: StrPath,
    slices: SliceTable,
    out: Path | str,
    *,
    cohort: Path | None = None,
    by: Sequence[str] = (),
    class_map: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> ExternalValidation:
    """Judge a finished model on every labelled person of a cohort that it has never seen.

    It writes ``predictions.parquet``, a row a scan; :func:`brainstage.write_validation` writes the rest.

    Args:
        model: A run folder, or a bundled model by its name.
        slices: The cohort.
        out: Folder for the predictions.
        cohort: The cohort's folder, whose ledger tells what was not prepared; None where the slices are of another
            source.
        by: Covariates whose values make subgroups.
        class_map: Class of the model that each label of the cohort stands for. None takes labels for classes where
            all have the names of classes; else only the first class is compared with all others.
        progress: How to show progress.

    Raises:
        LeakageError: A slice is of the model's training set, or has no patient.
        DataError: Nothing can be predicted or compared, the slices show other levels than the model's, or a
            covariate is not known.
        ConfigError: The mapping names an unknown class or label, or leaves one out.
        RunError: The model cannot be opened, or the folder is a run or not writable.
    """
    if RunFolder(out).started or RunFolder(out).finished:
        raise RunError(f"{out}: is a run, whose predictions would be replaced; give another folder with --out")
    folder = make_folder(Path(out))
    predictor = Predictor.open(model)
    leakage = check_unseen(model, predictor, slices)
    mapped = _map_classes(slices, predictor, class_map)
    ledger = _read_ledger(cohort)
    found = predict_cohort(predictor, slices, progress)
    covariates = {name: [column[row] for row in found.slices] for name, column in slices.covariates.items()}
    first, positive = _outcome(found, slices, predictor, mapped)
    probability = 1 - found.probabilities[:, 0]
    kept = {name: values for name, values in covariates.items() if name in ("age", "sex", *by)}
    table = _table(found, predictor, mapped, kept, slices, leakage)
    write_table(folder / PREDICTIONS, table)
    groups = metrics.groups_of(found.patients)
    people = len(set(found.patients))
    outcomes = set(zip(found.patients, positive.tolist(), strict=True))
    return ExternalValidation(
        title=_title(people, len(found.scans), predictor, leakage, synthetic=slices.synthetic),
        model=predictor.hash,
        about=predictor.about,
        synthetic=slices.synthetic,
        leakage=leakage,
        shared_ids=len(set(found.patients) & training_people(model)),
        classes=predictor.classes,
        mapped=mapped,
        first=first,
        flow=_flow(ledger, found, slices),
        people=people,
        scans=len(found.scans),
        positive_people=len({who for who, other in outcomes if other}),
        negative_people=len({who for who, other in outcomes if not other}),
        scores=validation.threshold_scores(positive, probability, groups),
        line=validation.calibration_line(positive, probability, groups),
        calibration_error=validation.expected_calibration_error(positive, probability, groups),
        curve=validation.calibration_curve(positive, probability),
        decisions=validation.decision_curve(positive, probability),
        subgroups=subgroups(positive, probability, found.patients, covariates, by),
        with_covariates=_with_covariates(positive, probability, covariates, groups),
        stages=evaluate_patients(folder / PREDICTIONS) if mapped else None,
        misses=_misses(found, positive, probability),
        predictions=table,
    )


def _map_classes(
    slices: SliceTable, predictor: Predictor, class_map: Mapping[str, str] | None
) -> dict[str, str] | None:
    """Return the model's class of each label that is to be compared; None where classes are not comparable.

    Raises:
        ConfigError: The mapping names an unknown class or label, or leaves a label out.
    """
    labels = sorted({label for label in slices.labels if label is not None})
    if class_map is None:
        return {label: label for label in labels} if set(labels) <= set(predictor.classes) else None
    for label, name in class_map.items():
        if label not in labels:
            raise ConfigError(f"--map {label}={name}: no slice has that label{did_you_mean(label, labels)}")
        if name not in predictor.classes:
            raise ConfigError(
                f"--map {label}={name}: the model has no such class{did_you_mean(name, list(predictor.classes))}"
            )
    missing = [label for label in labels if label not in class_map]
    if missing:
        raise ConfigError(f"--map says nothing of {', '.join(missing)}; map every label of the cohort")
    return dict(class_map)


def _outcome(
    found: ScanPredictions, slices: SliceTable, predictor: Predictor, mapped: dict[str, str] | None
) -> tuple[str, BoolArray]:
    """Return the name of the first class, and which scans are of another.

    Raises:
        DataError: The order of the classes is not known, or all scans are on one side.
    """
    if not predictor.ordered or not (mapped or slices.ordered):
        raise DataError(
            "the order of the classes is not known, so there is no first one; give --class-order or --map"
        )
    first = predictor.classes[0] if mapped else slices.classes[0]
    positive = np.array([(mapped[label] if mapped else label) != first for label in found.labels])
    if positive.all() or not positive.any():
        which = "any other class" if positive.all() else first
        raise DataError(
            f"all {len(positive)} scans are of {which}, so nothing can be compared"
            "; give a cohort that has others too"
        )
    return short_names(predictor.classes if mapped else slices.classes)[0], positive


def _read_ledger(cohort: Path | None) -> pa.Table | None:
    """Return the ledger of a cohort; None where the data is no cohort that `prepare` made."""
    file = CohortFolder(cohort).ledger if cohort else None
    return pq.read_table(file) if file and file.is_file() else None


def _with_covariates(
    positive: BoolArray,
    probability: Float64Array,
    covariates: Mapping[str, Sequence[Value]],
    groups: Sequence[str] | None,
) -> validation.CovariateComparison | None:
    """Compare the model with age and sex; None where the cohort has no such columns."""
    if "age" not in covariates or "sex" not in covariates:
        return None
    columns = age_and_sex(covariates["age"], covariates["sex"])
    return validation.compare_with_covariates(positive, probability, columns, groups)


def _table(
    found: ScanPredictions,
    predictor: Predictor,
    mapped: dict[str, str] | None,
    covariates: Mapping[str, Sequence[Value]],
    slices: SliceTable,
    leakage: dict[str, str],
) -> pa.Table:
    """Return a prediction table of scans: a row each, which `evaluate` reads where the classes are comparable."""
    columns: dict[str, Any] = {
        "slice_id": [slices.slice_ids[row] for row in found.slices],
        "patient_id": list(found.patients),
        "scan_id": list(found.scans),
        "split": ["test"] * len(found.scans),
        "fold": pa.array([0] * len(found.scans), pa.int32()),
        "label": [mapped[label] if mapped else None for label in found.labels],
        "cohort_label": list(found.labels),
        "model": [predictor.hash] * len(found.scans),
    }
    columns |= {PROB_PREFIX + name: found.probabilities[:, number] for number, name in enumerate(predictor.classes)}
    if found.conformal_thresholds is not None:
        columns[CONFORMAL_THRESHOLD] = found.conformal_thresholds
    columns |= {name: list(values) for name, values in covariates.items() if name not in columns}
    columns["label"] = pa.array(columns["label"], pa.string())
    about = {
        "protocol": "patient",
        "external": True,
        "leakage": leakage,
        "synthetic": slices.synthetic,
        "ordered": predictor.ordered,
        "recipe": predictor.about.get("recipe"),
    }
    return with_metadata(pa.table(columns), about)


def _flow(ledger: pa.Table | None, found: ScanPredictions, slices: SliceTable) -> list[tuple[str, str, int]]:
    """Return what became of all scans: not prepared and why, without a label, refused by the model, predicted."""
    rows = [] if ledger is None else [row for row in count_reasons(ledger) if row[0] != "prepared"]
    unlabelled = {stack for stack, label in zip(slices.stacks, slices.labels, strict=True) if label is None}
    for status, reason, count in (
        ("not compared", "no label", len(unlabelled)),
        ("refused", "the model takes more than half of its slices for out of distribution", len(found.refused)),
        ("predicted", "", len(found.scans)),
    ):
        if count:
            rows.append((status, reason, count))
    return rows


def _misses(found: ScanPredictions, positive: BoolArray, probability: Float64Array) -> list[Miss]:
    """Return the scans that were predicted wrongly, the worst first."""
    of_true = np.where(positive, probability, 1 - probability)
    wrong = [row for row in np.argsort(of_true, kind="stable").tolist() if of_true[row] < validation.THRESHOLD]
    return [
        Miss(found.scans[row], found.labels[row], float(probability[row]), found.slices[row])
        for row in wrong[:MISSES]
    ]


def _title(people: int, scans: int, predictor: Predictor, leakage: dict[str, str], *, synthetic: bool) -> str:
    stamp = f"{SYNTHETIC_NOTICE} · " if synthetic else ""
    of_scans = f", {scans} scans" if scans > people else ""
    recipe = predictor.about.get("recipe", "unknown recipe")
    return (
        f"{stamp}external validation · {people} people{of_scans} · model {predictor.hash[:12]} ({recipe}) · "
        f"{leakage['sentence']}"
    )
