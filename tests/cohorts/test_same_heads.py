"""One head under two patient ids: found, named, and never on both sides of a fold."""

import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bids_tree import write_bids
from brainstage.audits.audit import audit
from brainstage.cohorts.prepare import prepare
from brainstage.core.config import TrainConfig
from brainstage.core.errors import LeakageError
from brainstage.core.parallel import Processes
from brainstage.datasets.same_heads import same_heads
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Splits, make_splits
from brainstage.report.audit_page import write_audit
from helpers import run_cli

PEOPLE = 9
FOLDS = TrainConfig("compact", protocol="patient", folds=3, validation_share=0.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Return a cohort in which one head was entered twice: as 03, and as 09, turned, darker and with noise."""
    folder = tmp_path_factory.mktemp("twice")
    bids = write_bids(folder / "bids", PEOPLE, rows=[f"sub-{PEOPLE:02d}\t63\tM\tCN"])
    image = nib.load(bids / "sub-03" / "anat" / "sub-03_T1w.nii.gz")
    turn, rng = np.deg2rad(6), np.random.default_rng(0)
    move = np.array(
        [[np.cos(turn), -np.sin(turn), 0, 9], [np.sin(turn), np.cos(turn), 0, -7], [0, 0, 1, 5], [0, 0, 0, 1.0]]
    )
    voxels = image.get_fdata()[::-1]
    voxels = (0.7 * voxels + rng.normal(0, 4, voxels.shape)).clip(0) * (voxels > 0)
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = voxels.shape[0] - 1
    again = bids / "sub-09" / "anat" / "sub-09_T1w.nii.gz"
    again.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), move @ image.affine @ flipped), again)
    return prepare(bids, folder / "cohort", workers=Processes(1)).folder


@pytest.fixture(scope="module")
def slices(cohort):
    return load_slices(cohort)


def test_a_head_that_was_stored_again_is_found_and_nobody_else_is(slices):
    assert len(set(slices.slice_ids)) == len(slices)  # no picture is the same
    assert same_heads(slices) == {"09": "03"}


def test_folds_keep_one_head_on_one_side_and_say_so(slices):
    alone = 0
    for seed in range(8):
        splits = make_splits(slices, FOLDS.replace(seed=seed))
        for fold in splits.folds:
            people = {splits.patient_of[one] for one in fold.test}
            alone += len(people & {"03", "09"}) == 1
    assert not alone
    assert "1 patient has the head of another and counts as that one" in str(splits.verdict)


def test_folds_made_by_hand_cannot_part_a_head(slices, tmp_path):
    splits = make_splits(slices, FOLDS)
    splits.save(tmp_path / "splits.json")
    content = json.loads((tmp_path / "splits.json").read_text())
    fold = next(fold for fold in content["folds"] if "09" in fold["test"])
    fold["test"].remove("09")
    fold["train"].append("09")
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(LeakageError, match="1 patients? on both sides"):
        Splits.load(tmp_path / "splits.json", slices)


def test_an_audit_names_the_two(slices, cohort, tmp_path):
    found = audit(slices).to_dict()
    assert found["people"]["same_heads"] == {"09": "03"}
    assert found["duplicates"] == {"exact": 0, "altered": 0, "on_both_sides": 0, "with_two_labels": 0}
    outcome = run_cli("audit", "--data", str(cohort), "--out", str(tmp_path / "audit"))
    assert "09 and 03" in outcome.out
    assert "03" in json.loads((tmp_path / "audit" / "audit.json").read_text())["people"]["same_heads"].values()


def test_the_page_calls_duplicates_of_a_cohort_by_scan_and_level(slices, tmp_path):
    first, second = ([row for row, one in enumerate(slices.patients) if one == name] for name in ("03", "09"))
    source = list(range(len(slices)))
    for row, copied in zip(second, first, strict=True):
        source[row] = copied
    ids = [slices.slice_ids[row] for row in source]
    place = slices.rows.column_names.index("slice_id")
    copied = replace(
        slices,
        rows=slices.rows.set_column(place, "slice_id", [ids]),
        images=[slices.images[row] for row in source],
    )
    scans = slices.rows["scan_id"].to_pylist()
    page = write_audit(audit(copied), tmp_path, [])[2].read_text()
    named = re.findall(r"<figcaption>(.+), level (\d+) · (.+), level (\d+)</figcaption>", page)
    assert {(one, other) for one, _, other, _ in named} == {(scans[first[0]], scans[second[0]])}
    assert all(one == other for _, one, _, other in named)


def test_pictures_whose_levels_are_not_known_are_not_compared(phantom):
    assert same_heads(phantom) == {}
