"""From a prediction table to metrics: the performance of a run, under which protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.arrays import Float64Array, IntArray
from brainstage.core.errors import ConfigError, DataError, LeakageError
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.run import AGE_AND_SEX, NEAREST_SLICE, RunFolder
from brainstage.core.schema import (
    CONFORMAL_THRESHOLD,
    PROB_PREFIX,
    RESEARCH_NOTICE,
    SPLIT_NAMES,
    SYNTHETIC_NOTICE,
    class_names,
    figure_title,
    read_metadata,
    short_names,
    table_classes,
    validate_predictions,
    why_optimistic,
)
from brainstage.stats import metrics


@dataclass(frozen=True)
class Baseline:
    """What an answer scores that needs no learning, on the slices that are evaluated.

    Attributes:
        name: What a reader sees.
        accuracy: Share of slices that it is right on.
        weighted_f1: Mean F1 of the stages, weighted by their slices.
    """

    name: str
    accuracy: metrics.Score
    weighted_f1: metrics.Score

    @property
    def in_words(self) -> str:
        """Both scores in words."""
        return f"accuracy {self.accuracy.value:.4f}, weighted F1 {self.weighted_f1.value:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """Return the scores for a JSON file."""
        return {
            "name": self.name,
            "accuracy": self.accuracy.to_dict(),
            "weighted_f1": self.weighted_f1.to_dict(),
        }


@dataclass(frozen=True)
class Evaluation(Displayed, Plotted, Tabular):
    """The scores of one side of a prediction table, and the protocol and verdict that they are reported with.

    Attributes:
        scores: The figures with their intervals.
        classes: Class names in clinical order.
        ordinal: Whether that order is known, or there are but two classes. Where not, the scores that depend on it
            are NaN.
        split: The side that was judged.
        protocol: ``official`` or ``patient``.
        leakage: The leakage verdict's sentence.
        leakage_status: ``clean``, ``leaky`` or ``unknown``.
        synthetic: Whether the data was the phantom cohort.
        resampled: What the bootstrap drew: ``patients`` or ``slices``.
        selection: The slices that picked the epoch: ``validation``, or ``test`` as the report did.
        fold: Which fold was judged, ``fold 0 of 5``; None where all were, or where there is one.
        optimistic: Why the figures are too good; None where nothing is known against them.
        baselines: What needs no learning: ``majority`` always answers the most frequent stage;
            ``age_and_sex`` answers what is likeliest at a person's age and sex, and ``nearest_training_slice`` what
            the training slice with the most similar pixels has; they are there where the run's folder holds them.
        unlabelled: Number of slices of that side that were left out because their label is not known.
        age_and_sex: As in :class:`brainstage.PatientEvaluation`.
        repeats: How often each slice was predicted.
        folds: Number of folds that predicted the slices.
    """

    scores: metrics.Scores
    classes: tuple[str, ...]
    ordinal: bool
    split: str
    protocol: str
    leakage: str
    leakage_status: str
    synthetic: bool
    resampled: str
    selection: str
    baselines: dict[str, Baseline]
    fold: str | None = None
    optimistic: str | None = None
    unlabelled: int = 0
    age_and_sex: str | None = None
    repeats: int = 1
    folds: int = 1

    @property
    def slices(self) -> int:
        """Number of predictions judged; with repeats of a cross-validation each slice has several."""
        return int(self.scores.confusion.sum())

    @property
    def title(self) -> str:
        """What every table and chart says above its figures."""
        often = f" × {self.repeats}" if self.repeats > 1 else ""
        return self.titled(f"{self.split} · {self.slices // self.repeats:,} slices{often}")

    @property
    def caution(self) -> str | None:
        """Why the figures are too good, by whatever was chosen on these slices; None where nothing was."""
        return why_optimistic(self.optimistic, self.selection)

    @property
    def beside(self) -> str:
        """The accuracy in one line, beside that of what needs no learning."""
        rows = {"accuracy": self.scores.overall["accuracy"]}
        rows |= {baseline.name: baseline.accuracy for baseline in self.baselines.values()}
        return " · ".join(f"{name} {score.value:.4f}" for name, score in rows.items())

    @property
    def headline(self) -> str:
        """The performance in one line: protocol, accuracy, and the accuracy of what needs no learning."""
        rows = ", ".join(f"{baseline.name} {baseline.accuracy.value:.2f}" for baseline in self.baselines.values())
        stamp = "synthetic, " * self.synthetic + "optimistic: " * bool(self.caution)
        accuracy = self.scores.overall["accuracy"].value
        return f"{stamp}{self.protocol} protocol: accuracy {accuracy:.2f}; {rows}"

    def titled(self, what: str) -> str:
        """Return the title of a table or chart that shows ``what``: it names protocol and leakage verdict."""
        return figure_title(
            what, self.protocol, self.leakage, self.synthetic, fold=self.fold, optimistic=self.caution
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``metrics.json``."""
        return {
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.synthetic else None,
            "protocol": self.protocol,
            "leakage": {"status": self.leakage_status, "sentence": self.leakage},
            "fold": self.fold,
            "selection": self.selection,
            "optimistic": self.optimistic,
            "split": self.split,
            "slices": self.slices,
            "unlabelled": self.unlabelled,
            "classes": list(self.classes),
            "class_order_known": self.ordinal,
            "interval": f"95 % bootstrap over {self.resampled}, {metrics.DRAWS} draws",
            "baselines": {name: baseline.to_dict() for name, baseline in self.baselines.items()},
            "age_and_sex": self.age_and_sex,
            **metrics.to_dict(self.scores),
        }


def evaluate(
    source: RunFolder | Path | str,
    *,
    split: str = "test",
    protocol: str | None = None,
    class_order: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate a run, or a prediction table that any tool wrote. No model is opened.

    Slices without a label are left out and counted in ``unlabelled``.

    Args:
        source: A run folder, or a parquet file with the columns of a prediction table.
        split: The side to evaluate: ``test``, ``validation`` or ``train``.
        protocol: ``official`` or ``patient``, for a table that does not say under which it was made.
        class_order: Class names from the least to the most severe stage, for a table that does not say it and whose
            names are not known. Without it no score that depends on the order is given.

    Raises:
        RunError: The run is missing or not finished.
        DataError: The table is not a prediction table, has other classes, or no labelled slice of that side.
        ConfigError: The protocol is not known, so no figure can be given.
        LeakageError: The protocol is ``patient`` and patients are not known.
    """
    return judge(read_side(source, split=split, protocol=protocol, class_order=class_order))


@dataclass(frozen=True)
class Side:
    """One side of a prediction table as arrays.

    Attributes:
        file: The table's file.
        name: ``test``, ``validation`` or ``train``.
        protocol: ``official`` or ``patient``.
        slice_ids: SHA-256 of each slice.
        labels: Class numbers, int64 of shape (N,).
        probabilities: float64 of shape (N, K).
        classes: K class names in clinical order.
        ordinal: Whether that order is known, or there are but two classes.
        folds: Number of the fold that predicted each slice, int64 of shape (N,).
        patients: Patient of each slice; None where one is not known.
        scans: Scan of each slice, where the table has a column ``scan_id`` that names it; else its patient. None
            where one has neither.
        conformal_threshold: Probability from which on a stage belongs to the 90 % set, float64 of shape (N,); None
            where the model is not calibrated.
        about: What is written beside the table's columns.
        unlabelled: Number of slices of that side without a label; they are left out of the arrays.
    """

    file: Path
    name: str
    protocol: str
    slice_ids: tuple[str, ...]
    labels: IntArray
    probabilities: Float64Array
    classes: tuple[str, ...]
    ordinal: bool
    folds: IntArray
    patients: tuple[str, ...] | None
    scans: tuple[str, ...] | None
    conformal_threshold: Float64Array | None
    about: dict[str, Any]
    unlabelled: int


def labelled_sides(source: RunFolder | Path | str) -> list[str]:
    """Return the sides of a run, or of a prediction table, that have labelled slices.

    Raises:
        RunError, DataError: As :func:`evaluate`.
    """
    file, table = _read(source)
    validate_predictions(table, str(file))
    present = set(table.filter(pa.compute.is_valid(table["label"]))["split"].to_pylist())
    return [name for name in SPLIT_NAMES if name in present]


def read_side(
    source: RunFolder | Path | str,
    *,
    split: str = "test",
    protocol: str | None = None,
    class_order: Sequence[str] | None = None,
) -> Side:
    """Read one side of a run's predictions, or of a prediction table.

    Args:
        source: A run folder, or a parquet file with the columns of a prediction table.
        split: The side to read: ``test``, ``validation`` or ``train``.
        protocol: ``official`` or ``patient``, for a table that does not say under which it was made.
        class_order: As for :func:`evaluate`.

    Raises:
        RunError, DataError, ConfigError, LeakageError: As :func:`evaluate`.
    """
    file, table = _read(source)
    validate_predictions(table, str(file))
    about = read_metadata(table)
    protocol = about.get("protocol") or protocol
    if protocol not in ("official", "patient"):
        raise ConfigError(f"{file}: does not say under which protocol it was made; name it with --protocol")
    every = table.filter(pa.compute.equal(table["split"], split))
    side = every.filter(pa.compute.is_valid(every["label"]))
    if not len(side):
        raise DataError(
            f"{file}: no labelled slice of the {split} side; it has {_sides(table)}; take one of these with --split"
        )
    patients = side["patient_id"].to_pylist()
    if protocol == "patient" and None in patients:
        raise LeakageError(
            f"{file}: a patient figure needs the patient of every slice; {patients.count(None)} have none"
            "; recover them with `brainstage audit`"
        )
    classes, ordered = table_classes(side, class_order)
    number = {name: index for index, name in enumerate(classes)}
    return Side(
        file=file,
        name=split,
        protocol=protocol,
        slice_ids=tuple(side["slice_id"].to_pylist()),
        labels=np.array([number[label] for label in side["label"].to_pylist()]),
        probabilities=np.stack([side[PROB_PREFIX + name].to_numpy().astype(np.float64) for name in classes], 1),
        classes=classes,
        ordinal=ordered or len(classes) <= 2,
        folds=side["fold"].cast(pa.int64()).to_numpy(),
        patients=None if None in patients else tuple(patients),
        scans=_scans(side),
        conformal_threshold=_complete(side, CONFORMAL_THRESHOLD),
        about=about,
        unlabelled=len(every) - len(side),
    )


def _scans(table: pa.Table) -> tuple[str, ...] | None:
    """Return the scan of each slice; its patient where none is named: a person without scan ids has one scan."""
    scans = table["patient_id"].to_pylist()
    if "scan_id" in table.column_names:
        named = zip(table["scan_id"].to_pylist(), scans, strict=True)
        scans = [patient if scan is None else scan for scan, patient in named]
    return None if None in scans else tuple(scans)


def _complete(table: pa.Table, name: str) -> Float64Array | None:
    """Return a column without gaps; None where it is missing or has some."""
    if name not in table.column_names or table[name].null_count:
        return None
    column: Float64Array = table[name].to_numpy()
    return column


def judge(side: Side) -> Evaluation:
    """Return the scores of one side of a prediction table."""
    leakage = side.about.get("leakage", {})
    scores = metrics.score(side.labels, side.probabilities, side.classes, groups=side.patients)
    return Evaluation(
        scores=scores if side.ordinal else replace(scores, overall=metrics.without_ordinal(scores.overall)),
        classes=side.classes,
        ordinal=side.ordinal,
        split=side.name,
        protocol=side.protocol,
        leakage=leakage.get("sentence", "leakage unknown: the table does not say"),
        leakage_status=leakage.get("status", "unknown"),
        synthetic=bool(side.about.get("synthetic")),
        resampled="patients" if side.patients else "slices",
        selection=side.about.get("selection", "validation"),
        fold=side.about.get("fold"),
        optimistic=side.about.get("optimistic"),
        baselines=make_baselines(side.labels, _beside(side), side.classes, side.patients),
        unlabelled=side.unlabelled,
        age_and_sex=side.about.get("age_and_sex"),
        repeats=len(side.slice_ids) // len(set(side.slice_ids)),
        folds=len(np.unique(side.folds)),
    )


BESIDE = {"age_and_sex": AGE_AND_SEX, "nearest_training_slice": NEAREST_SLICE}
"""Prediction tables of baselines that may lie beside a run's own, by the name in ``baselines``."""


def make_baselines(
    labels: IntArray, beside: Mapping[str, IntArray], classes: Sequence[str], groups: Sequence[str] | None = None
) -> dict[str, Baseline]:
    """Score what needs no learning from pictures.

    Args:
        labels: Class numbers of the slices that are evaluated, int64 of shape (N,).
        beside: Class numbers that other baselines give to the same slices, by their names in :data:`BESIDE`, int64
            of shape (N,).
        classes: Class names.
        groups: Patient of each slice, which the bootstrap then draws whole; None draws slices.

    Returns:
        ``majority``, and the others.
    """
    most = metrics.majority(labels, len(classes))
    answers = {"majority": (f"always {short_names(classes)[most]}", np.full_like(labels, most))}
    answers |= {key: (key.replace("_", " "), decisions) for key, decisions in beside.items()}
    return {
        key: Baseline(name, **metrics.score_decisions(labels, decisions, len(classes), groups))
        for key, (name, decisions) in answers.items()
    }


def _beside(side: Side) -> dict[str, IntArray]:
    """Return the class numbers of the baselines that the side's folder holds."""
    files = {key: side.file.with_name(name) for key, name in BESIDE.items()}
    return {key: _decisions(file, side) for key, file in files.items() if file.is_file() and file != side.file}


def _decisions(file: Path, side: Side) -> IntArray:
    """Return the class numbers that another prediction table gives to the slices of a side, in their order."""
    _, table = _read(file)
    names = class_names(validate_predictions(table, str(file)))
    columns = np.stack([table[PROB_PREFIX + name].to_numpy() for name in names], axis=1)
    number = {name: index for index, name in enumerate(side.classes)}
    keys = zip(table["fold"].to_pylist(), table["slice_id"].to_pylist(), strict=True)
    decided = dict(zip(keys, (number[names[column]] for column in columns.argmax(axis=1)), strict=True))
    try:
        return np.array([decided[key] for key in zip(side.folds.tolist(), side.slice_ids, strict=True)])
    except KeyError:
        raise DataError(
            f"{file}: does not hold every slice of {side.file}; remove it or make both on the same data and folds"
        ) from None


def _read(source: RunFolder | Path | str) -> tuple[Path, pa.Table]:
    if isinstance(source, RunFolder):
        source = source.path
    path = Path(source)
    file = path if path.is_file() else RunFolder.open(path).predictions
    try:
        return file, pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); write it again"
        ) from error


def _sides(table: pa.Table) -> str:
    return ", ".join(sorted(set(table["split"].to_pylist()))) or "no rows"
