"""The facts of an external validation for its checklists: nothing is trained, a finished model meets new people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import CONFORMAL_THRESHOLD, PROB_PREFIX, SYNTHETIC_NOTICE
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import MEAN_OF_SLICES
from brainstage.evaluation.subgroups import Subgroup
from brainstage.models.recipes import load_recipe
from brainstage.models.weights import BUNDLED
from brainstage.report.cards import SCORES
from brainstage.report.checklists import (
    FigureTable,
    ReportFacts,
    describe_sets,
    find_origin,
    participants_table,
    score_rows,
    shown,
)
from brainstage.report.methods import Method, describe_method, unknown_method
from brainstage.report.pages import plain
from brainstage.report.validation_page import BINARY_SCORES, COMPARED, OF_SUBGROUPS
from brainstage.stats import metrics, validation
from brainstage.studies.external_validation import ExternalValidation


def facts_of_validation(model: StrPath, result: ExternalValidation, slices: SliceTable) -> ReportFacts:
    """Return what an external validation, the model's manifest and the cohort tell.

    Args:
        model: The model, as :func:`brainstage.validate` took it.
        result: The validation.
        slices: The cohort.

    Raises:
        ConfigError: The settings of the model's run are not readable.
    """
    config, scores = _settings(model, result), result.scores
    occurring = set(result.predictions["cohort_label"].to_pylist())
    labels = [name for name in slices.classes if name in occurring]
    design = (
        "External validation: a finished model predicts people of another source, from scans that were stored with "
        "their labels. Nothing is fitted, chosen or recalibrated on them."
    )
    headline = (
        f"{result.title}: {result.first} against any other, AUROC {shown(scores['auroc'])}, sensitivity "
        f"{shown(scores['sensitivity'])} and specificity {shown(scores['specificity'])} at a probability of "
        f"{validation.THRESHOLD}, calibration slope {shown(result.line.slope)}"
    )
    return ReportFacts(
        recipe=plain(str(result.about.get("recipe", "a model"))),
        external=True,
        design=design,
        goal=f"How well a finished model tells {result.first} from any other on people whom it has never seen.",
        origin=find_origin(slices.data_hash, synthetic=slices.synthetic),
        data_hash=slices.data_hash,
        labels=_labels(result, labels),
        method=_method(config, result),
        weights=result.model,
        partitions=_partitions(result),
        disjoint=_disjoint(result),
        subsets=None,
        exclusions=_exclusions(result),
        people=_people(result, labels),
        participants=_participants(result, labels),
        people_inferred=slices.patient_source == "inferred",
        clusters=_clusters(result.subgroups),
        versions={name: version(name) for name in ("brainstage", "numpy", "scikit-learn")},
        seed=config.seed if config else None,
        parameters=result.about.get("parameters"),
        measures=_measures(result),
        tables=_tables(result),
        errors=_errors(result, labels),
        title=result.title,
        headline=headline,
        calibration=_calibration(result),
        inside=_inside(result),
        outside=f"{design} {headline}.",
        repeats=1,
        limits=_limits(result),
    )


def _settings(model: StrPath, result: ExternalValidation) -> TrainConfig | None:
    """Return the settings that the model was made with; None where they are not at hand, as of an exported one."""
    if str(model) in BUNDLED:
        return load_recipe(str(result.about["recipe"]))
    file = RunFolder(model).config
    return TrainConfig.from_json(file) if file.is_file() else None


def _method(config: TrainConfig | None, result: ExternalValidation) -> Method:
    if config is None:
        return unknown_method(str(result.about.get("recipe", "unknown")))
    calibrated = CONFORMAL_THRESHOLD in result.predictions.column_names
    after = ", after the temperature that the model brings" if calibrated else ""
    own = {name: value for name, value in result.about.items() if name != "optimistic"}
    method = describe_method(config, own, f"{MEAN_OF_SLICES}{after}")
    versions = ", ".join(f"{name} {number}" for name, number in own.get("versions", {}).items())
    return replace(method, settings=f"{method.settings} Made with {versions}.") if versions else method


def _labels(result: ExternalValidation, labels: Sequence[str]) -> str:
    names, classes = (", ".join(map(plain, ones)) for ones in (labels, result.classes))
    if result.mapped is None:
        return (
            f"The labels found: {names}. The classes of the model ({classes}) are others, so {result.first} "
            "against any other label is judged by the probability of any class but the model's first."
        )
    pairs = ", ".join(f"{plain(label)} = {plain(name)}" for label, name in result.mapped.items())
    return f"The labels found: {names}. Label and class of the model: {pairs}."


def _partitions(result: ExternalValidation) -> str:
    fitted, known = result.about.get("fitted_on"), result.about.get("data_hash")
    on = f" to {plain(str(fitted).removeprefix('everyone: '))}" if fitted else ""
    data = f" (data hash `{known}`)" if known else ""
    return (
        f"Nobody of the cohort is trained on: all {result.people} people, {result.scans} scans, are test people. "
        f"The model was fitted before{on}{data}."
    )


def _disjoint(result: ExternalValidation) -> str:
    shared = f" {result.shared_ids} people have ids that occur in the model's own data too." * bool(
        result.shared_ids
    )
    if result.leakage["status"] == "unknown":
        return (
            "Slice: not known. The model does not say which slices it was fitted to, only that its data set as a "
            f"whole is another.{shared}"
        )
    return (
        "Slice: no slice of the cohort is in the data that the model was made with. "
        f"Whether the same people are in both under other slices cannot be seen.{shared}"
    )


def _inside(result: ExternalValidation) -> str | None:
    """Return what the model's manifest says of its performance; None where it says nothing."""
    performance = result.about.get("performance")
    return f"The model's manifest says: {performance}" if performance else None


def _exclusions(result: ExternalValidation) -> str:
    """Return what became of the scans of the cohort."""
    rows = [
        f"{count:,} {status}" + (f" ({plain(reason)})" if reason else "") for status, reason, count in result.flow
    ]
    return f"Scans: {'; '.join(rows)}."


def _people(result: ExternalValidation, labels: Sequence[str]) -> str:
    own, patients = (result.predictions[name].to_pylist() for name in ("cohort_label", "patient_id"))
    pairs = set(zip(own, patients, strict=True))
    return ", ".join(
        f"{plain(label)} {sum(of == label for of, _ in pairs)} people ({own.count(label)} scans)"
        for label in labels
    )


def _participants(result: ExternalValidation, labels: Sequence[str]) -> FigureTable | None:
    rows = sorted(result.predictions.to_pylist(), key=lambda row: labels.index(row["cohort_label"]))
    names = [name for name in ("age", "sex") if name in result.predictions.column_names]
    return participants_table(
        [row["cohort_label"] for row in rows],
        [row["patient_id"] for row in rows],
        {name: [row[name] for row in rows] for name in names},
    )


def _clusters(groups: Sequence[Subgroup]) -> str | None:
    """Return by which groups of people figures are given; None where there are none."""
    if not groups:
        return None
    columns = " and ".join(dict.fromkeys(plain(group.column) for group in groups))
    small = sum(group.small for group in groups)
    few = f"; {small} of the {len(groups)} groups have too few people for a claim" if small else ""
    return f"Figures by {columns} stand in the table of subgroups{few}. Differences between groups are not tested."


def _measures(result: ExternalValidation) -> str:
    compared = result.with_covariates
    beside = " Beside them: age and sex alone, cross-fitted." if compared and compared.auroc else ""
    return (
        f"{', '.join(BINARY_SCORES.values())}, those of decisions at a probability of {validation.THRESHOLD}; "
        "calibration slope, intercept, curve and expected error; net benefit "
        f"(`validation.json`, `validation.html`).{beside}"
    )


def _tables(result: ExternalValidation) -> list[FigureTable]:
    """Return the tables of ``validation.html``."""
    interval = f"95 % intervals over people, {metrics.DRAWS:,} bootstrap draws."
    rows = [(name, [shown(result.scores[key])]) for key, name in BINARY_SCORES.items()]
    rows += [
        ("calibration slope", [shown(result.line.slope)]),
        ("calibration intercept", [shown(result.line.intercept)]),
        ("expected calibration error", [shown(result.calibration_error)]),
    ]
    tables = [FigureTable(result.title, interval, (f"{result.first} against any other", "value"), rows)]
    for view in result.stages.views if result.stages else ():
        text = f"{view.name}: {', '.join(map(plain, view.classes))}"
        tables.append(FigureTable("", text, ("people", *SCORES.values()), score_rows(view.rows, SCORES)))
    compared = result.with_covariates
    if compared and compared.auroc:
        text = f"{compared.people} people whose age and sex are known, each predicted by a fit to others."
        rows = [(COMPARED[key], [shown(score)]) for key, score in compared.auroc.items()]
        tables.append(FigureTable("", text, ("age and sex", "AUROC"), rows))
    if result.subgroups:
        head = ("subgroup", "people", "of another class", *(BINARY_SCORES[key] for key in OF_SUBGROUPS))
        tables.append(FigureTable("", "Subgroups.", head, [_subgroup(group) for group in result.subgroups]))
    return tables


def _subgroup(group: Subgroup) -> tuple[str, list[str]]:
    few = " (too few people for a claim)" if group.small else ""
    scores = [shown(group.scores[key]) for key in OF_SUBGROUPS]
    return f"{plain(group.column)}: {plain(group.name)}{few}", [
        str(group.people),
        str(group.positive_people),
        *scores,
    ]


def _errors(result: ExternalValidation, labels: Sequence[str]) -> FigureTable:
    """Return how often scans of each label are called any other at the threshold."""
    own = result.predictions["cohort_label"].to_pylist()
    first = result.predictions[PROB_PREFIX + result.classes[0]].to_numpy()
    called = (1 - first >= validation.THRESHOLD).tolist()
    pairs = list(zip(own, called, strict=True))
    rows = [(plain(label), [str(pairs.count((label, other))) for other in (False, True)]) for label in labels]
    text = f"Scans of each label by what they are called at a probability of {validation.THRESHOLD}."
    return FigureTable(result.title, text, ("", f"called {result.first}", "called any other"), rows)


def _calibration(result: ExternalValidation) -> str:
    line = (
        f"Slope {shown(result.line.slope)}, intercept {shown(result.line.intercept)}, expected calibration error "
        f"{shown(result.calibration_error)}; the curve is in `validation.html`."
    )
    return f"{line} {describe_sets(result.stages)}".strip() if result.stages else line


def _limits(result: ExternalValidation) -> list[str]:
    compared = result.with_covariates
    lost = sum(count for status, _, count in result.flow if status in ("refused", "failed"))
    not_compared = (compared.reason if compared else None) or "the cohort has no columns age and sex"
    few = min(result.positive_people, result.negative_people) < metrics.FEW
    sentences: list[tuple[Any, str]] = [
        (result.synthetic, f"{SYNTHETIC_NOTICE}."),
        (
            result.shared_ids,
            f"{result.shared_ids} people have ids that occur in the model's own data too. If they are the same "
            "people, this is no external validation.",
        ),
        (
            few,
            f"With {result.negative_people} people of {result.first} and {result.positive_people} of any other "
            "nothing can be claimed.",
        ),
        (
            lost,
            f"{lost} scans were refused or failed. If the disease makes that likelier, the figures are biased.",
        ),
        (
            not result.mapped,
            "The labels are not the model's classes, so only the first against any other is compared.",
        ),
        (
            not compared or not compared.auroc,
            f"How much of the figures is age or sex is not known: {not_compared}.",
        ),
        (
            True,
            "The intervals say how much the figures hang on who is in the cohort, not on who trained the model.",
        ),
    ]
    return [sentence for holds, sentence in sentences if holds]
