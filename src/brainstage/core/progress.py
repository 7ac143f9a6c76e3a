"""How progress is shown: a function that opens a progress bar and yields a function that advances it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape

Advance = Callable[[int], None]
"""Advances a progress bar by a number of steps."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""``with progress("Reading slices", 6400) as advance: advance(64)``."""

SECONDS_BETWEEN_BARS = 0.2
"""Shortest time between two pictures of a bar in a notebook."""
SECONDS_BETWEEN_LINES = 60.0
"""Shortest time between two lines in a log."""
_last_line = 0.0
"""When the last line was printed, or the work began that it would have told of; seconds of a monotonic clock."""


@contextmanager
def silent(_description: str, _total: int) -> Iterator[Advance]:
    """Show nothing: the default of the Python API."""
    yield lambda _steps: None


def progress_bar(description: str, total: int) -> AbstractContextManager[Advance]:
    """Show a bar with the time left, in a notebook or on the terminal's error stream, until the work is done.

    Where the error stream is no terminal but a file or a pipe, there is a line a minute in place of a bar.
    """
    if _in_notebook():
        return _notebook_bar(description, total)
    return (_terminal_bar if sys.stderr.isatty() else _log_lines)(description, total)


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@contextmanager
def _notebook_bar(description: str, total: int) -> Iterator[Advance]:
    """Show a bar below the cell. It is an element of HTML, so it needs no ipywidgets, unlike the bar of rich."""
    from IPython.display import display

    started, done, shown = time.monotonic(), 0, 0.0
    handle = display(_bar(description, 0, total, 0.0), raw=True, display_id=True)

    def advance(steps: int) -> None:
        nonlocal done, shown
        done += steps
        if (now := time.monotonic()) - shown > SECONDS_BETWEEN_BARS:
            shown = now
            handle.update(_bar(description, done, total, now - started), raw=True)

    try:
        yield advance
    finally:
        handle.update({"text/plain": ""}, raw=True)


def _bar(description: str, done: int, total: int, seconds: float) -> dict[str, str]:
    """Return a bar as a notebook shows it."""
    words = _words(done, total, seconds)
    html = f'{escape(description)} <progress value="{done}" max="{total}"></progress> {words}'
    return {"text/html": html, "text/plain": f"{description}: {words}"}


def _words(done: int, total: int, seconds: float) -> str:
    """Return how far work is, and how long it will take from here on."""
    left = f", {seconds / done * (total - done):,.0f} s left" if done else ""
    return f"{done:,} of {total:,}{left}"


@contextmanager
def _log_lines(description: str, total: int) -> Iterator[Advance]:
    """Say once a minute how far the work is."""
    global _last_line
    started, done = time.monotonic(), 0
    if started - _last_line > SECONDS_BETWEEN_LINES:  # nothing was done since, or this process began long ago
        _last_line = started

    def advance(steps: int) -> None:
        global _last_line
        nonlocal done
        done += steps
        if (now := time.monotonic()) - _last_line > SECONDS_BETWEEN_LINES:
            _last_line = now
            print(f"{description}: {_words(done, total, now - started)}", file=sys.stderr, flush=True)

    yield advance


@contextmanager
def _terminal_bar(description: str, total: int) -> Iterator[Advance]:
    """Show a bar on the terminal's error stream."""
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
