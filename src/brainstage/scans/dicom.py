"""DICOM files to volumes and single slices: frames sorted by position, multi-frame objects, series distinguished.

Of the header only what the image needs is read. Nothing of it is kept or shown: it names the patient.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, BinaryIO

import numpy as np

from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.errors import DataError, RefusalError
from brainstage.core.quiet import silence
from brainstage.scans.volume import MAX_VOXELS, Volume, checked_values

MAX_SPACING_DEVIATION = 0.1
"""Share of the median distance between slices by which one distance may deviate."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""DICOM's x goes to the left and its y to the back."""


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


def is_dicom(start: bytes) -> bool:
    """Return whether a file's first 132 bytes are those of a DICOM file."""
    return start[128:132] == b"DICM"


def series_key(stream: BinaryIO) -> tuple[str, ...]:
    """Return what a DICOM file has in common with the others of its volume; an empty tuple where it holds no image.

    Images of one series with another orientation or size (localizers) count as another series.

    Raises:
        DataError: The header cannot be read.
    """
    try:
        dataset = _pydicom().dcmread(stream, stop_before_pixels=True)
        if not dataset.get("Rows"):
            return ()
        series = dataset.get("SeriesInstanceUID", "")
        directions = [round(float(cosine), 2) for cosine in dataset.get("ImageOrientationPatient") or ()]
        return str(series), f"{dataset.Rows}×{dataset.Columns}", str(directions)
    except Exception as error:  # pydicom raises anything for foreign files
        raise DataError(f"not a usable DICOM file ({type(error).__name__})") from error


@np.errstate(all="ignore")  # values that are not finite are checked for
def decode_dicom(files: Iterable[tuple[str, bytes]], where: str) -> Volume | Frame:
    """Decode the DICOM files of one series.

    Args:
        files: Name and bytes of each file, in any order.
        where: Name of the series, for errors.

    Returns:
        A volume; a frame where the series is a single image.

    Raises:
        DataError: A file is not a whole DICOM file, or its images are not grey MR images, have no position, or are
            not evenly spaced.
    """
    frames: list[Frame] = []
    for name, data in files:
        frames += _frames(data, name)
        voxels = len(frames) * frames[0].pixels.size
        if voxels > MAX_VOXELS:
            raise DataError(f"{where}: more than {MAX_VOXELS:,} voxels; give one volume, or scale it down first")
    return frames[0] if len(frames) == 1 else _volume(frames, where)


@cache
def _pydicom() -> Any:
    silence("pydicom")  # its warnings quote the header, which names the patient
    import pydicom  # images do not wait for its import

    return pydicom


def _frames(data: bytes, where: str) -> list[Frame]:
    try:
        dataset = _pydicom().dcmread(io.BytesIO(data))
        _check(dataset, len(data), where)
        pixels = np.asarray(dataset.pixel_array, dtype=np.float32)
        if dataset.PhotometricInterpretation == "MONOCHROME1":  # the largest value is black
            pixels = 2.0 ** (dataset.BitsStored - dataset.PixelRepresentation) - 1 - pixels
        frames = pixels[None] if pixels.ndim == 2 else pixels
        return [_frame(dataset, number, frame, where) for number, frame in enumerate(frames)]
    except DataError:
        raise
    except Exception as error:  # pydicom raises anything for foreign files
        raise DataError(f"{where}: not a usable DICOM file ({type(error).__name__})") from error


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


def _check(dataset: Any, size: int, where: str) -> None:
    """Refuse what is not a grey MR image, and a header that claims more than the file holds."""
    modality = str(dataset.get("Modality", "unknown"))
    if modality != "MR":
        raise RefusalError(f"{where}: is of modality {modality[:16]}, expected MR")
    if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusalError(f"{where}: holds colours, expected grey values")
    voxels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames", 1) or 1)
    if not 0 < voxels <= MAX_VOXELS:
        raise DataError(f"{where}: {voxels:,} voxels, expected at most {MAX_VOXELS:,}; scale it down first")
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if not compressed and voxels * int(dataset.BitsAllocated) // 8 > size:
        raise DataError(f"{where}: damaged, it ends before its last image")


def _frame(dataset: Any, number: int, pixels: Float32Array, where: str) -> Frame:
    """Return one image with its position, rescaled."""
    find = partial(_find, [dataset], where)
    if "PerFrameFunctionalGroupsSequence" in dataset:
        frame = dataset.PerFrameFunctionalGroupsSequence[number]
        find = partial(_find, [frame, dataset.SharedFunctionalGroupsSequence[0]], where)
    position = find("PlanePositionSequence", "ImagePositionPatient")
    directions = find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = find("PixelMeasuresSequence", "PixelSpacing")
    slope = find("PixelValueTransformationSequence", "RescaleSlope", 1.0)
    intercept = find("PixelValueTransformationSequence", "RescaleIntercept", 0.0)
    right, down = np.array(directions, dtype=np.float64).reshape(2, 3)
    axes = np.stack([down * float(spacing[0]), right * float(spacing[1])]) @ LPS_TO_RAS
    origin = LPS_TO_RAS @ np.array(position, dtype=np.float64)
    return Frame(checked_values(pixels * np.float32(slope) + np.float32(intercept), where), origin, axes)


def _find(groups: Sequence[Any], where: str, sequence: str, name: str, default: Any = None) -> Any:
    """Return an attribute of a frame: its own, that of all frames, or that of the file."""
    for group in groups:
        for holder in (group, *group.get(sequence, ())):
            if holder.get(name) is not None:
                return holder.get(name)
    if default is None:
        raise DataError(f"{where}: its header does not say where in the head it lies ({name} is missing)")
    return default
