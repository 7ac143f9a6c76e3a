"""Files of any kind to slices for a model: images, parquet rows, NIfTI volumes, DICOM series.

A file's format is that of its first bytes, whatever its name.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from math import isfinite
from os.path import abspath, commonpath
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from brainstage.core.arrays import Pixels
from brainstage.core.errors import DataError
from brainstage.core.levels import PUBLIC, LevelSet
from brainstage.core.run import StrPath
from brainstage.datasets.images import IMAGE_SUFFIXES, Reader, decode_slice, is_picture, open_path, read_bytes
from brainstage.datasets.layouts import parquet_levels, parquet_readers
from brainstage.scans.dicom import Frame, decode_dicom, describe_series, is_dicom, series_key
from brainstage.scans.nifti import decode_nifti, is_nifti, nifti_size
from brainstage.scans.stack import training_slice, training_stack
from brainstage.scans.volume import Volume

SCAN_FORMATS = "JPEG, PNG, NIfTI, DICOM or parquet"
SCAN_SUFFIXES = (*IMAGE_SUFFIXES, ".nii", ".nii.gz", ".dcm")
"""Endings of files that are reported where they are not scans."""
VOLUME_KINDS = ("nifti", "dicom")
KIND_NAMES = {"nifti": "NIfTI", "dicom": "DICOM", "unknown": "unknown"}
MAGIC_BYTES = 4096
"""First bytes of a file, by which its format is recognised; they hold a compressed header."""


class Slices(NamedTuple):
    """A scan's slices, as the training data shows them."""

    images: Sequence[Pixels]
    """Grey slices, each of shape (H, W)."""
    levels: Sequence[int | None]
    """Level of each, 0 the lowest; None where it is not known."""


class SliceReader(Protocol):
    """Reads the slices of a scan; a volume is cut at the levels that are asked for."""

    def __call__(self, level_set: LevelSet = PUBLIC) -> Slices:
        """Return the slices.

        Raises:
            DataError: The scan cannot be read or staged.
        """


class File(NamedTuple):
    """Bytes under a name, on a disk or in memory."""

    name: str
    open: Callable[[], BinaryIO]
    named: bool = True
    """Whether the user named it, or its ending is that of a scan: it is then reported where it is not one."""


@dataclass(frozen=True)
class ScanInfo:
    """What the headers say of a volume or a DICOM series, or how many pictures there are.

    Attributes:
        source: Its file, or the folder of the series; empty for pictures.
        kind: ``DICOM``, ``NIfTI``, ``pictures``, or ``unknown`` for a file that only ends like a scan.
        number: From 1, as ``--series`` takes it; None for what is no volume.
        slices: Number of slices or pictures; None where the header cannot be read.
        matrix: Rows and columns of a slice, for NIfTI voxels along the first two axes; None where not known.
        spacing: Millimetres from row to row, column to column and slice to slice; shorter where not known.
        modality: DICOM's code, such as MR or CT; empty where there is none.
        description: A DICOM series' own description. It can name people, so it is shown to the user alone: it is
            neither in :meth:`to_dict` nor in the text of this object.
        patient: The id of a DICOM series' patient, which is shown nowhere.
        patient_number: Number of its patient among those of a list (:func:`number_patients`); None where all are of
            one patient or that is not known.
    """

    source: str
    kind: str
    number: int | None = None
    slices: int | None = None
    matrix: tuple[int, int] | None = None
    spacing: tuple[float, ...] = ()
    modality: str = ""
    description: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)
    patient_number: int | None = None

    @property
    def size(self) -> str:
        """Matrix and slices in words, as ``256×256, 180 slices``."""
        if self.matrix is None:
            return "size not known"
        return f"{self.matrix[0]}×{self.matrix[1]}, {self.slices:,} slice{'' if self.slices == 1 else 's'}"

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the description."""
        whose = {} if self.patient_number is None else {"patient": self.patient_number}
        return {
            "number": self.number,
            "source": self.source or None,
            "kind": self.kind,
            "modality": self.modality or None,
            "slices": self.slices,
            "matrix": self.matrix and list(self.matrix),
            "spacing_mm": [round(distance, 3) for distance in self.spacing if isfinite(distance)],
            **whose,
        }


class SingleImageError(DataError):
    """A DICOM file holds a single image where a volume is needed."""


class SeveralVolumesError(DataError):
    """Several volumes were found where one is needed.

    Its text leaves out the descriptions of DICOM series, which can name people; :meth:`sentence` can have them.
    """

    def __init__(self, name: str, volumes: Sequence[ScanInfo]):
        self.name, self.volumes = name, volumes
        super().__init__(self.sentence())

    def sentence(self, *, described: bool = False) -> str:
        """Return what was found and what to do, on request with the descriptions of the series."""
        volumes = []
        for volume in self.volumes:
            description = f"{volume.description}, " if described and volume.description else ""
            whose = f"patient {volume.patient_number}, " if volume.patient_number else ""
            volumes.append(f"{volume.number} {Path(volume.source).name} ({description}{whose}{volume.size})")
        return (
            f"{self.name}: expected one volume (NIfTI or a DICOM series), found {len(volumes)}: "
            f"{', '.join(volumes)}; choose one with --series N"
        )


@dataclass(frozen=True)
class Scan:
    """An image, a volume or a DICOM series.

    Attributes:
        name: Its file, or the folder of the series; bytes that are not UTF-8 are shown as escapes.
        read: Reads its slices, of a volume at the levels asked for; raises :class:`DataError` where it cannot.
        volume: Reads it as a volume; None for an image. The slices of a volume take seconds: it is registered.
        files: Names of its files; of a row of a parquet file, that file.
        describe: Reads from its headers what it is; None for an image.
        level_set: What the file states its slices to be; None where it states none, and for a volume.
    """

    name: str
    read: SliceReader
    volume: Callable[[], Volume] | None = None
    files: tuple[str, ...] = ()
    describe: Callable[[], ScanInfo] | None = None
    level_set: LevelSet | None = None


def find_scans(inputs: StrPath | Iterable[StrPath], image_column: str = "image") -> list[Scan]:
    """Find the scans in files, folders and globs.

    Only the first bytes of each file are read (of DICOM files the header); :attr:`Scan.read` reads a scan's slices.
    In a folder, files of other formats are passed over; one that is named, or that ends like a scan, becomes a scan
    whose ``read`` raises what is wrong. So it is with pipes, sockets and devices, which are not opened.

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
            path = Path(file.name)
            level_set = parquet_levels(path)
            scans += [
                Scan(name, partial(_picture, read), files=(str(path),), level_set=level_set)
                for name, read in parquet_readers(path, image_column)
            ]
        else:
            files.append(file)
    scans += scans_of(files)
    if not scans:
        raise DataError(f"{', '.join(names) or 'no input'}: no {SCAN_FORMATS} file found; check the name")
    return scans


def scan_of_slices(name: str, images: Sequence[Pixels], levels: Sequence[int | None]) -> Scan:
    """Return a scan whose slices are in memory already.

    Args:
        name: Its name.
        images: Its slices, each uint8 of shape (H, W).
        levels: Level of each; None where it is not known.
    """

    def read(level_set: LevelSet = PUBLIC) -> Slices:
        return Slices(images, levels)

    return Scan(name, read)


def scans_of(files: Iterable[File]) -> list[Scan]:
    """Recognise the formats of files; all DICOM files of a series, from wherever they come, are one scan."""
    groups: dict[tuple[str, ...], dict[str, File]] = {}
    for file in files:
        key = _kind(file)
        if key or file.named:
            groups.setdefault(key or ("unknown", file.name), {})[file.name] = file
    names = _names([(key[0], list(members)) for key, members in groups.items()])
    return [
        _scan(name, key[0], list(members.values()))
        for name, (key, members) in zip(names, groups.items(), strict=True)
    ]


def describe_scans(inputs: StrPath | Iterable[StrPath]) -> list[ScanInfo]:
    """Describe the scans in files, folders and globs by their headers, without reading their pixels.

    Args:
        inputs: As :func:`find_scans` takes them.

    Returns:
        The volumes and DICOM series, numbered in the order in which :func:`find_scans` returns them, the files that
        only end like a scan, and one entry for all pictures.

    Raises:
        DataError: There is no scan.
    """
    scans = find_scans(inputs)
    infos = _numbered(scans)
    infos += [scan.describe() for scan in scans if scan.describe and not scan.volume]
    pictures = sum(scan.describe is None for scan in scans)
    return [*infos, *([ScanInfo("", "pictures", slices=pictures)] if pictures else [])]


def number_patients(infos: Sequence[ScanInfo]) -> list[ScanInfo]:
    """Number the patients of scans from 1, as they come, where their headers name more than one."""
    patients = list(dict.fromkeys(info.patient for info in infos if info.patient))
    if len(patients) < 2:
        return list(infos)
    return [
        replace(info, patient_number=patients.index(info.patient) + 1) if info.patient else info for info in infos
    ]


def choose_series(scans: Sequence[Scan], number: int) -> Scan:
    """Return the volume or DICOM series that has a number in :func:`describe_scans`.

    Raises:
        DataError: None has it.
    """
    volumes = [scan for scan in scans if scan.volume]
    if not 1 <= number <= len(volumes):
        found = f"1 to {len(volumes)}" if volumes else "there are none"
        raise DataError(f"--series {number}: no such volume or series ({found}); list them with: brainstage scans")
    return volumes[number - 1]


def find_volume(name: str, series: int | None = None) -> Scan:
    """Find the one volume that a file or folder holds, or the one that has a number in :func:`describe_scans`.

    Raises:
        DataError: It holds none, or none of that number.
        SeveralVolumesError: It holds several, and no number was given.
    """
    scans = [scan for scan in find_scans(name) if scan.volume]
    if not scans:
        raise DataError(f"{name}: expected one volume (NIfTI or a DICOM series), found none; give the whole series")
    if series is not None:
        return choose_series(scans, series)
    if len(scans) > 1:
        raise SeveralVolumesError(name, _numbered(scans))
    return scans[0]


def _numbered(scans: Sequence[Scan]) -> list[ScanInfo]:
    """Describe the volumes among scans, numbered from 1."""
    volumes = [scan.describe() for scan in scans if scan.volume and scan.describe]
    return number_patients([replace(info, number=number) for number, info in enumerate(volumes, 1)])


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
                ordinary = file.is_file() or not file.exists()  # opening what is missing raises that
                yield File(str(file), partial(open_path if ordinary else _refuse, file), named or scan)


def _refuse(path: Path) -> BinaryIO:
    """Raise that a pipe, a socket or a device is not opened: it may never end."""
    raise DataError(f"{_written(str(path))}: a pipe, socket or device, expected a file; save what it gives in one")


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
    except (OSError, DataError):
        return b""


def _names(groups: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Name scans, given the kind and the files of each, after their file, or their files' folder.

    Series of one folder have their number among all volumes, as :func:`describe_scans` has it.
    """
    places = [_place(files) for _, files in groups]
    numbers = accumulate(int(kind in VOLUME_KINDS) for kind, _ in groups)
    counts = Counter(places)
    return [
        f"{place}, series {number}" if counts[place] > 1 else place
        for place, number in zip(places, numbers, strict=True)
    ]


def _place(files: Sequence[str]) -> str:
    """Return a scan's file, or the folder of its files, of the current folder its own name."""
    if len(files) == 1:
        return _written(files[0])
    folders = [str(Path(file).parent) for file in files]
    if len({Path(folder).is_absolute() for folder in folders}) > 1:
        folders = list(map(abspath, folders))
    return _written(commonpath(folders) or Path.cwd().name or ".")


def _written(name: str) -> str:
    """Return the name of a file as it can be written: bytes of it that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


# --- readers ----------------------------------------------------------------------------------------------------


def _scan(name: str, kind: str, files: Sequence[File]) -> Scan:
    names = tuple(file.name for file in files)
    describe = partial(_describe, kind, files)
    if kind in VOLUME_KINDS:
        read = partial(_read_nifti if kind == "nifti" else _read_dicom, files, name)
        return Scan(name, partial(_cut, read, name), partial(_whole, read, name), names, describe)
    if kind == "picture":
        return Scan(name, partial(_read_picture, files, name), files=names)
    return Scan(name, partial(_read_unknown, files, name), files=names, describe=describe)


def _describe(kind: str, files: Sequence[File]) -> ScanInfo:
    """Describe a scan; one whose header cannot be read has no size."""
    info = ScanInfo(_place([file.name for file in files]), KIND_NAMES[kind])
    try:
        if kind == "dicom":
            return replace(info, **describe_series(file.open for file in files)._asdict())
        if kind == "nifti":
            (rows, columns, slices, *_), spacing = nifti_size(_start(files[0]))
            return replace(info, matrix=(rows, columns), slices=slices, spacing=spacing)
    except (DataError, ValueError):  # ValueError: fewer than three axes
        pass
    return info


def _picture(read: Reader, level_set: LevelSet = PUBLIC) -> Slices:
    return Slices([read().pixels], [None])


def _cut(read: Callable[[], Volume | Frame], where: str, level_set: LevelSet = PUBLIC) -> Slices:
    scan = read()
    if isinstance(scan, Frame):
        return Slices([training_slice(scan, where)], [None])
    images, levels = training_stack(scan, where, level_set)
    return Slices(list(images), levels)


def _whole(read: Callable[[], Volume | Frame], where: str) -> Volume:
    scan = read()
    if isinstance(scan, Frame):
        raise SingleImageError(f"{where}: a single image, expected a volume; give the whole series")
    return scan


def _read_picture(files: Sequence[File], where: str, level_set: LevelSet = PUBLIC) -> Slices:
    return _picture(partial(decode_slice, read_bytes(files[0].open, where), where))


def _read_nifti(files: Sequence[File], where: str) -> Volume:
    return decode_nifti(read_bytes(files[0].open, where), where)


def _read_dicom(files: Sequence[File], where: str) -> Volume | Frame:
    names = [  # cohorts take what stands in Scan.files out of reasons, which an escaped name does not
        file.name if _written(file.name) == file.name else f"{where}, file {number}"
        for number, file in enumerate(files, 1)
    ]
    pairs = ((name, read_bytes(file.open, name)) for name, file in zip(names, files, strict=True))
    return decode_dicom(pairs, where)


def _read_unknown(files: Sequence[File], where: str, level_set: LevelSet = PUBLIC) -> Slices:
    read_bytes(files[0].open, where)
    raise DataError(f"{where}: not a {SCAN_FORMATS} file; give or make one of these")
