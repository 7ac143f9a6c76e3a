"""One registry of models and one server for all tests of serving; each worker of xdist has its own."""

import threading
import time

import pytest

from brainstage.scans.stack import training_stack
from helpers import encode
from volumes import brain


@pytest.fixture(scope="session")
def head_slices():
    """Return slices of the template's brain, which the bundled models accept."""
    return training_stack(brain((3, 3, 3)), "template")[0]


@pytest.fixture(scope="session")
def heads(head_slices):
    """Return these slices as PNG files."""
    return [encode(pixels) for pixels in head_slices]


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
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        running.should_exit = True
        thread.join(10)
