"""One picture of all of a person's slices with what moved the score: one colour scale, and the largest in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.files import atomic

matplotlib.use("Agg")

MAX_OPACITY = 0.7
"""Opacity of the colour in the strongest pixels; a pixel without attribution stays grey."""
COLOURS = "RdBu_r"
"""Red where a pixel raised the score, blue where it lowered it."""
MAX_COLUMNS = 8
SIDE = 384
"""Pixels of a slice's longer side: three times those of the training data."""
GAP, LABEL, STRIP = 14, 34, 30
"""Pixels between slices, and of the rows of text above and below each."""
MARGIN, MIN_WIDTH, LINE = 40, 1240, 38
"""Pixels around everything, of the narrowest picture, and of a line of text."""
DPI = 100
OUTLINE = "#F0E442"  # Okabe and Ito's yellow, which stands out from grey, red and blue


class Outline(NamedTuple):
    """A marked rectangle in a slice: left, top, width and height as shares of its sides."""

    mark: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """A slice of a montage.

    Attributes:
        picture: The slice with its map in colour, uint8 of shape (H, W, 3).
        label: What stands above it.
        whole: What the slice as a whole adds, shown in a strip below it; None where the method has no such thing.
        mark: The strip's mark in the list of the largest; empty where it is not in it.
        outlines: The largest contributions within it.
    """

    picture: Pixels
    label: str
    whole: float | None = None
    mark: str = ""
    outlines: Sequence[Outline] = field(default_factory=tuple)


@dataclass(frozen=True)
class Legend:
    """What a montage says beside its slices.

    Attributes:
        title: The first line.
        text: Sentences below it.
        full_colour: Strength that is shown in full colour.
        unit: What the colours are of.
        ends: What blue and what red speak for.
        largest: The largest contributions in words, each with its mark in the picture.
        notice: The last lines.
        sides: Whether left and right are known; they are then marked.
    """

    title: str
    text: Sequence[str]
    full_colour: float
    unit: str
    ends: tuple[str, str]
    largest: Sequence[str]
    notice: str
    sides: bool


def overlay(image: Pixels, map_: Float32Array, full_colour: float) -> Pixels:
    """Blend a map over its slice: red where a pixel raised the score, blue where it lowered it.

    Args:
        image: Grey slice, uint8 of shape (H, W).
        map_: float32 of shape (H, W).
        full_colour: Strength that is shown in full colour.

    Returns:
        uint8 of shape (H, W, 3).
    """
    scaled = _scaled(map_, full_colour)
    share = MAX_OPACITY * np.abs(scaled)[..., None]
    mixed = (1 - share) * image[..., None] / 255 + share * _colour(scaled)
    return (255 * mixed).round().astype(np.uint8)


def draw_montage(target: Path, panels: Sequence[Panel], legend: Legend) -> None:
    """Draw slices in rows, with a colour bar and the largest contributions in words, to a PNG file.

    Args:
        target: The file.
        panels: The slices, the lowest first.
        legend: What stands around them.
    """
    columns = min(MAX_COLUMNS, len(panels))
    across, down = SIDE + GAP, LABEL + SIDE + STRIP + GAP
    width = max(MIN_WIDTH, columns * across - GAP + 2 * MARGIN)
    letters = width // 13  # of the text's size
    above = [line for sentence in legend.text for line in wrap(sentence, letters)]
    below = wrap(legend.notice, letters)
    top = MARGIN + LINE * (len(above) + 2)
    bar = top + down * -(-len(panels) // columns) + LINE // 2
    words = bar + 3 * LINE
    height = words + LINE * (len(legend.largest) + bool(legend.largest) + len(below)) + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="w")
    page = figure.add_axes((0, 0, 1, 1))
    canvas = np.full((height, width, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        _draw_panel(page, canvas, panel, legend, (MARGIN + column * across, top + row * down))
    _write(page, MARGIN, MARGIN + LINE / 2, legend.title, weight="bold")
    for number, line in enumerate(above, 2):
        _write(page, MARGIN, MARGIN + LINE * number - LINE / 2, line)
    _draw_bar(page, canvas, legend, (MARGIN, bar))
    for number, line in enumerate(_list(legend, below)):
        _write(page, MARGIN, words + LINE * (number + 0.5), line)
    figure.figimage(canvas, zorder=-1)  # pixel by pixel, where imshow would resample
    page.set(xlim=(0, width), ylim=(height, 0))
    page.set_axis_off()
    with atomic(target) as part:
        figure.savefig(part, format="png", dpi=DPI)


def _list(legend: Legend, below: Sequence[str]) -> Iterator[str]:
    if legend.largest:
        yield "The largest, by their marks in the picture:"
    yield from legend.largest
    yield from below


def _draw_panel(page: Any, canvas: Pixels, panel: Panel, legend: Legend, corner: tuple[int, int]) -> None:
    """Put a slice into the canvas, and what stands around it onto the page."""
    left, top = corner
    height, width = (round(SIDE * side / max(panel.picture.shape[:2])) for side in panel.picture.shape[:2])
    picture = Image.fromarray(panel.picture).resize((width, height), Image.Resampling.BICUBIC)
    upper = top + LABEL
    canvas[upper : upper + SIDE, left : left + SIDE] = 0
    x, y = left + (SIDE - width) // 2, upper + (SIDE - height) // 2
    canvas[y : y + height, x : x + width] = np.asarray(picture)
    _write(page, left, top + LABEL / 2, panel.label)
    if legend.sides:
        for side, at in (("R", left + 8), ("L", left + SIDE - 24)):
            _write(page, at, upper + SIDE / 2, side, color="w")
    for mark, (across, down, wide, high) in panel.outlines:
        box = (x + across * width, y + down * height)
        page.add_patch(Rectangle(box, wide * width, high * height, fill=False, edgecolor=OUTLINE, linewidth=3))
        _write(page, box[0] + 5, box[1] + 16, mark, color=OUTLINE, weight="bold")
    if panel.whole is None:
        return
    lower = upper + SIDE + 2
    canvas[lower : lower + STRIP - 2, left : left + SIDE] = 255 * _colour(_scaled(panel.whole, legend.full_colour))
    strength = abs(_scaled(panel.whole, legend.full_colour))
    text = f"{panel.mark}   grey values {panel.whole:+.2f}".strip()
    _write(page, left + 6, lower + STRIP / 2 - 1, text, color="w" if strength > 0.6 else "k")


def _draw_bar(page: Any, canvas: Pixels, legend: Legend, corner: tuple[int, int]) -> None:
    """Draw the colour bar with its ends in words."""
    (left, top), width = corner, 2 * SIDE
    shades = _colour(np.linspace(-1, 1, width))
    canvas[top : top + LINE - 8, left : left + width] = (255 * shades).round()
    for share, text, side in zip(
        (0, 0.5, 1),
        (f"-{legend.full_colour:.2g} or less", "0", f"+{legend.full_colour:.2g} or more"),
        ("left", "center", "right"),
        strict=True,
    ):
        _write(page, left + share * width, top + 1.3 * LINE, text, ha=side)
    against, for_ = legend.ends
    _write(page, left + width + GAP, top + LINE / 2 - 4, f"blue: {against} · red: {for_}")
    _write(page, left + width + GAP, top + 1.3 * LINE, legend.unit)


def _write(page: Any, x: float, y: float, text: str, **style: Any) -> None:
    page.text(x, y, text, **{"fontsize": 16, "va": "center", "parse_math": False, **style})


def _scaled(values: Any, full_colour: float) -> Any:
    return np.clip(values / max(full_colour, 1e-12), -1, 1)


def _colour(scaled: Any) -> Any:
    """Return the colours, from 0 to 1, of strengths from -1 to 1."""
    return np.asarray(matplotlib.colormaps[COLOURS](0.5 + np.asarray(scaled) / 2))[..., :3]
