"""The server: an address of this machine, and the application behind it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

import uvicorn

from brainstage.core.errors import RunError
from brainstage.serve.app import create_app
from brainstage.serve.guard import RequestGuard
from brainstage.serve.registry import ModelRegistry

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address.

    Args:
        host: Name or address to listen at.
        port: Port to listen at; 0 takes a free one.

    Raises:
        RunError: The address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # without the protocol asyncio leaves Nagle's delay on: 40 ms
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen there ({error.strerror}); take another --port") from error
    return listener


def serve(
    models: Sequence[str],
    listener: socket.socket,
    allowed_hosts: Sequence[str] = (),
    *,
    ready: Callable[[], None],
) -> None:
    """Answer requests until the process is told to end.

    Args:
        models: Run folders or names of bundled models; the first is the default.
        listener: A socket that :func:`listen` returned.
        allowed_hosts: Names, besides those of the loopback, that the ``Host`` of a request may have.
        ready: Called when the models are open.

    Raises:
        ConfigError: Two models have the same name, or an allowed host is a pattern.
        RunError: A model cannot be opened.
    """
    registry = ModelRegistry(models)
    app = create_app(registry, {*LOOPBACK, *allowed_hosts})
    ready()
    server(app).run(sockets=[listener])


def server(app: RequestGuard) -> uvicorn.Server:
    """Return a server of an application: no access log, for file names and addresses stay private."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    return uvicorn.Server(config)
