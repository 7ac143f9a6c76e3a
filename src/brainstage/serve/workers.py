"""Several processes answer at one address: uvicorn's own worker processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int64
from functools import partial
from multiprocessing import get_context, parent_process
from socket import socket

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from brainstage.core.errors import BrainstageError, RunError
from brainstage.serve.usage import SharedCount, Usage

log = logging.getLogger("brainstage.serve")

BACKLOG = 2048
"""Connections that may wait to be accepted."""
MOMENT = 0.02
"""Seconds between two looks at what another process does."""

OpenApp = Callable[[Usage], ASGIApp]
"""Opens the models and returns the application; sent to the workers."""


class WorkerTable:
    """What the workers and the process that started them tell each other, in memory that they share.

    A number for each worker, in the supervisor's order. The workers write what they use and whether they are ready,
    each its own, the supervisor which process each is.
    """

    def __init__(self, workers: int):
        """Make an empty table.

        Args:
            workers: Number of workers.
        """
        context = get_context("spawn")
        self.pids, self.ready, self.requests, self.bytes = (context.RawArray(c_int64, workers) for _ in range(4))
        self.errors, self.to_supervisor = context.Pipe(duplex=False)
        """Why models could not be opened: sentences, each short enough for a pipe to take it whole."""

    def enter(self, number: int, pid: int) -> None:
        """Give a worker's place to a process; what the process before it used is free again."""
        if self.pids[number] != pid:
            self.ready[number] = self.requests[number] = self.bytes[number] = 0
            self.pids[number] = pid

    def number(self) -> int:
        """Return this worker's place; the supervisor enters it at once, but after the process has begun."""
        while os.getpid() not in self.pids[:]:
            time.sleep(MOMENT)
        return self.pids[:].index(os.getpid())

    def usage(self, number: int) -> Usage:
        """Return what all workers use, as the worker at a place counts it."""
        return Usage(SharedCount(self.requests, number), SharedCount(self.bytes, number))


def run_workers(open_app: OpenApp, config: Config, listener: socket, ready: Callable[[], None]) -> None:
    """Answer requests in ``config.workers`` processes until this one is told to end.

    A worker that dies is replaced. The workers end with this process, however it ends.

    Args:
        open_app: Called in each worker, with what all workers use of the limits.
        config: How uvicorn serves; its ``app`` is set here.
        listener: The socket that all workers accept connections from.
        ready: Called when every worker has opened the models.

    Raises:
        RunError: A worker could not open the models.
    """
    table = WorkerTable(config.workers)
    config.app, config.factory = partial(_start, open_app, table), True
    supervisor = _Supervisor(config, [listener], table, ready)
    supervisor.run()
    if table.errors.poll():
        raise RunError(table.errors.recv())
    if supervisor.died is not None:
        raise RunError(
            f"a worker ended with code {supervisor.died} while it opened the models; if memory is short, take "
            "fewer --workers"
        )


def _start(open_app: OpenApp, table: WorkerTable) -> ASGIApp:
    """Open the application in a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = table.number()
    try:
        app = open_app(table.usage(number))
    except BrainstageError as error:
        table.to_supervisor.send(str(error))
        sys.exit(STARTUP_FAILURE)
    table.ready[number] = 1
    return app


def _end_with_parent() -> None:
    """End this worker when the process that started it has ended, even if that was killed."""
    if parent := parent_process():
        parent.join()
        signal.raise_signal(signal.SIGTERM)


class _Supervisor(Multiprocess):
    """Uvicorn's supervisor, which also says when all workers are ready, and why they are not.

    Attributes:
        died: Exit code of a worker that ended before all were ready.
    """

    def __init__(self, config: Config, sockets: list[socket], table: WorkerTable, ready: Callable[[], None]):
        super().__init__(config, sockets)
        self._table, self._ready = table, ready
        self.died: int | None = None

    def init_processes(self) -> None:
        """Start the workers, and wait until they have opened the models."""
        with _interrupts_ignored():  # by the workers, until uvicorn handles them: this process ends the workers
            super().init_processes()
        self._enter_all()
        while not all(self._table.ready):
            if self.signal_queue:  # the supervisor's loop handles it
                return
            if ended := [process.exitcode for process in self.processes if process.exitcode is not None]:
                self.died = ended[0]
                self.should_exit.set()
                return
            time.sleep(MOMENT)
        self._ready()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died."""
        before = [process.pid for process in self.processes]
        super().keep_subprocess_alive()
        self._enter_all()
        for ended in set(before) - {process.pid for process in self.processes}:
            log.warning("worker process %s ended; another takes its place", ended)
        for listener in self.sockets:
            listener.listen(BACKLOG)  # a worker that starts makes the queue as short as what it accepts at once

    def _enter_all(self) -> None:
        for number, process in enumerate(self.processes):
            self._table.enter(number, process.pid or 0)

    def handle_hup(self) -> None:
        """End when the terminal is closed, as one process does."""
        self.handle_term()

    def handle_ttin(self) -> None:
        """Do nothing: the table has a place for each worker that was asked for."""

    def handle_ttou(self) -> None:
        """Do nothing."""


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Have processes that are started ignore Ctrl-C."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
