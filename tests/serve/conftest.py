"""One registry of models and one server for all tests of serving; each worker of xdist has its own."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from brainstage.scans import skull_strip
from brainstage.scans.stack import training_stack
from helpers import encode
from volumes import brain, with_skull, write_nifti

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
    "--use-gl=angle",
    "--use-angle=swiftshader",
]


@pytest.fixture(scope="session")
def head_slices():
    """Return slices of the template's brain, which the bundled models accept."""
    return training_stack(brain((3, 3, 3)), "template")[0]


@pytest.fixture(scope="session")
def heads(head_slices):
    """Return these slices as PNG files."""
    return [encode(pixels) for pixels in head_slices]


@pytest.fixture(scope="session")
def head_file(tmp_path_factory):
    """Return a NIfTI file of a head with its skull."""
    return write_nifti(tmp_path_factory.mktemp("head") / "head.nii.gz", with_skull(brain((3, 3, 3))))


@pytest.fixture
def quick_n4(monkeypatch):
    """Correct the bias field in few iterations: the heads here have none."""
    monkeypatch.setattr(skull_strip, "N4_ITERATIONS", (2, 2))


@pytest.fixture(scope="session")
def registry(trained):
    """Return the bundled models and a small network, ready to predict."""
    from brainstage.serve.registry import ModelRegistry

    registry = ModelRegistry(["patient", "compact", str(trained.path)])
    for name in registry.names:
        registry.model(name).warm_up.result()  # it would keep a worker busy
    yield registry
    registry.close()


@pytest.fixture(scope="session")
def address(registry):
    """Return the address of a server in a thread."""
    from brainstage.serve.app import create_app
    from brainstage.serve.server import listen, server
    from brainstage.serve.settings import LOOPBACK, ServeSettings

    with listen("127.0.0.1", 0) as listener:
        running = server(create_app(registry, LOOPBACK), ServeSettings(registry.names))
        running.config.lifespan = "off"  # it would close the registry
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        running.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")  # while it is open, this thread has a running event loop
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip("no Chromium found on the PATH")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS, timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """Return what starts the command as a process: a context of its first line, the process and its log."""

    @contextmanager
    def start(*arguments, **environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRAINSTAGE")}
        log = tmp_path_factory.mktemp("server") / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "brainstage", "serve", "--port", "0", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**inherited, **environment},
                start_new_session=True,
            )
        try:
            yield process.stdout.readline().strip(), process, log
        finally:
            process.kill()
            process.wait()

    return start


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Return a certificate for localhost that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-out", files[0], "-keyout", files[1]),
        ],
        check=True,
        capture_output=True,
    )
    return files
