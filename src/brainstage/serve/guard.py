"""What every request passes first: who may ask, how many at once, how long it may take."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainstage.serve.problems import Problem
from brainstage.serve.tokens import PAGE, TokenCheck
from brainstage.serve.usage import SharedCount, Usage

log = logging.getLogger("brainstage.serve")

UNFORESEEN = Problem(500, "internal", "an unexpected error; its type and place are in the server's log")
FOREIGN_HOST = Problem(
    403,
    "foreign-host",
    "this server answers under its own names only; start it with --allow-host NAME for another",
)
SECURITY_HEADERS = {
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
"""The page may load nothing from other sites, and no other site's page may embed or read it."""
MOMENT = 0.02
"""Seconds between two looks for a free place."""


@dataclass(frozen=True)
class Limits:
    """How much a server takes, all its worker processes together.

    Attributes:
        request_bytes: Most bytes of one request's body.
        all_bytes: Most bytes of the bodies of all running requests together; they are held in memory.
        files: Most files in one request.
        requests: Most requests that run or wait at a time.
        seconds: Longest time from the first byte of a request to its reply.
    """

    request_bytes: int = 256 * 2**20
    all_bytes: int = 2**30
    files: int = 2000
    requests: int = 64
    seconds: float = 120.0

    @property
    def body_too_large(self) -> Problem:
        """What a request with a larger body than one may have is answered with."""
        return Problem(413, "too-large", f"more than {self.request_bytes / 2**20:,.3g} MiB; send it in parts")


class RequestGuard:
    """ASGI middleware around the whole application.

    It refuses requests that another site's page makes or that lack the token, holds to the limits while a body
    streams in, adds the security headers, and answers with a problem whatever the application does not answer. A
    request keeps its place and its bytes for as long as work for it goes on, even when it has timed out.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: TokenCheck | None = None, usage: Usage | None = None):
        """Wrap an application.

        Args:
            app: The application. When a request of it is cancelled, it ends only with the work that it has begun.
            limits: How much the server takes.
            token: Lets requests with the token pass; None lets all.
            usage: What all worker processes use of the limits; None for one that works alone.
        """
        self._app, self._limits, self._token = app, limits, token
        self._usage = usage or Usage(SharedCount(), SharedCount())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply(scope, receive, send, {400: FOREIGN_HOST, 413: self._limits.body_too_large})
        try:
            check_origin(scope)
            if self._token:
                await self._token.check(scope)
            if scope["method"] == "POST":
                await self._run(scope, receive, reply)
            else:
                await self._app(scope, receive, reply)
        except Problem as problem:
            await reply.replace(problem)
        except Exception as error:  # a log must not hold anything of a request, not even the error's own words
            log.error("%s at %s", type(error).__name__, _place(error))
            await reply.replace(UNFORESEEN)

    async def _run(self, scope: Scope, receive: Receive, reply: Send) -> None:
        """Handle a request that has a body: it is counted, and it has limited time."""
        await self._take_place()
        body = _CountedBody(receive, self)
        task = asyncio.ensure_future(self._app(scope, body, reply))
        task.add_done_callback(lambda ended: self._release(ended, body))
        try:
            await asyncio.wait({task}, timeout=self._limits.seconds)
        finally:
            task.cancel()  # does nothing to a task that is done
        if not task.done():
            raise Problem(503, "too-slow", f"no reply within {self._limits.seconds:g} s; send less at once")
        task.result()

    async def _take_place(self) -> None:
        """Count a request as running.

        It tries twice: a place that another worker frees is free a moment after its reply, and two workers that
        take the last place at once both fail.

        Raises:
            Problem: As many requests as are allowed are running.
        """
        if not self._usage.requests.add(1, self._limits.requests):
            await asyncio.sleep(MOMENT)
            if not self._usage.requests.add(1, self._limits.requests):
                raise self._too_busy()

    def _release(self, ended: asyncio.Future[None], body: _CountedBody) -> None:
        self._usage.requests.subtract(1)
        self._usage.bytes.subtract(body.size)
        if not ended.cancelled():
            ended.exception()  # marks it as retrieved: nobody waits for a request that timed out

    def check_room(self) -> None:
        """Refuse one request too many.

        Raises:
            Problem: As many requests as are allowed are running.
        """
        if self._usage.requests.total >= self._limits.requests:
            raise self._too_busy()

    def _too_busy(self) -> Problem:
        return Problem(503, "too-busy", f"{self._limits.requests} requests are running; ask again in a moment")

    def hold(self, count: int) -> None:
        """Count bytes that a request holds in memory.

        Raises:
            Problem: With those of the other requests they are too many.
        """
        if not self._usage.bytes.add(count, self._limits.all_bytes):
            raise Problem(503, "too-busy", "running requests fill the memory set aside; ask again in a moment")


class _CountedBody:
    """Receives a request's body and counts its bytes."""

    def __init__(self, receive: Receive, guard: RequestGuard):
        self._receive, self._guard, self.size = receive, guard, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        count = len(message.get("body", b""))
        self._guard.hold(count)
        self.size += count
        return message


class _Reply:
    """Sends a reply with the security headers.

    Starlette's own refusals of hosts and body sizes are plain text; problems are sent in their place.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, plain_text: Mapping[int, Problem]):
        self._scope, self._receive, self._send, self._plain_text = scope, receive, send, plain_text
        self._started = self._replaced = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            is_plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
            if is_plain and message["status"] in self._plain_text:
                await self.replace(self._plain_text[message["status"]])
                return
            self._started = True
        await self._send_secured(message)

    async def replace(self, problem: Problem) -> None:
        """Send a problem in place of a reply that has not begun; whatever else is sent is dropped."""
        if not (self._started or self._replaced):
            self._replaced = True
            await problem.response()(self._scope, self._receive, self._send_secured)

    async def _send_secured(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            security = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
            message["headers"] = [*message["headers"], *(pair for pair in security if pair[0] not in own)]
        await self._send(message)


def check_origin(scope: Scope) -> None:
    """Refuse requests that another site's page makes, but for a link to the page.

    Raises:
        Problem: The request comes from another origin.
    """
    headers = Headers(scope=scope)
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise _foreign_origin()
    own_page = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    if not own_page and not _opens_the_page(scope, headers):
        raise _foreign_origin()


def _foreign_origin() -> Problem:
    return Problem(
        403, "foreign-origin", "requests from other sites' pages are refused; a proxy must pass the Host header on"
    )


def _opens_the_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser opens the page in a tab, as it does for a link: no other site sees the reply."""
    return (
        scope["method"] == "GET"
        and scope["path"] in ("/", PAGE.removesuffix("/"), PAGE, f"{PAGE}index.html")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"
