"""The facts of a cross-validated run for its checklists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.errors import LeakageError, RunError
from brainstage.core.run import RunFolder
from brainstage.core.schema import SPLIT_NAMES, SYNTHETIC_NOTICE
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import PatientEvaluation
from brainstage.evaluation.slices import Evaluation
from brainstage.models.folder import WEIGHTS
from brainstage.report.cards import SCORES, shown_score
from brainstage.report.checklists import (
    FigureTable,
    ReportFacts,
    describe_sets,
    find_origin,
    participants_table,
    score_rows,
    shown,
)
from brainstage.report.methods import describe_method
from brainstage.report.pages import plain
from brainstage.stats import metrics
from brainstage.stats.weighted import CALIBRATION_BINS

BY_STAGE = {"precision": "precision", "recall": "recall", "f1": "F1", "auroc": "AUROC"}
Nested = Mapping[str, Mapping[str, Mapping[str, float]]]


def facts_of_run(
    run: RunFolder,
    evaluation: Evaluation,
    people: PatientEvaluation,
    slices: SliceTable | None = None,
    nested: Nested | None = None,
) -> ReportFacts:
    """Return what the files of a cross-validated run and its figures tell.

    Args:
        run: The run.
        evaluation: Its figures by slice.
        people: Its figures by person.
        slices: The data, where they are at hand: they tell how many slices were left out, and why, and ages.
        nested: Of a bundled model, the figures of the procedure that chose its recipe inside the folds, by view.

    Raises:
        RunError: A file of the run is not readable.
        LeakageError: A name stands on two sides of a fold.
    """
    manifest, splits = run.read_manifest(), _read(run.splits)
    config = TrainConfig.from_json(run.config)
    drawn = {"training": config.train_rows, "test": config.test_rows}
    slices_of = _slices_of(evaluation, people)
    classes = ", ".join(map(plain, evaluation.classes))
    design = (
        "Retrospective: slices that were stored with their stages. The model is made and tested by "
        "cross-validation over people: nobody is predicted by a model that was fitted to them."
    )
    title, inferred = people.title, manifest["leakage"].get("patient_id_source") == "inferred"
    headline = _headline(people, title, nested or {})
    return ReportFacts(
        recipe=plain(str(manifest["recipe"])),
        external=False,
        design=design,
        goal=f"A model that tells {classes} apart, and how well it does on people outside its training set.",
        origin=find_origin(str(manifest["data_hash"]), synthetic=bool(manifest.get("synthetic"))),
        data_hash=str(manifest["data_hash"]),
        labels=f"The labels found: {classes}.",
        method=describe_method(config, manifest, people.aggregation),
        weights=str(manifest["files"][f"model/{WEIGHTS}"]),
        partitions=_partitions(splits, config),
        disjoint=_disjoint(splits),
        subsets=" ".join(
            f"Of each {side} side {rows:,} slices were drawn." for side, rows in drawn.items() if rows
        ),
        exclusions=_exclusions(evaluation, slices, slices_of),
        people=_people(people, slices_of),
        participants=_participants(slices) if slices else None,
        people_inferred=inferred,
        clusters=_clusters(splits),
        versions=manifest["versions"],
        seed=config.seed,
        parameters=manifest.get("parameters"),
        measures=_measures(people),
        tables=_tables(evaluation, people, title, nested or {}),
        errors=_errors(evaluation),
        title=title,
        headline=headline,
        calibration=_calibration(people),
        inside=f"{design} {headline}.",
        outside=None,
        repeats=people.repeats,
        limits=limits_of(people, inferred=inferred),
    )


def _headline(people: PatientEvaluation, title: str, nested: Nested) -> str:
    """Return the figures that stand for the others; those chosen inside the folds come first."""
    first, last = people.views[0], people.views[-1]
    model, always = first.rows["model"], first.rows["always the largest"]
    chosen = [
        f"{name}, protocol patient (no person on both sides): accuracy {shown_score(scores['accuracy'])}, "
        f"AUROC {shown_score(scores['auroc_ovr'])}"
        for name, scores in nested.items()
    ]
    return (
        "; ".join(chosen)
        + "; then " * bool(chosen)
        + (
            f"{title}: accuracy of {first.name} {shown(model['accuracy'])}, where always the largest "
            f"has {shown(always['accuracy'])}; AUROC of {last.name} {shown(last.rows['model']['auroc_ovr'])}"
        )
    )


def _measures(people: PatientEvaluation) -> str:
    baselines = ", ".join(plain(row) for row in people.views[0].rows if row != "model")
    return (
        f"{', '.join(SCORES.values())}; AUROC is the mean of one stage against the rest. Beside them: {baselines}. "
        "Clinical usefulness is not measured."
    )


def _tables(evaluation: Evaluation, people: PatientEvaluation, title: str, nested: Nested) -> list[FigureTable]:
    """Return the tables: what was chosen inside the folds first, then people, then slices."""
    interval = f"95 % intervals over people, {metrics.DRAWS:,} bootstrap draws; of shuffled labels, the range."
    said = (people.caution, interval, people.age_and_sex)
    tables = []
    if nested:
        chosen = [
            (plain(name), [shown_score(figures[score]) for score in SCORES]) for name, figures in nested.items()
        ]
        of_procedure = "protocol patient: no person on both sides · the recipe itself was chosen inside the folds"
        text = "The tables after this are of the recipe as it is."
        tables.append(FigureTable(of_procedure, text, ("people", *SCORES.values()), chosen))
    for number, view in enumerate(people.views):
        text = f"{view.name}: {', '.join(map(plain, view.classes))}"
        if number == 0:
            text = " ".join(filter(None, said)) + f"\n\n{text}"
        rows = score_rows(view.rows, SCORES)
        tables.append(FigureTable("" if number else title, text, ("people", *SCORES.values()), rows))
    text = f"95 % intervals over {evaluation.resampled}. {evaluation.beside}"
    rows = score_rows(evaluation.scores.by_class, BY_STAGE)
    return [*tables, FigureTable(evaluation.title, text, ("slices", *BY_STAGE.values()), rows)]


def _errors(evaluation: Evaluation) -> FigureTable:
    classes = [plain(name) for name in evaluation.classes]
    counts = [[str(count) for count in row] for row in evaluation.scores.confusion.tolist()]
    text = "Slices of each stage (rows) predicted as each stage (columns), all repeats counted."
    return FigureTable(evaluation.title, text, ("", *classes), list(zip(classes, counts, strict=True)))


def _calibration(people: PatientEvaluation) -> str:
    """Return how well the probabilities of people are calibrated."""
    error = people.views[0].rows["model"]["calibration_error"]
    sentence = (
        f"Expected calibration error of people {shown(error)}, in {CALIBRATION_BINS} bins; perfectly "
        f"calibrated probabilities of so few people would show {shown(people.calibration_error_if_perfect)}."
    )
    if people.calibrated_on:
        values = people.temperatures.values()
        sentence += f" Temperatures, fitted on {people.calibrated_on}: {min(values):.2f} to {max(values):.2f}."
    return f"{sentence} {describe_sets(people)}".strip()


def limits_of(people: PatientEvaluation, *, inferred: bool) -> list[str]:
    """Return what a reader must know of a run's figures, a sentence each.

    Args:
        people: Its figures by person.
        inferred: Whether who is who was recovered from the pictures.
    """
    beside = "age and sex" in people.views[0].rows
    sentences = [
        (people.synthetic, f"{SYNTHETIC_NOTICE}."),
        (people.optimistic, f"The figures are optimistic: {people.optimistic}."),
        (people.caution, people.caution),
        (inferred, "Who is who was recovered from the pictures: a strong guess, not a record."),
        (not people.ordinal, "The order of the stages is not known: nothing that depends on it is given."),
        (True, "Nobody outside of these data was tested, so how it does on other scanners is not known."),
        (not beside, "Age and sex are not read, so how much of the figures is age or sex is not known."),
        (
            beside,
            "What age and sex alone give stands in the tables; the model's figures are not adjusted for them.",
        ),
        (True, "The intervals say how much the figures hang on who was tested, not on who trained the model."),
    ]
    return [str(sentence) for holds, sentence in sentences if holds]


def _people(people: PatientEvaluation, slices_of: Mapping[str, int] | None) -> str:
    """Return the number of people, and of slices where it is known, of each stage."""
    slices = slices_of or {}
    return ", ".join(
        f"{plain(name)} {count} people" + (f" ({slices[name]:,} slices)" if name in slices else "")
        for name, count in people.people.items()
    )


def _participants(slices: SliceTable) -> FigureTable | None:
    """Return age and sex of the people with a stage, in the order of the stages."""
    rows = [
        row
        for row, (label, patient) in enumerate(zip(slices.labels, slices.patients, strict=True))
        if label is not None and patient is not None
    ]
    rows.sort(key=lambda row: slices.classes.index(str(slices.labels[row])))
    return participants_table(
        [str(slices.labels[row]) for row in rows],
        [str(slices.patients[row]) for row in rows],
        {name: [values[row] for row in rows] for name, values in slices.covariates.items()},
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: not readable as JSON ({error}); train the run again") from error
    return content


def _slices_of(evaluation: Evaluation, people: PatientEvaluation) -> dict[str, int] | None:
    """Return the number of slices of each stage; None where some were predicted more often than others."""
    if people.repeats != people.fewest_repeats:
        return None
    return {name: count // people.repeats for name, count in evaluation.scores.support.items()}


def _partitions(splits: Mapping[str, Any], config: TrainConfig) -> str:
    """Return who trains and who is tested."""
    folds, what = splits["folds"], _named(splits)
    train, validation, test = (_range(len(fold[side]) for fold in folds) for side in SPLIT_NAMES)
    repeats, rest = divmod(len(folds), config.folds)
    drawn = f"{config.folds} folds, drawn {repeats} times" if repeats > 1 and not rest else f"{len(folds)} folds"
    column = splits.get("grouped_by")
    dealt = f"people, all of one {plain(column)} together," if column else "whole people"
    return (
        f"{drawn} (seed {splits['seed']}). Each trains on {train} {what}, tunes on {validation} (called validation "
        f"in the files) and tests {test}. brainstage deals {dealt} out to folds, stratified by stage; "
        "`splits.json` says who is in which, and can also be written by hand."
    )


def _disjoint(splits: Mapping[str, Any]) -> str:
    """Return at which level the sides of each fold are kept apart.

    Raises:
        LeakageError: A name stands on two sides of a fold.
    """
    for number, fold in enumerate(splits["folds"]):
        names = [name for side in SPLIT_NAMES for name in set(fold[side])]
        if len(set(names)) < len(names):
            raise LeakageError(f"fold {number} has a name on two sides: no page is written of such folds")
    level = "person" if _named(splits) == "people" else "slice"
    return f"{level.capitalize()}: no {level} is on two sides of a fold. Verdict: {splits['leakage']['sentence']}."


def _clusters(splits: Mapping[str, Any]) -> str | None:
    """Return what the folds keep apart beside people; None where it is nothing."""
    if not splits.get("grouped_by"):
        return None
    column = plain(splits["grouped_by"])
    return (
        f"Each value of the column {column} is tested by models that saw nobody of it, so the figures are those of "
        f"a new {column}. Tuning people are drawn person by person. Differences between values are not tested."
    )


def _named(splits: Mapping[str, Any]) -> str:
    return "people" if splits["names"] == "patient_id" else "slices"


def _range(counts: Iterable[int]) -> str:
    ordered = sorted(counts)
    return f"{ordered[0]:,}" if ordered[0] == ordered[-1] else f"{ordered[0]:,} to {ordered[-1]:,}"


def _exclusions(evaluation: Evaluation, slices: SliceTable | None, slices_of: Mapping[str, int] | None) -> str:
    """Return what was left out."""
    if slices is None:
        return (
            f"{evaluation.unlabelled:,} test slices had no label and were left out. What was left out before that "
            "is not known here."
        )
    labelled = [row for row in slices.row_of.values() if slices.labels[row] is not None]
    known = sum(slices.patients[row] is not None for row in labelled)
    counts = {
        "could not be read": len(slices.unreadable),
        "were exact copies of another": len(slices) - len(slices.row_of),
        "had no label": len(slices.row_of) - len(labelled),
        "could not be given to a person": len(labelled) - known,
    }
    if slices_of is not None:
        counts["stood in no fold"] = known - sum(slices_of.values())
    left_out = ", ".join(f"{count:,} {why}" for why, count in counts.items())
    return f"{len(slices) + len(slices.unreadable):,} slices were found; of these {left_out}."
