"""Files of any kind to slices for a model: images, parquet rows, NIfTI volumes, DICOM series.

A file's format is that of its first bytes, whatever its name.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os.path import commonpath
from pathlib import Path
from typing import BinaryIO, NamedTuple

from brainstage.core.arrays import Pixels
from brainstage.core.errors import DataError
from brainstage.core.run import StrPath
from brainstage.datasets.images import IMAGE_SUFFIXES, Reader, decode_slice, is_picture, open_path, read_bytes
from brainstage.datasets.sources import parquet_readers
from brainstage.scans.dicom import Frame, decode_dicom, is_dicom, series_key
from brainstage.scans.nifti import decode_nifti, is_nifti
from brainstage.scans.stack import training_slice, training_stack
from brainstage.scans.volume import Volume

SCAN_FORMATS = "JPEG, PNG, NIfTI, DICOM or parquet"
SCAN_SUFFIXES = (*IMAGE_SUFFIXES, ".nii", ".nii.gz", ".dcm")
"""Endings of files that are reported where they are not scans."""
MAGIC_BYTES = 4096
"""First bytes of a file, by which its format is recognised; they hold a compressed header."""


class Slices(NamedTuple):
    """A scan's slices, as the training data shows them."""

    images: Sequence[Pixels]
    """Grey slices, each of shape (H, W)."""
    levels: Sequence[int | None]
    """Level of each among the 32 of the training data, 0 the lowest; None where it is not known."""


class File(NamedTuple):
    """Bytes under a name, on a disk or in memory."""

    name: str
    open: Callable[[], BinaryIO]
    named: bool = True
    """Whether the user named it, or its ending is that of a scan: it is then reported where it is not one."""


@dataclass(frozen=True)
class Scan:
    """An image, a volume or a DICOM series.

    Attributes:
        name: Its file, or the folder of the series.
        read: Reads its slices; raises :class:`DataError` where it cannot.
        volume: Reads it as a volume; None for an image. The slices of a volume take seconds: it is registered.
        files: Names of its files; none for a row of a parquet file.
    """

    name: str
    read: Callable[[], Slices]
    volume: Callable[[], Volume] | None = None
    files: tuple[str, ...] = ()


def find_scans(inputs: StrPath | Iterable[StrPath], image_column: str = "image") -> list[Scan]:
    """Find the scans in files, folders and globs.

    Only the first bytes of each file are read (of DICOM files the header); :attr:`Scan.read` reads a scan's slices.
    In a folder, files of other formats are passed over; one that is named, or that ends like a scan, becomes a scan
    whose ``read`` raises what is wrong.

    Args:
        inputs: A file, a folder (with the folders in it) or a glob, or several. Files are JPEG, PNG, NIfTI, DICOM
            or parquet; all DICOM files of a series are one scan.
        image_column: Column of parquet files with the images' bytes.

    Returns:
        The scans, those of parquet files first, else in the order of the inputs.

    Raises:
        DataError: There is no scan, or a parquet file is not usable.
    """
    names = [os.fspath(name) for name in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    scans: list[Scan] = []
    files: list[File] = []
    for file in _files(names):
        if file.named and _start(file).startswith(b"PAR1"):
            scans += [
                Scan(name, partial(_picture, read)) for name, read in parquet_readers(Path(file.name), image_column)
            ]
        else:
            files.append(file)
    scans += scans_of(files)
    if not scans:
        raise DataError(f"{', '.join(names) or 'no input'}: no {SCAN_FORMATS} file found")
    return scans


def scans_of(files: Iterable[File]) -> list[Scan]:
    """Recognise the formats of files; all DICOM files of a series, from wherever they come, are one scan."""
    groups: dict[tuple[str, ...], dict[str, File]] = {}
    for file in files:
        key = _kind(file)
        if key or file.named:
            groups.setdefault(key or ("unknown", file.name), {})[file.name] = file
    names = _names([list(members) for members in groups.values()])
    return [
        _scan(name, key[0], list(members.values()))
        for name, (key, members) in zip(names, groups.items(), strict=True)
    ]


def find_volume(name: str) -> Scan:
    """Find the one volume that a file or folder holds.

    Raises:
        DataError: It holds none, or several.
    """
    scans = [scan for scan in find_scans(name) if scan.volume]
    if len(scans) != 1:
        names = ", ".join(scan.name for scan in scans) or "none"
        raise DataError(f"{name}: expected one volume (NIfTI or a DICOM series), found {names}; name one of them")
    return scans[0]


def _files(inputs: Sequence[str]) -> Iterator[File]:
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files, named = sorted(path.rglob("*")), False
        elif path.exists() or not glob.has_magic(name):
            files, named = [path], True
        else:
            files, named = sorted(map(Path, glob.glob(name, recursive=True))), True
        for file in files:
            if not file.is_dir():
                scan = file.name.lower().endswith(SCAN_SUFFIXES)
                yield File(str(file), partial(open_path, file), named or scan)


def _kind(file: File) -> tuple[str, ...]:
    """Return the kind of a file and what it has in common with the other files of its scan; empty where unknown."""
    start = _start(file)
    if is_picture(start):
        return "picture", file.name
    if is_nifti(start):
        return "nifti", file.name
    if not is_dicom(start):
        return ()
    try:
        with file.open() as stream:
            series = series_key(stream)
    except (OSError, DataError):
        series = (file.name,)  # reading it raises what is wrong
    return ("dicom", *series) if series else ()


def _start(file: File) -> bytes:
    """Return a file's first bytes; none where it cannot be opened, which reading it raises."""
    try:
        with file.open() as stream:
            return stream.read(MAGIC_BYTES)
    except OSError:
        return b""


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """Name scans after their file, or their files' folder; several in one folder are numbered."""
    names = [files[0] if len(files) == 1 else commonpath([Path(file).parent for file in files]) for files in groups]
    totals, counts = Counter(names), Counter[str]()
    for number, name in enumerate(names):
        counts[name] += 1
        if totals[name] > 1:
            names[number] = f"{name}, series {counts[name]} of {totals[name]}"
    return names


# --- readers ----------------------------------------------------------------------------------------------------


def _scan(name: str, kind: str, files: Sequence[File]) -> Scan:
    names = tuple(file.name for file in files)
    if kind in ("nifti", "dicom"):
        read = partial(_read_nifti if kind == "nifti" else _read_dicom, files, name)
        return Scan(name, partial(_cut, read, name), partial(_whole, read, name), names)
    return Scan(name, partial(_read_picture if kind == "picture" else _read_unknown, files, name), files=names)


def _picture(read: Reader) -> Slices:
    return Slices([read().pixels], [None])


def _cut(read: Callable[[], Volume | Frame], where: str) -> Slices:
    scan = read()
    if isinstance(scan, Frame):
        return Slices([training_slice(scan, where)], [None])
    images, levels = training_stack(scan, where)
    return Slices(list(images), levels)


def _whole(read: Callable[[], Volume | Frame], where: str) -> Volume:
    scan = read()
    if isinstance(scan, Frame):
        raise DataError(f"{where}: a single image, expected a volume; give the whole series")
    return scan


def _read_picture(files: Sequence[File], where: str) -> Slices:
    return _picture(partial(decode_slice, read_bytes(files[0].open, where), where))


def _read_nifti(files: Sequence[File], where: str) -> Volume:
    return decode_nifti(read_bytes(files[0].open, where), where)


def _read_dicom(files: Sequence[File], where: str) -> Volume | Frame:
    return decode_dicom(((file.name, read_bytes(file.open, file.name)) for file in files), where)


def _read_unknown(files: Sequence[File], where: str) -> Slices:
    read_bytes(files[0].open, where)
    raise DataError(f"{where}: not a {SCAN_FORMATS} file")
