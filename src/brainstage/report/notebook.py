"""Results as they show themselves in a notebook: one page for each class, the same shape for all.

A page says above its figures which protocol and leakage verdict they have, and below them that this is research
software. It has no script and takes nothing from elsewhere; its colours are those of the notebook, light or dark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

from brainstage.core.files import read_json_lines
from brainstage.core.schema import (
    PROB_PREFIX,
    RESEARCH_NOTICE,
    SET_PREFIX,
    UNORDERED_NOTICE,
    define_stages,
    figure_title,
    score_in_words,
    short_names,
)
from brainstage.datasets.describe import describe
from brainstage.report.pages import render_page

if TYPE_CHECKING:
    from brainstage.audits.audit import Audit
    from brainstage.core.run import RunFolder
    from brainstage.datasets.splits import Splits
    from brainstage.datasets.table import SliceTable
    from brainstage.evaluation.comparison import Comparison
    from brainstage.evaluation.patients import PatientEvaluation
    from brainstage.evaluation.slices import Baseline, Evaluation
    from brainstage.inference.predictions import Predictions
    from brainstage.stats.metrics import Score
    from brainstage.studies.external_validation import ExternalValidation
    from brainstage.studies.protocols import ProtocolComparison
    from brainstage.studies.study import Study
    from brainstage.training.sweep import Sweep

SHOWN_ROWS = 30
"""Rows shown of a table that may have thousands."""
NO_VERDICT = "leakage unknown: the data has no train and test side"


class Bar(NamedTuple):
    """A cell with a probability, drawn as a bar."""

    share: float


Cell = str | Bar


class Table(NamedTuple):
    """A table: the first column names its rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Page:
    """What a result shows.

    Attributes:
        name: What it is.
        titles: Each names protocol and leakage verdict of the figures.
        tables: The figures.
        sentences: What must be known to read them.
        details: What else there is to know, folded.
        notice: What accompanies them.
    """

    name: str
    titles: Sequence[str]
    tables: Sequence[Table] = ()
    sentences: Sequence[str | None] = ()
    details: Sequence[str] = ()
    notice: str = RESEARCH_NOTICE


def to_html(result: Any) -> str:
    """Return a result as HTML; everything that comes from data is escaped."""
    return render_page("notebook.html", {"page": _page(result)})


def to_text(result: Any) -> str:
    """Return a result in a few lines of text, for terminals."""
    page = _page(result)
    return "\n".join([page.name, *page.titles, *filter(None, page.sentences), page.notice])


def _page(result: Any) -> Page:
    return PAGES[type(result).__name__](result)


def _evaluation(result: Evaluation) -> Page:
    rows = [(_words(name), _score(score)) for name, score in result.scores.overall.items()]
    interval = f"value [95 % interval over {result.resampled}]"
    too_narrow = "Slices of one person are alike, so these intervals are too narrow; patients are not known."
    return Page(
        "Evaluation by slice",
        [result.title],
        [Table(("score", interval), [*rows, *_baseline_scores(result.baselines.values())]), _by_class(result)],
        [
            None if result.ordinal else f"{UNORDERED_NOTICE}.",
            result.age_and_sex,
            _left_out(result.unlabelled),
            too_narrow if result.resampled == "slices" else None,
            define_stages(result.classes),
        ],
    )


def _baseline_scores(baselines: Iterable[Baseline]) -> list[tuple[str, str]]:
    return [
        (f"{baseline.name}: {name}", _score(score))
        for baseline in baselines
        for name, score in (("accuracy", baseline.accuracy), ("weighted F1", baseline.weighted_f1))
    ]


def _by_class(result: Evaluation) -> Table:
    shown = ("precision", "recall", "f1", "auroc")
    return Table(
        ("stage", "slices", "precision", "recall", "F1", "AUROC"),
        [
            (name.replace("_", " "), f"{result.scores.support[name]:,}", *(_value(scores[key]) for key in shown))
            for name, scores in result.scores.by_class.items()
        ],
    )


def _patient_evaluation(result: PatientEvaluation) -> Page:
    shown = ("accuracy", "balanced_accuracy", "auroc_ovr", "quadratic_kappa", "log_loss")
    head = ("", "accuracy", "balanced", "AUROC", "kappa", "log loss")
    people = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in result.people.items())
    return Page(
        "Evaluation by person",
        [result.title],
        [
            Table(
                head,
                [(row, *(_score(scores[name]) for name in shown)) for row, scores in view.rows.items()],
                f"{view.name}: {', '.join(view.classes).replace('_', ' ')}",
            )
            for view in result.views
        ],
        [
            f"People: {people}. A person is staged by the {result.aggregation}.",
            result.caution,
            _coverage(result),
            None if result.ordinal else f"{UNORDERED_NOTICE}.",
            result.age_and_sex,
            _left_out(result.unlabelled),
            define_stages(result.people),
        ],
    )


def _coverage(result: PatientEvaluation) -> str:
    if result.sets is None:
        return "Scores, not probabilities: there are no people to calibrate them on."
    error = result.views[0].rows["model"]["calibration_error"]
    return (
        f"Calibration error {_value(error)}; 90 % sets hold the stage of {_score(result.sets.coverage)} of people, "
        f"with {result.sets.size.value:.2f} stages on average."
    )


def _comparison(result: Comparison) -> Page:
    rows = [
        (
            name,
            _score(candidate.evaluation.scores.overall["accuracy"]),
            _score(candidate.evaluation.scores.overall["weighted_f1"]),
            _score(candidate.behind["accuracy"]) if candidate.behind else "",
            "" if candidate.seconds is None else f"{candidate.seconds:,.0f} s",
        )
        for name, candidate in zip(result.names, result.candidates, strict=True)
    ]
    beside = [
        (baseline.name, _score(baseline.accuracy), _score(baseline.weighted_f1), "", "")
        for baseline in result.baselines.values()
    ]
    head = ("run", "accuracy", "weighted F1", "behind in accuracy", "time")
    return Page("Comparison of runs", [result.title], [Table(head, [*rows, *beside])], [result.verdict])


def _protocols(result: ProtocolComparison) -> Page:
    sides = ("official: slices", "patient: slices", "patient: people")
    tables = [
        Table(
            (score_in_words(score), *sides),
            [
                (row.name, *(_score(side[score]) for side in (row.official, row.patient, row.people)))
                for row in result.rows
            ],
        )
        for score in ("accuracy", "auroc_ovr")
    ]
    always = (result.always_name.replace("_", " "), *map(_score, result.always))
    tables[0] = tables[0]._replace(rows=[*tables[0].rows, always])
    titles = [result.official.title, result.patient.title, result.people.title]
    return Page("One recipe under both protocols", titles, tables, [result.sentence, result.people.caution])


def _sweep(result: Sweep) -> Page:
    names = [factor.field for factor in result.factors]
    rows = [
        (
            f"{trial['trial']}",
            *(f"{trial[name]}" for name in names),
            f"{trial['loss']:.4f}",
            f"{trial['accuracy']:.4f} [{low:.2f}, {high:.2f}]" if trial["state"] == "complete" else "stopped",
            f"{trial['weighted_f1']:.4f}",
        )
        for trial in result.trials[:SHOWN_ROWS]
        for low, high in [result.interval(trial)]
    ]
    head = ("trial", *map(_words, names), "loss", "accuracy", "weighted F1")
    return Page(
        "Sweep",
        [result.title],
        [Table(head, rows), Table(("beside it", "value"), _baseline_scores(result.baselines.values()))],
        [
            f"Lowest loss: {', '.join(f'{name} {value}' for name, value in result.chosen.items())}.",
            _more(len(result.trials)),
            f"95 % Wilson intervals over {result.judged:,} slices, as if each were another person.",
        ],
    )


def _study(result: Study) -> Page:
    parts = [_comparison(result.comparison), _sweep(result.sweep), _evaluation(result.evaluation)]
    return Page(
        "Study",
        [f"{part.name}: {title}" for part in parts for title in part.titles],
        [table for part in parts for table in part.tables],
        [result.caution, *(sentence for part in parts for sentence in part.sentences)],
    )


def _validation(result: ExternalValidation) -> Page:
    shown = {**result.figures, "calibration error": result.calibration_error}
    head = (f"{result.first} against any other", "value [95 % interval over people]")
    flow = [(f"{status}{f': {reason}' if reason else ''}", f"{count:,}") for status, reason, count in result.flow]
    shared = f"{result.shared_ids} people have ids that occur in the model's own data too: the same people?"
    return Page(
        "External validation",
        [f"protocol external validation · {result.title}"],
        [Table(head, [(name, _score(score)) for name, score in shown.items()]), Table(("scans", ""), flow)],
        [shared if result.shared_ids else None],
    )


def _audit(result: Audit) -> Page:
    report = result.to_dict()
    people, duplicates = report["people"], report["duplicates"]
    facts = {"people": f"{people['patients']:,} ({people['patient_id_source']})"}
    facts |= {f"people: {name.replace('_', ' ')}": f"{count:,}" for name, count in people["by_class"].items()}
    facts["slices of uncertain people"] = f"{people['unknown_slices']:,}"
    facts["duplicates"] = f"{duplicates['exact']:,} exact, {duplicates['altered']:,} turned or altered"
    facts["duplicates on both sides"] = f"{duplicates['on_both_sides']:,}"
    if closest := report["closest"]:
        facts["test slices whose most similar training slice is of the same person"] = (
            f"{closest['same_person']:,} of {closest['test_slices']:,}"
        )
    guess = "Inferred from the pictures alone: a strong guess, not a record."
    return Page(
        "Audit",
        [_source_title(result.slices, str(result.verdict or NO_VERDICT))],
        [Table(("", ""), list(facts.items()))],
        [guess if people["patient_id_source"] == "inferred" else None],
    )


def _source_title(slices: SliceTable, verdict: str) -> str:
    return figure_title(f"{len(slices):,} slices", "of the source's own split", verdict, slices.synthetic)


def _slices(result: SliceTable) -> Page:
    facts = describe(result)
    sides = facts["classes"]
    names = list(dict.fromkeys(name for counts in sides.values() for name in counts))
    rows = [(name.replace("_", " "), *(f"{counts.get(name, 0):,}" for counts in sides.values())) for name in names]
    people = f"{facts['patients']:,} ({facts['patient_id_source']})" if facts["patients"] else "not known"
    sizes = ", ".join(f"{size} ({count:,})" for size, count in list(facts["sizes"].items())[:5])
    return Page(
        "Slices",
        [_source_title(result, "leakage unknown: make_splits and audit give the verdict")],
        [Table(("class", *sides), rows)],
        [
            f"People: {people}. Exact duplicates: {facts['duplicates']['rows']:,}, on both sides "
            f"{facts['duplicates']['on_both_sides']:,}. Sizes: {sizes}.",
            f"{len(facts['unreadable']):,} rows could not be read." if facts["unreadable"] else None,
            define_stages(result.classes),
        ],
    )


def _splits(result: Splits) -> Page:
    rows = [
        (f"{number}", *(_side(result, side) for side in (fold.train, fold.validation, fold.test)))
        for number, fold in enumerate(result.folds[:SHOWN_ROWS])
    ]
    count = len(result.folds)
    return Page(
        "Splits",
        [f"{count} fold{'s' * (count > 1)} · protocol {result.protocol} · {result.verdict}"],
        [Table(("fold", "train", "validation", "test"), rows)],
        [_more(count)],
    )


def _side(splits: Splits, side: Sequence[str]) -> str:
    people = {splits.patient_of.get(slice_id) for slice_id in side}
    return f"{len(side):,} slices" + ("" if None in people or not people else f", {len(people):,} people")


def _run(result: RunFolder) -> Page:
    if not result.finished:
        verdict = "leakage unknown: no manifest.json says it"
        return Page("Run", [f"{result.path} · not finished · protocol unknown · {verdict}"])
    about = result.read_manifest()
    facts = {
        "trained on": about.get("fitted_on"),
        "seconds of training": f"{about['training_seconds']:,.1f}" if "training_seconds" in about else None,
        "weights": f"{about['parameters']:,}" if about.get("parameters") else None,
        "epochs": f"{len(read_json_lines(result.history))}" if result.history.is_file() else None,
        "files": f"{len(about.get('files', {})):,}",
    }
    title = figure_title(
        f"{result.path.name} · recipe {about.get('recipe', 'unknown')}",
        about.get("protocol", "unknown"),
        about.get("leakage", {}).get("sentence", "leakage unknown"),
        bool(about.get("synthetic")),
        fold=about.get("fold"),
        optimistic=about.get("optimistic"),
    )
    settings = json.loads(result.config.read_text(encoding="utf-8")) if result.config.is_file() else {}
    return Page(
        "Run",
        [title],
        [Table(("", ""), [(name, fact) for name, fact in facts.items() if fact])],
        [f"In {result.path}. evaluate(run) gives its figures, Predictor.open(run) its model."],
        [f"{name} = {value}" for name, value in settings.items()],
    )


def _predictions(result: Predictions) -> Page:
    alone = len(result.people) == 1
    rows = result.rows if alone else [rows[0] for rows in result.people]
    names = dict(zip(result.classes, short_names(result.classes), strict=True))
    head = ("", "stage", *names.values(), *(["not ruled out (90 %)"] if result.calibrated else []))
    return Page(
        "Predictions",
        [result.title],
        [Table(head, [_prediction(row, names, calibrated=result.calibrated) for row in rows[:SHOWN_ROWS]])],
        [*([result.rows[0]["words"]] if alone else []), *result.reasons[:SHOWN_ROWS], _more(len(rows))],
        result.details,
        result.notice,
    )


def _prediction(row: dict[str, Any], names: dict[str, str], *, calibrated: bool) -> list[Cell]:
    many = f", {row['slices']:,} slices" if row["slices"] > 1 else ""
    level = "" if row["level"] is None else f" level {row['level']}"
    name = f"{row['source']}{many}{level}"
    if not row["stage"]:
        return [name, row["status"], *[""] * (len(names) + calibrated)]
    kept = ", ".join(short for name, short in names.items() if row[SET_PREFIX + name])
    bars = [Bar(row[PROB_PREFIX + stage]) for stage in names]
    return [name, names[row["stage"]], *bars, *([kept] if calibrated else [])]


def _words(name: str) -> str:
    return score_in_words(name).replace("f1", "F1")


def _score(score: Score) -> str:
    return "not given" if isnan(score.value) else f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"


def _value(score: Score) -> str:
    return "not given" if isnan(score.value) else f"{score.value:.3f}"


def _left_out(count: int) -> str | None:
    return f"{count:,} slices without a label were left out." if count else None


def _more(count: int) -> str | None:
    return f"{SHOWN_ROWS} of {count:,} rows are shown; to_pandas() has all." if count > SHOWN_ROWS else None


PAGES: dict[str, Callable[[Any], Page]] = {
    "Audit": _audit,
    "Comparison": _comparison,
    "Evaluation": _evaluation,
    "ExternalValidation": _validation,
    "PatientEvaluation": _patient_evaluation,
    "Predictions": _predictions,
    "ProtocolComparison": _protocols,
    "RunFolder": _run,
    "SliceTable": _slices,
    "Splits": _splits,
    "Study": _study,
    "Sweep": _sweep,
}
"""How each class is shown, by its name: to import the classes would load what most of them do not need."""
