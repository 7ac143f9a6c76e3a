"""The server as a process: it listens to this machine alone and connects to nobody."""

import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest
from starlette.testclient import TestClient

from brainstage.cli import main
from brainstage.serve.app import create_app
from brainstage.serve.server import listen
from brainstage.serve.settings import LOOPBACK, is_loopback
from helpers import encode, picture
from volumes import brain, write_nifti

AUDITED = """
import sys
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
    """Return a server process that logs each connection it makes: its address, the log, the process."""
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
    audited = [line for line in log.read_text().splitlines() if line.startswith("AUDIT")]
    assert audited
    assert [line for line in audited if not line.startswith("AUDIT socket.getaddrinfo ('127.0.0.1', ")] == []


@pytest.fixture
def serve(monkeypatch, capsys):
    """Return what runs the command in this process, and returns its one line of an error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["brainstage", "serve", "--port", "0", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        [line] = capsys.readouterr().err.strip().splitlines()
        return line

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "everyone who can reach this machine could use the server"),
        (["--host", "no.such.host.invalid", "--allow-host", "a"], "cannot listen there"),
        (["no-such-run"], "no-such-run: no such run"),
        (["patient", "patient"], "two models have the same name"),
        (
            ["patient", "--allow-host", "*.example.org"],
            "--allow-host *.example.org: a pattern would let any site in",
        ),
    ],
)
def test_what_cannot_be_served_is_one_sentence(serve, arguments, says):
    assert says in serve(*arguments)


def test_a_port_in_use_is_named(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = serve("--port", taken.getsockname()[1])
    assert "cannot listen there" in said
    assert "take another --port" in said


def test_small_replies_do_not_wait_for_more_to_send():
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on


def test_loopback_addresses_are_distinguished_from_others():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "localhost.example")))


def test_it_answers_at_the_ipv6_loopback(registry):
    app = create_app(registry, LOOPBACK)
    for host in ("[::1]:8000", "localhost:8000", "127.0.0.1"):
        assert TestClient(app, base_url=f"http://{host}").get("/health").status_code == 200


def test_without_the_extra_its_install_command_is_shown(serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "brainstage.serve.server")
    assert "pip install 'brainstage[serve]'" in serve()
