"""The server as a process: it listens to this machine alone and connects to nobody."""

import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest

from brainstage.serve.server import is_loopback, listen
from helpers import brainstage, encode, picture
from volumes import brain, write_nifti

AUDITED = """
import sys
seen = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("AUDIT", event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(hook)
sys.argv = ["brainstage", "serve", "--port", "0", *sys.argv[1:]]
from brainstage.cli import main
main()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Give the address of a server that tells each connection it makes, and the file in which it does."""
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAINSTAGE")}
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", AUDITED], stdout=subprocess.PIPE, stderr=stream, text=True, env=environment
        )
    address = process.stdout.readline().strip()
    yield address, log, process
    process.kill()


def test_it_connects_to_nobody_and_ends_when_told(server, tmp_path):
    address, log, process = server
    volume = write_nifti(tmp_path / "brain.nii.gz", brain((4, 4, 4))).read_bytes()
    with httpx2.Client(base_url=address, timeout=60) as client:
        for path in ("/page/", "/v1/models", "/openapi.json"):
            assert client.get(path, follow_redirects=True).status_code == 200
        for name, content in (("brain", volume), ("picture", encode(picture())), ("text", b"https://example.org")):
            reply = client.post("/v1/predict", files={"files": (name, content)})
            assert reply.status_code == 200, reply.text
            assert "never a diagnosis" in reply.json()["notice"]
        assert client.post("/v1/explain", files={"files": encode(picture())}).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)
    told = [line for line in log.read_text().splitlines() if line.startswith("AUDIT")]
    assert told
    assert [line for line in told if not line.startswith("AUDIT socket.getaddrinfo ('127.0.0.1', ")] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "whoever reaches this machine could use the server"),
        (["--host", "no.such.host.invalid", "--allow-host", "a"], "cannot listen there"),
        (["no-such-run"], "no-such-run: no such run"),
        (["patient", "patient"], "two models have one name"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(arguments, says):
    done = brainstage("serve", "--port", "0", *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = brainstage("serve", "--port", taken.getsockname()[1])
    assert done.returncode == 1
    assert "cannot listen there" in done.stderr
    assert "take another --port" in done.stderr


def test_small_answers_do_not_wait_for_more_to_send():
    with listen("127.0.0.1", 0) as place:
        assert place.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on


def test_loopback_is_told_from_the_rest():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "localhost.example")))


def test_without_the_extra_its_install_command_is_told(tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ImportError")
    done = brainstage("serve", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 1
    assert "pip install 'brainstage[serve]'" in done.stderr
    assert done.stderr.count("\n") == 1
