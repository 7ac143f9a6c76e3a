"""Compressed DICOM pixels: the formats that Pillow and pydicom read here, the others in a process of their own.

GDCM, the decoder of the extra ``dicom``, ends its whole process on some damaged files. In a process of its own it
costs no more than the file.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from threading import Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainstage.core.errors import DataError

PLUGINS = {
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51": "pillow",  # JPEG Extended, of 8 bits
    "1.2.840.10008.1.2.4.90": "pillow",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91": "pillow",  # JPEG 2000
}
"""Transfer syntaxes that are decoded in this process, and pydicom's name for the decoder."""
EXTRA_SYNTAXES = (
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS, lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS, near-lossless
)
"""Transfer syntaxes that the extra ``dicom`` decodes."""
MAX_SECONDS = 120
"""Longest time that a file may take; a damaged one may never end."""
MAX_BYTES = 2**32
"""Largest memory of the second process: a file of a few bytes can ask for gigabytes."""
SIZE_BYTES = 8
"""Bytes of the number, little-endian, that says how long a message between the processes is."""


class PixelDecoder:
    """Decodes the pixels of a series; its second process starts when the first file needs it, and ends with it.

    >>> with PixelDecoder() as decoder:
    ...     pixels = decoder.decode(dataset, data, "scan.dcm")
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PixelDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def decode(self, dataset: Any, data: bytes, where: str) -> NDArray[Any]:
        """Decode the pixels of a file.

        Args:
            dataset: The file as pydicom read it.
            data: Its bytes.
            where: The file, for errors.

        Returns:
            Stored values, shape (rows, columns), or (frames, rows, columns) of a multi-frame file.

        Raises:
            DataError: Its transfer syntax has no decoder, or its pixels cannot be decoded.
        """
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            return np.asarray(dataset.pixel_array)
        if syntax not in PLUGINS:
            _check_decoder(syntax, where)
        try:
            return self._apart(data) if syntax not in PLUGINS else _pixels(dataset, PLUGINS[syntax])
        except Exception as error:  # decoders raise anything for foreign data
            raise DataError(
                f"{where}: its pixels, compressed as {syntax.name}, cannot be decoded; if it is not damaged, "
                "export it uncompressed"
            ) from error

    def _apart(self, data: bytes) -> NDArray[Any]:
        """Decode a file in the second process.

        Raises:
            OSError, ValueError: It cannot; the process may have ended.
        """
        self._process = self._process or _start_process()
        timer = Timer(MAX_SECONDS, self._process.kill)
        timer.start()
        try:
            _send(self._process.stdin, data)
            return np.asarray(np.load(io.BytesIO(_receive(self._process.stdout)), allow_pickle=False))
        finally:
            timer.cancel()


def _check_decoder(syntax: Any, where: str) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    if syntax not in EXTRA_SYNTAXES:
        raise DataError(f"{where}: compressed as {syntax.name}, which cannot be read; export it uncompressed")
    if not get_decoder(syntax).is_available:
        raise DataError(
            f'{where}: compressed as {syntax.name}; install the decoder with: pip install "brainstage[dicom]"'
        )


def _pixels(dataset: Any, plugin: str = "") -> NDArray[Any]:
    from pydicom.pixels.utils import pixel_array

    return np.asarray(pixel_array(dataset, decoding_plugin=plugin, allow_excess_frames=False))


def _start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (this module, and nothing of the user's)
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _send(stream: Any, message: bytes) -> None:
    stream.write(len(message).to_bytes(SIZE_BYTES, "little"))
    stream.write(message)
    stream.flush()


def _receive(stream: Any) -> bytes:
    return stream.read(int.from_bytes(stream.read(SIZE_BYTES), "little"))


# --- the second process -----------------------------------------------------------------------------------------


def main() -> None:
    """Decode the files that come in, until no more do; the answer is a NumPy file, or empty where there is none."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where libraries print
    _limit_memory()
    while data := _receive(sys.stdin.buffer):
        _send(answers, _answer(data))


def _answer(data: bytes) -> bytes:
    from pydicom import dcmread

    answer = io.BytesIO()
    try:
        np.save(answer, _pixels(dcmread(io.BytesIO(data), force=True)), allow_pickle=False)
    except Exception:  # decoders raise anything for foreign data
        return b""
    return answer.getvalue()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))


if __name__ == "__main__":
    main()
