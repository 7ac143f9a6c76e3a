"""The server on this machine: an address, the application behind it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

import uvicorn

from brainstage.core.errors import RunError
from brainstage.serve.app import create_app
from brainstage.serve.registry import ModelRegistry

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Take an address, port 0 for any that is free.

    Raises:
        RunError: It cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)  # without the protocol asyncio leaves Nagle's delay on: 40 ms
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen there ({error.strerror}); take another --port") from error
    return found


def serve(
    models: Sequence[str], place: socket.socket, allowed: Sequence[str] = (), *, ready: Callable[[], None]
) -> None:
    """Answer requests until the process is told to end.

    Args:
        models: Run folders or names of bundled models; the first is the default.
        place: Where to listen.
        allowed: Names, beside those of the loopback, under which the server may be asked.
        ready: Called when the models are open.

    Raises:
        ConfigError: Two models have one name.
        RunError: A model cannot be opened.
    """
    registry = ModelRegistry(models)
    app = create_app(registry, {*LOOPBACK, *allowed})
    ready()
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[place])
