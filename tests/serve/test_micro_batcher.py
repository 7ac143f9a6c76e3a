import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from brainstage.serve.micro_batcher import MicroBatcher


class Work:
    """Doubles numbers, remembers its batches, and waits to be let go."""

    def __init__(self, held=False):
        self.batches, self.go = [], threading.Event()
        if not held:
            self.go.set()

    def __call__(self, items):
        self.batches.append(list(items))
        self.go.wait(60)
        if "bad" in items:
            raise ValueError("bad")
        return [2 * item for item in items]


def run(scenario):
    with ThreadPoolExecutor(4) as executor:
        return asyncio.run(scenario(executor))


def test_what_comes_while_the_worker_is_busy_goes_together_and_each_gets_its_own():
    work = Work(held=True)

    async def scenario(executor):
        batches = MicroBatcher(work, executor, workers=1, batch_size=4)
        first = asyncio.create_task(batches.submit([1]))
        while not work.batches:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(batches.submit([number, number + 10])) for number in range(2, 5)]
        await asyncio.sleep(0.01)
        work.go.set()
        return await asyncio.gather(first, *others)

    assert run(scenario) == [[2], [4, 24], [6, 26], [8, 28]]
    assert work.batches == [[1], [2, 12, 3, 13], [4, 14]]


def test_one_bad_item_spoils_no_other_request():
    work = Work(held=True)

    async def scenario(executor):
        batches = MicroBatcher(work, executor, workers=1, batch_size=8)
        tasks = [asyncio.create_task(batches.submit([one])) for one in (1, "bad", 3)]
        await asyncio.sleep(0.01)
        work.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, bad, last = run(scenario)
    assert (first, last) == ([2], [6])
    assert isinstance(bad, ValueError)


def test_what_is_given_up_is_not_begun():
    work = Work(held=True)

    async def scenario(executor):
        batches = MicroBatcher(work, executor, workers=1, batch_size=1)
        first = asyncio.create_task(batches.submit([1]))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batches.submit([2]), 0.05)
        work.go.set()
        return await first, await batches.submit([3]), await batches.submit([])

    assert run(scenario) == ([2], [6], [])
    assert work.batches == [[1], [3]]


def test_workers_work_side_by_side():
    both = threading.Barrier(2, timeout=60)

    def meet(items):
        both.wait()
        return items

    async def scenario(executor):
        batches = MicroBatcher(meet, executor, workers=2, batch_size=1)
        return await asyncio.gather(batches.submit([1]), batches.submit([2]))

    assert run(scenario) == [[1], [2]]
