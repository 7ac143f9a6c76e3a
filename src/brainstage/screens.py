"""What the commands show on a terminal: a title that names the protocol, tables, the research-use notice.

Markup is off everywhere: a file named ``scan[1].png`` is shown as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from brainstage.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE

if TYPE_CHECKING:
    from brainstage.answers import Answers
    from brainstage.evaluate import Evaluation


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
    facts = {
        "sizes": ", ".join(f"{size} ({count:,})" for size, count in found["sizes"].items()),
        "modes": ", ".join(f"{mode} ({count:,})" for mode, count in found["modes"].items()),
        "patients": found["patients"] or "not known",
        "duplicates": f"{duplicates['rows']} exact, {duplicates['on_both_sides']} across sides, "
        f"{duplicates['with_two_labels']} with two labels",
        "unlabelled": found["unlabelled"],
        "data hash": found["data_hash"],
        "unreadable": len(found["unreadable"]),
    }
    for name, fact in facts.items():
        console.print(f"{name:<11}{fact}", highlight=False)
    for sentence in found["unreadable"]:
        console.print(f"  {sentence}", highlight=False)
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
        table.add_row(name.replace("_", " "), f"{score.value:.4f}", f"{score.low:.4f} – {score.high:.4f}")
    table.add_row(
        f"always {evaluation.majority_class}", f"{evaluation.majority_accuracy:.4f}", "accuracy", style="dim"
    )
    console.print(table)
    by_class = Table()
    for heading in ("stage", "support", "precision", "recall", "F1", "AUROC"):
        by_class.add_column(heading, justify="left" if heading == "stage" else "right")
    for name, scores in evaluation.scores.by_class.items():
        figures = (f"{scores[key].value:.3f}" for key in ("precision", "recall", "f1", "auroc"))
        by_class.add_row(name, f"{evaluation.scores.support[name]:,}", *figures)
    console.print(by_class)
    if evaluation.resampled == "slices":
        console.print(
            "Slices of one person are alike, so these intervals are too narrow; patients are not known.",
            style="dim",
        )
    console.print(RESEARCH_NOTICE, style="dim")


def show_answers(answers: Answers) -> None:
    """Print the stage and the scores of each image that could be read."""
    console = Console(markup=False)
    console.print(answers.title, style="bold", highlight=False)
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("stage", overflow="fold")
    for name in answers.classes:
        table.add_column(name, justify="right", overflow="fold")
    for row in answers.rows:
        if not row["error"]:
            table.add_row(row["source"], row["stage"], *(f"{row['prob_' + name]:.3f}" for name in answers.classes))
    console.print(table)
    console.print(answers.notice, style="dim")
