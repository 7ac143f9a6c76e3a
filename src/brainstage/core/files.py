"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.errors import InUseError, OutputError


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_and_time(name: str | Path) -> tuple[int, ...]:
    """Return a file's bytes and the nanosecond of its last change; nothing where it is gone."""
    try:
        status = Path(name).stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


def make_folder(folder: Path) -> Path:
    """Make a folder, with those above it, where it is missing; return it.

    Raises:
        OutputError: The place is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}); choose another --out") from error
    return folder


@contextmanager
def locked(folder: Path, in_use: str, file: str = ".lock") -> Iterator[None]:
    """Lock a folder for this process; the operating system unlocks it when the process ends, even if killed.

    Args:
        folder: The folder that is locked, and named in errors.
        in_use: What is wrong where another process holds it, and what to do.
        file: The file in it by which it is locked.

    Raises:
        InUseError: Another process holds it.
        OutputError: The folder is not writable.
    """
    from filelock import FileLock, Timeout  # prediction, which locks nothing, does not wait for its import

    lock = FileLock(folder / file, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(f"{folder}: {in_use}") from None
    except OSError as error:
        raise OutputError(f"{folder}: this folder is not writable; choose another --out") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which is moved to ``target`` if the block raises nothing.

    The file appears whole or not at all, also when the process is killed or the disk is full.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"{target}: cannot write here ({error.strerror}); free some space or choose another folder"
        ) from error
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except OSError as error:
        raise OutputError(
            f"{target}: not written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target``, whole or not at all."""
    with atomic(target) as part:
        part.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """Write ``content`` to ``target`` as indented JSON, whole or not at all."""
    write_text(target, json.dumps(content, indent=2) + "\n")


def read_json_lines(file: Path) -> list[Any]:
    """Return the content of a file with one JSON value a line, such as ``history.jsonl``."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_table(target: Path, table: pa.Table) -> None:
    """Write ``table`` to ``target`` as parquet, whole or not at all."""
    with atomic(target) as part:
        pq.write_table(table, part)
