"""Charts of a run as PNG files: readable in print and by colour-blind people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from brainstage.files import atomic
from brainstage.metrics import Ints

matplotlib.use("Agg")

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's colours for all kinds of colour vision


def draw_confusion_matrix(target: Path, confusion: Ints, classes: Sequence[str], title: str) -> None:
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
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    if not right.lines:
        right.text(0.5, 0.5, "no validation slices", ha="center", va="center", transform=right.transAxes)
    _save(figure, target)


def _line(axes: Any, history: Sequence[dict[str, Any]], key: str, label: str, colour: str, style: str) -> None:
    points = [(line["epoch"], line[key]) for line in history if key in line]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".", markersize=4)


def _save(figure: Figure, target: Path) -> None:
    with atomic(target) as part:
        figure.savefig(part, format="png", dpi=150)
