"""DICOM files to volumes and single slices: frames sorted by position, multi-frame objects, series distinguished.

Of the header only what the image needs is read. Nothing of it is kept or shown: it names the patient.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.errors import DataError, RefusalError
from brainstage.core.quiet import silence
from brainstage.scans.decoder import PixelDecoder
from brainstage.scans.volume import MAX_VOXELS, Volume, check_spacing, checked_values

MAX_SPACING_DEVIATION = 0.1
"""Share of the median distance between slices by which one distance may deviate."""
MAX_SLANT = 0.1
"""Largest cosine between the rows and the columns of an image, which DICOM wants at right angles."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""DICOM's x goes to the left and its y to the back."""
START_BYTES = 512
"""First bytes of a file, by which it is recognised."""
FIRST_ELEMENTS = {
    (0x0002, 0x0000): "UL",  # length of the file meta information
    (0x0002, 0x0002): "UI",  # media storage SOP class
    (0x0002, 0x0010): "UI",  # transfer syntax
    (0x0008, 0x0000): "UL",  # length of the group
    (0x0008, 0x0005): "CS",  # character set
    (0x0008, 0x0008): "CS",  # image type
    (0x0008, 0x0016): "UI",  # SOP class
    (0x0008, 0x0018): "UI",  # SOP instance
}
"""Elements with which a file without a preamble may begin, and their value representations."""
VALUES = {"UL": rb".{4}", "UI": rb"[0-9.]{1,64}\0?", "CS": rb"[A-Z0-9_ \\]{0,256}"}
"""What values of these representations look like."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of files that are compressed as a whole."""
MAX_INFLATED_BYTES = 8 * MAX_VOXELS
"""Most bytes that a deflated file may become: one of a few kilobytes can become gigabytes."""
SERIES_TAGS = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SpecificCharacterSet",
    "SeriesDescription",
    "Modality",
    "PatientID",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
"""What :func:`describe_series` reads of a header."""


@dataclass(frozen=True)
class Frame:
    """One image of a series.

    Attributes:
        pixels: float32 of shape (rows, columns), rescaled, bright where the tissue is.
        origin: Millimetres (RAS+) of the centre of the first pixel.
        axes: Millimetres from one row and one column to the next, shape (2, 3).
    """

    pixels: Float32Array
    origin: Float64Array
    axes: Float64Array


class SeriesHeader(NamedTuple):
    """What the headers of a series say of it."""

    matrix: tuple[int, int]
    """Rows and columns of its images."""
    spacing: tuple[float, ...]
    """Millimetres from row to row, from column to column and, of several images, from one to the next; empty where
    its position is not known."""
    slices: int
    """Number of images."""
    modality: str
    """DICOM's code of two letters, such as MR or CT; empty where there is none."""
    description: str
    """Series description. It can name people: it may be shown to the user, and nothing else."""
    patient: str
    """The patient's id: to be compared, and neither shown nor stored; empty where there is none."""


def is_dicom(start: bytes) -> bool:
    """Return whether a file that begins with these bytes is DICOM, with or without a preamble."""
    return start[128:132] == b"DICM" or _lacks_preamble(start)


def _lacks_preamble(start: bytes) -> bool:
    """Return whether a file begins with a DICOM element (little endian, explicit or implicit), not with a preamble.

    The element must be one of :data:`FIRST_ELEMENTS` with a value of its kind, and a later one of group 2 or 8 must
    follow: files of other formats, and random bytes, do not get so far.
    """
    group, number, length = struct.unpack("<HHI", start[:8].ljust(8, b"\0"))
    representation = FIRST_ELEMENTS.get((group, number))
    if representation is None:
        return False
    if start[4:6] == representation.encode():  # explicit
        length >>= 16
    value, following = start[8 : 8 + length], start[8 + length : 12 + length]
    if length % 2 or len(following) < 4 or not re.fullmatch(VALUES[representation], value, re.DOTALL):
        return False
    following_group, following_number = struct.unpack("<HH", following)
    return following_group in (2, 8) and (group, number) < (following_group, following_number)


def series_key(stream: BinaryIO) -> tuple[str, ...]:
    """Return what a DICOM file has in common with the others of its volume; an empty tuple where it holds no image.

    Images of one series with another orientation or size (localizers) count as another series.

    Raises:
        DataError: The header cannot be read.
    """
    try:
        dataset = _read(stream, stop_before_pixels=True)
        if not dataset.get("Rows"):
            return ()
        series = dataset.get("SeriesInstanceUID", "")
        directions = [round(float(cosine), 2) for cosine in dataset.get("ImageOrientationPatient") or ()]
        return str(series), f"{dataset.Rows}×{dataset.Columns}", str(directions)
    except Exception as error:  # pydicom raises anything for foreign files
        raise DataError(f"not a usable DICOM file ({type(error).__name__}); export it again") from error


def patient_and_study(file: Path) -> tuple[str, str] | None:
    """Return the ids of the patient and of the study in a file's header; None where it is no DICOM file.

    They name the patient: whoever calls this hashes them, and neither shows nor stores them. An id that is missing
    is empty.
    """
    try:
        with file.open("rb") as stream:
            dataset = _read(stream, stop_before_pixels=True)
    except Exception:  # pydicom raises anything for foreign files
        return None
    return str(dataset.get("PatientID") or ""), str(dataset.get("StudyInstanceUID") or "")


@np.errstate(all="ignore")  # a damaged header may hold any numbers
def describe_series(files: Iterable[Callable[[], BinaryIO]]) -> SeriesHeader:
    """Describe a series by its headers; no pixels are read.

    Args:
        files: Open the files of the series, in any order.

    Raises:
        DataError: A header cannot be read.
    """
    places: list[tuple[Float64Array, Float64Array]] = []
    slices, modality, patient = 0, "", ""
    try:
        for open_file in files:
            with open_file() as stream:
                dataset = _read(stream, stop_before_pixels=True, specific_tags=SERIES_TAGS)
            slices += int(dataset.get("NumberOfFrames", 1) or 1)
            places += _places(dataset)
            modality, patient = str(dataset.get("Modality") or ""), str(dataset.get("PatientID") or "")
        matrix, description = (int(dataset.Rows), int(dataset.Columns)), str(dataset.get("SeriesDescription") or "")
    except Exception as error:  # pydicom raises anything for foreign files
        raise DataError(f"not a usable DICOM file ({type(error).__name__}); export it again") from error
    modality = modality if re.fullmatch("[A-Z]{2}", modality) else ""  # any other text could name someone
    description = "".join(filter(str.isprintable, description))[:64]
    return SeriesHeader(matrix, _spacing(places), slices, modality, description, patient)


def _places(dataset: Any) -> list[tuple[Float64Array, Float64Array]]:
    """Return origin and axes of each image of a file; nothing where they are not known."""
    count = len(dataset.get("PerFrameFunctionalGroupsSequence") or (None,))
    try:
        return [_place(_finder(dataset, number, "")) for number in range(count)]
    except DataError:
        return []


def _spacing(places: Sequence[tuple[Float64Array, Float64Array]]) -> tuple[float, ...]:
    if not places:
        return ()
    axes = places[0][1]
    normal = np.cross(axes[0], axes[1])
    heights = np.unique([round(float(origin @ normal / np.linalg.norm(normal)), 2) for origin, _ in places])
    distances = (*np.linalg.norm(axes, axis=1), *([np.median(np.diff(heights))] if len(heights) > 1 else []))
    return tuple(float(distance) for distance in distances) if np.isfinite(distances).all() else ()


@np.errstate(all="ignore")  # values that are not finite are checked for
def decode_dicom(files: Iterable[tuple[str, bytes]], where: str) -> Volume | Frame:
    """Decode the DICOM files of one series.

    Args:
        files: Name and bytes of each file, in any order.
        where: Name of the series, for errors.

    Returns:
        A volume; a frame where the series is a single image.

    Raises:
        DataError: A file is not a whole DICOM file or has no decoder, or its images are not grey MR images, have no
            position, or are not evenly spaced.
    """
    frames: list[Frame] = []
    with PixelDecoder() as decoder:
        for name, data in files:
            frames += _frames(data, name, decoder)
            voxels = len(frames) * frames[0].pixels.size
            if voxels > MAX_VOXELS:
                raise DataError(
                    f"{where}: more than {MAX_VOXELS:,} voxels; give one volume, or scale it down first"
                )
    return frames[0] if len(frames) == 1 else _volume(frames, where)


@cache
def _pydicom() -> Any:
    silence("pydicom")  # its warnings quote the header, which names the patient
    import pydicom  # images do not wait for its import

    return pydicom


def _read(stream: BinaryIO, **options: Any) -> Any:
    """Read a DICOM file, with or without a preamble; a transfer syntax that is missing is that of its elements."""
    lacks_preamble = _lacks_preamble(stream.read(START_BYTES))
    _check_inflated(stream, 0 if lacks_preamble else 132)
    stream.seek(0)
    dataset = _pydicom().dcmread(stream, force=lacks_preamble, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little_endian = dataset.original_encoding
        if little_endian:
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
    return dataset


class InflatedTooLargeError(Exception):
    """A deflated file would become larger than :data:`MAX_INFLATED_BYTES`."""


def _check_inflated(stream: BinaryIO, start: int) -> None:
    """Refuse a deflated file that pydicom would inflate beyond a limit.

    Args:
        stream: The file.
        start: Where its file meta information begins.
    """
    stream.seek(start)
    meta = _pydicom().filereader.read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2
    )
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return
    inflating, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while (data := inflating.unconsumed_tail or stream.read(2**16)) and not inflating.eof:
        size += len(inflating.decompress(data, 2**20))
        if size > MAX_INFLATED_BYTES:
            raise InflatedTooLargeError


def _frames(data: bytes, where: str, decoder: PixelDecoder) -> list[Frame]:
    try:
        dataset = _read(io.BytesIO(data))
        _check(dataset, where)
        pixels = decoder.decode(dataset, data, where).astype(np.float32)
        if dataset.PhotometricInterpretation == "MONOCHROME1":  # the largest value is black
            pixels = 2.0 ** (dataset.BitsStored - dataset.PixelRepresentation) - 1 - pixels
        frames = pixels[None] if pixels.ndim == 2 else pixels
        return [_frame(dataset, number, frame, where) for number, frame in enumerate(frames)]
    except DataError:
        raise
    except Exception as error:  # pydicom raises anything for foreign files
        raise DataError(f"{where}: not a usable DICOM file ({type(error).__name__}); export it again") from error


def _volume(frames: Sequence[Frame], where: str) -> Volume:
    """Stack frames by position."""
    axes = frames[0].axes
    if any(frame.pixels.shape != frames[0].pixels.shape for frame in frames):
        raise DataError(f"{where}: its images have several sizes; give those of one volume")
    if max(np.abs(frame.axes - axes).max() for frame in frames) > 0.02:
        raise DataError(f"{where}: its images have several orientations (a localizer?); give those of one volume")
    normal = np.cross(axes[0], axes[1])
    normal /= np.linalg.norm(normal)
    heights = np.array([frame.origin @ normal for frame in frames])
    order = np.argsort(heights)
    steps = np.diff(heights[order])
    spacing = float(np.median(steps))
    if steps.min() < 0.01:
        raise DataError(f"{where}: has several images at one position (echoes or repeats); give one of them alone")
    if np.abs(steps - spacing).max() > MAX_SPACING_DEVIATION * spacing:
        raise DataError(f"{where}: slices are missing or unevenly spaced; give the whole series")
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[0], axes[1], normal * spacing], axis=1)
    affine[:3, 3] = frames[order[0]].origin
    return Volume.checked(np.stack([frames[number].pixels for number in order], axis=-1), affine, where)


def _check(dataset: Any, where: str) -> None:
    """Refuse what is not a grey MR image, and a header that claims more than the file holds."""
    modality = str(dataset.get("Modality", "unknown"))
    if modality != "MR":
        raise RefusalError(f"{where}: is of modality {modality[:16]}, expected MR; give an MR series")
    if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusalError(f"{where}: holds colours, expected grey values; give a series of grey values")
    voxels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames", 1) or 1)
    if not 0 < voxels <= MAX_VOXELS:
        raise DataError(f"{where}: {voxels:,} voxels, expected at most {MAX_VOXELS:,}; scale it down first")
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if not compressed and voxels * int(dataset.BitsAllocated) // 8 > len(dataset.get("PixelData") or b""):
        raise DataError(f"{where}: damaged, it ends before its last image; export it again")


def _frame(dataset: Any, number: int, pixels: Float32Array, where: str) -> Frame:
    """Return one image with its position, rescaled."""
    find = _finder(dataset, number, where)
    slope = find("PixelValueTransformationSequence", "RescaleSlope", 1.0)
    intercept = find("PixelValueTransformationSequence", "RescaleIntercept", 0.0)
    values = checked_values(pixels * np.float32(slope) + np.float32(intercept), where)
    origin, axes = _place(find)
    if not np.isfinite(axes).all() or abs(axes[0] @ axes[1]) > MAX_SLANT * np.prod(np.linalg.norm(axes, axis=1)):
        raise DataError(f"{where}: its rows and columns are not at right angles; correct its header")
    check_spacing(np.linalg.norm(axes, axis=1), where)
    return Frame(values, origin, axes)


def _place(find: Callable[[str, str], Any]) -> tuple[Float64Array, Float64Array]:
    """Return the origin and the axes of an image, as :class:`Frame` has them."""
    position = find("PlanePositionSequence", "ImagePositionPatient")
    directions = find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = find("PixelMeasuresSequence", "PixelSpacing")
    right, down = np.array(directions, dtype=np.float64).reshape(2, 3)
    axes = np.stack([down * float(spacing[0]), right * float(spacing[1])]) @ LPS_TO_RAS
    return LPS_TO_RAS @ np.array(position, dtype=np.float64), axes


def _finder(dataset: Any, number: int, where: str) -> partial[Any]:
    """Return :func:`_find` for an image of a file."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return partial(_find, [dataset], where)
    frame = dataset.PerFrameFunctionalGroupsSequence[number]
    return partial(_find, [frame, dataset.SharedFunctionalGroupsSequence[0]], where)


def _find(groups: Sequence[Any], where: str, sequence: str, name: str, default: Any = None) -> Any:
    """Return an attribute of a frame: its own, that of all frames, or that of the file."""
    for group in groups:
        for holder in (group, *group.get(sequence, ())):
            if holder.get(name) is not None:
                return holder.get(name)
    if default is None:
        raise DataError(
            f"{where}: its header does not say where in the head it lies ({name} is missing); export it again"
        )
    return default
