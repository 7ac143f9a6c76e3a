"""Work side by side: in threads, where it releases the interpreter's lock; in processes; on a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from importlib import metadata
from itertools import chain, islice
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from brainstage.core.errors import RunError
from brainstage.core.sigterm import Terminated

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_thread = threading.local()
_blas = threading.RLock()
"""Held while libraries are limited to one thread: whoever came second would set the limit for good."""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"
)
"""Environment in which libraries work in one thread; workers do, since there is one for each processor."""
ITEMS_AHEAD = 8
"""How many items a thread is ahead of the one whose result is waited for."""
CHUNK_SECONDS = 2.0
"""How long a chunk of tasks should take: long against the cost of handing it over, a millisecond on a cluster, and
short against what may be lost when its worker dies."""
LOST = "the cluster's scheduler is gone or cancelled the work; what is finished is kept, start the command again"
TOO_LITTLE_MEMORY = "too little memory? Fewer --jobs leave more to each"
"""What to say of a task without which the others are of no use, and that has no result."""
MAX_CHUNK = 1000
"""Most items of a chunk."""


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
        items: What it is applied to.
        done: Called with each result in turn, in the calling thread: to show progress.

    Raises:
        Exception: What the function raised for the first item that failed.
    """
    items, results = list(items), []
    alone = len(items) < 2
    with closing((function(item) for item in items) if alone else parallel_stream(function, items)) as computed:
        for result in computed:
            results.append(result)
            if done:
                done(result)
    return results


def parallel_stream(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield a function's result for each item, in order, as :func:`parallel_map` computes them.

    Few items are under way at a time, so memory does not grow with their number.

    Args:
        function, items: As for :func:`parallel_map`.

    Raises:
        Exception: What the function raised for the first item that failed.
    """
    if is_worker():
        yield from map(function, items)
        return
    futures: deque[Future[Result]] = deque()
    try:
        for item in items:
            futures.append(_shared_pool().submit(function, item))
            if len(futures) > ITEMS_AHEAD * usable_cpus():
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    except (KeyboardInterrupt, Terminated):  # the next call needs a pool whose threads all started
        _shared_pool.cache_clear()
        raise
    finally:  # after an error or Ctrl-C nothing more is started
        for future in futures:
            future.cancel()


class _Pool(ThreadPoolExecutor):
    """A pool that ends its threads where Ctrl-C or SIGTERM interrupts the start of one.

    Python waits for all threads when it ends, and tells those of a pool to end; of that one it does not know yet.
    """

    def submit(self, function: Callable[Arguments, Result], /, *args: Any, **options: Any) -> Future[Result]:
        try:
            return super().submit(function, *args, **options)
        except (KeyboardInterrupt, Terminated):
            self.shutdown(wait=False, cancel_futures=True)
            raise


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

    return _Pool(workers or usable_cpus(), "brainstage", start)


def one_blas_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make a function compute its linear algebra in one thread, called by one thread at a time.

    NumPy and SciPy each bring an OpenBLAS with threads of its own, and those of the one that has nothing to do keep
    the processors from the other: without this a new server on two cores used 13 s of processor time before its
    first answer to a volume, with it 5 (``benchmarks/serve.py --first-only``).
    """

    @wraps(function)
    def in_one_thread(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _blas, _libraries().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return in_one_thread


@cache
def _libraries() -> ThreadpoolController:
    """Return what limits the threads of NumPy's and SciPy's OpenBLAS; to look for them takes milliseconds."""
    import scipy.linalg  # noqa: F401 - its OpenBLAS is loaded, and found
    from threadpoolctl import ThreadpoolController  # others need not wait for its import

    return ThreadpoolController()


def is_worker() -> bool:
    """Return whether the calling thread belongs to a :func:`worker_pool`."""
    return getattr(_thread, "is_worker", False)


@cache
def _shared_pool() -> ThreadPoolExecutor:
    return worker_pool()


class Workers(Protocol):
    """Where tasks run: :class:`Processes`, or :class:`brainstage.core.cluster.ClusterWorkers`."""

    @property
    def worker_died(self) -> type[Exception]:
        """What a future raises whose worker died, or may have died, over its task."""
        ...

    @property
    def slots(self) -> int:
        """How many tasks to submit at a time."""
        ...

    def open(self) -> AbstractContextManager[Executor]:
        """Return an executor, which is shut down at the end of the block; tasks not started are then cancelled."""
        ...

    def path(self, path: Path) -> Path:
        """Return a path by which workers find what this process finds at ``path``."""
        ...

    def check(self) -> None:
        """Raise :class:`brainstage.core.errors.RunError` where no worker will come to do what was submitted."""
        ...


class _Worker(SpawnProcess):
    """A process that Ctrl-C does not reach, which a terminal sends to all: not even while Python starts in it."""

    def start(self) -> None:
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            super().start()
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the new process inherits
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _SpawnContext(SpawnContext):
    """Starts workers anew: threads and open files of this process are not copied."""

    Process = _Worker


@dataclass(frozen=True)
class Processes:
    """Processes of this machine.

    Attributes:
        jobs: Their number; None takes one for each usable processor. 1 works in this process, as a lone task does.
    """

    jobs: int | None = None

    @property
    def worker_died(self) -> type[Exception]:
        """What the futures of all tasks under way raise when any process dies."""
        return BrokenProcessPool

    @property
    def slots(self) -> int:
        """How many tasks to submit at a time: one more than there are processes."""
        return (self.jobs or usable_cpus()) + 1

    @contextmanager
    def open(self) -> Iterator[Executor]:
        """Start the processes; those that are not needed are not started."""
        pool = ProcessPoolExecutor(self.slots - 1, _SpawnContext(), _begin_process)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)

    def path(self, path: Path) -> Path:
        """Return the path itself."""
        return path

    def check(self) -> None:
        """Do nothing: processes are there."""


THIS_MACHINE = Processes()
"""A process for each usable processor."""
THIS_PROCESS = Processes(1)
"""This process alone; what it computes may use all processors."""


def run_tasks(
    function: Callable[[Item], Result], items: Iterable[Item], workers: Workers = THIS_MACHINE
) -> Iterator[tuple[Item, Result | None]]:
    """Run a function for many items, each for itself; yield each item with its result as they finish.

    Items are handed to workers in chunks of about :data:`CHUNK_SECONDS`, few of them at a time, so that any number
    of items costs no memory here. An item that was under way when its worker died, as one does that runs out of
    memory, is tried again alone; if its worker dies once more its result is None, and the others go on. After
    Ctrl-C or an error nothing more is started.

    Args:
        function: A function of a module; what it takes and returns is sent to and from the workers. Its result must
            not be None.
        items: What it is applied to.
        workers: Where it runs.

    Raises:
        RunError: The cluster is gone, or its workers have another version of this package.
        Exception: What the function raised.
    """
    waiting = iter(items)
    first = list(islice(waiting, 2))
    if not first:
        return
    waiting = chain(first, waiting)
    if isinstance(workers, Processes) and (workers.jobs == 1 or len(first) < 2):
        yield from ((item, function(item)) for item in waiting)
        return
    finished = False
    while not finished:
        died: list[Item] = []
        finished = yield from _run_chunks(function, waiting, workers, died, alone=False)
        suspects, retried = iter(died), False
        while not retried:
            killers: list[Item] = []
            retried = yield from _run_chunks(function, suspects, workers, killers, alone=True)
            yield from ((item, None) for item in killers)


def run_all(
    function: Callable[[Item], Result], items: Iterable[Item], workers: Workers, lost: Callable[[Item], str]
) -> Iterator[Result]:
    """Yield the result of each item as :func:`run_tasks` does, where the others are of no use without one of them.

    Args:
        function, items, workers: As for :func:`run_tasks`.
        lost: Says of an item that its worker died over it, and what to do.

    Raises:
        RunError: There is such an item; or as :func:`run_tasks`.
        Exception: What the function raised.
    """
    for item, result in run_tasks(function, items, workers):
        if result is None:
            raise RunError(lost(item))
        yield result


def _run_chunks(
    function: Callable[[Item], Result], waiting: Iterator[Item], workers: Workers, died: list[Item], alone: bool
) -> Generator[tuple[Item, Result | None], None, bool]:
    """Yield items and results; items whose worker died join ``died``.

    Returns:
        Whether no item is left waiting; not so where the executor broke.
    """
    size = 1
    with workers.open() as executor:
        pending: dict[Future[tuple[list[Result], float]], list[Item]] = {}
        while True:
            while len(pending) < (1 if alone else workers.slots) and (chunk := list(islice(waiting, size))):
                try:
                    pending[executor.submit(_run_chunk, function, chunk, package_version())] = chunk
                except BrokenExecutor:  # a process died meanwhile
                    died += [*chunk, *chain.from_iterable(pending.values())]
                    return False
            if not pending:
                return True
            for future in wait(pending, timeout=CHUNK_SECONDS, return_when=FIRST_COMPLETED).done:
                chunk = pending.pop(future)
                try:
                    results, seconds = future.result()
                except workers.worker_died as error:
                    died += chunk
                    if isinstance(error, BrokenExecutor):
                        died += chain.from_iterable(pending.values())
                        return False
                    continue
                except CancelledError:
                    raise RunError(LOST) from None
                yield from zip(chunk, results, strict=True)
                if not alone:
                    size = _next_size(len(chunk), seconds)
            workers.check()


def _next_size(items: int, seconds: float) -> int:
    """Return how many items the next chunk should have where so many took so long: at most twice as many."""
    return max(1, min(2 * items, int(CHUNK_SECONDS * items / max(seconds, 1e-9)), MAX_CHUNK))


def _run_chunk(
    function: Callable[[Item], Result], items: Sequence[Item], version: str
) -> tuple[list[Result], float]:
    """Return the result of each item, and the seconds that all took; in a worker."""
    check_version("a worker", package_version(), version)
    _thread.is_worker = True
    started = time.perf_counter()
    results = [function(item) for item in items]
    return results, time.perf_counter() - started


@cache
def package_version() -> str:
    """Return the version of this package that is installed here."""
    return metadata.version("brainstage")


def check_version(worker: str, there: str | None, here: str) -> None:
    """Refuse a worker of another version.

    Args:
        worker: Which one, in words.
        there: The version that it has; None where it has none.
        here: The version of the machine that hands out the work.

    Raises:
        RunError: They differ.
    """
    if there != here:
        has = f"brainstage {there}" if there else "no brainstage"
        raise RunError(f"{worker} has {has}, this machine {here}; install the same version on both")


def _begin_process() -> None:
    """Leave Ctrl-C to the process that started this one, and work in one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(ONE_THREAD)  # read when NumPy and SimpleITK are imported


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a child makes its own pool
    os.register_at_fork(after_in_child=_shared_pool.cache_clear)
