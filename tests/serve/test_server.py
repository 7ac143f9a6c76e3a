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
from brainstage.core.errors import ConfigError
from brainstage.core.network import is_loopback
from brainstage.serve.app import create_app
from brainstage.serve.server import listen
from brainstage.serve.settings import LOOPBACK, ServeSettings
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
from brainstage.core.errors import ConfigError
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
    assert process.wait(60) in (0, -signal.SIGTERM)
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
        (["--host", "0.0.0.0"], "add --tls-cert and --tls-key, or --behind-proxy ADDRESS"),
        (["--host", "0.0.0.0", "--behind-proxy", "10.0.0.5"], "add --allow-host NAME with the host name"),
        (["--behind-proxy", "127.0.0.1"], "add --allow-host NAME with the host name that others will use"),
        (["--behind-proxy", "proxy.example", "--allow-host", "a"], "give the proxy's IP address"),
        (["--host", "no.such.host.invalid", "--behind-proxy", "::1", "--allow-host", "a"], "cannot listen there"),
        (["--host", "a..b", "--behind-proxy", "::1", "--allow-host", "a"], "take another --host"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-cert", "no.pem", "--tls-key", "no.pem"], "no.pem: cannot be read (No such file or directory)"),
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


def test_a_token_of_ones_own_must_be_long_and_plain(serve, monkeypatch):
    for token in ("short", "", "with spaces and such", "ümlaut-ümlaut-ümlaut"):
        monkeypatch.setenv("BRAINSTAGE_TOKEN", token)
        line = serve()
        assert "BRAINSTAGE_TOKEN: a token is of 16 to 256 letters" in line
        assert not token or token not in line


def test_a_certificate_that_cannot_be_used_is_named(serve, certificate, tmp_path):
    cert, key = certificate
    other, encrypted, text = tmp_path / "other.pem", tmp_path / "encrypted.pem", tmp_path / "text.pem"
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"]
    for make in (
        ["openssl", "genpkey", "-algorithm", "EC", *curve, "-out", other],
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted],
    ):
        subprocess.run(make, check=True, capture_output=True)
    text.write_text("no certificate")
    for files, says in (
        ((cert, other), "not a certificate and its private key as PEM files (key values mismatch)"),
        ((text, key), f"{text}, {key}: not a certificate and its private key"),
        ((cert, text), "not a certificate and its private key"),
        ((cert, encrypted), f"{encrypted}: the key is encrypted; give one without a passphrase"),
        ((cert, tmp_path), f"{tmp_path}: cannot be read"),
    ):
        assert says in serve("--tls-cert", files[0], "--tls-key", files[1])


@pytest.mark.parametrize(
    ("settings", "address", "hosts"),
    [
        ({}, "http://127.0.0.1:8000", set()),
        ({"host": "::1"}, "http://localhost:8000", set()),
        ({"allowed_hosts": ["lab"]}, "http://127.0.0.1:8000", {"lab"}),
        ({"proxy": "127.0.0.1", "allowed_hosts": ["lab.example"]}, "https://lab.example", {"lab.example"}),
        ({"host": "0.0.0.0", "proxy": "10.0.0.0/8", "allowed_hosts": ["lab"]}, "https://lab", {"lab"}),
        ({"host": "192.0.2.7", "tls": True}, "https://192.0.2.7:8000", {"192.0.2.7"}),
        ({"host": "2001:db8::7", "tls": True}, "https://[2001:db8::7]:8000", {"2001:db8::7"}),
        (
            {"host": "0.0.0.0", "allowed_hosts": ["lab", "192.0.2.7"], "tls": True},
            "https://lab:8000",
            {"lab", "192.0.2.7"},
        ),
    ],
)
def test_the_address_has_a_name_that_the_server_answers_to(settings, address, hosts, certificate, registry):
    if settings.pop("tls", False):
        settings |= dict(zip(("certificate", "key"), certificate, strict=True))
    chosen = ServeSettings(["patient"], token="a" * 16, **settings)
    assert chosen.address(8000) == address
    assert chosen.hosts == {*LOOPBACK, *hosts}
    app = create_app(registry, chosen.hosts)
    assert TestClient(app, base_url=address).get("/health").status_code == 200
    assert TestClient(app, base_url="https://other.example").get("/health").status_code == 403


def test_other_machines_never_get_in_without_a_token():
    with pytest.raises(ConfigError, match="other machines need a token"):
        ServeSettings(["patient"], proxy="127.0.0.1", allowed_hosts=["lab"])


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
    assert 'pip install "brainstage[serve]"' in serve()
