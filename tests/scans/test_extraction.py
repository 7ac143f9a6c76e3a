"""From a head on disk to a brain and its picture on disk."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brainstage.core.errors import ConfigError, DataError, RefusalError
from brainstage.report.brain_picture import draw_extraction
from brainstage.scans import skull_strip
from brainstage.scans.discover import find_scans
from brainstage.scans.extraction import check_brain_target, extract, picture_path, write_brain
from helpers import picture
from volumes import PATIENT, brain, with_skull, write_nifti, write_series


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return write_series(tmp_path_factory.mktemp("series") / "head", with_skull(brain((3.0, 3.0, 3.0))))


@pytest.fixture(scope="module")
def extracted(series):
    out = series.parent / "brain.nii.gz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skull_strip, "N4_ITERATIONS", (2, 2))  # the default takes long, and the head has no bias
        extraction = extract(series)
    write_brain(extraction.brain, out)
    draw_extraction(picture_path(out), extraction)
    return out


def test_predict_refuses_the_head_and_accepts_the_brain(series, extracted):
    [head], [alone] = find_scans([str(series)]), find_scans([str(extracted)])
    with pytest.raises(RefusalError, match=r"with its skull .* `brainstage extract`"):
        head.read()
    assert list(alone.read().levels) == list(range(32))


def test_nothing_of_the_header_is_written(extracted):
    image = nib.load(extracted)
    assert PATIENT.encode() not in image.header.binaryblock
    assert not image.header.extensions
    assert image.header["descrip"].item() == b""
    assert np.asarray(image.dataobj).max() == 10_000


def test_the_picture_shows_cuts_with_an_outline(extracted):
    pixels = np.asarray(Image.open(extracted.parent / "brain.png").convert("RGB")).astype(int)
    orange = (pixels[..., 0] > 180) & (pixels[..., 2] < 60) & (pixels[..., 1] < 140)
    assert orange.sum() > 1000
    assert pixels.shape[0] > 600


def test_targets_that_would_lose_something_are_refused(series, extracted, tmp_path):
    with pytest.raises(ConfigError, match=r"written as \.nii\.gz"):
        check_brain_target(series, tmp_path / "brain.nii")
    with pytest.raises(ConfigError, match="no such folder"):
        check_brain_target(series, tmp_path / "none" / "brain.nii.gz")
    before = extracted.read_bytes()
    with pytest.raises(ConfigError, match="is the scan itself"):
        check_brain_target(extracted, extracted)
    assert extracted.read_bytes() == before


def test_exactly_one_volume_is_taken(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="expected one volume .* found none"):
        extract(tmp_path / "a.png")
    for name in ("b.nii", "c.nii"):
        write_nifti(tmp_path / name, brain((4.0, 4.0, 4.0)))
    with pytest.raises(DataError, match=r"found 2: 1 b\.nii \(.*\), 2 c\.nii \(.*\); choose one"):
        extract(tmp_path)
