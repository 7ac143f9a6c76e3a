"""What a server is started with, checked before anything is opened."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brainstage.core.errors import ConfigError
from brainstage.core.network import is_loopback

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what the user may write
TOKEN_VARIABLE = "BRAINSTAGE_TOKEN"  # noqa: S105
"""Environment variable with a token of the user's own: unlike an option it stands in no list of processes."""
TOKEN_FORM = re.compile(r"[A-Za-z0-9._~-]{16,256}")
"""A token may stand in an address, a header and a cookie as it is."""


def needs_token(host: str, proxy: str | None) -> bool:
    """Return whether other machines reach a server: they need its token."""
    return proxy is not None or not is_loopback(host)


@dataclass(frozen=True)
class ServeSettings:
    """How a server is reached, by whom, and what it serves. Worker processes get a copy.

    Attributes:
        models: Run folders, names of bundled models, or ids of models on the hub; the first is the default.
        host: Name or address to listen at.
        port: Port to listen at; 0 takes a free one.
        allowed_hosts: Further names that the ``Host`` of a request may have.
        workers: Number of processes that answer.
        token: What a client must show; None lets everyone in who reaches the server.
        certificate: File with the certificate and those above it, PEM; None serves plain HTTP.
        key: File with the certificate's private key, PEM.
        proxy: Address or network of a reverse proxy that does TLS; requests of others are refused.
    """

    models: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: Sequence[str] = ()
    workers: int = 1
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: They do not go together, or one cannot be used.
        """
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: at least one process must answer; give 1 or more")
        if patterns := [host for host in self.allowed_hosts if "*" in host]:
            raise ConfigError(f"--allow-host {patterns[0]}: a pattern would let any site in; give whole names")
        if self.proxy is not None:
            _check_proxy(self.proxy)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--tls-cert and --tls-key belong together; give both files")
        self._check_reach()
        if self.token is not None and not TOKEN_FORM.fullmatch(self.token):
            raise ConfigError(
                f"{TOKEN_VARIABLE}: a token is of 16 to 256 letters, digits, '.', '_', '~' and '-'; unset it, and "
                "one is made"
            )
        if self.certificate and self.key:
            _check_certificate(self.certificate, self.key)

    def _check_reach(self) -> None:
        """Refuse a server that other machines reach, but not safely or not by a name."""
        if not is_loopback(self.host) and not self.encrypted:
            raise ConfigError(
                f"--host {self.host}: scans and the token would cross the network unencrypted; add --tls-cert and "
                "--tls-key, or --behind-proxy ADDRESS with the address of a proxy that does TLS"
            )
        if (self.proxy is not None or self.host in EVERY_ADDRESS) and not self.allowed_hosts:
            option = f"--host {self.host}" if self.proxy is None else f"--behind-proxy {self.proxy}"
            raise ConfigError(f"{option}: add --allow-host NAME with the host name that others will use")
        if needs_token(self.host, self.proxy) and self.token is None:
            raise ConfigError(
                f"--host {self.host}: other machines need a token; make one, or leave the token to the command"
            )

    @property
    def encrypted(self) -> bool:
        """Whether what crosses the network is encrypted, by this server or by the proxy before it."""
        return self.certificate is not None or self.proxy is not None

    @property
    def hosts(self) -> set[str]:
        """Names and addresses that the ``Host`` of a request may have."""
        own = () if self.host in EVERY_ADDRESS else (self.host,)
        return {*LOOPBACK, *own, *self.allowed_hosts}

    def address(self, port: int) -> str:
        """Return where a browser finds the server that listens at a port."""
        if self.proxy is not None:
            return f"https://{self.allowed_hosts[0]}"
        name = self.allowed_hosts[0] if self.host in EVERY_ADDRESS else self.host
        name = "localhost" if name == "::1" else f"[{name}]" if ":" in name else name
        return f"{'https' if self.encrypted else 'http'}://{name}:{port}"


def _check_proxy(proxy: str) -> None:
    try:
        ipaddress.ip_network(proxy)
    except ValueError as error:
        raise ConfigError(
            f"--behind-proxy {proxy}: give the proxy's IP address, such as 127.0.0.1, or its network, such as "
            "10.0.0.0/24"
        ) from error


def _check_certificate(certificate: Path, key: Path) -> None:
    def refuse_to_ask() -> str:
        raise ConfigError(f"{key}: the key is encrypted; give one without a passphrase, readable by you alone")

    try:
        for file in (certificate, key):
            file.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, refuse_to_ask)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{certificate}, {key}: not a certificate and its private key as PEM files "
            f"({(error.reason or 'unreadable').replace('_', ' ').lower()})"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be read ({error.strerror}); check --tls-cert and --tls-key"
        ) from error
