"""Evaluations, by slice and by person."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from brainstage.core.schema import UNORDERED_NOTICE, score_in_words, short_names
from brainstage.report.terminal.screen import in_one_line, in_two_lines, open_console, show_stages

if TYPE_CHECKING:
    from brainstage.evaluation.patients import PatientEvaluation
    from brainstage.evaluation.slices import Evaluation


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the performance in one line, then every score with its interval, and those of each stage."""
    console = open_console()
    console.print(evaluation.headline, style="bold")
    console.print(evaluation.title)
    table = Table()
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column(f"95 % interval over {evaluation.resampled}", justify="right")
    for name, score in evaluation.scores.overall.items():
        cells = (f"{score.value:.4f}", f"{score.low:.4f} – {score.high:.4f}")
        table.add_row(
            score_in_words(name),
            *(("not given", "") if isnan(score.value) else cells),
        )
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
    _show_remarks(console, evaluation)
    if evaluation.resampled == "slices":
        console.print(
            "Slices of the same person are correlated, so these intervals are too narrow; patients are not known.",
            style="dim",
        )
    show_stages(console, evaluation.classes)


def show_patient_evaluation(evaluation: PatientEvaluation) -> None:
    """Print the performance for people in one line, then the scores beside baselines that need no model."""
    console = open_console()
    console.print(evaluation.headline, style="bold")
    console.print(evaluation.title)
    for view in evaluation.views:
        title = f"{view.name}: {', '.join(view.classes)}"
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=0, collapse_padding=True)
        table.add_column("", overflow="fold", min_width=9)
        for heading in ("accuracy", "balanced", "AUROC", "kappa", "log loss"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row, scores in view.rows.items():
            shown = ("accuracy", "balanced_accuracy", "auroc_ovr", "quadratic_kappa", "log_loss")
            table.add_row(
                row, *(in_two_lines(scores[name]) for name in shown), style="" if row == "model" else "dim"
            )
        console.print(table)
    _show_remarks(console, evaluation)
    _show_calibration(console, evaluation)
    show_stages(console, list(evaluation.people))
    people = ", ".join(f"{name} {count}" for name, count in evaluation.people.items())
    console.print(f"people: {people}")
    if evaluation.caution:
        console.print(evaluation.caution)
    console.print(
        f"A person is staged by the {evaluation.aggregation}. 95 % bootstrap intervals over people; shuffled "
        "labels: 95 % range of the scores of the same predictions with people's stages shuffled. kappa: quadratic.",
        style="dim",
    )


def _show_remarks(console: Console, evaluation: Evaluation | PatientEvaluation) -> None:
    """Print what must be said of the order of the classes, of age and sex, and of slices that were left out."""
    if not evaluation.ordinal:
        console.print(f"{UNORDERED_NOTICE}.")
    if evaluation.age_and_sex:
        console.print(evaluation.age_and_sex, style="dim")
    if evaluation.unlabelled:
        console.print(f"{evaluation.unlabelled:,} slices without a label were left out.")


def _show_calibration(console: Console, evaluation: PatientEvaluation) -> None:
    error = evaluation.views[0].rows["model"]["calibration_error"].value
    console.print(
        f"calibration error {error:.3f}; a perfectly calibrated model would show "
        f"{in_one_line(evaluation.calibration_error_if_perfect)} on so few people"
    )
    if not evaluation.sets:
        console.print("Scores, not probabilities: there are no people to calibrate them on.")
        return
    stages = zip(short_names(list(evaluation.people)), evaluation.sets.by_stage.values(), strict=True)
    console.print(
        f"90 % sets hold the stage of {in_one_line(evaluation.sets.coverage)} of people "
        f"({', '.join(f'{name} {in_one_line(score)}' for name, score in stages)}), with "
        f"{evaluation.sets.size.value:.2f} stages on average"
    )
