"""Comparisons of runs, of protocols and of settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from brainstage.core.schema import score_in_words
from brainstage.report.terminal.screen import in_two_lines, open_console

if TYPE_CHECKING:
    from brainstage.evaluation.comparison import Candidate, Comparison
    from brainstage.stats.metrics import Score
    from brainstage.studies.protocols import ProtocolComparison
    from brainstage.training.sweep import Sweep


def show_protocols(comparison: ProtocolComparison) -> None:
    """Print accuracy and AUROC of each row under both protocols."""
    console = open_console()
    for title in (comparison.official.title, comparison.patient.title, comparison.people.title):
        console.print(title, style="bold")
    for score in ("accuracy", "auroc_ovr"):
        table = Table(box=SIMPLE_HEAD, title=score_in_words(score), title_justify="left")
        for column in ("", "official\nslices", "patient\nslices", "patient\npeople"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for row in comparison.rows:
            table.add_row(
                row.name, *(in_two_lines(side[score]) for side in (row.official, row.patient, row.people))
            )
        if score == "accuracy":
            table.add_row(comparison.always_name, *map(in_two_lines, comparison.always), style="dim")
        console.print(table)
    console.print(comparison.sentence)
    if comparison.people.caution:
        console.print(comparison.people.caution)
    console.print(
        "95 % bootstrap intervals over people. Stages shuffled: dealt out to people at random, so that there is "
        "nothing to learn but who is who (Yagis et al. 2021).",
        style="dim",
    )


def show_comparison(comparison: Comparison) -> None:
    """Print the runs, best first, how far each is behind, and which ones the slices can distinguish."""
    console = open_console()
    console.print(comparison.title, style="bold")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("run", overflow="fold")
    for heading in ("accuracy", "weighted F1", "behind", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, candidate in zip(comparison.names, comparison.candidates, strict=True):
        overall = candidate.evaluation.scores.overall
        table.add_row(
            name,
            _two_lines(overall["accuracy"]),
            _two_lines(overall["weighted_f1"]),
            _two_lines(candidate.behind["accuracy"]) if candidate.behind else "",
            _cost(candidate),
        )
    for baseline in comparison.baselines.values():
        table.add_row(baseline.name, _two_lines(baseline.accuracy), _two_lines(baseline.weighted_f1), style="dim")
    console.print(table)
    console.print(comparison.verdict)
    console.print(
        f"95 % bootstrap intervals over {comparison.leader.evaluation.resampled}. Behind: the leader's accuracy "
        "less that of the run, on the same slices; these intervals hold simultaneously for all pairs of runs, so "
        "they allow for the choice of the leader. Cost: time of training and of features not in the cache yet, and "
        "number of weights.",
        style="dim",
    )


def _two_lines(score: Score) -> str:
    return f"{score.value:.3f}\n{score.low:.3f} – {score.high:.3f}"


def _cost(candidate: Candidate) -> str:
    seconds = "" if candidate.seconds is None else f"{candidate.seconds:,.0f} s"
    return f"{seconds}\n{candidate.parameters / 1e6:,.1f} M" if candidate.parameters else seconds


def show_sweep(sweep: Sweep) -> None:
    """Print the trials, lowest loss first, and what was chosen."""
    console = open_console()
    console.print(sweep.title, style="bold")
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
        console.print(f"{baseline.name}: {baseline.in_words}", style="dim")
    if sweep.importance:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in sweep.importance.items())
        console.print(f"importance: {shares}")
    console.print(sweep.choice)
    console.print(
        f"95 % Wilson intervals over {sweep.judged:,} slices, as if each were another person.", style="dim"
    )
