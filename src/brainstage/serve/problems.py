"""Errors of the API: ``application/problem+json`` (RFC 9457) with stable codes."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from brainstage.core.schema import RESEARCH_NOTICE

TITLES = {
    "bad-form": "The request is not a form that the API takes",
    "cannot-explain": "The explanation asked for is not possible",
    "foreign-host": "The request names another host",
    "foreign-origin": "The request comes from another site's page",
    "internal": "The server made a mistake",
    "method-not-allowed": "The address does not take this method",
    "no-files": "The request holds no file",
    "no-token": "The request lacks the server's token",
    "not-found": "No such address",
    "not-the-proxy": "The request does not come through the proxy",
    "too-busy": "Too many requests at once",
    "too-large": "The request is too large",
    "too-many-files": "The request holds too many files",
    "too-many-tokens": "Too many wrong tokens at once",
    "too-slow": "The request took too long",
    "unknown-model": "No such model is served",
    "wrong-token": "The token is not the server's",
}
"""The meaning of each code. It never changes."""
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
"""Headers that a status comes with."""


class Problem(Exception):  # noqa: N818 - the name of the standard
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        code: A key of :data:`TITLES`.
        detail: One sentence: what is wrong and what to do.
    """

    def __init__(self, status: int, code: str, detail: str):
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Return what the client gets, with further headers."""
        content = {
            "type": f"urn:brainstage:problem:{self.code}",
            "title": TITLES[self.code],
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "notice": RESEARCH_NOTICE,
        }
        headers = {**HEADERS.get(self.status, {}), **(headers or {})}
        return JSONResponse(content, self.status, headers, media_type="application/problem+json")
