"""SIGTERM, by which a scheduler says that the process will soon be killed."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """SIGTERM arrived. Like ``KeyboardInterrupt`` it ends the program; its text says what was saved."""


@contextmanager
def terminated_by_sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` where SIGTERM arrives in the block.

    Later ones are ignored, as launchers send several and none must disturb the cleaning up.
    """

    def end() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    with _handled(end):
        yield


@contextmanager
def sigterm_noted() -> Iterator[threading.Event]:
    """Yield an event that is set once SIGTERM arrives, in place of ending the process.

    :class:`Terminated` is raised at the end of the block where it arrived and nothing else was raised.
    """
    arrived = threading.Event()
    with _handled(arrived.set):
        yield arrived
        if arrived.is_set():
            raise Terminated


@contextmanager
def _handled(function: Callable[[], None]) -> Iterator[None]:
    """Call a function where SIGTERM arrives; Python lets the main thread alone say so.

    What was done before is done again after the block, unless the process is ending by :class:`Terminated`. A
    worker of a pool is left alone: by SIGTERM the pool ends it, and must not wait.
    """
    if threading.current_thread() is not threading.main_thread() or multiprocessing.parent_process():
        yield
        return
    before, ending = signal.signal(signal.SIGTERM, lambda *_: function()), False
    try:
        yield
    except Terminated:
        ending = True
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ending else before)
