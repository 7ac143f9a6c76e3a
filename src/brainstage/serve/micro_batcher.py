"""Requests that come together pass through a model together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """Takes items of many requests to some worker threads, several at a time.

    Nothing waits for company: a free worker takes what is there. Under load that is what came while the workers
    were busy, so batches grow by themselves.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], executor: Executor, workers: int, most: int
    ):
        """Prepare the way.

        Args:
            work: From items to their results, in the same order; called in a worker thread.
            executor: The worker threads.
            workers: How many batches are at work at a time.
            most: Items in a batch.
        """
        self._work, self._executor, self._most = work, executor, most
        self._free = workers
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Return the result of each item; those of a request that is given up are not begun."""
        futures = [asyncio.get_running_loop().create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        self._start()
        try:
            return await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()

    def _start(self) -> None:
        while self._free and (batch := self._next()):
            self._free -= 1
            task = asyncio.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._most:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _run(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            await self._answer(batch)
        finally:
            self._free += 1
            self._start()

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Give a batch's results; where it fails, each item alone, so that no request suffers from another."""
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._work, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._answer([one])
            else:
                with suppress(asyncio.InvalidStateError):
                    batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
