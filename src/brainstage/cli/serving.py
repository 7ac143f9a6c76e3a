"""A server of trained models."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from brainstage.cli.shared import Quiet, named_model, say
from brainstage.core.errors import ConfigError

app = typer.Typer()


@app.command(epilog="Example: brainstage serve, then open http://127.0.0.1:8000")
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Run folders, patient, compact, or ORG/NAME on the hub; the first is the default."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs TLS, and clients a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Host name by which other machines reach this one. Repeatable."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that answer. Each has the models in memory of its own, 0.6 GB for the two bundled "
            "ones; the limits hold for all together.",
        ),
    ] = 1,
    token: Annotated[
        bool,
        typer.Option(
            "--token",
            help="Ask for a token on this machine too. It is made, and printed once in the address; the "
            "environment variable BRAINSTAGE_TOKEN sets your own.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate for HTTPS, PEM, with those that sign it.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    behind_proxy: Annotated[
        str | None,
        typer.Option(
            "--behind-proxy",
            metavar="ADDRESS",
            help="Address or network of a reverse proxy that does TLS: only it may connect, and whom it names as "
            "client is believed.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Serve a web page and an HTTP API.

    They answer this machine alone unless --host or --behind-proxy says otherwise.
    """
    try:
        from brainstage.serve.server import serve as run
        from brainstage.serve.settings import TOKEN_VARIABLE, ServeSettings, needs_token
    except ImportError as error:
        raise ConfigError(
            'the server is not installed; install it with: pip install "brainstage[serve]"'
        ) from error
    from brainstage.models.weights import BUNDLED
    from brainstage.report.terminal.screen import show_notice

    own = os.environ.get(TOKEN_VARIABLE)
    made = secrets.token_urlsafe(32) if own is None and (token or needs_token(host, behind_proxy)) else None
    settings = ServeSettings(
        models=[named_model(model, quiet) for model in models or BUNDLED],
        host=host,
        port=port,
        allowed_hosts=allow_host or (),
        workers=workers,
        token=made if own is None else own,
        certificate=tls_cert,
        key=tls_key,
        proxy=behind_proxy,
    )

    def ready(address: str) -> None:
        if made:  # nobody knows it yet, so it is printed even with --quiet
            print(f"{address}/?token={made}", flush=True)
        else:
            say(f"{address}/?token=… with {TOKEN_VARIABLE} as token" if own else address, quiet)
        if not quiet:
            show_notice("how-to/serve")

    with suppress(KeyboardInterrupt):  # the usual way to stop a server
        run(settings, ready)
