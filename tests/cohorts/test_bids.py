"""A BIDS dataset is checked before any work, and limited to whom and what is asked for."""

import json

import pytest

from bids_app import describe
from bids_tree import write_bids
from brainstage.cohorts.bids import open_bids
from brainstage.core.errors import InvalidDatasetError, MissingInputError, NothingSelectedError


@pytest.fixture
def bids(tmp_path):
    """Return a dataset of empty files: nothing is read before it is processed."""
    for person, sessions in (("01", ("a", "b")), ("02", ("a",)), ("03", ())):
        for session in sessions or (None,):
            place = tmp_path / f"sub-{person}" / (f"ses-{session}/anat" if session else "anat")
            place.mkdir(parents=True)
            (place / f"sub-{person}_{f'ses-{session}_' if session else ''}T1w.nii.gz").touch()
    return describe(tmp_path)


def names(dataset):
    return [scan.scan_id for scan in dataset.selected]


def test_labels_select_with_and_without_their_prefix(bids):
    assert names(open_bids(bids)) == ["sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a", "sub-03"]
    assert names(open_bids(bids, ["sub-02", "03"])) == ["sub-02_ses-a", "sub-03"]
    assert names(open_bids(bids, ["01"], ["ses-b"])) == ["sub-01_ses-b"]
    assert names(open_bids(bids, (), ["b"])) == ["sub-01_ses-b", "sub-03"]  # what has no session is never left out
    assert len(open_bids(bids, ["02"]).source.scans) == 4


@pytest.mark.parametrize(
    ("people", "sessions", "says"),
    [
        (["01", "2"], [], "sub-2 is not in the dataset; did you mean '02'"),
        ([], ["c"], "ses-c is not in the dataset"),
        (["02"], ["b"], "the participants asked for have none of the sessions asked for"),
    ],
)
def test_whom_the_dataset_lacks_is_named(bids, people, sessions, says):
    with pytest.raises(NothingSelectedError, match=says):
        open_bids(bids, people, sessions)


def test_what_is_no_dataset_is_refused(bids, tmp_path):
    with pytest.raises(MissingInputError, match="no such folder"):
        open_bids(tmp_path / "none")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-01\t60\nsub-01\t61\n")
    with pytest.raises(InvalidDatasetError, match="lines 2 and 3 describe 01 differently"):
        open_bids(bids)
    description = bids / "dataset_description.json"
    for content, says in (("{", "not readable as JSON"), (json.dumps({"Name": "x"}), "lacks BIDSVersion")):
        description.write_text(content)
        with pytest.raises(InvalidDatasetError, match=says):
            open_bids(bids)
    description.unlink()
    with pytest.raises(InvalidDatasetError, match="missing, so this is no BIDS dataset; make it"):
        open_bids(bids)
    (tmp_path / "bare").mkdir()
    with pytest.raises(MissingInputError, match="holds no T1-weighted scan"):
        open_bids(describe(tmp_path / "bare"))


def test_people_without_a_scan_are_selected_too(tmp_path):
    dataset = open_bids(describe(write_bids(tmp_path, people=1, rows=["sub-50\t70\tF\tAD"])), ["50"])
    assert dataset.selected[0].scan is None and not dataset.has_sessions
