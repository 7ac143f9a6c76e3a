"""NIfTI-1 and NIfTI-2 files, plain or gzipped, to volumes; and volumes to gzipped NIfTI-1 files.

The header is read first and checked, and no more is decompressed than it announces.
"""

from __future__ import annotations

import gzip
import io
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.errors import DataError
from brainstage.core.files import atomic
from brainstage.core.quiet import silence
from brainstage.scans.volume import MAX_VOXELS, Volume

GZIP_MAGIC = b"\x1f\x8b"
HEADER_BYTES = 540
"""Bytes of the longer header, that of NIfTI-2."""
PACKED_HEADER_BYTES = 4096
"""Bytes of a gzip file that surely hold a header."""
MAX_EXTENSION_BYTES = 2**20
"""Most bytes between header and voxels."""
WRITTEN_MAXIMUM = 10_000
"""Grey value of the brightest voxel of a brain that is written: grey values of MRI have no unit."""
GZIP_LEVEL = 6
"""At 9 a brain takes twice as long and is as large."""


def is_nifti(start: bytes) -> bool:
    """Return whether a file's first bytes, compressed or not, are those of a NIfTI file."""
    return _kind(_start(start)) is not None


def nifti_size(start: bytes) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the shape of the volume whose file begins with these bytes, and its voxels' size in millimetres.

    Raises:
        DataError: The header cannot be read.
    """
    kind, content = _kind(_start(start)), io.BytesIO(_start(start))
    try:
        header = kind.header_class.from_fileobj(content, check=False)
        return tuple(map(int, header.get_data_shape())), tuple(map(float, header.get_zooms()[:3]))
    except Exception as error:  # nibabel raises anything for foreign headers
        raise DataError(f"not a usable NIfTI file ({type(error).__name__}); convert or copy it again") from error


@np.errstate(all="ignore")  # values that are not finite are checked for
def decode_nifti(data: bytes, where: str) -> Volume:
    """Decode the bytes of a NIfTI file.

    Raises:
        DataError: The bytes are not a whole NIfTI file, or it holds several volumes, colours or complex numbers,
            has no orientation, or cannot be a brain scan.
    """
    start = _start(data)
    kind = _kind(start)
    if kind is None:
        raise DataError(f"{where}: not a single-file NIfTI image (.nii or .nii.gz); convert it to one")
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(start), check=False)
        size = _checked_size(header, where)
        content = _decompressed(data, size)
        if len(content) < size:
            ends = f"ends after {len(content):,} of" if content else "cannot be decompressed to"
            raise DataError(f"{where}: damaged, it {ends} {size:,} bytes; copy it again")
        image = kind.from_bytes(content)
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    except DataError:
        raise
    except Exception as error:  # nibabel and numpy raise anything for foreign headers
        raise DataError(
            f"{where}: damaged NIfTI file ({type(error).__name__}); convert or copy it again"
        ) from error
    if not (header["qform_code"] > 0 or header["sform_code"] > 0):
        raise DataError(f"{where}: its header does not say which way is up (no qform, no sform); convert it again")
    return Volume.checked(voxels, np.asarray(image.affine, dtype=np.float64), where)


def write_nifti(target: Path, voxels: NDArray[Any], affine: Float64Array, space: int | None = None) -> None:
    """Write a gzipped NIfTI-1 file; equal voxels make equal bytes.

    Args:
        target: The file.
        voxels: Integers of shape (I, J, K).
        affine: From a voxel's index to millimetres (RAS+), shape (4, 4).
        space: NIfTI's code of the space that these millimetres are of; None leaves nibabel's.

    Raises:
        RunError: The disk is full or the folder is not writable.
    """
    with atomic(target) as part:
        part.write_bytes(encode_nifti(voxels, affine, space))


def encode_nifti(voxels: NDArray[Any], affine: Float64Array, space: int | None = None) -> bytes:
    """Return the bytes of a gzipped NIfTI-1 file.

    Args:
        voxels, affine, space: As for :func:`write_nifti`.
    """
    image = _nibabel().Nifti1Image(voxels, affine)
    if space is not None:
        image.set_sform(affine, space)
        image.set_qform(affine, space)
        image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0)


def as_integers(voxels: Float32Array) -> NDArray[np.int16]:
    """Return grey values as int16, scaled so that the largest is :data:`WRITTEN_MAXIMUM`."""
    return (voxels * np.float32(WRITTEN_MAXIMUM / (voxels.max() or 1))).round().astype(np.int16)


@cache
def _nibabel() -> Any:
    silence("nibabel")  # it reports each header that it repairs
    import nibabel  # images do not wait for its import

    return nibabel


def _start(data: bytes) -> bytes:
    """Return the first bytes of a gzip file's content, or of plain data."""
    if not data.startswith(GZIP_MAGIC):
        return data[:HEADER_BYTES]
    try:
        return zlib.decompressobj(wbits=31).decompress(data[:PACKED_HEADER_BYTES], HEADER_BYTES)
    except zlib.error:
        return b""


def _decompressed(data: bytes, count: int) -> bytes:
    """Return the first ``count`` bytes of a gzip file's content, or of plain data; fewer where it is damaged."""
    if not data.startswith(GZIP_MAGIC):
        return data[:count]
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(count)
    except (OSError, EOFError, zlib.error):
        return b""


def _kind(start: bytes) -> Any:
    """Return nibabel's class for a file's first bytes; None where they are those of another format."""
    is_first, is_second = start[344:348] == b"n+1\0", start[4:8] == b"n+2\0"
    if not (is_first or is_second):
        return None
    nib = _nibabel()
    return nib.Nifti1Image if is_first else nib.Nifti2Image


def _checked_size(header: Any, where: str) -> int:
    """Return the bytes that a file with this header has."""
    shape, kind = header.get_data_shape(), header.get_data_dtype()
    if kind.fields or kind.kind not in "iuf":
        raise DataError(f"{where}: holds colours or complex numbers, expected grey values; give grey values")
    if len(shape) < 3 or min(shape) < 1:
        raise DataError(f"{where}: has {len(shape)} axes, expected the three of a volume; give a single volume")
    if np.prod(shape[3:], dtype=object) > 1:
        raise DataError(f"{where}: holds {np.prod(shape[3:], dtype=object):,} volumes; extract one of them first")
    voxels = int(np.prod(shape, dtype=object))
    if voxels > MAX_VOXELS:
        raise DataError(f"{where}: {voxels:,} voxels, expected at most {MAX_VOXELS:,}; scale it down first")
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_EXTENSION_BYTES:
        raise DataError(
            f"{where}: damaged, its header puts the voxels at byte {offset:g}; convert or copy it again"
        )
    return int(offset) + voxels * int(kind.itemsize)
