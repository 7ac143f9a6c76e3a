"""The token: who may use a server that other machines, or other accounts of this one, can reach."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections import Counter
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from brainstage.serve.problems import Problem
from brainstage.serve.proxy import plain_address

PAGE = "/page/"
"""Where the page and its files are: they are in every copy of brainstage, so that all may have them."""
OPEN = ("/", "/health", PAGE.removesuffix("/"))
"""What else needs no token."""
SHOW_IT = "open the address that the server printed, or send Authorization: Bearer TOKEN"
WRONG_SECONDS = 1.0
"""How long the reply to a wrong token is held back."""
WRONG_AT_ONCE = 4
"""Wrong tokens of a client that are held back at a time; while there are as many, no other of its is looked at."""


class TokenCheck:
    """Lets requests pass that show the token.

    A program shows it as ``Authorization: Bearer``. A browser opens ``/?token=…`` once and gets a cookie, which
    scripts cannot read and other sites cannot have sent.
    """

    def __init__(self, token: str, port: int, *, secure: bool):
        """Take a token.

        Args:
            token: The token.
            port: Where the server listens; part of the cookie's name, because a host's ports share their cookies.
            secure: Whether the cookie is sent over TLS alone.
        """
        self._token, self._secure = token.encode(), secure
        self.cookie = f"brainstage-{port}"
        self._held_back: Counter[str] = Counter()

    async def check(self, scope: Scope) -> None:
        """Refuse a request that needs the token and does not show it.

        A wrong token costs its client a second, and a client that tries many at once learns nothing of the others:
        at most :data:`WRONG_AT_ONCE` a second are compared. A held-back reply is a timer, no thread and none of the
        places for requests.

        Raises:
            Problem: The token is missing or wrong, or the client tried too many.
        """
        given = self._given(scope)
        if given is None:
            if _is_open(scope["path"]):
                return
            raise Problem(401, "no-token", "the server's token is missing; " + SHOW_IT)
        client = _client(scope)
        if self._held_back[client] >= WRONG_AT_ONCE:
            raise Problem(429, "too-many-tokens", "too many wrong tokens from this address; wait a second")
        if self.is_shown(scope):
            return
        await self._hold_back(client)
        raise Problem(401, "wrong-token", "this is not the server's token; " + SHOW_IT)

    def is_shown(self, scope: Scope) -> bool:
        """Return whether a request shows the token. The time that takes does not tell how much of it is right."""
        return hmac.compare_digest((self._given(scope) or "").encode(), self._token)

    async def _hold_back(self, client: str) -> None:
        self._held_back[client] += 1
        try:
            await asyncio.sleep(WRONG_SECONDS)
        finally:
            self._held_back[client] -= 1
            if not self._held_back[client]:
                del self._held_back[client]

    def set_cookie(self, reply: Response) -> None:
        """Have a browser keep the token until it is closed."""
        reply.set_cookie(
            self.cookie, self._token.decode(), httponly=True, samesite="strict", secure=self._secure, path="/"
        )

    def _given(self, scope: Scope) -> str | None:
        """Return what a request shows: in the address of the start page, elsewhere in a header or the cookie."""
        if scope["path"] == "/":
            return parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]
        if _is_open(scope["path"]):
            return None
        headers = Headers(scope=scope)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bearer.strip()
        return cookie_parser(headers.get("cookie", "")).get(self.cookie)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(PAGE)


def _client(scope: Scope) -> str:
    """Return whose request it is: an address, of IPv6 the network that one client commonly has for itself."""
    host = (scope.get("client") or ("", 0))[0]
    address = plain_address(host)
    if address is None:
        return str(host)
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
