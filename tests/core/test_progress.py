"""Bars: nothing where nobody looks, HTML below the cell in a notebook, and nothing of it left afterwards."""

import sys
from types import SimpleNamespace

import pytest

from brainstage.core import progress
from brainstage.core.progress import progress_bar


@pytest.fixture
def shown(monkeypatch):
    """Return what a notebook of this process displays."""
    pytest.importorskip("IPython")
    import IPython.display

    shown = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data))

    def display(data, *, raw, display_id):
        shown.append(data)
        return handle

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_BARS", -1)  # some clocks stand still for 15 ms
    return shown


def test_a_notebook_shows_one_bar_and_nothing_of_it_remains(shown, capsys):
    with progress_bar("Reading <slices>", 4) as advance:
        advance(1)
        advance(3)
    assert [data.get("text/html", "").split(", ")[0] for data in shown] == [
        'Reading &lt;slices&gt; <progress value="0" max="4"></progress> 0 of 4',
        'Reading &lt;slices&gt; <progress value="1" max="4"></progress> 1 of 4',
        'Reading &lt;slices&gt; <progress value="4" max="4"></progress> 4 of 4',
        "",
    ]
    assert shown[-1] == {"text/plain": ""}
    assert capsys.readouterr() == ("", "")


def test_the_bar_goes_when_the_work_fails(shown):
    with pytest.raises(ValueError, match="broken"), progress_bar("Training", 4):
        raise ValueError("broken")
    assert shown[-1] == {"text/plain": ""}


def test_pictures_of_the_bar_are_not_sent_faster_than_anybody_looks(shown, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_BARS", 3600)
    with progress_bar("Training", 1000) as advance:
        for _ in range(1000):
            advance(1)
    assert len(shown) <= 3


def test_where_the_output_is_no_terminal_nothing_is_printed(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 3600)
    with progress_bar("Training", 2) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_log_has_a_line_a_minute_of_all_that_is_done(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_last_line", 0.0)
    clock = iter(range(0, 600, 20))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress_bar("Training", 10) as advance:
        for _ in range(10):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Training: 4 of 10, 120 s left"
    assert len(lines) == 2
