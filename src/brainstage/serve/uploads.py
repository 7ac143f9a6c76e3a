"""From a request's form to scans. Files stay in memory; their names are never used."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from brainstage.scans.discover import File, Scan
from brainstage.serve.problems import Problem

FOLDER = "upload"
"""Takes the place of a folder's name: an upload's files are ``upload/1``, ``upload/2`` …"""
MAX_FIELDS = 10
CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")
"""Charsets that a form may name: Python has others, some of which fail or take minutes."""
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
    _check_type(request.headers.get("content-type"))
    form = await _parse(request, max_files)
    if any(name == "files" and isinstance(part, str) for name, part in form.multi_items()):
        raise Problem(400, "bad-form", "files: it was sent as text; send each file as a part with a file name")
    parts = [part for name, part in form.multi_items() if name == "files" and isinstance(part, UploadFile)]
    if not parts:
        raise Problem(400, "no-files", "send at least one file in a part named files")
    if not {*form} <= {"files", *fields}:
        raise Problem(400, "bad-form", f"the form's fields are {', '.join(['files', *fields])}; another was sent")
    if as_file := [name for name, part in form.multi_items() if name != "files" and isinstance(part, UploadFile)]:
        raise Problem(400, "bad-form", f"{as_file[0]}: it was sent as a file; send it as text, without a file name")
    contents = [part.file.read() for part in parts]
    await form.close()
    return Upload(
        [File(f"{FOLDER}/{number}", partial(io.BytesIO, content)) for number, content in enumerate(contents, 1)],
        {name: value for name, value in form.multi_items() if isinstance(value, str)},
    )


def _check_type(content_type: str | None) -> None:
    """Refuse what is no multipart form, or a form in a charset that its few fields need not have."""
    media_type, options = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise Problem(415, "bad-form", "send multipart/form-data with a part named files for each file")
    if options.get(b"charset", b"utf-8").decode("latin-1").lower() not in CHARSETS:
        raise Problem(400, "bad-form", "the form's charset is another than UTF-8; send UTF-8, or name none")


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
