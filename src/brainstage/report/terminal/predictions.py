"""Predictions: a block for each person, a row for each slice that stands for no person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from brainstage.core.schema import PROB_PREFIX, SET_PREFIX, short_names
from brainstage.report.terminal.screen import WIDTH, draw_bar, open_console, shorten, show_stages

if TYPE_CHECKING:
    from brainstage.inference.predictions import Predictions

ROWS_SHOWN = 20
"""Rows of single slices that are printed unless all are asked for."""
NAME_WIDTH = 24
"""Columns that the name of a stage may take beside its bar."""
SOURCE_WIDTH = 34
"""Columns that a path may take in a row."""
KEPT = "not ruled out"
Row = dict[str, Any]


def show_predictions(predictions: Predictions, *, slices: bool = False, details: bool = False) -> None:
    """Print a block for each person, then a row for each slice that stands alone, then what all of that is worth.

    Args:
        predictions: The predictions.
        slices: Also print a row for each slice of a person, and every slice that stands alone.
        details: Also print what the stages, the people and the figures are.
    """
    console = open_console()
    names = dict(zip(predictions.classes, short_names(predictions.classes), strict=True))
    people = predictions.people
    if len(people) > 1:
        console.print(f"{len(people):,} scans: {_count([rows[0] for rows in people], names)}", style="bold")
        console.print()
    alone = [rows[0] for rows in people if len(rows) == 1 and not (len(people) == 1 and rows[0]["stage"])]
    for rows in people:
        if rows[0] not in alone:
            _show_person(console, rows, names, slices=slices)
    if alone:
        _show_alone(console, alone, names, every=slices)
    if predictions.performance and any(rows[0]["stage"] for rows in people):  # of no stage there is nothing to say
        console.print(predictions.performance)
    if sum(row["stage"] is not None for row in alone) > 1:
        console.print("Each slice was staged as a person of its own; --one-person stages those of one together.")
    console.print(_say_where_the_rest_is(people, slices=slices, details=details))
    if details:
        for sentence in predictions.details:
            console.print(f"· {sentence}", style="dim")
    else:
        show_stages(console, predictions.classes)
    console.print(predictions.title, style="dim")


def _show_person(console: Console, rows: Sequence[Row], names: Mapping[str, str], *, slices: bool) -> None:
    """Print what was read of a person, the stage, a bar for each class, and what can be said of the stage."""
    first, each = rows[0], rows[1:]
    console.print(shorten(first["source"], min(console.width, WIDTH)), style="bold")
    used = _describe_slices(first, each)
    if first["stage"]:
        console.print(f"  Stage {names[first['stage']]} · {used}")
        _show_bars(console, first, names)
        if first["words"]:
            console.print(Padding(f"{first['words']}.", (0, 0, 0, 2)))
    else:
        console.print(f"  {first['status'].capitalize()} · {used}")
    if slices and each:
        console.print(_table(each, names, "level"))
    else:
        console.print()


def _describe_slices(first: Row, each: Sequence[Row]) -> str:
    """Return how many slices a prediction is made from, and how many were passed over."""
    if not each:
        return "one slice"
    what = "slices" if each[0]["level"] is None else "levels of a volume"
    if first["slices"] == len(each):
        return f"{len(each):,} {what}"
    return f"{first['slices']:,} of {len(each):,} {what}, {len(each) - first['slices']:,} passed over"


def _show_bars(console: Console, row: Row, names: Mapping[str, str]) -> None:
    """Print the probability of each class as a bar and a number, and whether the class is not ruled out."""
    shown = {name: shorten(short, NAME_WIDTH) for name, short in names.items()}
    name_width = max(map(len, shown.values()))
    bar_width = min(console.width, WIDTH) - name_width - len(f"      0.00  {KEPT}")
    for name, short in shown.items():
        share = row[PROB_PREFIX + name]
        bar = draw_bar(share, bar_width, ascii_only=console.options.ascii_only)
        kept = KEPT if row[SET_PREFIX + name] else ""
        line = f"  {short:<{name_width}}  {bar:<{bar_width}}{share:6.2f}  {kept}".rstrip()
        console.print(Text(line, style="bold" if name == row["stage"] else ""))


def _show_alone(console: Console, rows: Sequence[Row], names: Mapping[str, str], *, every: bool) -> None:
    """Print a row for each slice that stands alone and each scan without a prediction, and count those left out."""
    shown = rows if every else rows[:ROWS_SHOWN]
    console.print(_table(shown, names, "scan"))
    if rest := rows[len(shown) :]:
        console.print(f"{len(rest):,} more: {_count(rest, names)}; --slices prints all")


def _table(rows: Sequence[Row], names: Mapping[str, str], heading: str) -> Table:
    """Return a table with a row for each slice: its stage, the probability of that, the stages not ruled out."""
    calibrated = any(row[SET_PREFIX + name] is not None for row in rows for name in names)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading)
    table.add_column("stage", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    if calibrated:
        table.add_column(f"{KEPT} (90 %)", overflow="fold")
    for row in rows:
        what = shorten(row["source"], SOURCE_WIDTH) if row["level"] is None else f"{row['level']}"
        if row["stage"]:
            kept = ", ".join(short for name, short in names.items() if row[SET_PREFIX + name])
            probability = f"{row[PROB_PREFIX + row['stage']]:.2f}"
            table.add_row(what, names[row["stage"]], probability, *([kept] if calibrated else []))
        else:
            table.add_row(what, row["status"], style="dim")
    return table


def _count(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """Return how many scans have each stage, in the order of the stages, and how many have none and why."""
    stages = Counter(row["stage"] for row in rows if row["stage"])
    others = Counter(row["status"] for row in rows if not row["stage"])
    counts = [(names[name], stages[name]) for name in names if stages[name]] + list(others.items())
    return ", ".join(f"{count:,} {what}" for what, count in counts)


def _say_where_the_rest_is(people: Sequence[Sequence[Row]], *, slices: bool, details: bool) -> str:
    """Return which options show what is not on this screen."""
    several = any(len(rows) > 1 for rows in people)
    options = [
        "--slices shows each slice" if several and not slices else None,
        "--out FILE writes everything",
        None if details else "--details explains the figures",
    ]
    return f"{', '.join(option for option in options if option)}."


def show_saved(saved: str, counts: Mapping[str, int], performance: str, title: str) -> None:
    """Print where predictions were saved, what became of the scans, and what made them.

    Args:
        saved: The folder.
        counts: Number of scans of each status.
        performance: What the predictions are worth.
        title: Which model predicts, and under which protocol it was evaluated.
    """
    console = open_console()
    console.print(f"Saved {saved}", soft_wrap=True)
    console.print(", ".join(f"{count:,} {status}" for status, count in counts.items()))
    console.print(performance)
    console.print(title, style="dim")
