"""Brain mask and registered brain: where they lie in space, what their sidecars say, what paths they give away."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from bids_app import describe
from bids_tree import write_bids
from brainstage.cohorts.bids import open_bids
from brainstage.cohorts.derivatives import (
    DerivativesFolder,
    has_derivatives,
    relative_link,
    remove_derivatives,
    write_derivatives,
)
from brainstage.cohorts.scan import RegisteredScan, make_slices
from brainstage.core.levels import PUBLIC
from brainstage.scans.registration import mni152, register
from brainstage.scans.volume import Volume
from volumes import with_skull


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the folder, the scan, and the volume that was read."""
    folder = tmp_path_factory.mktemp("derivatives")
    scan = open_bids(describe(write_bids(folder / "bids", people=1))).selected[0]
    registered = make_slices(scan.scan, "stripped", PUBLIC).registered
    write_derivatives(DerivativesFolder(folder / "out"), scan, registered)
    return DerivativesFolder(folder / "out"), scan, registered.volume


def test_the_mask_lies_on_the_scan_and_covers_its_brain(written):
    folder, scan, volume = written
    mask = nib.load(folder.mask(scan))
    assert folder.mask(scan).relative_to(folder.path).as_posix() == "sub-00/anat/sub-00_desc-brain_mask.nii.gz"
    assert np.allclose(mask.affine, volume.affine, atol=1e-4) and mask.get_data_dtype() == np.uint8
    inside, bright = np.asarray(mask.dataobj) > 0, volume.voxels > 40
    dice = 2 * (inside & bright).sum() / (inside.sum() + bright.sum())
    assert dice > 0.93, dice


def test_the_brain_lies_on_the_template_whatever_its_orientation_was(written):
    folder, scan, _ = written
    image = nib.load(folder.brain(scan))
    assert image.shape == (197, 233, 189) and image.header.get_zooms() == (1, 1, 1)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S") and image.header["sform_code"] == 4
    assert image.affine[:3, 3].tolist() == [-98, -134, -72]  # as the template has it
    brain = np.asarray(image.dataobj)
    assert brain.max() == 10_000 and brain.min() == 0
    place = register(
        Volume(brain.astype(np.float32), image.affine)
    ).affine  # registered again, nothing is left to move
    corners = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-90, 60) for z in (-40, 60)]).T
    assert np.abs(place @ corners - corners).max() < 2
    template = mni152()
    at = np.linalg.inv(image.affine) @ template.affine
    index = np.stack(np.nonzero(binary_erosion(template.voxels > 40)))
    voxels = (at[:3, :3] @ index + at[:3, 3:]).round().astype(int)
    assert (brain[tuple(voxels)] > 0).mean() > 0.98


def test_the_sidecars_say_what_was_done_and_from_what(written):
    folder, scan, _ = written
    mask, brain = (
        json.loads(file.with_name(file.name.replace(".nii.gz", ".json")).read_text())
        for file in (folder.mask(scan), folder.brain(scan))
    )
    assert mask["Type"] == "Brain" and brain["SkullStripped"] is True
    assert mask["Sources"] == brain["Sources"] == ["bids:raw:sub-00/anat/sub-00_T1w.nii.gz"]
    assert "not in the scan" in brain["Description"]
    assert np.allclose(np.array(brain["RegistrationMatrix"])[3], [0, 0, 0, 1])


def test_a_skull_that_was_taken_off_is_told_and_is_not_in_the_brain(written, tmp_path):
    folder, scan, volume = written
    head = with_skull(volume)
    write_derivatives(DerivativesFolder(tmp_path), scan, RegisteredScan(head, volume, register(volume)))
    about = json.loads(next(tmp_path.rglob("*_T1w.json")).read_text())
    assert about["SkullStripped"] is True and "taken off here" in about["Description"]
    assert DerivativesFolder(tmp_path).brain(scan).read_bytes() == folder.brain(scan).read_bytes()
    mask = np.asarray(nib.load(DerivativesFolder(tmp_path).mask(scan)).dataobj) > 0
    assert not (mask & (head.voxels != volume.voxels)).mean() > 0.01  # the shell lies outside of it


def test_other_entities_of_the_scan_stay_in_the_names(tmp_path):
    bids = describe(write_bids(tmp_path, people=1))
    file = bids / "sub-00" / "anat" / "sub-00_T1w.nii.gz"
    file.rename(file.with_name("sub-00_acq-mprage_run-2_T1w.nii.gz"))
    name = DerivativesFolder(tmp_path / "out").brain(open_bids(bids).selected[0]).name
    assert name == "sub-00_acq-mprage_run-2_space-MNI152NLin2009aSym_T1w.nii.gz"


def test_what_was_written_can_be_removed(written, tmp_path):
    folder, scan, _ = written
    copy = DerivativesFolder(tmp_path)
    for file in (folder.mask(scan), folder.brain(scan)):
        for each in (file, file.with_name(file.name.replace(".nii.gz", ".json"))):
            target = tmp_path / each.relative_to(folder.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(each.read_bytes())
    assert has_derivatives(copy, scan)
    next(tmp_path.rglob("*_mask.json")).unlink()
    assert not has_derivatives(copy, scan)
    remove_derivatives(copy, scan)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("dataset", "out", "link"),
    [
        ("study/bids", "study/bids/derivatives/brainstage", "../.."),
        ("study/bids", "study/out", "../bids"),
        ("study/Sommer/bids", "out", "bids"),  # no more of the path than the dataset's own name
    ],
)
def test_a_link_to_the_dataset_names_no_other_folder(tmp_path, dataset, out, link):
    assert relative_link(tmp_path / dataset, tmp_path / out) == link
