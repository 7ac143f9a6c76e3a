"""Explanations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from brainstage.core.schema import short_names
from brainstage.inference.explanations import NOTICE
from brainstage.report.terminal.screen import open_console, shorten

if TYPE_CHECKING:
    from brainstage.inference.explanations import Explanations

SOURCE_WIDTH = 26
"""Columns that a path may take in a row."""


def show_explanations(explanations: Explanations, out: Path) -> None:
    """Print which pictures were written, and how much of each map lies outside of the head."""
    console = open_console()
    console.print(explanations.title, style="bold")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for heading in ("stage", "outside the head", "picture"):
        table.add_column(heading, justify="right" if heading == "outside the head" else "left")
    stages = {row["stage"] for row in explanations.rows if row["stage"]}
    names = dict(zip(sorted(stages), short_names(sorted(stages)), strict=True)) if len(stages) > 1 else {}
    for person in {row["person"]: None for row in explanations.rows}:
        rows = [row for row in explanations.rows if row["person"] == person]
        if rows[0]["status"] != "predicted":
            table.add_row(shorten(rows[0]["source"], SOURCE_WIDTH), rows[0]["status"], style="dim")
            continue
        share = sum(row["outside"] for row in rows) / len(rows)
        stage = names.get(rows[0]["stage"], rows[0]["stage"])
        many = f", {len(rows)} slices" if len(rows) > 1 else ""
        source = shorten(rows[0]["source"], SOURCE_WIDTH)
        picture = shorten(str(out / f"{person:03}.png"), SOURCE_WIDTH)
        table.add_row(source + many, stage, f"{share:.0%}", picture)
    console.print(table)
    if explanations.sanity:
        console.print(explanations.sanity)
    console.print(NOTICE, style="dim")
