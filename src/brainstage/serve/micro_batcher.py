"""Requests that arrive together pass through a model together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Entry(Generic[Item, Result]):
    """An item in the queue or in a worker, and its result."""

    def __init__(self, item: Item):
        self.item = item
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.started = self.abandoned = False


class MicroBatcher(Generic[Item, Result]):
    """Passes the items of many requests to a few worker threads, several items at a time.

    An item never waits for a batch to fill: a free worker takes what is in the queue. Under load that is whatever
    arrived while the workers were busy, so batches grow by themselves.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        workers: int,
        batch_size: int,
    ):
        """Prepare an empty queue.

        Args:
            function: Maps items to their results, in the same order; called in a worker thread.
            executor: The worker threads.
            workers: Most batches that are processed at a time.
            batch_size: Most items in a batch.
        """
        self._function, self._executor, self._batch_size = function, executor, batch_size
        self._free = workers
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Return the result of each item.

        If the call is cancelled, items that are still in the queue are dropped; those that a thread is working on
        are waited for, because a thread cannot be interrupted.
        """
        entries = [_Entry[Item, Result](item) for item in items]
        self._queue.extend(entries)
        self._start()
        try:
            return list(await asyncio.gather(*(asyncio.shield(entry.result) for entry in entries)))
        finally:
            await _abandon([entry for entry in entries if not entry.result.done()])

    def _start(self) -> None:
        while self._free and (batch := self._next_batch()):
            self._free -= 1
            task = asyncio.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        while self._queue and len(batch) < self._batch_size:
            entry = self._queue.popleft()
            if not entry.abandoned:
                entry.started = True
                batch.append(entry)
        return batch

    async def _run(self, batch: Sequence[_Entry[Item, Result]]) -> None:
        try:
            await self._process(batch)
        finally:
            self._free += 1
            self._start()

    async def _process(self, batch: Sequence[_Entry[Item, Result]]) -> None:
        """Set the results of a batch; if it fails, process each item alone, so that only the bad one fails."""
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._function, [entry.item for entry in batch])
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    if entry.abandoned:
                        entry.result.cancel()
                    else:
                        await self._process([entry])
            else:
                batch[0].result.set_exception(error)
                batch[0].result.exception()  # marks it as retrieved: nobody may be waiting for it any more
            return
        for entry, result in zip(batch, results, strict=True):
            entry.result.set_result(result)


async def _abandon(entries: Sequence[_Entry[Item, Result]]) -> None:
    """Drop items that no worker has taken; wait for the others."""
    for entry in entries:
        entry.abandoned = True
    if running := [entry.result for entry in entries if entry.started]:
        await asyncio.wait(running)
