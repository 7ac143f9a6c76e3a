"""From a request's form to scans. Files stay in memory; their names are never used."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from brainstage.scans.discover import File, Scan
from brainstage.serve.problems import Problem

FOLDER = "upload"
"""Takes the place of a folder's name: an upload's files are ``upload/1``, ``upload/2`` …"""
MAX_FIELDS = 10
FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Upload(NamedTuple):
    """A request's form."""

    files: list[File]
    fields: dict[str, str]

    def flag(self, name: str) -> bool:
        """Return whether a field is true; a form without the field says that it is not.

        Raises:
            Problem: It is neither true nor false.
        """
        value = FLAGS.get(self.fields.get(name, "false").lower())
        if value is None:
            raise Problem(400, "bad-form", f"{name}: send true or false")
        return value


class _InMemory(MultiPartParser):
    spool_max_size = 0  # never to disk; the guard counts the bytes


async def read_upload(request: Request, max_files: int, fields: Collection[str]) -> Upload:
    """Read a multipart form: its parts named ``files``, and its fields.

    Args:
        request: The request.
        max_files: Most files.
        fields: Names that the form's fields may have.

    Raises:
        Problem: It is no such form, or it holds no file, too many files, or another field.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(415, "bad-form", "send multipart/form-data with a part named files for each file")
    form = await _parse(request, max_files)
    parts = [part for name, part in form.multi_items() if name == "files" and isinstance(part, UploadFile)]
    if not parts:
        raise Problem(400, "no-files", "send at least one file in a part named files")
    if not {*form} <= {"files", *fields}:
        raise Problem(400, "bad-form", f"the form's fields are {', '.join(['files', *fields])}; another was sent")
    contents = [part.file.read() for part in parts]
    await form.close()
    return Upload(
        [File(f"{FOLDER}/{number}", partial(io.BytesIO, content)) for number, content in enumerate(contents, 1)],
        {name: value for name, value in form.multi_items() if isinstance(value, str)},
    )


async def _parse(request: Request, max_files: int) -> FormData:
    parser = _InMemory(request.headers, request.stream(), max_files=max_files, max_fields=MAX_FIELDS)
    try:
        return await parser.parse()
    except MultiPartException as error:
        if parser._current_files > max_files:
            raise Problem(413, "too-many-files", f"more than {max_files:,} files; send them in parts") from error
        raise Problem(400, "bad-form", "the multipart form is damaged") from error


def file_numbers(scans: Sequence[Scan]) -> list[int]:
    """Return the numbers, from 1, of the uploaded files that scans are made of."""
    return sorted(int(name.removeprefix(f"{FOLDER}/")) for scan in scans for name in scan.files)
