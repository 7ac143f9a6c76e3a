"""How progress is shown: a function that opens a progress bar and yields a function that advances it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Advances a progress bar by a number of steps."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""``with progress("Reading slices", 6400) as advance: advance(64)``."""


@contextmanager
def silent(_description: str, _total: int) -> Iterator[Advance]:
    """Show nothing: the default of the Python API."""
    yield lambda _steps: None


@contextmanager
def terminal(description: str, total: int) -> Iterator[Advance]:
    """Show a bar with rate and time left on the terminal's error stream."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "–/s", style="progress.data.speed")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps: bars.advance(task, steps)
