"""A reverse proxy before the server, which does TLS."""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from brainstage.serve.problems import Problem

NOT_THE_PROXY = Problem(403, "not-the-proxy", "this server answers its proxy alone; use the proxy's address")


class BehindProxy:
    """ASGI middleware that takes requests from one place, and believes what is forwarded from there.

    ``X-Forwarded-For`` says whose request it is, ``X-Forwarded-Proto`` that it came by HTTPS. Whoever goes round
    the proxy, and so round its TLS, is refused.
    """

    def __init__(self, app: ASGIApp, proxy: str):
        """Wrap an application.

        Args:
            app: The application.
            proxy: The proxy's address, or its network.
        """
        self._app = app
        self._network = ipaddress.ip_network(proxy)
        self._forwarded = ProxyHeadersMiddleware(app, [proxy])  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request of the proxy on, as that of the proxy's client."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address, port = scope.get("client") or ("", 0)
        peer = plain_address(address)
        if peer is None or peer not in self._network:
            await NOT_THE_PROXY.response()(scope, receive, send)
            return
        scope = {**scope, "client": (str(peer), port)}
        await self._forwarded(scope, receive, send)  # type: ignore[arg-type]


def plain_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, the IPv4 address of a client whom an IPv6 socket accepted; None where it is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return (parsed.ipv4_mapped if parsed.version == 6 else None) or parsed
