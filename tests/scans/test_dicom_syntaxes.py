"""DICOM as archives send it: compressed, without a preamble, several series in one folder."""

import io
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from brainstage.core.errors import DataError
from brainstage.scans import decoder
from brainstage.scans.dicom import START_BYTES, decode_dicom, is_dicom
from brainstage.scans.discover import SeveralVolumesError, choose_series, describe_scans, find_scans, find_volume
from helpers import encode, picture
from volumes import PATIENT, brain, turned, write_enhanced, write_nifti, write_series

BRAIN = brain((6, 6, 6))
FRAMES = BRAIN.voxels.shape[2]


def read(name):
    return Path(get_testdata_file(name, download=False)).read_bytes()


def decode(folder):
    return decode_dicom([(file.name, file.read_bytes()) for file in sorted(folder.iterdir())], "here")


def compress(file, syntax):
    """Write a DICOM file again in a transfer syntax: RLE by pydicom, the others by GDCM."""
    if syntax == RLELossless:
        dataset = pydicom.dcmread(file)
        dataset.compress(syntax)
        return dataset.save_as(file)
    gdcm = pytest.importorskip("gdcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    assert reader.Read()
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return None


# --- transfer syntaxes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax",
    [RLELossless, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless],
    ids=lambda uid: uid.keyword,
)
@pytest.mark.parametrize("write", [write_series, lambda folder, volume: write_enhanced(folder / "all.dcm", volume)])
def test_a_compressed_series_is_the_same_volume(tmp_path, syntax, write):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", BRAIN)
    plain = decode(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        compress(file, syntax)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == syntax
    compressed = decode(tmp_path / "a")
    np.testing.assert_array_equal(compressed.voxels, plain.voxels)
    np.testing.assert_array_equal(compressed.affine, plain.affine)


def test_a_deflated_series_is_the_same_volume(tmp_path):
    write_series(tmp_path / "a", BRAIN)
    plain = decode(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(file)
        assert len(file.read_bytes()) < len(dataset.PixelData)
    np.testing.assert_array_equal(decode(tmp_path / "a").voxels, plain.voxels)


def test_a_deflated_file_that_would_fill_the_memory_is_refused_unread(tmp_path):
    for file in sorted(write_series(tmp_path / "a", BRAIN).iterdir())[1:]:
        file.unlink()
    file = next((tmp_path / "a").iterdir())
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = b""
    dataset.save_as(file)
    head = file.read_bytes()[: 144 + pydicom.dcmread(file).file_meta.FileMetaInformationGroupLength]
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    file.write_bytes(head + b"".join(packing.compress(bytes(2**24)) for _ in range(40)) + packing.flush())
    assert file.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match="InflatedTooLarge"):
        decode(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "implicit", "bigendian"])
def test_an_mr_image_is_the_same_in_every_syntax(name):
    if name == "jpeg_ls_lossless":
        pytest.importorskip("gdcm")
    plain, other = (decode_dicom([(name, read(name))], name) for name in ("MR_small.dcm", f"MR_small_{name}.dcm"))
    np.testing.assert_array_equal(other.pixels, plain.pixels)
    np.testing.assert_array_equal(other.origin, plain.origin)


@pytest.mark.parametrize("syntax", decoder.EXTRA_SYNTAXES)
def test_without_the_extra_the_error_names_the_syntax_and_the_command(monkeypatch, syntax):
    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    dataset = pydicom.dcmread(io.BytesIO(read("MR_small_jpeg_ls_lossless.dcm")))
    dataset.file_meta.TransferSyntaxUID = syntax
    data = io.BytesIO()
    dataset.save_as(data)
    with pytest.raises(DataError) as told:
        decode_dicom([("scan.dcm", data.getvalue())], "here")
    assert str(told.value) == (
        f"scan.dcm: compressed as {pydicom.uid.UID(syntax).name}; install the decoder with: "
        'pip install "brainstage[dicom]"'
    )


def test_a_process_without_gdcm_says_the_same(tmp_path):
    (tmp_path / "scan.dcm").write_bytes(read("MR_small_jpeg_ls_lossless.dcm"))
    code = (
        "import sys\nsys.modules['gdcm'] = None\nfrom brainstage.scans.discover import find_scans\n"
        "try:\n    find_scans(sys.argv[1])[0].read()\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("DataError ")
    assert "compressed as JPEG-LS Lossless Image Compression; install the decoder with: pip" in done.stdout


@pytest.mark.parametrize(
    ("syntax", "says"),
    [
        (HTJ2K, "compressed as High-Throughput JPEG 2000 Image Compression, which cannot be read; export it"),
        (JPEGExtended12Bit, r"compressed as JPEG Extended \(Process 2 and 4\), cannot be decoded; if it is not"),
        (RLELossless, "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_one_sentence(syntax, says):
    dataset = pydicom.dcmread(io.BytesIO(read("MR_small_jp2klossless.dcm")))
    dataset.file_meta.TransferSyntaxUID = syntax
    data = io.BytesIO()
    dataset.save_as(data)
    with pytest.raises(DataError, match=says) as told:
        decode_dicom([("scan.dcm", data.getvalue())], "here")
    assert str(told.value).startswith("scan.dcm: ")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("place", "value"), [(6, 255), (10, 0)])
def test_damage_that_ends_gdcm_costs_the_file_alone(place, value):
    """In GDCM 3.2.6 the first aborts the process, the second is a segmentation fault."""
    pytest.importorskip("gdcm")
    data = bytearray(read("MR_small_jpeg_ls_lossless.dcm"))
    data[data.index(b"\xff\xd8\xff\xf7") + place] = value
    with pytest.raises(DataError, match=r"scan\.dcm: its pixels, compressed as JPEG-LS .* cannot be decoded"):
        decode_dicom([("scan.dcm", bytes(data))], "here")


def test_a_decoder_that_does_not_end_is_stopped(monkeypatch):
    pytest.importorskip("gdcm")
    monkeypatch.setattr(decoder, "MAX_SECONDS", 0.2)
    endless = [sys.executable, "-c", "import time; time.sleep(60)"]
    start = partial(subprocess.Popen, endless, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    monkeypatch.setattr(decoder, "_start_process", start)
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_dicom([("scan.dcm", read("MR_small_jpeg_ls_lossless.dcm"))], "here")


# --- files without a preamble -----------------------------------------------------------------------------------


def without_preamble(file, *, meta, syntax=ExplicitVRLittleEndian):
    """Write a DICOM file again without its preamble, with the file meta information or without."""
    dataset = pydicom.dcmread(file)
    data = io.BytesIO()
    if meta:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        file.write_bytes(data.getvalue()[132:])
        return
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(
        file, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=False
    )


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.keyword)
def test_files_without_a_preamble_are_read(tmp_path, meta, syntax):
    write_series(tmp_path / "a", BRAIN)
    plain = decode(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        without_preamble(file, meta=meta, syntax=syntax)
        assert file.read_bytes()[128:132] != b"DICM"
    (scan,) = find_scans(tmp_path)
    found = scan.volume()
    np.testing.assert_array_equal(found.voxels, plain.voxels)
    np.testing.assert_array_equal(found.affine, plain.affine)


def test_a_compressed_file_without_a_preamble_is_read(tmp_path):
    write_series(tmp_path / "a", BRAIN)
    plain = decode(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        compress(file, JPEGLSLossless)
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_array_equal(find_scans(tmp_path)[0].volume().voxels, plain.voxels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ExplVR_LitEndNoMeta.dcm", True),
        ("rtstruct.dcm", True),
        ("no_meta_group_length.dcm", True),
        ("MR_small.dcm", True),
        ("ExplVR_BigEndNoMeta.dcm", False),
    ],
)
def test_files_of_pydicom_are_recognised(name, expected):
    assert is_dicom(read(name)[:START_BYTES]) is expected


def other_formats():
    archive, table = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("a", "b")
    np.save(table, np.zeros(9))
    yield from (encode(picture()), encode(picture(), "JPEG"), archive.getvalue(), table.getvalue())
    yield from (
        b"",
        b"\x08",
        b"PAR1",
        b"text",
        "Ünicode".encode("utf-16"),
        bytes(600),
        b"\xff" * 600,
        b"\x1f\x8b\x08\0",
    )
    yield from (bytes(range(256)) * 3, b"\x02\0\0\0", b"\x08\0\x05\0", b"\x08\0\x05\0CS\x0a\0ISO_IR 100")
    yield b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"\x10\0\x10\0"  # another group follows
    yield b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"\x08\0\x05\0"  # the same element follows
    yield b"\x08\0\x05\0CS\x0a\0" + bytes(range(128, 138)) + b"\x08\0\x16\0"  # no character set
    yield b"\x02\0\0\0\x06\0\0\0" + bytes(6) + b"\x02\0\1\0"  # no length of a group
    yield b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(200)


def test_other_formats_and_random_bytes_are_not_dicom(tmp_path):
    random = np.random.default_rng(0)
    tags = [b"\x02\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0"]
    for start in other_formats():
        assert not is_dicom(start[:START_BYTES])
    for number in range(4000):
        data = random.bytes(START_BYTES)
        assert not is_dicom(data)
        assert not is_dicom(tags[number % 4] + data)
    assert not is_dicom(write_nifti(tmp_path / "a.nii", BRAIN).read_bytes()[:START_BYTES])


# --- several series ---------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    """Return a folder with a NIfTI volume, two series of other sizes and a picture."""
    write_nifti(tmp_path / "a.nii.gz", BRAIN)
    write_series(tmp_path / "dicom", BRAIN, uid="1.1", SeriesDescription=f"t1 {PATIENT}\x1b[31m")
    flat = turned(brain((6, 6, 12)), (1, 0, 2), (1, 1, 1))
    write_series(tmp_path / "flat", flat, uid="1.2", SeriesDescription="flair")
    for number, file in enumerate((tmp_path / "flat").iterdir()):
        file.rename(tmp_path / "dicom" / f"second-{number}")
    (tmp_path / "b.png").write_bytes(encode(picture()))
    (tmp_path / "c.jpg").write_text("text")
    return tmp_path


def test_scans_are_described_by_their_headers(study):
    nifti, first, second, unknown, pictures = describe_scans(study)
    assert (nifti.number, nifti.kind, nifti.matrix, nifti.slices) == (1, "NIfTI", BRAIN.voxels.shape[:2], FRAMES)
    assert (first.number, first.kind, first.matrix, first.slices) == (2, "DICOM", BRAIN.voxels.shape[:2], FRAMES)
    assert (second.number, second.slices, second.source) == (3, 16, str(study / "dicom"))
    np.testing.assert_allclose([nifti.spacing, first.spacing, second.spacing], [[6, 6, 6], [6, 6, 6], [6, 6, 12]])
    assert (unknown.number, unknown.kind, unknown.source) == (None, "unknown", str(study / "c.jpg"))
    assert (pictures.number, pictures.kind, pictures.slices) == (None, "pictures", 1)
    assert first.description == f"t1 {PATIENT}[31m"  # what moves a terminal's cursor is taken out
    for info in (nifti, first, second, unknown, pictures):
        assert PATIENT not in f"{info!r} {info} {info.to_dict()}"


def test_a_multi_frame_file_and_single_and_damaged_ones_are_described(tmp_path):
    write_enhanced(tmp_path / "a.dcm", BRAIN)
    write_series(tmp_path / "b", BRAIN, order=[3], uid="1.3")
    write_series(tmp_path / "c", BRAIN, order=[3, 4], uid="1.4", ImagePositionPatient=None)
    (tmp_path / "d.dcm").write_bytes(read("image_dfl.dcm")[:-100])  # its compressed header ends too early
    enhanced, single, placeless, damaged = describe_scans(tmp_path)
    assert (enhanced.matrix, enhanced.slices) == (BRAIN.voxels.shape[:2], FRAMES)
    np.testing.assert_allclose(enhanced.spacing, [6, 6, 6])
    assert (single.slices, single.spacing, single.source) == (1, (6, 6), str(tmp_path / "b" / "IM000"))
    assert (placeless.slices, placeless.spacing) == (2, ())
    assert (damaged.kind, damaged.matrix, damaged.slices, damaged.number) == ("DICOM", None, None, 4)


def test_a_series_is_chosen_by_its_number(study):
    scans = find_scans(study)
    for info in describe_scans(study)[:3]:
        chosen = choose_series(scans, info.number)
        assert chosen.name.startswith(info.source)
        assert chosen.volume().voxels.shape[2] == info.slices
        assert find_volume(str(study), info.number).name == chosen.name
    assert choose_series(scans, 3).name == f"{study / 'dicom'}, series 3"  # the number of the list
    for number in (0, 4):
        with pytest.raises(DataError, match=rf"--series {number}: no such volume or series \(1 to 3\)"):
            choose_series(scans, number)
    with pytest.raises(DataError, match="there are none"):
        choose_series([], 1)


def test_several_volumes_are_named_by_their_numbers(study):
    with pytest.raises(SeveralVolumesError) as told:
        find_volume(str(study))
    rows, columns = BRAIN.voxels.shape[:2]
    assert f"found 3: 1 a.nii.gz ({rows}×{columns}, {FRAMES} slices), 2 dicom (" in str(told.value)
    assert str(told.value).endswith("choose one with --series N")
    assert PATIENT not in f"{told.value} {told.value!r}"
    assert f"2 dicom (t1 {PATIENT}[31m, {rows}×{columns}, {FRAMES} slices)" in told.value.sentence(described=True)
