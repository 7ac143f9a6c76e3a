"""The server: an address of this machine, and the application behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from brainstage.core.errors import RunError
from brainstage.serve.proxy import BehindProxy
from brainstage.serve.settings import ServeSettings
from brainstage.serve.tokens import TokenCheck
from brainstage.serve.usage import Usage
from brainstage.serve.workers import BACKLOG, run_workers

SILENCE = 30
"""Seconds after which a worker that gives no sign of life is replaced."""


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
    except UnicodeError as error:  # Python encodes a name before it looks for it
        raise RunError(f"{host}:{port}: cannot listen there (not a host name); take another --host") from error
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen there ({error.strerror}); take another --port") from error
    return listener


def serve(settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Answer requests until the process is told to end.

    Args:
        settings: What is served, how it is reached, and by whom.
        ready: Called with the server's address when the models are open.

    Raises:
        ConfigError: Two models have the same name.
        RunError: The address cannot be used, or a model cannot be opened.
    """
    listener = listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    open_app = partial(_open_app, settings, port)

    def announce() -> None:
        listener.listen(BACKLOG)  # who connects from now on waits for the worker that accepts
        ready(settings.address(port))

    if settings.workers == 1:
        app = open_app()
        announce()
        server(app, settings).run(sockets=[listener])
    else:
        run_workers(open_app, _config(open_app, settings), listener, announce)


def _open_app(settings: ServeSettings, port: int, usage: Usage | None = None) -> ASGIApp:
    """Open the models and return the application that answers at a port."""
    from brainstage.serve.app import create_app  # not in the process that starts workers: it opens no model
    from brainstage.serve.registry import ModelRegistry

    registry = ModelRegistry(settings.models, settings.workers)
    token = None if settings.token is None else TokenCheck(settings.token, port, secure=settings.encrypted)
    app = create_app(registry, settings.hosts, token=token, usage=usage)
    return app if settings.proxy is None else BehindProxy(app, settings.proxy)


def server(app: ASGIApp, settings: ServeSettings) -> uvicorn.Server:
    """Return a server of an application."""
    return uvicorn.Server(_config(app, settings))


def _config(app: ASGIApp | Callable[[], ASGIApp], settings: ServeSettings) -> uvicorn.Config:
    """Return how uvicorn serves: no access log, for file names, addresses and the token stay private."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # BehindProxy believes them, of the proxy alone
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        timeout_worker_healthcheck=SILENCE,
        # asyncio accepts as many connections at once: of several workers the first would take them all
        backlog=BACKLOG if settings.workers == 1 else 1,
        ws="none",
        workers=settings.workers,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )
