"""From a request's form to scans. Files stay in memory; their names are never used."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from brainstage.scans.discover import File, Scan
from brainstage.serve.problems import Problem

FOLDER = "upload"
"""Stands where files have their folder: an upload's files are ``upload/1``, ``upload/2`` …"""
FIELDS = 10


class Upload(NamedTuple):
    """A request's form."""

    files: list[File]
    fields: dict[str, str]

    def flag(self, name: str) -> bool:
        """Return whether a field says yes."""
        return self.fields.get(name, "").lower() in ("1", "true", "yes", "on")


class _InMemory(MultiPartParser):
    spool_max_size = 0  # never to disk; RequestGuard counts the bytes


async def read_upload(request: Request, most: int) -> Upload:
    """Read a multipart form: its parts named ``files``, and its fields.

    Args:
        request: The request.
        most: Most files.

    Raises:
        Problem: It is no such form, holds no file or too many.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(415, "bad-form", "send multipart/form-data with a part named files for each file")
    parser = _InMemory(request.headers, request.stream(), max_files=most, max_fields=FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if parser._current_files > most:
            raise Problem(413, "too-many-files", f"more than {most:,} files; send them in parts") from error
        raise Problem(400, "bad-form", "the multipart form is damaged") from error
    parts = [part for name, part in form.multi_items() if name == "files" and isinstance(part, UploadFile)]
    if not parts:
        raise Problem(400, "no-files", "send at least one file in a part named files")
    contents = [part.file.read() for part in parts]
    await form.close()
    return Upload(
        [File(f"{FOLDER}/{number}", partial(io.BytesIO, one)) for number, one in enumerate(contents, 1)],
        {name: value for name, value in form.multi_items() if isinstance(value, str)},
    )


def numbers(scans: Sequence[Scan]) -> list[int]:
    """Return the numbers, from 1, of the uploaded files that scans are made of."""
    return sorted(int(name.removeprefix(f"{FOLDER}/")) for scan in scans for name in scan.files)
