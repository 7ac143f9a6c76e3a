"""Scans of a source to a cohort folder: every scan a row, nothing lost when it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bids_tree import STAGES, write_bids, write_brain
from brainstage.cohorts import prepare as module
from brainstage.cohorts.folder import CohortFolder
from brainstage.cohorts.prepare import prepare
from brainstage.core.errors import ConfigError, DataError, LeakageError, RunError
from brainstage.core.parallel import Processes
from brainstage.datasets.describe import describe
from brainstage.datasets.sources import load_slices
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.registration import register
from helpers import run_cli
from volumes import PATIENT, brain, with_skull, write_nifti, write_series


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_bids(tmp_path_factory.mktemp("source") / "bids")


@pytest.fixture(scope="module")
def cohort(bids, tmp_path_factory):
    return prepare(bids, tmp_path_factory.mktemp("out") / "cohort", workers=Processes(1))


def ledger_of(cohort):
    return {row["scan_id"]: row for row in cohort.ledger.to_pylist()}


def content(folder):
    """Return every file of a cohort but the private ones; of the ledger all but the seconds."""
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and ".prepare" not in file.parts:
            is_ledger = file.name == "scans.parquet"
            files[file.name] = pq.read_table(file).drop_columns("seconds") if is_ledger else file.read_bytes()
    return files


def test_a_cohort_opens_as_slices_with_their_people_levels_and_order(cohort):
    slices = load_slices(cohort.folder)
    assert len(slices) == 6 * 32 and slices.classes == STAGES and slices.ordered and not slices.skipped
    assert slices.patient_source == "given"
    assert set(zip(slices.patients, slices.labels, strict=True)) == {(f"{n:02d}", STAGES[n % 3]) for n in range(6)}
    levels = np.array(slices.rows["slice_index"].to_pylist()).reshape(6, 32)
    assert (levels == np.arange(32)).all()
    table = pq.read_table(next(cohort.folder.glob("data/*.parquet")))
    assert set(zip(table["age"].to_pylist(), table["sex"].to_pylist(), strict=True)) >= {(60.0, "M"), (61.0, "F")}
    assert describe(slices)["covariates"] == {"age": 6, "sex": 6}
    outcome = run_cli("data", "describe", "--data", str(cohort.folder))
    assert "covariates age (of 6 people), sex (of 6 people)" in " ".join(outcome.out.split())


def test_training_on_a_cohort_keeps_its_people_apart_without_being_asked(cohort, tmp_path):
    outcome = run_cli("train", "--data", cohort.folder, "--out", tmp_path, "--set", "folds=2")
    assert outcome.out == "Protocol patient: the data name their people and have no test side.\n"
    assert "a class has one patient in train" in outcome.err  # two people a class are too few to train on


def test_the_ledger_has_what_was_measured_of_each_scan(bids, cohort):
    rows = ledger_of(cohort)
    assert pq.read_table(cohort.folder / "scans.parquet").equals(cohort.ledger)
    for number, row in enumerate(rows.values()):
        assert row["status"] == "prepared" and row["reason"] is None and row["levels"] == 32
        file = bids / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz"
        assert row["similarity"] == round(register(decode_nifti(file.read_bytes(), file.name)).similarity, 4) > 0.6
        assert row["outside"] < 0.05 and row["skull_stripped"] is False
        assert row["seconds"] > 0 and len(row["orientation"]) == 3
    assert len({row["orientation"] for row in rows.values()}) > 2


def test_a_second_run_prepares_nothing_and_changes_nothing(cohort, bids, monkeypatch):
    before = content(cohort.folder)
    monkeypatch.setattr(module, "prepare_scan", None)
    prepare(bids, cohort.folder, workers=Processes(1))
    assert content(cohort.folder) == before


def test_several_processes_make_the_same_cohort_file_by_file(cohort, bids, tmp_path):
    assert content(prepare(bids, tmp_path / "cohort", workers=Processes(2)).folder) == content(cohort.folder)


def test_killed_at_some_scan_it_goes_on_there_and_ends_with_the_same_cohort(cohort, bids, tmp_path):
    out = tmp_path / "cohort"
    command = [sys.executable, "-m", "brainstage", "prepare", str(bids), "--out", str(out), "--jobs", "2", "-q"]
    parts = out / ".prepare" / "parts"
    with subprocess.Popen(command, start_new_session=True) as process:
        while len(list(parts.glob("*.parquet"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    done = {file.name: file.stat().st_mtime_ns for file in parts.glob("*.parquet")}
    assert 2 <= len(done) < 6
    again = prepare(bids, out, workers=Processes(1))
    assert content(again.folder) == content(cohort.folder)
    assert all((parts / name).stat().st_mtime_ns == when for name, when in done.items())


def test_what_cannot_be_used_is_a_row_with_its_reason_and_the_others_go_on(tmp_path):
    bids = write_bids(
        tmp_path / "bids",
        people=10,
        rows=["sub-50\t70\tF\tAD", "sub-11\t71\tF\tMCI", "sub-51\t72\tM\tn/a"],
    )
    scans = {number: bids / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz" for number in range(10)}
    scans[0].write_bytes(b"")
    scans[1].write_bytes(scans[1].read_bytes()[:5000])
    write_nifti(scans[2], with_skull(brain((4.0, 4.0, 4.0))))
    sound = brain((4.0, 4.0, 4.0))
    inverted = np.where(sound.voxels > 40, 300 - sound.voxels, 0).astype(np.float32)  # as a T2-weighted scan
    write_nifti(scans[3], replace(sound, voxels=inverted))
    write_brain(bids / "sub-0011" / "anat" / "sub-0011_T1w.nii.gz", 11)
    text = (bids / "participants.tsv").read_text().replace("sub-04\t64\tM\tMCI", "sub-04\t64\tM\tXX")
    (bids / "participants.tsv").write_text(text.replace("sub-05\t65\tF\tAD\n", ""))
    rows = ledger_of(prepare(bids, tmp_path / "cohort", workers=Processes(1), skull="stripped"))
    reasons = {name: (row["status"], row["reason"]) for name, row in rows.items() if row["reason"]}
    expected = {
        "sub-00": ("failed", "not a JPEG, PNG, NIfTI, DICOM or parquet file"),
        "sub-01": ("failed", "damaged"),
        "sub-02": ("refused", "shows a head with its skull"),
        "sub-03": ("refused", "does not look like a T1-weighted brain"),
        "sub-04": ("failed", "unknown label XX, expected one of CN, MCI, AD"),
        "sub-05": ("prepared", "no row of participants.tsv describes the person"),
        "sub-11": ("failed", "no scan, but a row of participants.tsv"),
        "sub-0011": ("prepared", "no row of participants.tsv describes the person; 11 differs by zeros alone"),
        "sub-50": ("failed", "no scan"),
        "sub-51": ("failed", "no scan"),
    }
    assert reasons.keys() == expected.keys()
    for name, (status, reason) in expected.items():
        assert reasons[name][0] == status and reason in reasons[name][1], (name, reasons[name])
    assert not any(str(tmp_path) in (row["reason"] or "") for row in rows.values())
    assert sum(row["status"] == "prepared" for row in rows.values()) == 6


def test_a_scan_that_kills_its_process_fails_and_the_others_go_on(tmp_path, monkeypatch):
    bids = write_bids(tmp_path / "bids", people=4)
    monkeypatch.setattr(module, "prepare_scan", dying_at_the_third)
    rows = ledger_of(prepare(bids, tmp_path / "cohort", workers=Processes(2)))
    assert (rows["sub-02"]["status"], rows["sub-02"]["reason"]) == ("failed", module.DIED)
    assert [row["status"] for name, row in rows.items() if name != "sub-02"] == ["prepared"] * 3


def dying_at_the_third(task):
    from brainstage.cohorts.scan import prepare_scan

    if task.part.name == "sub-02.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare_scan(task)


def test_scans_can_be_left_out_and_taken_again(bids, tmp_path):
    names = tmp_path / "exclude.txt"
    names.write_text("# too much motion\nsub-01\r\nsub-03\n")
    out = tmp_path / "cohort"
    rows = ledger_of(prepare(bids, out, exclude=names, workers=Processes(1)))
    assert [name for name, row in rows.items() if row["reason"] == "left out by exclude.txt"] == [
        "sub-01",
        "sub-03",
    ]
    assert rows["sub-01"]["status"] == "refused" and len(load_slices(out)) == 4 * 32
    prepare(bids, out, workers=Processes(1))
    assert len(load_slices(out)) == 6 * 32
    names.write_text("sub-1\n")
    with pytest.raises(ConfigError, match="sub-1 is no scan of this source; did you mean 'sub-01'"):
        prepare(bids, out, exclude=names, workers=Processes(1))


def test_refused_scans_are_prepared_again_where_it_is_asked_for(tmp_path):
    bids = write_bids(tmp_path / "bids", people=2)
    write_nifti(bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz", with_skull(brain((4.0, 4.0, 4.0))))
    out = tmp_path / "cohort"
    parts = out / ".prepare" / "parts"

    def times():
        return {file.stem: file.stat().st_mtime_ns for file in parts.iterdir()}

    prepare(bids, out, skull="stripped", workers=Processes(1))
    first = times()
    prepare(bids, out, skull="stripped", workers=Processes(1), redo=("refused",))
    second = times()
    assert first["sub-00"] == second["sub-00"] and first["sub-01"] < second["sub-01"]


def test_a_file_that_changed_is_prepared_again_and_labels_are_read_anew(tmp_path):
    bids = write_bids(tmp_path / "bids", people=3)
    out = tmp_path / "cohort"
    before = load_slices(prepare(bids, out, workers=Processes(1)).folder)
    write_brain(bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz", 77)
    table = bids / "participants.tsv"
    table.write_text(table.read_text().replace("sub-02\t62\tM\tAD", "sub-02\t62\tM\tCN"))
    after = load_slices(prepare(bids, out, workers=Processes(1)).folder)
    same = [old == new for old, new in zip(before.slice_ids, after.slice_ids, strict=True)]
    assert same[:32] == [True] * 32 and not any(same[32:64]) and same[64:] == [True] * 32
    assert after.labels[64] == "CN"


def test_a_split_is_kept_and_may_not_part_a_person(bids, tmp_path):
    table = tmp_path / "people.tsv"
    lines = ["participant_id\tdiagnosis\tsplit"]
    lines += [f"{number:02d}\t{STAGES[number % 3]}\t{'test' if number < 2 else 'train'}" for number in range(6)]
    table.write_text("\n".join(lines) + "\n")
    slices = load_slices(prepare(bids, tmp_path / "cohort", participants=table, workers=Processes(1)).folder)
    assert slices.rows["split"].to_pylist() == ["train"] * 128 + ["test"] * 64
    table.write_text("\n".join(lines).replace("05\tAD\ttrain", "05\tAD\tn/a"))
    with pytest.raises(DataError, match="05 has none; give one to everyone or to nobody"):
        prepare(bids, tmp_path / "cohort", participants=table, workers=Processes(1))
    scans = tmp_path / "scans.csv"
    for session in "12":
        write_brain(tmp_path / f"{session}.nii.gz", int(session))
    scans.write_text("path,participant_id,session_id,dx,split\n1.nii.gz,a,1,CN,train\n2.nii.gz,a,2,CN,test\n")
    with pytest.raises(LeakageError, match="a is on both sides"):
        prepare(scans, tmp_path / "other", workers=Processes(1))


def test_a_folder_that_is_in_use_or_of_something_else_is_refused(cohort, bids, tmp_path):
    with CohortFolder(cohort.folder).claim(), pytest.raises(RunError, match="another process prepares this cohort"):
        prepare(bids, cohort.folder)
    (tmp_path / "thesis.docx").write_bytes(b"x")
    with pytest.raises(RunError, match="holds other files"):
        prepare(bids, tmp_path)
    assert (tmp_path / "thesis.docx").exists() and not (tmp_path / ".prepare").exists()
    other = tmp_path / "other"
    prepare(bids, other, workers=Processes(1))
    about = other / "cohort.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "version": 99}))
    with pytest.raises(RunError, match="a cohort of version 99"):
        prepare(bids, other)


def test_nothing_to_prepare_is_said_and_the_ledger_stays(tmp_path):
    bids = write_bids(tmp_path / "bids", people=1)
    (bids / "sub-00" / "anat" / "sub-00_T1w.nii.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of 1 scans could be prepared; scans.parquet says why"):
        prepare(bids, tmp_path / "cohort", workers=Processes(1))
    assert pq.read_table(tmp_path / "cohort" / "scans.parquet")["status"].to_pylist() == ["failed"]


def test_nothing_of_a_dicom_header_leaves(tmp_path):
    source = tmp_path / "export"
    for number in (1, 2):
        ids = {"uid": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}"}
        write_series(source / f"Sommer_{number}" / "T1", brain((4.0, 4.0, 4.0)), **ids)
    cohort = prepare(source, tmp_path / "cohort", workers=Processes(1))
    people = set(cohort.ledger["participant_id"].to_pylist())
    assert len(people) == 1 and all(len(person) == 12 for person in people)  # both folders are of one patient
    assert len(set(cohort.ledger["session_id"].to_pylist())) == 2
    for file in Path(cohort.folder).rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"Sommer" not in data and PATIENT.encode() not in data, file
    other = prepare(source, tmp_path / "other", workers=Processes(1))
    assert people.isdisjoint(other.ledger["participant_id"].to_pylist())  # each cohort has a salt of its own


def test_ratings_in_a_column_called_cdr_are_in_order(tmp_path):
    bids = write_bids(tmp_path / "bids", people=3)
    (bids / "participants.tsv").write_text("participant_id\tcdr\nsub-00\t2\nsub-01\t0\nsub-02\t1\n")
    cohort = prepare(bids, tmp_path / "cohort", workers=Processes(1))
    assert cohort.classes == ("0", "1", "2") and cohort.ordered
    assert load_slices(cohort.folder).classes == ("0", "1", "2")
    in_words = prepare(bids, tmp_path / "cohort", class_order=("2", "1", "0"), workers=Processes(1))
    slices = load_slices(in_words.folder)
    assert slices.classes == ("2", "1", "0") and slices.ordered and slices.labels[0] == "2"
