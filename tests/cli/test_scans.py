"""scans lists what a folder holds; --series chooses from the list."""

import csv
import io
import json
import os
import threading

import pytest

from brainstage.cli.shared import ExitCode
from brainstage.core.errors import DataError
from brainstage.scans.discover import find_scans
from helpers import encode, picture, run_cli
from volumes import PATIENT, brain, turned, write_nifti, write_series

BRAIN = brain((3, 3, 3))


@pytest.fixture
def study(tmp_path):
    """Return a folder with two series in one folder and a NIfTI volume of fewer slices."""
    write_series(tmp_path / "a", turned(BRAIN, (1, 0, 2), (1, 1, 1)), uid="1.2", SeriesDescription="flair")
    for file in (tmp_path / "a").iterdir():
        file.rename(file.with_name(f"second-{file.name}"))
    write_series(tmp_path / "a", BRAIN, uid="1.1", SeriesDescription=f"t1 {PATIENT}")
    write_nifti(tmp_path / "b.nii.gz", brain((6, 6, 6)))
    return tmp_path


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_scans_are_listed_without_their_descriptions_where_no_terminal_is(study):
    code, out, err = run_cli("scans", study)
    assert (code, err) == (ExitCode.DONE, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["series", "matrix", "spacing", "(mm)", "slices", "kind", "source"] in lines
    assert [line[:8] for line in lines if line[:1] == ["1"]] == [["1", "66×77", "3", "×", "3", "×", "3", "63"]]
    assert "flair" not in out
    assert PATIENT not in out


def test_descriptions_are_shown_on_a_terminal(study, monkeypatch):
    monkeypatch.setattr("helpers.io.StringIO", Terminal)
    monkeypatch.chdir(study)
    _, out, _ = run_cli("scans", ".")
    assert "description" in out
    assert f" 1 t1 {PATIENT} " in out
    assert " 2 flair " in out
    _, out, _ = run_cli("scans", ".", "--json")
    assert PATIENT not in out


def test_json_has_the_same_list_without_descriptions(study):
    code, out, _ = run_cli("scans", study, "--json")
    assert code == ExitCode.DONE
    scans = json.loads(out)["scans"]
    assert scans[0] == {
        "number": 1,
        "source": str(study / "a"),
        "kind": "DICOM",
        "modality": "MR",
        "slices": 63,
        "matrix": [66, 77],
        "spacing_mm": [3.0, 3.0, 3.0],
    }
    assert [scan["number"] for scan in scans] == [1, 2, 3]
    assert scans[2]["kind"] == "NIfTI"


def test_a_folder_without_scans_is_one_sentence(tmp_path):
    code, _, err = run_cli("scans", tmp_path)
    assert code == ExitCode.FAILED
    assert "no JPEG, PNG, NIfTI, DICOM or parquet file found" in err


def test_predict_takes_the_series_of_the_list(study):
    code, out, err = run_cli("predict", study, "--series", 3, "--json")
    assert code == ExitCode.DONE, err
    assert {row["source"] for row in json.loads(out)["predictions"]} == {str(study / "b.nii.gz")}
    code, _, err = run_cli("predict", study, "--series", 4)
    assert code == ExitCode.FAILED
    assert "--series 4: no such volume or series (1 to 3); list them with: brainstage scans" in err
    assert run_cli("predict", study, "--series", 0).code == ExitCode.USAGE


def test_explain_takes_the_series_of_the_list(study, monkeypatch):
    class ChosenError(Exception):
        pass

    def explain(_predictor, scans, _out, **_options):
        raise ChosenError([scan.name for scan in scans])

    monkeypatch.setattr("brainstage.report.explanations.explain", explain)
    with pytest.raises(ChosenError) as told:
        run_cli("explain", study, "--series", 2, "--out", study / "pictures")
    assert told.value.args == ([f"{study / 'a'}, series 2"],)


def test_extract_names_the_series_and_takes_one(study, monkeypatch):
    pytest.importorskip("SimpleITK")
    code, _, err = run_cli("extract", study, "--out", study / "brain.nii.gz")
    assert code == ExitCode.FAILED
    assert "found 3: 1 a (66×77, 63 slices), 2 a (" in err
    assert "--series N" in err
    assert PATIENT not in err
    monkeypatch.setattr("helpers.io.StringIO", Terminal)
    _, _, err = run_cli("extract", study, "--out", study / "brain.nii.gz")
    assert f"t1 {PATIENT}, " in err
    assert "(flair, " in err
    _, _, err = run_cli("extract", study, "--out", study / "brain.nii.gz", "--series", 3)
    assert "b.nii.gz: " in err  # a brain without its skull


def test_each_series_of_a_folder_has_its_number_in_predictions(study):
    _, out, _ = run_cli("predict", study, "--json")
    sources = {row["source"] for row in json.loads(out)["predictions"]}
    assert sources == {f"{study / 'a'}, series 1", f"{study / 'a'}, series 2", str(study / "b.nii.gz")}


def test_series_of_several_patients_are_told_apart_without_their_ids(tmp_path):
    for number, person in enumerate(("Doe", "Roe", "Doe")):
        write_series(tmp_path / f"{number}", BRAIN, uid=f"1.{number}", PatientID=person)
    code, out, _ = run_cli("scans", tmp_path, "--json")
    assert code == ExitCode.DONE
    assert [scan["patient"] for scan in json.loads(out)["scans"]] == [1, 2, 1]
    table = run_cli("scans", tmp_path).out
    assert "Their headers name several patients" in table
    _, _, err = run_cli("extract", tmp_path, "--out", tmp_path / "brain.nii.gz")
    assert "patient 2, 66×77" in err
    assert not any(name in text for name in ("Doe", "Roe") for text in (out, table, err))


def sources(*inputs):
    code, out, err = run_cli("scans", *inputs, "--json")
    assert code == ExitCode.DONE, err
    return [scan["source"] for scan in json.loads(out)["scans"]]


def test_a_series_named_by_relative_and_absolute_paths_is_one(tmp_path, monkeypatch):
    first, *others = sorted(write_series(tmp_path / "dcm", BRAIN).iterdir())
    monkeypatch.chdir(tmp_path)
    assert sources(first.relative_to(tmp_path), *others) == [str(tmp_path / "dcm")]
    assert sources(*(file.relative_to(tmp_path) for file in (first, *others))) == ["dcm"]


def test_a_series_of_the_current_folder_has_its_name(tmp_path, monkeypatch):
    write_series(tmp_path / "dcm", BRAIN, order=range(5))
    monkeypatch.chdir(tmp_path / "dcm")
    assert sources(".") == sources("*") == ["dcm"]
    code, out, _ = run_cli("predict", ".", "--json")
    (row,) = json.loads(out)["predictions"]
    assert code == ExitCode.NOTHING_USABLE
    assert row["source"] == "dcm"
    assert row["reason"].startswith("dcm: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    pipes = [tmp_path / "scans" / name for name in ("pipe", "pipe.png")]
    write_nifti(tmp_path / "b.nii.gz", brain((6, 6, 6)))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "link.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    for pipe in pipes:
        os.mkfifo(pipe)
    found = []
    looking = threading.Thread(target=lambda: found.extend(find_scans(tmp_path / "scans")), daemon=True)
    looking.start()
    looking.join(30)
    assert [scan.name for scan in found] == [str(tmp_path / "scans" / name) for name in ("link.nii.gz", "pipe.png")]
    code, _, err = run_cli("predict", pipes[0])  # one that is named is told, whatever its ending
    assert code == ExitCode.NOTHING_USABLE
    assert f"{pipes[0]}: a pipe, socket or device, expected a file; save what it gives in one" in err


@pytest.fixture
def odd_folder(tmp_path):
    """Return a folder whose name is not UTF-8."""
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes names of UTF-8 alone")
    return folder


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a"])
def test_a_file_whose_name_is_not_utf_8_is_predicted(odd_folder, tmp_path, name):
    (odd_folder / "0.png").write_bytes(encode(picture()))
    code, _, err = run_cli("predict", odd_folder / "0.png", "--out", tmp_path / name)
    assert code in (ExitCode.DONE, ExitCode.NOTHING_USABLE), err
    if name == "a.csv":
        (row,) = csv.DictReader((tmp_path / name).open(encoding="utf-8"))
        assert row["source"] == f"{tmp_path}/M\\udcfcller/0.png"


def test_a_series_in_a_folder_whose_name_is_not_utf_8_is_read(odd_folder, tmp_path):
    write_series(odd_folder, BRAIN)
    damaged = sorted(odd_folder.iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (scan,) = find_scans(tmp_path)
    assert scan.name == f"{tmp_path}/M\\udcfcller"
    with pytest.raises(DataError, match="damaged") as told:
        scan.read()
    assert str(told.value).startswith(f"{scan.name}, file 2: ")
