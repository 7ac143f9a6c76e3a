"""Folders of the cache: what was computed from data, by a hash of all that it depends on."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainstage.core.errors import ConfigError, RunError
from brainstage.core.hub import cache_root

DAY_SECONDS = 24 * 60 * 60
IN_USE_SECONDS = 10 * 60
"""How long a folder counts as in use after it was read or written; a chunk of features takes a minute or two."""
IN_MEMORY_BYTES = 2**29
"""Size above which an array that is computed lies in a file."""


def make_cache(folder: Path) -> None:
    """Make a folder of the cache where it is missing.

    Raises:
        RunError: The cache is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made ({error.strerror}); name another cache in BRAINSTAGE_CACHE"
        ) from error


def limit_bytes(variable: str, gigabytes: float) -> float:
    """Return how many bytes a part of the cache may take.

    Args:
        variable: Environment variable that may say how many gigabytes.
        gigabytes: What holds without it.

    Raises:
        ConfigError: The variable is no number.
    """
    text = os.environ.get(variable, str(gigabytes))
    try:
        return float(text) * 1e9
    except ValueError:
        raise ConfigError(f"{variable}: {text!r} is not a number of gigabytes; give one, such as 20") from None


def use(folder: Path, limit: float) -> None:
    """Note that a folder is used now; remove the least recently used ones beside it while all exceed a limit.

    What was used within the last :data:`IN_USE_SECONDS` stays: another process may be reading or filling it.
    """
    with suppress(FileNotFoundError):  # another process has just removed it
        os.utime(folder)
    idle = time.time() - IN_USE_SECONDS
    others = sorted((_last_use(other), other) for other in folder.parent.glob("[!.]*") if other != folder)
    unused = [other for used, other in others if used < idle]
    while unused and size_of(folder.parent) > limit:
        shutil.rmtree(unused.pop(0), ignore_errors=True)


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder; other processes may be removing some."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size


def clear(folder: Path) -> int:
    """Remove a folder and return how many bytes it took."""
    size = size_of(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return size


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # removed by another process
        return 0.0


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``, which becomes ``target`` if the block raises nothing.

    Where another process has made the same meanwhile, that is left. What a process left that was killed is removed
    after a day.

    Raises:
        RunError: The disk is full or the cache is not writable.
    """
    make_cache(target.parent)
    for left in target.parent.glob(".*"):
        if time.time() - _last_use(left) > DAY_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=target.parent, ignore_cleanup_errors=True) as name:
            yield Path(name)
            try:
                Path(name).rename(target)
            except OSError:
                if not target.exists():
                    raise
    except OSError as error:
        raise RunError(
            f"{target}: not written ({error.strerror or error}); free some space or name another cache in "
            "BRAINSTAGE_CACHE"
        ) from error


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike, *, random_order: bool = False) -> NDArray[Any]:
    """Return an array to be filled: in memory, or above :data:`IN_MEMORY_BYTES` in a file of the cache.

    The file has no name and is gone with the array, also when the process is killed. The operating system keeps as
    much of it in memory as there is room.

    Args:
        shape: Shape of the array.
        dtype: Its dtype.
        random_order: Its rows will be read in random order. The system then reads from the disk what is asked for
            and not, as else, 128 KB around it, which push other rows out of memory.

    Raises:
        RunError: The disk is full or the cache is not writable.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    folder = cache_root() / "scratch"
    make_cache(folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # else a disk that is full would end the process by a signal
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise RunError(
            f"{folder}: no room for {size / 1e9:,.1f} GB of working space ({error.strerror or error}); free some "
            "space or name another cache in BRAINSTAGE_CACHE"
        ) from error
    if random_order and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype).reshape(shape)
