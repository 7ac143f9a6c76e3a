"""Features of a frozen backbone: computed once, kept in a content-addressed cache.

``features/<key>/`` holds the features of one backbone: the key is a SHA-256 of its weights, its preprocessing, the
precision and, for 8-bit integers, the slices that their ranges come from. Each file there holds the features of
some slices with their ``slice_id``, so slices that are in the cache cost nothing, whatever table or split they come
in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from brainstage.core.arrays import FeatureArray
from brainstage.core.cache import limit_bytes, make_cache, use
from brainstage.core.files import atomic, size_and_time
from brainstage.core.hub import cache_root
from brainstage.core.progress import Progress, silent

Features = TypeVar("Features", bound=FeatureArray)
CHUNK = 128
"""Slices a file: at most so many are computed again after an interruption."""
LIMIT_GB = 10.0
"""Size of the cache above which the least recently used features are removed; the environment
variable ``BRAINSTAGE_FEATURES_GB`` changes it. 6,400 slices of a ViT-base take 20 MB."""


def features_folder() -> Path:
    """Return the folder of cached features."""
    return cache_root() / "features"


class FeatureCache:
    """The features of one backbone.

    Args:
        key: What features depend on besides the slice; a value of JSON types.

    Attributes:
        folder: Their folder, which may also hold files that are needed to compute more of them.
    """

    def __init__(self, key: dict[str, Any]):
        self._key = json.dumps(key, sort_keys=True)
        self.folder = features_folder() / hashlib.sha256(self._key.encode()).hexdigest()[:32]

    def get(
        self,
        slice_ids: Sequence[str],
        compute: Callable[[Sequence[str]], Features],
        progress: Progress = silent,
    ) -> Features:
        """Return the features of slices; those that are not in the cache are computed and added.

        Args:
            slice_ids: SHA-256 of each slice's pixels, with the number of its acquisition where it has one.
            compute: Returns the features of some slices, of shape (N, D), always of one dtype.
            progress: How to show progress.

        Returns:
            Of shape (len(slice_ids), D), in the order of ``slice_ids``.

        Raises:
            RunError: The disk is full or the cache is not writable. What was computed before stays.
        """
        make_cache(self.folder)
        while True:
            places = self._places()
            if not places.keys() >= set(slice_ids):
                self.fill(slice_ids, compute, progress)
                places = self._places()
            use(self.folder, limit_bytes("BRAINSTAGE_FEATURES_GB", LIMIT_GB))
            try:
                return _read([places[slice_id] for slice_id in slice_ids])  # type: ignore[return-value]
            except (KeyError, FileNotFoundError):
                continue  # another process removed them to stay within the limit

    def fill(
        self,
        slice_ids: Sequence[str],
        compute: Callable[[Sequence[str]], FeatureArray],
        progress: Progress = silent,
    ) -> None:
        """Compute and add the features of slices that are not in the cache, without returning them.

        Args:
            slice_ids, compute, progress: As for :meth:`get`.

        Raises:
            RunError: As :meth:`get`.
        """
        make_cache(self.folder)
        known = self._places()
        missing = [slice_id for slice_id in dict.fromkeys(slice_ids) if slice_id not in known]
        with progress("Computing features", len(missing)) as advance:
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                _write(self.folder, chunk, compute(chunk), self._key)
                advance(len(chunk))

    def _places(self) -> dict[str, tuple[Path, int]]:
        """Return the file of each slice and its row in it."""
        return _index(tuple((file, size_and_time(file)) for file in sorted(self.folder.glob("*.safetensors"))))


@lru_cache(maxsize=1)  # a cohort is read scan by scan, and every fold of a cross-validation asks for the same files
def _index(files: tuple[tuple[Path, tuple[int, ...]], ...]) -> dict[str, tuple[Path, int]]:
    """Return the file of each slice and its row in it, of files with the time of their last change."""
    return {
        slice_id: (file, row) for file, changed in files for row, slice_id in enumerate(_slice_ids(file, changed))
    }


@lru_cache(maxsize=2**16)  # a file that was added leaves what is known of the others
def _slice_ids(file: Path, _changed: tuple[int, ...]) -> list[str]:
    """Return whose features are in a file that was changed at some time; a damaged file is removed."""
    try:
        with safe_open(file, framework="numpy") as opened:
            ids: list[str] = json.loads(opened.metadata()["slice_ids"])
            if opened.get_slice("features").get_shape()[0] != len(ids):
                raise ValueError("another number of features than slices")
            return ids
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        file.unlink(missing_ok=True)
        return []


def _read(places: Sequence[tuple[Path, int]]) -> FeatureArray:
    """Return the features at some places, each file read once, of shape (len(places), D)."""
    rows_of: dict[Path, list[tuple[int, int]]] = {}
    for number, (file, row) in enumerate(places):
        rows_of.setdefault(file, []).append((number, row))
    features = np.empty(0)
    for file, pairs in rows_of.items():
        numbers, rows = np.array(pairs).T
        with safe_open(file, framework="numpy") as opened:
            values = opened.get_tensor("features")
        if not len(features):
            features = np.empty((len(places), *values.shape[1:]), values.dtype)
        features[numbers] = values[rows]
    return features


def _write(folder: Path, slice_ids: Sequence[str], values: FeatureArray, key: str) -> None:
    lines = json.dumps(list(slice_ids))
    name = hashlib.sha256(lines.encode()).hexdigest()[:32]
    with atomic(folder / f"{name}.safetensors") as part:
        save_file({"features": values}, part, metadata={"slice_ids": lines, "key": key})
