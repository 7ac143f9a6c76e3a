"""NIfTI and DICOM files to volumes: the same brain, whatever the file's axes, types and order."""

import gzip
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainstage.core.errors import DataError
from brainstage.scans.dicom import Frame, decode_dicom
from brainstage.scans.discover import find_scans
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.registration import mapped, sample
from brainstage.scans.volume import Volume
from volumes import ORIENTATIONS, brain, turned, write_enhanced, write_nifti, write_series

BRAIN = brain((8, 8, 8))
POINTS = np.random.default_rng(0).uniform((-60, -90, -40), (60, 60, 70), (500, 3)).T
"""Places in the brain, in millimetres: what is there must be the same in every file."""
VALUES = sample(BRAIN, POINTS)


def read_nifti(file):
    return decode_nifti(file.read_bytes(), file.name)


def read_dicom(*folders):
    return decode_dicom(
        [(file.name, file.read_bytes()) for one in folders for file in sorted(one.iterdir())], "here"
    )


@settings(max_examples=40)
@given(
    st.sampled_from(ORIENTATIONS),
    st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    st.sampled_from([np.uint8, np.int16, np.float32, np.float64]),
    st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_nifti_file_is_the_same_brain_in_any_orientation_and_type(tmp_path_factory, how, kind, dtype, ending):
    file = write_nifti(tmp_path_factory.mktemp("n") / f"a{ending}", turned(BRAIN, *how), kind=kind, dtype=dtype)
    found = read_nifti(file)
    assert found.voxels.dtype == np.float32
    np.testing.assert_allclose(sample(found, POINTS), VALUES, atol=0.1 if dtype in (np.float32, np.float64) else 1)


@settings(max_examples=12)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 2**32 - 1))
def test_a_dicom_series_is_the_same_brain_in_any_orientation_and_order(tmp_path_factory, how, seed):
    volume = turned(BRAIN, *how)
    order = np.random.default_rng(seed).permutation(volume.voxels.shape[2])
    series = read_dicom(write_series(tmp_path_factory.mktemp("s") / "a", volume, order=order))
    np.testing.assert_allclose(sample(series, POINTS), VALUES, atol=1)


def test_a_multi_frame_file_is_the_same_brain(tmp_path):
    order = np.random.default_rng(0).permutation(BRAIN.voxels.shape[2])
    write_enhanced(tmp_path / "all.dcm", BRAIN, order=order.tolist())
    np.testing.assert_allclose(sample(read_dicom(tmp_path), POINTS), VALUES, atol=1)


def test_an_oblique_series_lies_where_its_header_says(tmp_path):
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    oblique = Volume(BRAIN.voxels, turn @ BRAIN.affine)
    series = read_dicom(write_series(tmp_path / "a", oblique))
    np.testing.assert_allclose(sample(series, mapped(turn, POINTS)), VALUES, atol=1)


def test_rescale_and_photometric_interpretation_are_applied(tmp_path):
    scaled = read_dicom(write_series(tmp_path / "a", BRAIN, RescaleSlope=2, RescaleIntercept=10))
    np.testing.assert_allclose(sample(scaled, POINTS), VALUES * 2 + 10, atol=2)
    negative = Volume(4095 - BRAIN.voxels, BRAIN.affine)
    inverted = read_dicom(write_series(tmp_path / "b", negative, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(sample(inverted, POINTS), VALUES, atol=1)


def test_a_single_picture_is_a_frame(tmp_path):
    write_series(tmp_path / "a", BRAIN, order=[12])
    assert isinstance(read_dicom(tmp_path / "a"), Frame)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (partial(write_series, order=[0, 1, 2, 4, 5, 6, 7, 8, 9]), "missing or unevenly spaced"),
        (partial(write_series, order=[*range(10), 3]), "several images at one position"),
        (partial(write_series, order=range(5)), "expected at least 8"),
        (partial(write_series, Modality="CT"), "of modality CT, expected MR"),
        (partial(write_series, PhotometricInterpretation="PALETTE COLOR"), "holds colours"),
        (partial(write_series, ImagePositionPatient=None), "ImagePositionPatient is missing"),
        (partial(write_series, PixelData=b"ab"), "damaged"),
        (partial(write_series, order=[5], PixelSpacing=[1e-6, 1e-6]), "voxels of 1e-06 × 1e-06 mm"),
        (partial(write_series, order=[5], PixelSpacing=[0, 0]), "voxels of 0 × 0 mm"),
        (partial(write_series, order=[5], ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not at right angles"),
        (partial(write_series, NumberOfFrames=10**9), "expected at most"),
    ],
)
def test_a_series_that_is_no_volume_is_one_sentence(tmp_path, write, says):
    write(tmp_path / "a", BRAIN)
    with pytest.raises(DataError, match=says) as told:
        read_dicom(tmp_path / "a")
    assert "\n" not in str(told.value)


def test_pictures_in_several_directions_are_no_volume(tmp_path):
    a = write_series(tmp_path / "a", BRAIN, order=[3])
    b = write_series(tmp_path / "b", turned(BRAIN, (1, 0, 2), (1, 1, 1)), order=[5])
    with pytest.raises(DataError, match=r"several (orientations|sizes)"):
        read_dicom(a, b)


def cut(image):
    return gzip.compress(image.to_bytes())[:-4000]


def header(image, **changes):
    body = image.to_bytes()[348:]
    for name, value in changes.items():
        image.header[name] = value
    return image.header.binaryblock + body


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "damaged, it (ends after|cannot be decompressed to)"),
        (partial(header, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "expected at most 64,000,000"),
        (partial(header, dim=[4, 20, 20, 20, 9, 1, 1, 1]), "holds 9 volumes"),
        (partial(header, dim=[2, 20, 20, 1, 1, 1, 1, 1]), "has 2 axes"),
        (partial(header, datatype=128, bitpix=24), "colours"),
        (partial(header, vox_offset=1e30), "voxels at byte"),
        (partial(header, qform_code=0, sform_code=0), "which way is up"),
        (partial(header, srow_x=[0, 0, 0, 0], sform_code=2), "no usable affine map"),
        (partial(header, srow_y=[1e30, 0, 0, 0], sform_code=2), "no usable affine map"),
        (partial(header, srow_x=[90, 0, 0, 0], sform_code=2), "voxels of 90 ×"),
        (lambda image: image.to_bytes()[:352] + bytes(len(image.to_bytes()) - 352), "same value"),
        (lambda image: image.to_bytes()[:-4] + np.float32(3e38).tobytes(), "grey values up to 3e.38"),
        (lambda image: b"text", "not a single-file NIfTI image"),
    ],
)
def test_a_bad_nifti_file_is_one_sentence_that_names_it(damage, says):
    image = nib.Nifti1Image(BRAIN.voxels, BRAIN.affine)
    with pytest.raises(DataError, match=says) as told:
        decode_nifti(damage(image), "scan.nii")
    assert str(told.value).startswith("scan.nii: ")
    assert "\n" not in str(told.value)


def test_scans_are_found_by_content_and_series_told_apart(tmp_path):
    write_series(tmp_path / "study" / "one", BRAIN, order=range(9))
    write_series(tmp_path / "flat", BRAIN, order=range(9), uid="1.2.4")
    flat = [file.rename(file.with_name(f"second-{file.name}")) for file in sorted((tmp_path / "flat").iterdir())]
    write_series(tmp_path / "flat", BRAIN, order=range(9), uid="1.2.5")
    (tmp_path / "study" / "README").write_text("nothing")
    write_nifti(tmp_path / "study" / "b.nii.gz", BRAIN).rename(tmp_path / "study" / "b.jpg")
    names = [scan.name for scan in find_scans([str(tmp_path / "study"), str(tmp_path / "flat")])]
    assert names == [
        str(tmp_path / "study" / "b.jpg"),
        str(tmp_path / "study" / "one"),
        f"{tmp_path / 'flat'}, series 3",
        f"{tmp_path / 'flat'}, series 4",
    ]
    by_glob = find_scans([str(file) for file in flat])
    assert [scan.name for scan in by_glob] == [str(tmp_path / "flat")]
    with pytest.raises(DataError, match="no JPEG, PNG, NIfTI, DICOM or parquet file found"):
        find_scans([str(tmp_path / "none" / "*")])


def test_scans_are_found_in_one_path_or_several_as_text_or_path(tmp_path):
    file = write_nifti(tmp_path / "a.nii", BRAIN)
    names = [
        [scan.name for scan in find_scans(inputs)]
        for inputs in (file, str(file), [file], (str(file),), iter([tmp_path]))
    ]
    assert names == [[str(file)]] * 5
    with pytest.raises(DataError, match="no input: no JPEG"):
        find_scans([])


def test_a_file_that_is_named_and_no_scan_is_told(tmp_path):
    (tmp_path / "a.nii").write_text("text")
    (scan,) = find_scans([str(tmp_path / "a.nii")])
    with pytest.raises(DataError, match=r"a\.nii: not a JPEG, PNG, NIfTI, DICOM or parquet file"):
        scan.read()
