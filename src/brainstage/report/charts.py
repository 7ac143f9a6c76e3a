"""Charts: readable in print and by colour-blind people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from itertools import chain
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from brainstage.core.arrays import Float32Array, IntArray, Pixels
from brainstage.core.files import atomic
from brainstage.core.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE, score_in_words
from brainstage.report.pages import data_uri

if TYPE_CHECKING:
    from brainstage.evaluation.comparison import Comparison
    from brainstage.evaluation.patients import PatientEvaluation
    from brainstage.stats.metrics import Score
    from brainstage.studies.external_validation import ExternalValidation
    from brainstage.studies.protocols import ProtocolComparison
    from brainstage.training.sweep import Sweep

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's colours for all kinds of colour vision


class Chart(Figure):
    """A figure that notebooks show and :meth:`save` writes.

    ``pyplot`` does not know of it: it is shown where it is asked for and nowhere else, and what a user has set in
    ``pyplot`` stays as it is.

    Args:
        width, height: In inches.
        title: Names the protocol and the verdict.
        facecolor: Colour behind the pictures.
    """

    def __init__(self, width: float, height: float, title: str, facecolor: str = "w"):
        super().__init__(figsize=(width, height), layout="constrained", facecolor=facecolor)
        self.title = title
        self.suptitle(fill(title, round(14 * width)), fontsize=9, color="k" if facecolor == "w" else "w")

    def save(self, target: Path) -> None:
        """Write a PNG file, whole or not at all."""
        with atomic(target) as part:
            self.savefig(part, format="png", dpi=150)

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=150)
        return stream.getvalue()

    def _repr_html_(self) -> str:
        size = f"width:{self.get_figwidth() * 96:.0f}px;max-width:100%;height:auto"
        picture = f'<img src="{data_uri(self._repr_png_(), "png")}" alt="{escape(self.title)}" style="{size}">'
        return f'<figure style="margin:0">{picture}<figcaption>{RESEARCH_NOTICE}</figcaption></figure>'


class Cut(NamedTuple):
    """One plane of a head, its rows from the top."""

    name: str
    head: Float32Array
    inside: Float32Array
    """Share of each pixel that lies in the brain."""
    white: float
    """Grey value that is shown white."""


def draw_confusion_matrix(confusion: IntArray, classes: Sequence[str], title: str) -> Chart:
    """Draw counts, and shares of each true stage as shades.

    Args:
        confusion: int64 of shape (K, K), true stages in rows.
        classes: K class names.
        title: Names the protocol and the verdict.
    """
    figure = Chart(6.4, 5.6, title)
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
    return figure


def _cells(count: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(count) for column in range(count)]


def draw_curves(history: Sequence[dict[str, Any]], title: str) -> Chart:
    """Draw losses and validation scores by epoch.

    Args:
        history: One mapping an epoch, as in ``history.jsonl``.
        title: Names the protocol and the verdict.
    """
    figure = Chart(8.4, 3.8, title)
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
    return figure


def _line(axes: Any, history: Sequence[dict[str, Any]], key: str, label: str, colour: str, style: str) -> None:
    points = [(line["epoch"], line[key]) for line in history if key in line]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".", markersize=4)


def draw_comparison(comparison: Comparison) -> Chart:
    """Draw accuracy and weighted F1 of each run with their intervals, and the baselines."""
    rows = comparison.candidates[::-1]
    figure = Chart(8.4, 1.9 + 0.5 * len(rows), comparison.title)
    axes = figure.subplots()
    for name, label, colour, marker, offset in (
        ("accuracy", "accuracy", BLUE, "o", 0.12),
        ("weighted_f1", "weighted F1", ORANGE, "s", -0.12),
    ):
        scores = [candidate.evaluation.scores.overall[name] for candidate in rows]
        _intervals(axes, scores, [row + offset for row in range(len(rows))], colour, marker, label)
    leader = comparison.leader.evaluation
    for baseline, style in zip(comparison.baselines.values(), (":", "--", "-."), strict=False):
        axes.axvline(baseline.accuracy.value, linestyle=style, color="0.4", label=f"{baseline.name} (accuracy)")
    axes.set_yticks(range(len(rows)), comparison.names[::-1])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{leader.split} slices, 95 % intervals over {leader.resampled}")
    _plain(axes)
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=9)
    return figure


def draw_protocols(comparison: ProtocolComparison) -> Chart:
    """Draw the accuracy of each row on slices of people in and not in the training set."""
    rows = comparison.rows[::-1]
    stamp = f"{SYNTHETIC_NOTICE} · " if comparison.official.synthetic else ""
    against = (f"protocol {one.protocol} ({one.leakage})" for one in (comparison.official, comparison.patient))
    title = stamp + " against ".join(against)
    figure = Chart(8.4, 2.2 + 0.75 * len(rows), title)
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
        places = [place + offset for place in range(len(rows))]
        _intervals(axes, scores, places, colour, marker, label)
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
    return figure


def draw_people(evaluation: PatientEvaluation) -> Chart:
    """Draw accuracy and AUROC of predictions of people beside what needs no model, with stages apart and joined."""
    count = len(evaluation.views)
    rows = [*evaluation.views[0].rows][::-1]
    figure = Chart(3.2 + 2.4 * count, 1.8 + 0.45 * len(rows), evaluation.title)
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes, view in zip(panels, evaluation.views, strict=True):
        for name, colour, marker, offset in (("accuracy", BLUE, "o", 0.12), ("auroc_ovr", ORANGE, "s", -0.12)):
            label = score_in_words(name)
            places = [place + offset for place in range(len(rows))]
            _intervals(axes, [view.rows[row][name] for row in rows], places, colour, marker, label)
        axes.set(xlim=(0, 1.03), xticks=(0, 0.5, 1), title=view.name, xlabel="95 % intervals over people")
        _plain(axes)
    panels[0].set_yticks(range(len(rows)), rows)
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside lower center", fontsize=9
    )
    return figure


def draw_calibration(result: ExternalValidation) -> Chart:
    """Draw observed shares by predicted probability with their intervals."""
    figure = Chart(5.6, 5.0, result.title)
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
    return figure


def draw_decisions(result: ExternalValidation) -> Chart:
    """Draw the net benefit of the model, of acting on everyone and on nobody."""
    figure = Chart(6.4, 4.4, result.title)
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
    return figure


def draw_sweep(sweep: Sweep) -> Chart:
    """Draw loss, accuracy and weighted F1 of the trials by each factor."""
    figures = (("loss", "loss", BLUE), ("accuracy", "accuracy", ORANGE), ("weighted_f1", "weighted F1", "k"))
    count = len(sweep.factors)
    title = f"{sweep.title} · ring: lowest loss · lines: 95 % intervals"
    figure = Chart(1.6 + 2.9 * count, 6.4, title)
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
    return figure


def draw_importance(sweep: Sweep) -> Chart:
    """Draw the share of the loss's variance that each factor explains."""
    shares = sorted(sweep.importance.items(), key=lambda pair: pair[1])
    figure = Chart(6.4, 1.4 + 0.4 * len(shares), sweep.title)
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in shares], [share for _, share in shares], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the loss's variance")
    _plain(axes)
    return figure


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def draw_cuts(cuts: Sequence[Sequence[Cut]], title: str) -> Chart:
    """Draw cuts of a head with the outline of its brain, for a person to judge.

    Args:
        cuts: Rows of cuts.
        title: Says what to look for.
    """
    figure = Chart(10, 6.4, title, facecolor="k")
    cells = figure.subplots(len(cuts), len(cuts[0]), squeeze=False)
    for cut, axes in zip(chain(*cuts), cells.flat, strict=True):
        axes.imshow(cut.head, cmap="gray", vmin=0, vmax=cut.white)
        if np.ptp(cut.inside) > 0:
            axes.contour(cut.inside, [0.5], colors=ORANGE, linewidths=0.8)
        axes.set_axis_off()
        axes.set_title(cut.name, color="w", fontsize=7)
    return figure


def draw_slices(rows: Sequence[Sequence[tuple[str, Pixels]]], title: str) -> Chart:
    """Draw slices as they are.

    Args:
        rows: Rows of slices, each with what stands above it; uint8 of shape (H, W).
        title: Says what they are.
    """
    columns = max(map(len, rows))
    figure = Chart(1.5 * columns + 0.2, 1.75 * len(rows) + 0.6, title)
    cells = figure.subplots(len(rows), columns, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    for row, line in zip(rows, cells, strict=True):
        for (name, image), axes in zip(row, line, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(name, fontsize=8)
    return figure


def _intervals(
    axes: Any, scores: Sequence[Score], places: Sequence[float], colour: str, marker: str, label: str
) -> None:
    """Draw scores, one above the other, with their intervals."""
    spread = [[s.value - s.low for s in scores], [s.high - s.value for s in scores]]
    values = [s.value for s in scores]
    axes.errorbar(values, places, xerr=spread, fmt=marker, color=colour, label=label, capsize=3)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
