"""The phantom cohort of volumes: equal bytes, a valid dataset, brains that are read, effects that are there."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from brainstage.cohorts import phantom_people as phantom
from brainstage.cohorts.phantom import write_phantom_bids
from brainstage.cohorts.phantom_brains import EFFECTS, draw_brain
from brainstage.cohorts.phantom_people import DEFECTS, DIAGNOSES, draw_participants
from brainstage.core.errors import ConfigError, DataError, RefusalError
from brainstage.core.parallel import parallel_map
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.scans.discover import find_scans
from brainstage.scans.registration import register
from brainstage.scans.stack import cut, refusal
from brainstage.scans.volume import Volume
from helpers import run_cli

PARTICIPANTS = 16
VALIDATOR = shutil.which("bids-validator-deno", path=Path(sys.executable).parent)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Return the folder of a cohort and what is wrong in it."""
    folder = tmp_path_factory.mktemp("cohort")
    return folder, write_phantom_bids(folder, participants=PARTICIPANTS)


def _rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_command_writes_the_same_bytes_and_names_the_defects(cohort, tmp_path):
    folder, defects = cohort
    code, out, err = run_cli("data", "phantom", "--bids", tmp_path / "again", "--participants", PARTICIPANTS)
    assert (code, err) == (0, "")
    assert SYNTHETIC_NOTICE in out
    assert all(f"{place}: {what}" in out for place, what in defects.items())
    assert _files(tmp_path / "again") == _files(folder)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give one of --out (slices) and --bids (volumes)"),
        (["--out", "a", "--bids", "b"], "give one of --out (slices) and --bids (volumes)"),
        (["--bids", "b", "--patients", "9"], "--patients goes with --out, --participants with --bids"),
        (["--out", "a", "--participants", "9"], "--patients goes with --out, --participants with --bids"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(options, says):
    code, _, err = run_cli("data", "phantom", *options)
    assert code == 2
    assert says in " ".join(err.split())


def test_sound_volumes_are_registered_and_show_the_levels(cohort):
    folder, defects = cohort
    listed = {row["participant_id"] for row in _rows(folder / "participants.tsv")}
    broken = {place.split("/")[0] for place in defects}
    scans = [scan for name in sorted(listed - broken) for scan in find_scans(folder / name)]

    def measure(scan):
        volume = scan.volume()
        registration = register(volume)
        return registration.similarity, refusal(registration), len(cut(volume, registration)[1])

    similarity, refusals, levels = zip(*parallel_map(measure, scans), strict=True)
    print(f"{len(scans)} volumes, similarity {min(similarity):.2f} and more, levels {sorted(levels)}")
    assert not any(refusals)
    assert np.mean([count >= 30 for count in levels]) >= 0.9


def test_each_defect_is_one_that_the_reader_meets(cohort):
    folder, defects = cohort
    assert tuple(defects.values()) == DEFECTS
    assert list(defects) == sorted(defects)
    place = {what: folder / where for where, what in defects.items()}
    for what, error, says in (
        (phantom.FOUR_DIMENSIONAL, DataError, "holds 2 volumes"),
        (phantom.EMPTY, DataError, "not a"),
        (phantom.NOT_T1W, RefusalError, "does not look like a T1-weighted brain"),
    ):
        with pytest.raises(error, match=says):
            find_scans(place[what])[0].read()
    listed = {row["participant_id"]: row for row in _rows(folder / "participants.tsv")}
    assert not place[phantom.NO_SCAN].exists() and place[phantom.NO_SCAN].name in listed
    assert place[phantom.NOT_LISTED].exists() and place[phantom.NOT_LISTED].parts[-4] not in listed
    assert listed[place[phantom.NO_DIAGNOSIS].parts[-4]]["diagnosis"] == "n/a"
    assert listed[place[phantom.UNKNOWN_DIAGNOSIS].parts[-4]]["diagnosis"] == "XX"
    first = nib.load(folder / "sub-001/ses-01/anat/sub-001_ses-01_T1w.nii.gz")
    again = nib.load(place[phantom.DUPLICATE])
    assert nib.aff2axcodes(first.affine) != nib.aff2axcodes(again.affine)
    first, again = nib.as_closest_canonical(first), nib.as_closest_canonical(again)
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(again.dataobj))
    assert np.allclose(first.affine, again.affine, atol=1e-3)


def test_volumes_differ_as_those_of_scanners_do(cohort):
    folder, _ = cohort
    images = [nib.load(file) for file in folder.rglob("*.nii.gz") if file.stat().st_size]
    spacings = np.array([image.header.get_zooms()[:3] for image in images])
    assert spacings.min() >= 1 and spacings.max() <= 2.2
    assert 0 < np.mean(np.ptp(spacings, axis=1) > 0.05) < 1
    assert len({nib.aff2axcodes(image.affine) for image in images}) > 5


def test_tables_say_who_has_which_diagnosis(cohort):
    folder, _ = cohort
    people = _rows(folder / "participants.tsv")
    assert list(people[0]) == ["participant_id", "age", "sex", "site", "diagnosis"]
    assert all(55 <= int(row["age"]) <= 90 and row["sex"] in "FM" and row["site"] in "ABC" for row in people)
    assert {row["diagnosis"] for row in people} == {*DIAGNOSES, "n/a", "XX"}
    diagnosis = {row["participant_id"]: row["diagnosis"] for row in people}
    tables = list(folder.glob("sub-*/*_sessions.tsv"))
    assert tables
    for table in tables:
        first, second = _rows(table)
        assert [first["session_id"], second["session_id"]] == ["ses-01", "ses-02"]
        assert first["diagnosis"] == diagnosis[table.parent.name]
        assert (table.parent / "ses-02").is_dir()
    assert SYNTHETIC_NOTICE in (folder / "dataset_description.json").read_text()


def test_the_cohort_has_the_shares_a_third_of_second_sessions_and_a_few_that_convert():
    people = draw_participants(300, defects=False)
    first = [person.sessions[0].diagnosis for person in people]
    assert [first.count(name) for name in DIAGNOSES] == [150, 90, 60]
    twice = [person.sessions for person in people if len(person.sessions) == 2]
    assert 0.25 < len(twice) / len(people) < 0.42
    steps = [DIAGNOSES.index(later.diagnosis) - DIAGNOSES.index(sooner.diagnosis) for sooner, later in twice]
    assert set(steps) == {0, 1}
    assert 0.1 < np.mean(steps) < 0.4


def test_ventricles_tell_the_diagnoses_apart_but_not_wholly():
    people = [one for one in draw_participants(40, defects=False) if one.sessions[0].diagnosis in ("CN", "AD")]
    fluid = parallel_map(lambda person: _central_fluid(draw_brain(person, person.sessions[0])), people)
    auroc = roc_auc_score([person.sessions[0].diagnosis == "AD" for person in people], fluid)
    print(f"AUROC of {len(people)} people by the fluid in the middle of the brain: {auroc:.2f}")
    assert 0.75 < auroc < 1


def test_an_effect_changes_its_own_region_and_no_other():
    person = draw_participants(5)[0]
    session = phantom.Session("ses-01", "AD", 2.0)
    plain, both, hippocampus = (
        draw_brain(person, session, effects=effects).voxels for effects in ((), EFFECTS, ("hippocampus",))
    )
    assert plain.shape == both.shape == hippocampus.shape
    # the hippocampi lie in the lower half of the brain
    changed = np.nonzero(np.abs(hippocampus - plain) > 0.05 * plain.max())[2]
    assert len(changed) > 50
    height = np.nonzero(plain)[2]
    assert np.percentile(changed, 99) < (height.min() + height.max()) / 2
    assert _central_fluid(Volume(both, np.eye(4))) > _central_fluid(Volume(plain, np.eye(4)))


def _central_fluid(volume):
    """Return the share of dark voxels in a box around the middle of the brain."""
    inside = np.argwhere(volume.voxels > 0)
    low, high = inside.min(axis=0), inside.max(axis=0)
    box = [slice(int(a + 0.3 * (b - a)), int(a + 0.7 * (b - a))) for a, b in zip(low, high, strict=True)]
    middle = volume.voxels[tuple(box)]
    return float((middle < 0.65 * np.median(middle)).mean())


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="4 is too few; give 5 or more"):
        write_phantom_bids(tmp_path, participants=4)
    with pytest.raises(ConfigError, match="'sulci' is not one of ventricles, hippocampus"):
        write_phantom_bids(tmp_path, effects=("sulci",))
    (tmp_path / "README").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        write_phantom_bids(tmp_path)


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_validator_finds_no_error(tmp_path):
    folder = tmp_path / "sound"
    assert write_phantom_bids(folder, participants=5, defects=False) == {}
    result = subprocess.run([VALIDATOR, folder, "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert result.returncode == 0
    assert list(folder.glob("sub-*/*_sessions.tsv"))  # of either kind of participant
