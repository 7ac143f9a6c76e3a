"""Limits count work that really goes on, and pictures never wait behind what takes long."""

import asyncio
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest

from brainstage.core.errors import DataError
from brainstage.core.parallel import usable_cpus
from brainstage.datasets.images import CHUNK
from brainstage.inference.explanations import PersonExplanation
from brainstage.scans.discover import Scan, Slices
from brainstage.serve.app import create_app
from brainstage.serve.guard import Limits
from brainstage.serve.threads import run_in_thread
from brainstage.serve.workers import WorkerTable
from helpers import encode, picture

HOST = "http://127.0.0.1"
PATIENCE = 30
"""Seconds after which a test gives up; on a machine with other work everything takes longer."""


class Gate:
    """Work that begins and then waits until it is let go; remembers how much of it ran at a time."""

    def __init__(self):
        self.go, self.started, self.running, self.most = threading.Event(), 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self, *_):
        with self._lock:
            self.started += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(PATIENCE)
        with self._lock:
            self.running -= 1
        return []


@pytest.fixture
def explaining(monkeypatch):
    """Have explanations begin and wait."""
    work = Gate()

    def explain_person(*_):
        work()
        return PersonExplanation([], {})

    monkeypatch.setattr("brainstage.serve.registry.explain_person", explain_person)
    yield work
    work.go.set()


def run(registry, limits, scenario, usage=None):
    """Run a scenario with a client of a server with these limits."""

    async def whole():
        transport = httpx2.ASGITransport(create_app(registry, {"127.0.0.1"}, limits, usage=usage))
        async with httpx2.AsyncClient(transport=transport, base_url=HOST, timeout=PATIENCE) as client:
            return await asyncio.wait_for(scenario(client), PATIENCE)

    return asyncio.run(whole())


def explain(client, size=0):
    return client.post("/v1/explain", files={"files": encode(picture()) + bytes(size)})


async def timed_out(client, explaining, size=0):
    """Send an explanation that times out after its work has begun."""
    slow = None
    while not explaining.started:  # on a busy machine the time can be up before
        reply = await explain(client, size)
        slow = reply if reply.json()["code"] == "too-slow" else slow
    return slow


def test_a_request_that_timed_out_keeps_its_place_until_its_work_has_ended(registry, explaining):
    async def scenario(client):
        slow = await timed_out(client, explaining)
        meanwhile = [await client.get("/ready"), await explain(client)]
        assert explaining.running == 1
        explaining.go.set()
        while (after := await client.post("/v1/predict", files={"files": b"a"})).status_code == 503:
            await asyncio.sleep(0.01)
        return slow, *meanwhile, after

    slow, *meanwhile, after = run(registry, Limits(requests=1, seconds=0.3), scenario)
    assert (slow.status_code, slow.json()["code"]) == (503, "too-slow")
    assert [reply.json()["code"] for reply in meanwhile] == ["too-busy", "too-busy"]
    assert after.status_code == 200


def test_a_request_that_timed_out_keeps_its_bytes_until_its_work_has_ended(registry, explaining):
    async def send(client):
        return await client.post("/v1/predict", files={"files": bytes(20_000)})

    async def scenario(client):
        await timed_out(client, explaining, size=20_000)
        meanwhile = await send(client)
        explaining.go.set()
        while (after := await send(client)).status_code == 503:
            await asyncio.sleep(0.01)
        return meanwhile, after

    meanwhile, after = run(registry, Limits(all_bytes=35_000, seconds=0.3), scenario)
    assert (meanwhile.json()["code"], after.status_code) == ("too-busy", 200)
    assert "fill the memory" in meanwhile.json()["detail"]


def test_the_limit_of_bytes_holds_for_all_workers_together(registry):
    table, limits = WorkerTable(2), Limits(all_bytes=30_000)
    table.bytes[1] = 20_000  # held by the other worker

    async def scenario(client):
        replies = []
        for size in (5_000, 20_000):
            replies.append((await client.post("/v1/predict", files={"files": bytes(size)})).status_code)
        return replies

    assert run(registry, limits, scenario, table.usage(0)) == [200, 503]
    assert (table.bytes[:], table.requests[:]) == ([0, 20_000], [0, 0])


def test_explanations_that_time_out_never_run_together_and_those_that_wait_are_dropped(registry, explaining):
    async def scenario(client):
        await timed_out(client, explaining)
        replies = await asyncio.gather(*(explain(client) for _ in range(4)))
        explaining.go.set()
        while explaining.running:
            await asyncio.sleep(0.01)
        return [reply.json()["code"] for reply in replies]

    assert run(registry, Limits(seconds=0.3), scenario) == ["too-slow"] * 4
    assert (explaining.started, explaining.most) == (1, 1)


def test_pictures_do_not_wait_behind_volumes_and_explanations(registry, explaining, phantom):
    model, reading = registry.model("trained"), Gate()

    def read_volume(level_set):
        reading()
        raise DataError("let go")

    volume = Scan("volume", read_volume, volume=lambda: None)
    slices = Scan("picture", lambda level_set: Slices([phantom.images[0]], [None]))

    async def scenario():
        explanations = [asyncio.create_task(model.explain([slices], None, None)) for _ in range(3)]
        volumes = [asyncio.create_task(model.predict([volume])) for _ in range(2 * usable_cpus() + 1)]
        while not (reading.running and explaining.running):
            assert not any(task.done() for task in (*volumes, *explanations))
            await asyncio.sleep(0.01)
        predictions, _ = await asyncio.wait_for(model.predict([slices]), PATIENCE / 2)
        assert not any(task.done() for task in (*volumes, *explanations))
        reading.go.set()
        explaining.go.set()
        await asyncio.gather(*volumes, *explanations)
        return predictions

    try:
        assert asyncio.run(scenario()).rows[0]["status"] == "predicted"
    finally:
        reading.go.set()
    assert reading.most <= max(1, usable_cpus() - 1)
    assert explaining.most == 1


@pytest.mark.parametrize("wanted", [False, True])
def test_pictures_are_not_kept_in_memory_until_the_reply(wanted, registry):
    side, count, held = 256, 4 * CHUNK * usable_cpus(), []  # each worker has a batch in hand

    def read(_levels):
        held.append(tracemalloc.get_traced_memory()[0])
        return Slices([np.zeros((side, side), np.uint8)], [None])

    scans = [Scan(str(number), read) for number in range(count)]
    tracemalloc.start()
    try:
        predictions, pictures = asyncio.run(registry.model("trained").predict(scans, pictures=wanted))
    finally:
        tracemalloc.stop()
    assert len(predictions.rows) == count
    assert len(pictures) == count * wanted
    assert max(held) < count * side**2 / 2


def test_a_call_in_a_thread_that_is_cancelled_ends_with_the_thread():
    work = Gate()

    async def scenario(executor):
        begun = asyncio.create_task(run_in_thread(executor, work))
        waiting = asyncio.create_task(run_in_thread(executor, work))
        while not work.running:
            await asyncio.sleep(0.01)
        begun.cancel()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert not begun.done()
        threading.Thread(target=lambda: (time.sleep(0.05), work.go.set())).start()
        await asyncio.wait({begun})
        assert begun.cancelled() and not work.running

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scenario(executor))
    assert work.started == 1
