"""What the commands show on a terminal: a title that names the protocol, tables, the research-use notice.

Markup is off everywhere: a file named ``scan[1].png`` is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from brainstage.cohorts.ledger import count_reasons
from brainstage.core.levels import LEVEL_SETS
from brainstage.core.schema import (
    RESEARCH_NOTICE,
    SET_PREFIX,
    SYNTHETIC_NOTICE,
    UNORDERED_NOTICE,
    define_stages,
    short_names,
)

if TYPE_CHECKING:
    from brainstage.audits.audit import Audit
    from brainstage.cohorts.prepare import Cohort
    from brainstage.evaluation.comparison import Candidate, Comparison
    from brainstage.evaluation.patients import PatientEvaluation
    from brainstage.evaluation.slices import Evaluation
    from brainstage.inference.predictions import Predictions
    from brainstage.stats.metrics import Score
    from brainstage.studies.external_validation import ExternalValidation
    from brainstage.studies.protocols import ProtocolComparison
    from brainstage.training.sweep import Sweep


def show_cohort(cohort: Cohort) -> None:
    """Print how many scans were prepared, of whom, and why the others were not."""
    console = Console(markup=False)
    about = cohort.about
    counts = ", ".join(f"{count:,} {status}" for status, count in about["scans"].items())
    stamp = f" · {about['synthetic']}" if about["synthetic"] else ""
    console.print(f"{counts} · {about['people']:,} people{stamp}", style="bold", highlight=False)
    console.print(f"levels {cohort.level_set}", highlight=False)
    table = Table()
    for name in ("class", "people", "scans"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for label, people, scans in cohort.counts:
        table.add_row(label or "no label", f"{people:,}", f"{scans:,}")
    console.print(table)
    for status, reason, count in count_reasons(cohort.ledger):
        if reason:
            console.print(f"{count:>5,} {status}: {reason}", highlight=False)


def show_validation(result: ExternalValidation) -> None:
    """Print the figures of an external validation."""
    console = Console(markup=False)
    console.print(result.title, style="bold", highlight=False)
    for status, reason, count in result.flow:
        console.print(f"{count:>5,} {status}{f': {reason}' if reason else ''}", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    table.add_column(f"{result.first} against any other")
    table.add_column("value [95 % interval]", justify="right")
    shown = {
        "AUROC": result.scores["auroc"],
        "balanced accuracy": result.scores["balanced_accuracy"],
        "sensitivity": result.scores["sensitivity"],
        "specificity": result.scores["specificity"],
        "calibration slope": result.line.slope,
        "calibration intercept": result.line.intercept,
    }
    covariates = result.with_covariates
    if covariates and covariates.auroc:
        shown["AUROC of age and sex alone"] = covariates.auroc["covariates"]
        shown["AUROC of age, sex and the model"] = covariates.auroc["both"]
    for name, score in shown.items():
        table.add_row(name, _interval(score))
    console.print(table)
    if result.shared_ids:
        console.print(
            f"{result.shared_ids} people have ids that occur in the model's own data too: the same people?",
            highlight=False,
        )
    console.print(RESEARCH_NOTICE, highlight=False)


def _interval(score: Score) -> str:
    return "not defined" if isnan(score.value) else f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"


def show_description(found: dict[str, Any]) -> None:
    """Print what :func:`brainstage.describe` found."""
    stamp = f" · {SYNTHETIC_NOTICE}" if found["synthetic"] else ""
    console = Console(markup=False)
    console.print(f"{found['rows']:,} slices{stamp}", style="bold", highlight=False)
    table = Table()
    sides = list(found["classes"])
    table.add_column("class")
    for side in sides:
        table.add_column(side, justify="right")
    for name in dict.fromkeys(name for side in sides for name in found["classes"][side]):
        table.add_row(name, *(f"{found['classes'][side].get(name, 0):,}" for side in sides))
    console.print(table)
    duplicates = found["duplicates"]
    covariates = ", ".join(f"{name} (of {people} people)" for name, people in found["covariates"].items())
    facts = {
        "sizes": ", ".join(f"{size} ({count:,})" for size, count in found["sizes"].items()),
        "modes": ", ".join(f"{mode} ({count:,})" for mode, count in found["modes"].items()),
        "patients": f"{found['patients']} ({found['patient_id_source']})" if found["patients"] else "not known",
        "duplicates": f"{duplicates['rows']} exact, {duplicates['on_both_sides']} across sides, "
        f"{duplicates['with_two_labels']} with two labels",
        "unlabelled": found["unlabelled"],
        "order": " < ".join(found["class_order"] or ["not known, so nothing ordinal; give --class-order"]),
        "levels": str(LEVEL_SETS[found["levels"]]),
        **({"covariates": covariates} if covariates else {}),
        "data hash": found["data_hash"],
        "unreadable": len(found["unreadable"]),
    }
    for name, fact in facts.items():
        console.print(f"{name:<11}{fact}", highlight=False)
    for sentence in found["unreadable"]:
        console.print(f"  {sentence}", highlight=False)
    for sentence in found["skipped"]:
        console.print(f"not read   {sentence}", highlight=False)
    console.print(RESEARCH_NOTICE, style="dim")


def show_audit(audit: Audit) -> None:
    """Print the result of an audit, the leakage verdict first."""
    report = audit.to_dict()
    people, duplicates, checks = report["people"], report["duplicates"], report["checks"]
    stamp = f" · {SYNTHETIC_NOTICE}" if report["synthetic"] else ""
    console = Console(markup=False)
    verdict = (
        report["leakage"]["sentence"] if report["leakage"] else "no train and test side, so nothing is on both"
    )
    console.print(f"{report['slices']:,} slices · {verdict}{stamp}", style="bold", highlight=False)
    facts = {"people": f"{people['patients']} ({people['patient_id_source']})"}
    if people["slices_each"]:
        facts["slices each"] = "{minimum} to {maximum}, median {median}".format(**people["slices_each"])
    facts["uncertain"] = f"{people['unknown_slices']:,} slices"
    for name, count in people["by_class"].items():
        facts[name] = f"{count} people"
    if people["same_heads"]:
        facts["one head"] = ", ".join(f"{one} and {other}" for one, other in people["same_heads"].items())
    facts["duplicates"] = (
        f"{duplicates['exact']} exact, {duplicates['altered']} altered; {duplicates['on_both_sides']} pictures on "
        f"both sides, {duplicates['with_two_labels']} with two labels"
    )
    if report["closest"]:
        closest = report["closest"]
        facts["closest"] = (
            f"the most similar training slice is of the same person for {closest['same_person']:,} of "
            f"{closest['test_slices']:,} test slices"
        )
    facts["checks"] = f"{checks['people_with_one_label']} of {people['patients']} people have a single label"
    if checks["grain_agrees"] is not None:
        facts["checks"] += f"; grain agrees on {checks['grain_agrees']:.2%} of slices"
    if checks["agreement_with_given"] is not None:
        facts["given ids"] = f"adjusted Rand index {checks['agreement_with_given']:.4f} with the recovered people"
        if checks["compared_people"]:
            facts["given ids"] += f", of {checks['compared_people']:,} people drawn at random"
    console.print(_facts_table(facts))
    if people["patient_id_source"] == "inferred":
        console.print("Inferred from the pictures alone: a strong guess, not a record.", style="dim")
    console.print(RESEARCH_NOTICE, style="dim")


def show_evaluation(evaluation: Evaluation) -> None:
    """Print every score with its interval, and those of each stage."""
    console = Console(markup=False)
    console.print(evaluation.title, style="bold", highlight=False)
    table = Table()
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column(f"95 % interval over {evaluation.resampled}", justify="right")
    for name, score in evaluation.scores.overall.items():
        cells = (f"{score.value:.4f}", f"{score.low:.4f} – {score.high:.4f}")
        table.add_row(name.replace("_", " "), *(("not given", "") if isnan(score.value) else cells))
    table.add_section()
    for baseline in evaluation.baselines.values():
        for score_name, score in (("accuracy", baseline.accuracy), ("weighted F1", baseline.weighted_f1)):
            interval = f"{score.low:.4f} – {score.high:.4f}"
            table.add_row(f"{baseline.name}: {score_name}", f"{score.value:.4f}", interval, style="dim")
    console.print(table)
    by_class = Table()
    for heading in ("stage", "support", "precision", "recall", "F1", "AUROC"):
        by_class.add_column(heading, justify="left" if heading == "stage" else "right")
    for name, scores in evaluation.scores.by_class.items():
        figures = (f"{scores[key].value:.3f}" for key in ("precision", "recall", "f1", "auroc"))
        by_class.add_row(name, f"{evaluation.scores.support[name]:,}", *figures)
    console.print(by_class)
    if not evaluation.ordinal:
        console.print(f"{UNORDERED_NOTICE}.", highlight=False)
    if evaluation.age_and_sex:
        console.print(evaluation.age_and_sex, style="dim", highlight=False)
    _show_unlabelled(console, evaluation.unlabelled)
    if evaluation.resampled == "slices":
        console.print(
            "Slices of the same person are correlated, so these intervals are too narrow; patients are not known.",
            style="dim",
        )
    _define_stages(console, evaluation.classes)
    console.print(RESEARCH_NOTICE, style="dim")


def show_patient_evaluation(evaluation: PatientEvaluation) -> None:
    """Print the performance for people, beside baselines that need no model."""
    console = Console(markup=False)
    console.print(evaluation.title, style="bold", highlight=False)
    for view in evaluation.views:
        title = f"{view.name}: {', '.join(view.classes)}"
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=0, collapse_padding=True)
        table.add_column("", overflow="fold", min_width=9)
        for heading in ("accuracy", "balanced", "AUROC", "kappa", "log loss"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row, scores in view.rows.items():
            shown = ("accuracy", "balanced_accuracy", "auroc_ovr", "quadratic_kappa", "log_loss")
            table.add_row(row, *(_narrow(scores[name]) for name in shown), style="" if row == "model" else "dim")
        console.print(table)
    if not evaluation.ordinal:
        console.print(f"{UNORDERED_NOTICE}.", highlight=False)
    if evaluation.age_and_sex:
        console.print(evaluation.age_and_sex, style="dim", highlight=False)
    _show_calibration(console, evaluation)
    _define_stages(console, list(evaluation.people))
    people = ", ".join(f"{name} {count}" for name, count in evaluation.people.items())
    console.print(f"people: {people}", highlight=False)
    _show_unlabelled(console, evaluation.unlabelled)
    if evaluation.caution:
        console.print(evaluation.caution, highlight=False)
    console.print(
        f"A person is staged by the {evaluation.aggregation}. 95 % bootstrap intervals over people; shuffled "
        "labels: 95 % range of the scores of the same predictions with people's stages shuffled. kappa: quadratic.",
        style="dim",
    )
    console.print(RESEARCH_NOTICE, style="dim")


def _define_stages(console: Console, classes: Sequence[str]) -> None:
    """Say what the stages are, where they are those of the public dataset."""
    if definition := define_stages(classes):
        console.print(definition, style="dim", highlight=False)


def _show_unlabelled(console: Console, count: int) -> None:
    if count:
        console.print(f"{count:,} slices without a label were left out.", highlight=False)


def _show_calibration(console: Console, evaluation: PatientEvaluation) -> None:
    error = evaluation.views[0].rows["model"]["calibration_error"].value
    console.print(
        f"calibration error {error:.3f}; a perfectly calibrated model would show "
        f"{_with_interval(evaluation.calibration_error_if_perfect)} on so few people",
        highlight=False,
    )
    if not evaluation.sets:
        console.print("Scores, not probabilities: there are no people to calibrate them on.", highlight=False)
        return
    stages = zip(short_names(list(evaluation.people)), evaluation.sets.by_stage.values(), strict=True)
    console.print(
        f"90 % sets hold the stage of {_with_interval(evaluation.sets.coverage)} of people "
        f"({', '.join(f'{name} {_with_interval(score)}' for name, score in stages)}), with "
        f"{evaluation.sets.size.value:.2f} stages on average",
        highlight=False,
    )


def _with_interval(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"


def show_protocols(comparison: ProtocolComparison) -> None:
    """Print accuracy and AUROC of each row under both protocols."""
    console = Console(markup=False)
    for title in (comparison.official.title, comparison.patient.title, comparison.people.title):
        console.print(title, style="bold", highlight=False)
    for score, heading in (("accuracy", "accuracy"), ("auroc_ovr", "AUROC, mean of the stages")):
        table = Table(box=SIMPLE_HEAD, title=heading, title_justify="left")
        for column in ("", "official\nslices", "patient\nslices", "patient\npeople"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for row in comparison.rows:
            table.add_row(row.name, *(_narrow(side[score]) for side in (row.official, row.patient, row.people)))
        if score == "accuracy":
            table.add_row(comparison.always_name, *map(_narrow, comparison.always), style="dim")
        console.print(table)
    console.print(comparison.sentence, highlight=False)
    if comparison.people.caution:
        console.print(comparison.people.caution, highlight=False)
    console.print(
        "95 % bootstrap intervals over people. Stages shuffled: dealt out to people at random, so that there is "
        "nothing to learn but who is who (Yagis et al. 2021).",
        style="dim",
    )
    console.print(RESEARCH_NOTICE, style="dim")


def show_comparison(comparison: Comparison) -> None:
    """Print the runs, best first, how far each is behind, and which ones the slices can distinguish."""
    console = Console(markup=False)
    console.print(comparison.title, style="bold", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("run", overflow="fold")
    for heading in ("accuracy", "weighted F1", "behind", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in comparison.candidates:
        overall = candidate.evaluation.scores.overall
        table.add_row(
            candidate.name,
            _two_lines(overall["accuracy"]),
            _two_lines(overall["weighted_f1"]),
            _two_lines(candidate.behind["accuracy"]) if candidate.behind else "",
            _cost(candidate),
        )
    for baseline in comparison.baselines.values():
        table.add_row(baseline.name, _two_lines(baseline.accuracy), _two_lines(baseline.weighted_f1), style="dim")
    console.print(table)
    console.print(comparison.verdict, highlight=False)
    console.print(
        f"95 % bootstrap intervals over {comparison.leader.evaluation.resampled}. Behind: the leader's accuracy "
        "less that of the run, on the same slices; these intervals hold simultaneously for all pairs of runs, so "
        "they allow for the choice of the leader. Cost: time of training and of features not in the cache yet, and "
        "number of weights.",
        style="dim",
    )
    console.print(RESEARCH_NOTICE, style="dim")


def _two_lines(score: Score) -> str:
    return f"{score.value:.3f}\n{score.low:.3f} – {score.high:.3f}"


def _narrow(score: Score) -> str:
    if isnan(score.value):
        return "not given"
    return f"{score.value:.3f}\n{score.low:.2f} – {score.high:.2f}"


def _cost(candidate: Candidate) -> str:
    seconds = "" if candidate.seconds is None else f"{candidate.seconds:,.0f} s"
    return f"{seconds}\n{candidate.parameters / 1e6:,.1f} M" if candidate.parameters else seconds


def show_sweep(sweep: Sweep) -> None:
    """Print the trials, lowest loss first, and what was chosen."""
    console = Console(markup=False)
    console.print(sweep.title, style="bold", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    for factor in sweep.factors:
        table.add_column(factor.field.replace("_", " "), justify="right", overflow="fold")
    for heading in ("loss", "accuracy", "interval", "weighted F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in sweep.trials:
        low, high = sweep.interval(trial)
        table.add_row(
            *(f"{trial[factor.field]}" for factor in sweep.factors),
            f"{trial['loss']:.4f}",
            f"{trial['accuracy']:.4f}",
            f"{low:.3f}–{high:.3f}" if trial["state"] == "complete" else "stopped",
            f"{trial['weighted_f1']:.4f}",
        )
    console.print(table)
    for baseline in sweep.baselines.values():
        console.print(f"{baseline.name}: {baseline.in_words}", style="dim", highlight=False)
    if sweep.importance:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in sweep.importance.items())
        console.print(f"importance: {shares}", highlight=False)
    console.print(f"lowest loss: {', '.join(f'{k}={v}' for k, v in sweep.chosen.items())}", highlight=False)
    console.print(
        f"95 % Wilson intervals over {sweep.judged:,} slices, as if each were another person.", style="dim"
    )
    console.print(RESEARCH_NOTICE, style="dim")


def show_predictions(answers: Predictions, *, details: bool = False) -> None:
    """Print the stage and the scores of each person; where there is only one, of each slice as well.

    Args:
        answers: The predictions.
        details: Also print what else there is to know.
    """
    console = Console(markup=False)
    console.print(answers.title, style="bold", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    names = dict(zip(answers.classes, short_names(answers.classes), strict=True))
    for name in ("stage", *names.values()):
        table.add_column(name, justify="left" if name == "stage" else "right")
    if answers.calibrated:
        table.add_column("not ruled out (90 %)", overflow="fold")
    for row in answers.rows if len(answers.people) == 1 else [rows[0] for rows in answers.people]:
        if row["stage"]:
            scores = (f"{row['prob_' + name]:.3f}" for name in names)
            held = ", ".join(short for name, short in names.items() if row[SET_PREFIX + name])
            style = "bold" if row["slices"] > 1 else None
            table.add_row(
                _shown(row), names[row["stage"]], *scores, *([held] if answers.calibrated else []), style=style
            )
        else:
            table.add_row(_shown(row), row["status"], style="dim")
    console.print(table)
    if len(answers.people) == 1 and answers.rows[0]["words"]:
        console.print(f"{answers.rows[0]['words']}.", highlight=False)
    console.print(answers.notice, style="dim")
    if not details:
        _define_stages(console, answers.classes)
        return
    for sentence in answers.details:
        console.print(f"· {sentence}", style="dim", highlight=False)


def show_facts(title: str, facts: Mapping[str, str], next_command: str) -> None:
    """Print a title, one line for each fact, and the command to run next.

    Args:
        title: Names the protocol and the leakage verdict.
        facts: What each fact is called, and the fact.
        next_command: The command.
    """
    console = Console(markup=False)
    console.print(title, style="bold", highlight=False)
    console.print(_facts_table(facts))
    console.print(f"Next: {next_command}", highlight=False)
    console.print(RESEARCH_NOTICE, style="dim")


def _facts_table(facts: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def _shown(row: dict[str, Any]) -> str:
    """Return what an answer is about: all slices of a person, one level of a volume, or a picture."""
    if row["slices"] > 1:
        return f"{row['source']}, {row['slices']:,} slices"
    return row["source"] if row["level"] is None else f"  level {row['level']}"
