"""Charts of a run as PNG files: readable in print and by colour-blind people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from brainstage.core.arrays import Float32Array, IntArray
from brainstage.core.files import atomic

if TYPE_CHECKING:
    from brainstage.evaluation.comparison import Comparison
    from brainstage.studies.external_validation import ExternalValidation
    from brainstage.studies.protocols import ProtocolComparison
    from brainstage.training.sweep import Sweep

matplotlib.use("Agg")

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's colours for all kinds of colour vision


class Cut(NamedTuple):
    """One plane of a head, rows upwards."""

    name: str
    head: Float32Array
    inside: Float32Array
    """Share of each pixel that lies in the brain."""
    white: float
    """Grey value that is shown white."""


def draw_confusion_matrix(target: Path, confusion: IntArray, classes: Sequence[str], title: str) -> None:
    """Draw counts, and shares of each true stage as shades, to a PNG file.

    Args:
        target: The file.
        confusion: int64 of shape (K, K), true stages in rows.
        classes: K class names.
        title: Names the protocol and the verdict.
    """
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    shares = confusion / confusion.sum(1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in zip(_cells(len(classes)), confusion.flat, strict=True):
        dark = shares[row, column] > 0.5
        axes.text(
            column,
            row,
            f"{count}\n{shares[row, column]:.1%}",
            ha="center",
            va="center",
            color="w" if dark else "k",
        )
    labels = [name.replace("_", " ") for name in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=20, ha="right")
    axes.set_yticks(range(len(classes)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(fill(title, 90), fontsize=9)
    _save(figure, target)


def _cells(count: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(count) for column in range(count)]


def draw_curves(target: Path, history: Sequence[dict[str, Any]], title: str) -> None:
    """Draw losses and validation scores by epoch to a PNG file.

    Args:
        target: The file.
        history: One mapping an epoch, as in ``history.jsonl``.
        title: Names the protocol and the verdict.
    """
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    figure.suptitle(fill(title, 120), fontsize=9)
    left, right = figure.subplots(1, 2)
    side = "test" if any("test_loss" in line for line in history) else "validation"
    _line(left, history, "train_loss", "training", BLUE, "-")
    _line(left, history, f"{side}_loss", side, ORANGE, "--")
    _line(right, history, f"{side}_accuracy", "accuracy", BLUE, "-")
    _line(right, history, f"{side}_macro_f1", "macro F1", ORANGE, "--")
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel=f"{side} slices")
    for axes in (left, right):
        _plain(axes)
        if axes.lines:
            axes.legend(frameon=False)
    if not right.lines:
        right.text(0.5, 0.5, "no validation slices", ha="center", va="center", transform=right.transAxes)
    _save(figure, target)


def _line(axes: Any, history: Sequence[dict[str, Any]], key: str, label: str, colour: str, style: str) -> None:
    points = [(line["epoch"], line[key]) for line in history if key in line]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".", markersize=4)


def draw_comparison(target: Path, comparison: Comparison) -> None:
    """Draw accuracy and weighted F1 of each run with their intervals, and the baselines, to a PNG file."""
    rows = comparison.candidates[::-1]
    figure = Figure(figsize=(8.4, 1.9 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name, label, colour, marker, offset in (
        ("accuracy", "accuracy", BLUE, "o", 0.12),
        ("weighted_f1", "weighted F1", ORANGE, "s", -0.12),
    ):
        scores = [candidate.evaluation.scores.overall[name] for candidate in rows]
        places = [row + offset for row in range(len(rows))]
        spread = [[s.value - s.low for s in scores], [s.high - s.value for s in scores]]
        axes.errorbar(
            [s.value for s in scores], places, xerr=spread, fmt=marker, color=colour, label=label, capsize=3
        )
    leader = comparison.leader.evaluation
    for baseline, style in zip(comparison.baselines.values(), (":", "--", "-."), strict=False):
        axes.axvline(baseline.accuracy.value, linestyle=style, color="0.4", label=f"{baseline.name} (accuracy)")
    axes.set_yticks(range(len(rows)), [candidate.name for candidate in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{leader.split} slices, 95 % intervals over {leader.resampled}")
    _plain(axes)
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=9)
    figure.suptitle(fill(comparison.title, 110), fontsize=9)
    _save(figure, target)


def draw_protocols(target: Path, comparison: ProtocolComparison) -> None:
    """Draw the accuracy of each row on slices of people in and not in the training set, to a PNG file."""
    rows = comparison.rows[::-1]
    figure = Figure(figsize=(8.4, 2.2 + 0.75 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot([row.official["accuracy"].value, row.people["accuracy"].value], [place] * 2, color="0.8", lw=6)
    sides = (
        ("official: slices of people in the training set", "official", ORANGE, "s", 0.16),
        ("patient: slices of people not in the training set", "patient", BLUE, "o", 0.0),
        ("patient: people not in the training set", "people", "k", "D", -0.16),
    )
    for label, side, colour, marker, offset in sides:
        scores = [getattr(row, side)["accuracy"] for row in rows]
        spread = [[s.value - s.low for s in scores], [s.high - s.value for s in scores]]
        places = [place + offset for place in range(len(rows))]
        values = [s.value for s in scores]
        axes.errorbar(values, places, xerr=spread, fmt=marker, color=colour, label=label, capsize=3)
        for one, height in zip(scores, places, strict=True):
            beside = (one.high, height)
            axes.annotate(f"{one.value:.2f}", beside, (5, -3), textcoords="offset points", fontsize=8, color=colour)
    always = comparison.always_name.replace("_", " ")
    axes.axvline(comparison.always[1].value, linestyle=":", color="0.4", label=always)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.35)
    axes.set_xlim(0, 1.05)
    axes.set_xlabel(f"accuracy over {len(comparison.patient.classes)} stages, 95 % intervals over people")
    _plain(axes)
    figure.legend(frameon=False, ncols=2, loc="outside lower center", fontsize=9)
    stamp = "synthetic: says nothing about real brains · " if comparison.official.synthetic else ""
    title = f"{stamp}official ({comparison.official.leakage}) against patient ({comparison.patient.leakage})"
    figure.suptitle(fill(title, 110), fontsize=9)
    _save(figure, target)


def draw_calibration(target: Path, result: ExternalValidation) -> None:
    """Draw observed shares by predicted probability with their intervals, to a PNG file."""
    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="0.4", label="perfect")
    observed = [one.observed for one in result.curve]
    spread = [[one.observed - one.low for one in result.curve], [one.high - one.observed for one in result.curve]]
    predicted = [one.predicted for one in result.curve]
    axes.errorbar(predicted, observed, yerr=spread, fmt="o", color=BLUE, capsize=3, label="scans, in tenths")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel=f"predicted probability of any class other than {result.first}",
        ylabel="observed share, 95 % intervals",
    )
    axes.legend(frameon=False)
    _plain(axes)
    figure.suptitle(fill(result.title, 80), fontsize=8)
    _save(figure, target)


def draw_decisions(target: Path, result: ExternalValidation) -> None:
    """Draw the net benefit of the model, of acting on everyone and on nobody, to a PNG file."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    curve = result.decisions
    axes.plot(curve.thresholds, curve.model, color=BLUE, label="the model")
    axes.plot(curve.thresholds, curve.treat_all, "--", color=ORANGE, label="everyone")
    axes.plot(curve.thresholds, curve.treat_none, ":", color="k", label="nobody")
    axes.set(
        ylim=(-0.1, max(0.05, float(max(curve.model.max(), curve.treat_all.max())) * 1.1)),
        xlabel="threshold probability",
        ylabel="net benefit",
    )
    axes.legend(frameon=False)
    _plain(axes)
    figure.suptitle(fill(result.title, 90), fontsize=8)
    _save(figure, target)


def draw_sweep(target: Path, sweep: Sweep) -> None:
    """Draw loss, accuracy and weighted F1 of the trials by each factor to a PNG file."""
    figures = (("loss", "loss", BLUE), ("accuracy", "accuracy", ORANGE), ("weighted_f1", "weighted F1", "k"))
    count = len(sweep.factors)
    figure = Figure(figsize=(1.6 + 2.9 * count, 6.4), layout="constrained")
    grid = figure.subplots(3, count, sharex="col", sharey="row", squeeze=False)
    for column, factor in enumerate(sweep.factors):
        trials = [trial for trial in sweep.of(factor) if trial["state"] == "complete"]
        values = sorted({trial[factor.field] for trial in trials}, key=lambda value: (str(type(value)), value))
        for row, (key, label, colour) in enumerate(figures):
            axes = grid[row][column]
            places = [
                trial[factor.field] if factor.is_range else values.index(trial[factor.field]) for trial in trials
            ]
            axes.plot(places, [trial[key] for trial in trials], "o", color=colour, markersize=5)
            if key == "accuracy":
                axes.vlines(places, *zip(*map(sweep.interval, trials), strict=True), color=colour, alpha=0.5)
            axes.margins(y=0.15)
            if trials:
                axes.plot(places[:1], [trials[0][key]], "o", mfc="none", mec="k", markersize=11)
            if column == 0:
                axes.set_ylabel(label)
            _plain(axes)
        if factor.is_range:
            axes.set_xscale("log" if factor.is_logarithmic else "linear")
        else:
            axes.set_xticks(
                range(len(values)), [f"{value:g}" if _number(value) else str(value) for value in values]
            )
            axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_xlabel(factor.field)
    figure.suptitle(fill(f"{sweep.title} · ring: lowest loss · lines: 95 % intervals", 40 * count + 20), fontsize=9)
    _save(figure, target)


def draw_importance(target: Path, sweep: Sweep) -> None:
    """Draw the share of the loss's variance that each factor explains to a PNG file."""
    shares = sorted(sweep.importance.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(6.4, 1.4 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in shares], [share for _, share in shares], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the loss's variance")
    _plain(axes)
    figure.suptitle(fill(sweep.title, 90), fontsize=9)
    _save(figure, target)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def draw_cuts(target: Path, cuts: Sequence[Sequence[Cut]], title: str) -> None:
    """Draw cuts of a head with the outline of its brain to a PNG file, for a person to judge.

    Args:
        target: The file.
        cuts: Rows of cuts.
        title: Says what to look for.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained", facecolor="k")
    cells = figure.subplots(len(cuts), len(cuts[0]), squeeze=False)
    for cut, axes in zip(chain(*cuts), cells.flat, strict=True):
        axes.imshow(cut.head, cmap="gray", vmin=0, vmax=cut.white, origin="lower")
        if np.ptp(cut.inside) > 0:
            axes.contour(cut.inside, [0.5], colors=ORANGE, linewidths=0.8)
        axes.set_axis_off()
        axes.set_title(cut.name, color="w", fontsize=7)
    figure.suptitle(fill(title, 150), color="w", fontsize=8)
    _save(figure, target)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def _save(figure: Figure, target: Path) -> None:
    with atomic(target) as part:
        figure.savefig(part, format="png", dpi=150)
