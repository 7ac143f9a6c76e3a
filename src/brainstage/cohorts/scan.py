"""One scan to its slices: read, stripped of its skull where it has one, registered, cut, and written whole."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from brainstage.cohorts.checks import check_cuts
from brainstage.cohorts.ledger import Measured, orientation
from brainstage.core.arrays import Pixels
from brainstage.core.errors import ConfigError, DataError, RefusalError
from brainstage.core.files import size_and_time, write_table
from brainstage.core.levels import LevelSet
from brainstage.core.schema import read_metadata, with_metadata
from brainstage.datasets.table import slice_id
from brainstage.scans.discover import Scan
from brainstage.scans.extraction import Skull, take_off_skull
from brainstage.scans.registration import Registration
from brainstage.scans.stack import cut, refusal, too_few
from brainstage.scans.volume import Volume

VERSION = 3
"""Version of what is done to a scan, incremented when it changes, so that parts of another version are not used."""
PART_SCHEMA = pa.schema([("image", pa.binary()), ("slice_index", pa.int32()), ("slice_id", pa.string())])


@dataclass(frozen=True)
class Task:
    """A scan to prepare.

    Attributes:
        scan: Reads it.
        part: File for its slices and what was measured.
        key: What the slices depend on (:func:`task_key`).
        skull: ``strip`` takes the skull off, ``stripped`` says that none is there, ``auto`` looks.
        level_set: The levels to cut it at.
    """

    scan: Scan
    part: Path
    key: str
    skull: Skull
    level_set: LevelSet


@dataclass(frozen=True)
class RegisteredScan:
    """A scan in space.

    Attributes:
        volume: As it was read.
        brain: Without its skull; the volume itself where none was taken off.
        registration: Position of both relative to the template.
    """

    volume: Volume
    brain: Volume
    registration: Registration


@dataclass(frozen=True)
class Slices:
    """What a scan gave.

    Attributes:
        measured: What became of it.
        cuts: By which a person checks its registration; None where it was not registered.
        images: Slices, each uint8 of shape (128, 128).
        levels: Level of each.
        registered: From which they were cut; None where there are none, and where they were read from a part.
    """

    measured: Measured
    cuts: Pixels | None = None
    images: Sequence[Pixels] = ()
    levels: Sequence[int] = ()
    registered: RegisteredScan | None = None


def task_key(scan: Scan, skull: Skull, level_set: LevelSet) -> str:
    """Return a hash of what slices depend on: the files' names, sizes and times, and what is done to them.

    Their folders do not count: a source that was moved, or is seen under another path in a container, is the same.

    Args:
        scan: The scan.
        skull: As in :class:`Task`.
        level_set: The levels to cut it at.
    """
    about = [[Path(name).name, *known] for name in scan.files if (known := size_and_time(name))]
    return hashlib.sha256(json.dumps([VERSION, skull, level_set.name, about]).encode()).hexdigest()


def prepare_scan(task: Task) -> Measured:
    """Prepare one scan and write its part; whatever is wrong with the scan is told in what is returned.

    Raises:
        RunError: The part cannot be written.
    """
    made = make_slices(task.scan, task.skull, task.level_set)
    write_part(task, made)
    return made.measured


def make_slices(scan: Scan, skull: Skull, level_set: LevelSet) -> Slices:
    """Read, strip, register and cut one scan; whatever is wrong with it is told in what was measured.

    Args:
        scan: The scan.
        skull: As in :class:`Task`.
        level_set: The levels to cut it at.
    """
    started = time.perf_counter()
    try:
        made = _slices(scan, skull, level_set)
    except RefusalError as error:
        made = Slices(Measured("refused", str(error)))
    except (DataError, ConfigError) as error:
        made = Slices(Measured("failed", str(error)))
    seconds = round(time.perf_counter() - started, 2)
    measured = replace(made.measured, seconds=seconds, reason=_without_paths(made.measured.reason, scan))
    return replace(made, measured=measured)


def write_part(task: Task, made: Slices) -> None:
    """Write the slices of a scan, and what was measured, as a parquet file, whole or not at all.

    Raises:
        RunError: The disk is full or the folder is not writable.
    """
    columns = {
        "image": [_png(image) for image in made.images],
        "slice_index": made.levels,
        "slice_id": [slice_id(image) for image in made.images],
    }
    cuts = None if made.cuts is None else base64.b64encode(_png(made.cuts)).decode("ascii")
    about = {"key": task.key, "measured": asdict(made.measured), "cuts": cuts}
    write_table(task.part, with_metadata(pa.table(columns, schema=PART_SCHEMA), about))


def read_part(part: Path) -> tuple[str, Measured] | None:
    """Return the key of a part and what was measured; None where there is no whole part of this version."""
    try:
        about = _about_part(part)
        return str(about["key"]), Measured(**about["measured"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def read_slices(part: Path) -> tuple[list[Pixels], list[int]]:
    """Return the slices of a whole part, each uint8 of shape (128, 128), and their levels."""
    table = pq.read_table(part)
    return [_decode_png(png) for png in table["image"].to_pylist()], table["slice_index"].to_pylist()


def read_cuts(part: Path) -> Pixels | None:
    """Return the cuts of a part by which a person checks it, uint8 of shape (H, W); None where it has none."""
    cuts = _about_part(part).get("cuts") if part.is_file() else None
    return None if cuts is None else _decode_png(base64.b64decode(cuts))


def _about_part(part: Path) -> dict[str, Any]:
    return read_metadata(pq.read_schema(part).empty_table())


def _slices(scan: Scan, skull: Skull, level_set: LevelSet) -> Slices:
    """Read, strip, register and cut a scan.

    Raises:
        RefusalError: It is readable and not to be staged.
        DataError, ConfigError: It is not readable, or its skull cannot be taken off.
    """
    if scan.volume is None:
        scan.read()  # raises what is wrong with a file of another kind
        raise DataError(f"{scan.name}: a single picture, expected a volume; give the whole series")
    volume = scan.volume()
    brain, registration, extraction = take_off_skull(volume, scan.name, skull)
    stack, levels = cut(brain, registration, level_set)
    reason = refusal(registration) or too_few(levels, level_set)
    measured = Measured(
        "refused" if reason else "prepared",
        reason,
        round(registration.similarity, 4),
        round(registration.outside, 4),
        len(levels),
        extraction is not None,
        orientation(volume.affine),
    )
    cuts = check_cuts(volume, registration)
    if reason:
        return Slices(measured, cuts)
    return Slices(measured, cuts, list(stack), levels, RegisteredScan(volume, brain, registration))


def _without_paths(reason: str | None, scan: Scan) -> str | None:
    """Return a reason without the names of files and folders, which may name people."""
    if reason is None:
        return None
    for name in sorted({scan.name, *scan.files}, key=len, reverse=True):
        reason = reason.removeprefix(f"{name}: ").replace(name, "a file of it")
    return reason


def _png(image: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _decode_png(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)))
