"""What stands before every request: who may ask, how much at once, how long it may take."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainstage.serve.problems import Problem

log = logging.getLogger("brainstage.serve")

UNFORESEEN = Problem(500, "internal", "an error that was not foreseen; it is in the server's log")
SAFE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self' data:; "
        "img-src 'self' blob: data:; connect-src 'self' blob: data:; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""The page may load nothing from elsewhere, and no other page may show or read it."""


@dataclass(frozen=True)
class Limits:
    """How much a server takes.

    Attributes:
        request_bytes: Of one request's body.
        all_bytes: Of the bodies of all requests at work; they are held in memory.
        files: In one request.
        requests: At work or waiting at one time.
        seconds: From the first byte of a request to its answer.
    """

    request_bytes: int = 256 * 2**20
    all_bytes: int = 2**30
    files: int = 2000
    requests: int = 64
    seconds: float = 120.0


class RequestGuard:
    """ASGI middleware around the whole application.

    Foreign Host and Origin headers are refused, so that no page of another site can use a server on this machine
    (DNS rebinding, cross-site requests). Limits hold while a body streams in.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], limits: Limits):
        self._app, self._hosts, self._limits = app, frozenset(hosts), limits
        self._requests = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a problem."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = _Answer(send)
            try:
                check_origin(Headers(scope=scope), self._hosts)
                await self._at_work(scope, receive, answer)
            except Problem as problem:
                await answer.give(problem, scope, receive)
            except Exception as error:  # nothing of a request may stand in a log: not even an error's own words
                log.error("%s at %s", type(error).__name__, _place(error))
                await answer.give(UNFORESEEN, scope, receive)

    async def _at_work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; those that bring a body are counted, and end in time."""
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        self.check_room()
        body, seconds = _CountedBody(receive, self), self._limits.seconds
        self.check_size(int(Headers(scope=scope).get("content-length", "0")))  # a number: the server has seen to it
        self._requests += 1
        try:
            async with asyncio.timeout(seconds):
                await self._app(scope, body, send)
        except TimeoutError:
            raise Problem(503, "too-slow", f"no answer within {seconds:g} s; send less at once") from None
        finally:
            self._requests -= 1
            self._bytes -= body.size

    def check_room(self) -> None:
        """Refuse one request too many.

        Raises:
            Problem: As many as may be are at work.
        """
        if self._requests >= self._limits.requests:
            raise Problem(503, "too-busy", f"{self._requests} requests are at work; ask again in a moment")

    def check_size(self, count: int) -> None:
        """Refuse a body of so many bytes, told or counted.

        Raises:
            Problem: It is too large.
        """
        if count > self._limits.request_bytes:
            most = self._limits.request_bytes / 2**20
            raise Problem(413, "too-large", f"more than {most:,.3g} MiB; send it in parts")

    def hold(self, count: int) -> None:
        """Count bytes that a request holds in memory.

        Raises:
            Problem: There are too many with those of the others.
        """
        if self._bytes + count > self._limits.all_bytes:
            raise Problem(503, "too-busy", "the requests at work fill the memory set aside; ask again in a moment")
        self._bytes += count


class _CountedBody:
    """A request's body on its way in."""

    def __init__(self, receive: Receive, guard: RequestGuard):
        self._receive, self._gate, self.size = receive, guard, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        count = len(message.get("body", b""))
        self._gate.check_size(self.size + count)
        self._gate.hold(count)
        self.size += count
        return message


class _Answer:
    """What goes back, with the headers that every answer has."""

    def __init__(self, send: Send):
        self._send, self._started = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            there = {name.lower() for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items()]
            message["headers"] = [*message["headers"], *(one for one in more if one[0] not in there)]
        await self._send(message)

    async def give(self, problem: Problem, scope: Scope, receive: Receive) -> None:
        """Send a problem in place of an answer that has not begun."""
        if not self._started:
            await problem.response()(scope, receive, self)


def check_origin(headers: Headers, hosts: Collection[str]) -> None:
    """Refuse requests that another site's page may have sent.

    Raises:
        Problem: Host or Origin are not this server's.
    """
    host = headers.get("host", "")
    if _name(f"//{host}") not in hosts:
        detail = "this server answers under its own names only; start it with --allow-host NAME for another"
        raise Problem(403, "foreign-host", detail)
    origin = headers.get("origin")
    same = origin is None or origin in (f"http://{host}", f"https://{host}")
    if not same or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Problem(403, "foreign-origin", "requests from other sites' pages are refused")


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"
