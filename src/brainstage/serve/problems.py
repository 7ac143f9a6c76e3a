"""Errors of the API: ``application/problem+json`` (RFC 9457) with a code that stays."""

from __future__ import annotations

from starlette.responses import JSONResponse

from brainstage.core.schema import RESEARCH_NOTICE

TITLES = {
    "bad-form": "The request is not a form with files",
    "cannot-explain": "This cannot be explained",
    "foreign-host": "The request names another host",
    "foreign-origin": "The request comes from another site's page",
    "internal": "The server made a mistake",
    "method-not-allowed": "The address does not take this method",
    "no-files": "The request holds no file",
    "not-found": "No such address",
    "several-scans": "The request holds several scans",
    "too-busy": "Too many requests at once",
    "too-large": "The request is too large",
    "too-many-files": "The request holds too many files",
    "too-slow": "The request took too long",
    "unknown-model": "No such model is served",
}
"""What each code means. A code is never given another meaning."""


class Problem(Exception):  # noqa: N818 - the name of the standard
    """A request that gets no answer.

    Attributes:
        status: HTTP status.
        code: One of :data:`TITLES`.
        detail: One sentence: what is wrong, what to do.
    """

    def __init__(self, status: int, code: str, detail: str):
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail

    def response(self) -> JSONResponse:
        """Return what the client gets."""
        content = {
            "type": f"urn:brainstage:problem:{self.code}",
            "title": TITLES[self.code],
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "notice": RESEARCH_NOTICE,
        }
        headers = {"Retry-After": "1"} if self.status == 503 else None
        return JSONResponse(content, self.status, headers, media_type="application/problem+json")
