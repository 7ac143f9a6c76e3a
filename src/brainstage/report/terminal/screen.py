"""The screen: its width and colours, paths and bars that fit it, the notice at its end.

Markup is off everywhere: a file named ``scan[1].png`` is shown as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from brainstage.core.links import docs_page
from brainstage.core.printable import printable
from brainstage.core.schema import RESEARCH_NOTICE, define_stages

if TYPE_CHECKING:
    from brainstage.stats.metrics import Score

WIDTH = 80
"""Columns where the output goes to a file or a pipe, and the most that a block takes on a terminal."""
EIGHTHS = " ▏▎▍▌▋▊▉"


class _Screen(Console):
    """A console that shows what is not printable, as a file's name may hold it, as escapes."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how)


def open_console() -> Console:
    """Return a console of the terminal's width, or of 80 columns elsewhere; ``NO_COLOR`` turns off all styles."""
    return _Screen(
        markup=False,
        highlight=False,
        emoji=False,
        width=None if sys.stdout.isatty() else WIDTH,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )


def shorten(path: str, width: int) -> str:
    """Return a path that fits ``width`` columns: where it is longer, the middle is left out."""
    if cell_len(path) <= width:
        return path
    start = (width - 1) // 3
    end = width - 1 - start
    return f"{set_cell_size(path, start)}…{set_cell_size(path[::-1], end)[::-1]}"


def draw_bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """Return a bar of block characters.

    Args:
        share: How much of it is filled, from 0 to 1.
        width: Columns of a full bar.
        ascii_only: Draw it of ``#``, where the terminal has no block characters.
    """
    if ascii_only:
        return "#" * round(share * width)
    whole, eighth = divmod(round(share * width * 8), 8)
    return ("█" * whole + EIGHTHS[eighth]).rstrip()


def show_notice(page: str) -> None:
    """Print what every screen ends with: research software, and the page of the documentation that explains it."""
    open_console().print(f"{RESEARCH_NOTICE}\n{docs_page(page)}", style="dim")


def show_stages(console: Console, classes: Sequence[str]) -> None:
    """Print what the stages are, where they are those of the public dataset."""
    if definition := define_stages(classes):
        console.print(definition, style="dim")


def show_facts(title: str, facts: Mapping[str, str], next_command: str) -> None:
    """Print a title, one line for each fact, and the command to run next.

    Args:
        title: Names the protocol and the leakage verdict.
        facts: What each fact is called, and the fact.
        next_command: The command.
    """
    console = open_console()
    console.print(title, style="bold")
    console.print(facts_table(facts))
    console.print("Next:")
    console.print(f"  {next_command}", soft_wrap=True)  # to be copied as it is


def facts_table(facts: Mapping[str, str]) -> Table:
    """Return a table of names and facts; what does not fit goes on below the fact."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def in_one_line(score: Score) -> str:
    """Return a score with its interval."""
    return "not defined" if isnan(score.value) else f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"


def in_two_lines(score: Score) -> str:
    """Return a score with its interval below it, for a narrow column."""
    return "not given" if isnan(score.value) else f"{score.value:.3f}\n{score.low:.2f} – {score.high:.2f}"
