"""Where scans come from and what is known of their people: BIDS, folders, tables as spreadsheets save them."""

from pathlib import Path

import pytest

from brainstage.cohorts.participants import read_participants
from brainstage.cohorts.selection import with_classes
from brainstage.cohorts.sources import CohortScan, CohortSource, find_cohort
from brainstage.core.errors import DataError
from brainstage.scans.volume import Volume
from volumes import brain, write_nifti, write_series

BRAIN = brain((12.0, 12.0, 12.0))
"""Large voxels: these scans are found, not read."""


def scan(folder, name):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(file, BRAIN)


def found(source, **options):
    cohort = find_cohort(source, salt=b"salt", **options)
    return {one.scan_id: one for one in cohort.scans}


def write(file, text, encoding="utf-8"):
    file.write_bytes(text.encode(encoding))
    return file


def test_a_table_is_read_as_spreadsheets_save_it(tmp_path):
    plain = "participant_id\tage\tdiagnosis\nsub-01\t70\tCN\nsub-02\tn/a\tAD\n"
    expected = read_participants(write(tmp_path / "a.tsv", plain)).rows
    assert expected[("02", None)] == {"participant_id": "sub-02", "age": None, "diagnosis": "AD"}
    for name, text, encoding in (
        ("bom.tsv", plain, "utf-8-sig"),
        ("windows.tsv", plain.replace("\n", "\r\n"), "utf-8"),
        ("blank.tsv", plain + "\n\t\t\n", "utf-8"),
        ("comma.csv", plain.replace("\t", ","), "utf-8"),
        ("semicolon.csv", plain.replace("\t", ";"), "utf-8"),
        ("twice.tsv", plain + "sub-01\t70\tCN\n", "utf-8"),
    ):
        assert read_participants(write(tmp_path / name, text, encoding)).rows == expected, name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name\tage\nA\t70\n", "column participant_id not found; it has name, age"),
        ("participant_id\tage\n01\t70\n01\t71\n", "lines 2 and 3 describe 01 differently; keep one of them"),
        ("participant_id\tage\n01\t70\tCN\n", "line 2: has 3 cells, the header has 2"),
        ("participant_id\tage\nn/a\t70\n", "line 2: column participant_id is empty"),
        ("participant_id\tparticipant_id\n01\t02\n", "must name each column once"),
        ("", "must name each column once"),
    ],
)
def test_a_table_that_is_not_usable_is_told_in_one_line(tmp_path, text, told):
    file = write(tmp_path / "participants.tsv", text)
    with pytest.raises(DataError) as error:
        read_participants(file)
    assert told in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_column_that_is_named_must_exist(tmp_path):
    file = write(tmp_path / "p.tsv", "participant_id\tage\tdx_group\n01\t70\tCN\n")
    with pytest.raises(DataError, match="column dx_grp not found; did you mean 'dx_group'"):
        read_participants(file, "dx_grp")
    with pytest.raises(DataError, match="column sight not found"):
        read_participants(file, covariates=["sight"])
    assert read_participants(file, "dx_group", ["age"]).covariates == ("age",)


def test_bids_has_labels_by_session_where_there_are_and_by_person_else(tmp_path):
    for name in ("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii"):
        scan(tmp_path, name)
    scan(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    scan(tmp_path, "sub-02/anat/sub-02_T2w.nii.gz")
    scan(tmp_path, "sub-02/func/sub-02_bold.nii.gz")
    write(
        tmp_path / "participants.tsv", "participant_id\tsex\tsite\tdiagnosis\nsub-01\tF\tX\tCN\nsub-02\tM\tY\tMCI\n"
    )
    write(
        tmp_path / "sub-01" / "sub-01_sessions.tsv", "session_id\tage\tdiagnosis\nses-a\t70\tn/a\nses-b\t72\tMCI\n"
    )
    scans = found(tmp_path)
    assert {name: (one.participant_id, one.session_id, one.label) for name, one in scans.items()} == {
        "sub-01_ses-a": ("01", "a", "CN"),
        "sub-01_ses-b": ("01", "b", "MCI"),
        "sub-02": ("02", None, "MCI"),
    }
    assert scans["sub-01_ses-b"].covariates == {"sex": "F", "site": "X"}
    assert found(tmp_path, covariates=["sex"])["sub-02"].covariates == {"sex": "M"}


def test_people_whose_ids_have_more_than_letters_and_digits_are_told_apart(tmp_path):
    names = ("01-A", "01-B", "002_S_0295", "002_S_0413", "Jörg", "Jürgen")
    for name in names:
        scan(tmp_path, f"sub-{name}/ses-1_a/anat/sub-{name}_ses-1_a_T1w.nii.gz")
    rows = "".join(f"sub-{name}\tCN\n" for name in names)
    write(tmp_path / "participants.tsv", f"participant_id\tdiagnosis\n{rows}")
    cohort = find_cohort(tmp_path, salt=b"")
    assert cohort.notes == () and len({one.scan_id for one in cohort.scans}) == len(names)
    assert {(one.participant_id, one.session_id, one.label) for one in cohort.scans} == {
        (name, "1_a", "CN") for name in names
    }


def test_ids_that_differ_by_zeros_are_named(tmp_path):
    for name in ("1", "01", "10"):
        scan(tmp_path, f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
    notes = find_cohort(tmp_path, salt=b"").notes
    assert notes == ("01, 1: these ids differ by zeros alone; is it one person?",)


def test_of_several_scans_of_a_session_one_is_taken_and_the_others_are_named(tmp_path):
    for run in (2, 1):
        scan(tmp_path, f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz")
    cohort = find_cohort(tmp_path, salt=b"")
    assert [Path(one.scan.name).name for one in cohort.scans] == ["sub-01_run-1_T1w.nii.gz"]
    assert "taken of 2 scans of its session; passed over: " in cohort.notes[0] and "run-2" in cohort.notes[0]
    both = found(tmp_path, all_runs=True)
    assert list(both) == ["sub-01_run-1", "sub-01_run-2"]
    assert [Path(one.scan.name).name for one in both.values()] == [
        "sub-01_run-1_T1w.nii.gz",
        "sub-01_run-2_T1w.nii.gz",
    ]


def test_bids_without_scans_and_folders_without_volumes_are_told(tmp_path):
    (tmp_path / "bids" / "sub-01").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for source, told in (
        (tmp_path / "bids", r"a BIDS dataset without a file sub-\*/\[ses-\*/\]anat/\*_T1w.nii"),
        (tmp_path / "empty", "no NIfTI or DICOM volume found|no .* file found"),
        (tmp_path / "notes.txt", "expected a folder of scans, or a CSV or TSV file"),
        (tmp_path / "gone", "no such file or folder"),
    ):
        with pytest.raises(DataError, match=told):
            find_cohort(source, salt=b"")


def test_in_a_folder_a_person_is_a_folder_or_a_file(tmp_path):
    scan(tmp_path, "002_S_0413/2006-05-19/I123.nii")
    scan(tmp_path, "002_S_0413/2007-05-19/I456.nii")
    scan(tmp_path, "b.nii.gz")
    table = write(tmp_path / "people.csv", "patient_id,dx\n002_S_0413,MCI\nb,CN\n")
    people = {
        (one.participant_id, one.session_id, one.label) for one in found(tmp_path, participants=table).values()
    }
    assert people == {("002_S_0413", "2006-05-19", "MCI"), ("002_S_0413", "2007-05-19", "MCI"), ("b", None, "CN")}
    names = list(found(tmp_path, participants=table))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzS0123456789-_") for name in names)


def test_folders_that_are_named_like_stages_are_labels(tmp_path):
    for name in ("CN/a.nii.gz", "CN/b.nii.gz", "AD/c/scan.nii.gz"):
        scan(tmp_path, name)
    assert {(one.participant_id, one.label) for one in found(tmp_path).values()} == {
        ("a", "CN"),
        ("b", "CN"),
        ("c", "AD"),
    }


def test_a_table_of_paths_names_scans_below_it_alone(tmp_path):
    scan(tmp_path, "x/1.nii.gz")
    table = write(
        tmp_path / "scans.tsv", "path\tparticipant_id\tlabel\tage\nx/1.nii.gz\ta\tCN\t70\nx/2.nii.gz\tb\tAD\t71\n"
    )
    scans = found(table)
    assert scans["sub-a"].label == "CN" and scans["sub-a"].covariates == {"age": "70"}
    assert scans["sub-b"].scan is None and scans["sub-b"].problem == "no such file"
    write(table, "path\tparticipant_id\tlabel\n../1.nii.gz\ta\tCN\n")
    with pytest.raises(DataError, match=r"line 2: \.\./1.nii.gz is no path below"):
        found(table)


def test_a_table_of_people_may_name_dicom_patients_as_their_files_do(tmp_path):
    write_series(tmp_path / "in" / "one", Volume(BRAIN.voxels, BRAIN.affine), PatientID="4711")
    table = write(tmp_path / "people.csv", "participant_id,diagnosis\n4711,AD\n4712,CN\n")
    scans = list(found(tmp_path / "in", participants=table).values())
    assert [one.label for one in scans if one.scan] == ["AD"]
    assert [one.problem for one in scans if not one.scan] == ["no scan, but a row of people.csv"]
    assert not any(name in str(vars(one) | {"scan": None}) for one in scans for name in ("4711", "4712"))


def test_a_table_without_a_label_is_told_with_its_columns(tmp_path):
    scan(tmp_path / "sub-01" / "anat", "sub-01_T1w.nii.gz")
    write(tmp_path / "participants.tsv", "participant_id\tage\tclinical_group\nsub-01\t70\tCN\n")
    (note,) = find_cohort(tmp_path, salt=b"salt").notes
    assert "(participant_id, age, clinical_group) is called diagnosis" in note
    assert note.endswith("name the column with --label-column")
    assert find_cohort(tmp_path, salt=b"salt", label_column="clinical_group").notes == ()


def test_classes_of_unknown_order_are_told(tmp_path):
    cohort = CohortSource([CohortScan(name, name, label=name) for name in ("aMCI", "HC", "ADD")])
    told, classes, ordered = with_classes(cohort, None)
    assert (classes, ordered) == (("ADD", "HC", "aMCI"), False)
    assert "--class-order" in told.notes[0]
    assert with_classes(cohort, ("HC", "aMCI", "ADD"))[0].notes == ()
