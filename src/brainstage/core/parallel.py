"""Processors that may be used: a pool of threads for work that releases the interpreter's lock, and processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_thread = threading.local()
_NUMBERS_OF_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


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


def run_tasks(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Iterator[tuple[Item, Result | None]]:
    """Run a function for many items in processes of their own; yield each item with its result as they finish.

    An item whose process dies, as one does that runs out of memory, is tried again alone; if it dies once more its
    result is None, and the others go on. After Ctrl-C or an error nothing more is started.

    Args:
        function: A function of a module; what it takes and returns is sent to and from the processes.
        items: What it is applied to; a few for each process are submitted at a time.
        jobs: Number of processes. 1 works in this one, where a death is the end of all.

    Raises:
        Exception: What the function raised.
    """
    if jobs == 1:
        yield from ((item, function(item)) for item in items)
        return
    waiting = iter(items)
    died: list[Item] = []
    while batch := list(islice(waiting, 2 * jobs)):
        yield from _in_processes(function, batch, waiting, jobs, died)
        while died:
            item = died.pop()
            again: list[Item] = []
            yield from _in_processes(function, [item], iter(()), 1, again)
            yield from ((item, None) for item in again)


def _in_processes(
    function: Callable[[Item], Result], first: list[Item], more: Iterator[Item], jobs: int, died: list[Item]
) -> Iterator[tuple[Item, Result | None]]:
    """Yield items and results until there are no more, or a process died; items without a result join ``died``."""
    context = multiprocessing.get_context("spawn")  # threads and open files of this process are not copied
    pool = ProcessPoolExecutor(jobs, context, _begin_process)
    pending = {pool.submit(function, item): item for item in first}
    try:
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                item = pending.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    died += [item, *pending.values()]
                    return
                yield item, result
                for another in islice(more, 1):
                    try:
                        pending[pool.submit(function, another)] = another
                    except BrokenProcessPool:  # another item's process died meanwhile
                        died += [another, *pending.values()]
                        return
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    """Leave Ctrl-C to the process that started this one, and work in one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_NUMBERS_OF_THREADS, "1"))  # read when NumPy and SimpleITK are imported
    _thread.is_worker = True


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a child makes its own pool
    os.register_at_fork(after_in_child=_shared_pool.cache_clear)
