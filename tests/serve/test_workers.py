"""Several worker processes: they answer at one address, hold to the limits together, and end with the server."""

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from brainstage.core.schema import PROB_PREFIX
from brainstage.serve.guard import Limits

TOKEN = "the-token-of-these-tests"
PATIENCE = 60
"""Seconds after which a test gives up; on a machine with other work everything takes longer."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to find the workers in")


def workers_of(process):
    """Return the ids of a server's worker processes."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in command_of(pid)]


def command_of(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(started):
    """Return a server of two workers with a token of the user's own: a client, the process, the log."""
    with started("patient", "--workers", "2", BRAINSTAGE_TOKEN=TOKEN) as (line, process, log):
        address = line.partition("/?token=")[0]
        assert line == f"{address}/?token=… with BRAINSTAGE_TOKEN as token"
        client = httpx2.Client(base_url=address, timeout=PATIENCE, headers={"Authorization": f"Bearer {TOKEN}"})
        yield client, process, log
        assert TOKEN not in log.read_text()


def fresh(client, path):
    """Return the status of a request on a new connection, which any worker may accept."""
    return httpx2.get(client.base_url.join(path), headers=client.headers, timeout=PATIENCE).status_code


@contextmanager
def paused(worker):
    """Have the others accept what comes."""
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def stalled(client):
    """Begin a request and do not end it; return its connection."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n"
    )
    connection.sendall(head.encode())
    return connection


@needs_proc
def test_each_worker_answers_at_the_one_address(server):
    client, process, _ = server
    workers = workers_of(process)
    assert len(workers) == 2
    for worker in workers:
        with paused(worker):
            assert [fresh(client, "/health") for _ in range(3)] == [200] * 3


def test_replies_are_right_whoever_answers(server, heads):
    client, *_ = server
    slices = heads[4:12]

    def predict(content):
        reply = client.post("/v1/predict", files={"files": content})
        return reply.json()["predictions"][0]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(predict, slices * 4))
    assert len({row["slice_id"] for row in rows}) == len(slices)
    for number, row in enumerate(rows):
        first = rows[number % len(slices)]
        assert row["slice_id"] == first["slice_id"]
        assert [row[name] for name in row if name.startswith(PROB_PREFIX)] == pytest.approx(
            [first[name] for name in first if name.startswith(PROB_PREFIX)], abs=1e-5
        )


@needs_proc
def test_the_limit_of_requests_holds_for_all_workers_together(server):
    client, process, log = server
    killed, other = workers_of(process)
    connections, half = [], Limits().requests // 2
    try:
        with paused(other):
            connections += [stalled(client) for _ in range(half)]
            assert fresh(client, "/ready") == 200
        with paused(killed):
            connections += [stalled(client) for _ in range(half - 1)]
            assert fresh(client, "/ready") == 200
        connections.append(stalled(client))
        until(lambda: [fresh(client, "/ready") for _ in range(8)] == [503] * 8)
        for connection in connections:  # none of them was refused: they are as many as are allowed
            with pytest.raises(BlockingIOError):
                connection.recv(1, socket.MSG_DONTWAIT)
        os.kill(killed, signal.SIGKILL)  # what it held is free again, what the other holds is not
        until(lambda: len(workers_of(process)) == 2 and killed not in workers_of(process))
        assert other in workers_of(process)
        until(lambda: f"worker process {killed} ended; another takes its place" in log.read_text())
        until(lambda: fresh(client, "/ready") == 200)
        again = [stalled(client)]
        while fresh(client, "/ready") == 200:
            again.append(stalled(client))
        connections += again
        assert len(again) < Limits().requests
        assert fresh(client, "/ready") == 503
    finally:
        for connection in connections:
            connection.close()
    until(lambda: fresh(client, "/ready") == 200)


def test_no_secret_stands_in_a_list_of_processes(server):
    _, process, _ = server
    if not Path("/proc").exists():
        pytest.skip("no /proc")
    for pid in (process.pid, *workers_of(process)):
        assert "python" in command_of(pid)
        assert TOKEN not in command_of(pid)


@needs_proc
def test_workers_end_when_the_server_is_killed(server):
    _, process, _ = server  # the last test of this server
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    until(lambda: not any("spawn_main" in command_of(pid) for pid in workers))


@needs_proc
def test_workers_end_in_peace_on_ctrl_c(started):
    with started("patient", "--workers", "2") as (address, process, log):
        workers = workers_of(process)
        assert httpx2.get(f"{address}/health").status_code == 200
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells all its processes
        assert process.wait(PATIENCE) == 0
        assert not any("spawn_main" in command_of(pid) for pid in workers)
        assert log.read_text() == ""


def test_a_model_that_workers_cannot_open_is_one_sentence(started):
    with started("no-such-run", "--workers", "2") as (line, process, log):
        assert (line, process.wait(PATIENCE)) == ("", 1)
        [said] = log.read_text().splitlines()
        assert said.startswith("Error: no-such-run: no such run")


def test_a_server_needs_a_worker(started):
    with started("--workers", "0") as (line, process, log):
        assert (line, process.wait(PATIENCE)) == ("", 2)
        assert "Invalid value for '--workers'" in log.read_text()
