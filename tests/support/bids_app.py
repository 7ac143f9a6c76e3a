"""A small BIDS dataset with two sound people and four whose scans cannot be used, for the tests of the BIDS App."""

import json
from dataclasses import replace

import numpy as np

from bids_tree import write_bids
from volumes import brain, with_skull, write_nifti


def describe(bids, **more):
    about = {"Name": "a small dataset", "BIDSVersion": "1.9.0", **more}
    (bids / "dataset_description.json").write_text(json.dumps(about))
    return bids


def write_dataset(bids):
    """Write two brains, a head, an empty file, one that is not T1-weighted, and a row without a scan."""
    describe(write_bids(bids, people=5, rows=["sub-50\t70\tF\tAD"]))
    scans = [bids / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz" for number in range(5)]
    sound = brain((4.0, 4.0, 4.0))
    write_nifti(scans[2], with_skull(sound))
    scans[3].write_bytes(b"")
    inverted = np.where(sound.voxels > 40, 300 - sound.voxels, 0).astype(np.float32)
    write_nifti(scans[4], replace(sound, voxels=inverted))
    return bids
