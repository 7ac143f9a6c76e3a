"""What libraries warn of stays off the terminal: what is wrong with a file is in the sentence that names it."""

import subprocess
import sys

import nibabel as nib
import numpy as np
from PIL import Image

from helpers import encode, picture
from volumes import PATIENT, brain, write_series

READ_EACH = """
import sys
from brainstage.core.errors import DataError
from brainstage.scans.discover import find_scans
for scan in find_scans(sys.argv[1:]):
    try:
        print(len(scan.read().images) if scan.volume is None else scan.volume().voxels.shape)
    except DataError as error:
        print(error)
"""


def damaged_exif(file):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 30
    data = bytearray(encode(picture(), "JPEG", exif=exif))
    directory = data.index(b"Exif\0\0") + 14
    data[directory : directory + 2] = b"\x00\x09"  # nine entries in place of two
    data[directory + 6 : directory + 10] = b"\x7f\xff\xff\xff"
    file.write_bytes(data)


def overflowing_nifti(file):
    volume = brain((6, 6, 6))
    file.write_bytes(nib.Nifti1Image(volume.voxels.astype(np.float64) * 1e300, volume.affine).to_bytes())


def odd_extension(file):
    volume = brain((6, 6, 6))
    data = bytearray(nib.Nifti1Image(volume.voxels, volume.affine).to_bytes())
    data[348:352] = b"\x01\0\0\0"
    data[352:352] = np.array([27, 6], np.int32).tobytes() + bytes(19)
    data[108:112] = np.float32(352 + 27).tobytes()
    file.write_bytes(data)


def overflowing_dicom(folder):
    write_series(folder, brain((6, 6, 6)), uid="1.2", RescaleSlope="1e39")


def flat_dicom(folder):
    write_series(folder, brain((6, 6, 6)), uid="1.3", PixelSpacing=["0", "0"])


def odd_characters(folder):
    write_series(folder, brain((6, 6, 6)), uid="1.4", SpecificCharacterSet="ISO_IR 999")


def test_no_warning_reaches_the_terminal_and_none_quotes_a_header(tmp_path):
    makers = (damaged_exif, overflowing_nifti, odd_extension, overflowing_dicom, flat_dicom, odd_characters)
    for number, make in enumerate(makers):
        make(tmp_path / f"{number}")
    inputs = [str(tmp_path / f"{number}") for number in range(len(makers))]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", READ_EACH, *inputs], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(makers)
    assert PATIENT not in done.stdout
