"""What ``explain`` shows on a terminal: the largest contributions in words, and where the pictures are."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill, indent
from typing import Any

from rich.console import Console

from brainstage.inference.contributions import spoken
from brainstage.inference.explanations import NOTICE, Explanations
from brainstage.report.terminal.screen import open_console, shorten


def show_explanations(explanations: Explanations, out: Path) -> None:
    """Print what moved the score of each person; details where there is only one.

    Args:
        explanations: The explanations.
        out: The folder with the pictures.
    """
    console = open_console()
    console.print(explanations.title, style="bold")
    for person in explanations.people:
        rows = [row for row in explanations.rows if row["person"] == person["person"]]
        _show_person(console, person, rows, out, whole=len(explanations.people) == 1)
    if explanations.sanity:
        console.print(explanations.sanity)
    console.print(NOTICE, style="dim")


def _show_person(
    console: Console, person: dict[str, Any], rows: list[dict[str, Any]], out: Path, *, whole: bool
) -> None:
    count = person["slices"]
    slices = "1 slice" if count == 1 else f"{count:,} slices"
    console.print()
    console.print(shorten(person["source"], console.width), style="bold")
    console.print(f"{spoken(person['stage'])}, from {slices}")
    sentences = person.get("summary") or [_outside(rows)]
    for sentence in sentences if whole else sentences[:1]:
        console.print(sentence)
    for part in person.get("largest", []) if whole else []:
        line = fill(f"{part['mark']}  {part['words']}", console.width - 2, subsequent_indent="   ")
        console.print(indent(line, "  "))
    files = " · ".join(person[kind] for kind in ("picture", "table") if kind in person)
    console.print(f"{out}: {files}", soft_wrap=True)


def _outside(rows: list[dict[str, Any]]) -> str:
    """Return how much of the maps lies outside of the head."""
    shares = [row["outside"] for row in rows if row["outside"] is not None]
    return f"{sum(shares) / len(shares):.0%} of what moved the score lies outside of the head."
