"""The processors that may be used, and one pool of threads for work that releases the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_thread = threading.local()


@cache
def usable_cpus() -> int:
    """Return how many processors this process may use, at least 1.

    The affinity mask and a container's quota count, as does the environment variable ``LOKY_MAX_CPU_COUNT``
    (:func:`joblib.cpu_count`); ``os.cpu_count`` knows neither.
    """
    from joblib import cpu_count  # takes a tenth of a second to import

    return int(cpu_count())


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], done: Callable[[Result], object] | None = None
) -> list[Result]:
    """Return a function's result for each item, computed in the process's one pool of threads.

    Called from a thread that is itself a worker, it works in that thread alone, so that pools never nest.

    Args:
        function: Called in several threads at once. Worth it where it spends its time in NumPy, Pillow or files,
            which release the interpreter's lock.
        items: What it is applied to; all are submitted at once.
        done: Called with each result in turn, in the calling thread: to show progress.

    Raises:
        Exception: What the function raised for the first item that failed.
    """
    items, results = list(items), []
    alone = len(items) < 2 or is_worker()
    with closing((function(item) for item in items) if alone else _in_pool(function, items)) as computed:
        for result in computed:
            results.append(result)
            if done:
                done(result)
    return results


def _in_pool(function: Callable[[Item], Result], items: list[Item]) -> Generator[Result]:
    futures: list[Future[Result]] = []
    try:
        for item in items:
            futures.append(_shared_pool().submit(function, item))
        for future in futures:
            yield future.result()
    finally:  # after an error or Ctrl-C nothing more is started
        for future in futures:
            future.cancel()


def worker_pool(workers: int | None = None, initializer: Callable[[], object] | None = None) -> ThreadPoolExecutor:
    """Return a pool of threads within which :func:`parallel_map` works in the calling thread alone.

    Args:
        workers: Number of threads; None takes one for each usable processor.
        initializer: Called once in each thread.
    """

    def start() -> None:
        _thread.is_worker = True
        if initializer:
            initializer()

    return ThreadPoolExecutor(workers or usable_cpus(), "brainstage", start)


def is_worker() -> bool:
    """Return whether the calling thread belongs to a :func:`worker_pool`."""
    return getattr(_thread, "is_worker", False)


@cache
def _shared_pool() -> ThreadPoolExecutor:
    return worker_pool()


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a child makes its own pool
    os.register_at_fork(after_in_child=_shared_pool.cache_clear)
