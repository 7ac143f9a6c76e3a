"""predict and explain: what is written, what is said of scans that cannot be used, and the exit code."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from brainstage.cli.shared import ExitCode
from brainstage.core.schema import read_metadata
from brainstage.scans.stack import training_stack
from helpers import brainstage, encode, picture, run_cli
from volumes import PATIENT, brain, with_skull, write_nifti, write_series


@pytest.fixture(scope="module")
def levels():
    """Return some slices of one brain, as the training data has them."""
    slices, _ = training_stack(brain((3, 3, 3)), "template")
    return [slices[level] for level in range(6, 22, 4)]


@pytest.fixture
def folder(tmp_path, levels):
    """Return a folder with four slices of one person and a file that is no scan."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, image in enumerate(levels):
        (scans / f"{number}.png").write_bytes(encode(image))
    (scans / "notes.txt").write_text("not a scan")
    return scans


def damaged_exif():
    """Return an EXIF block that ends in the middle: Pillow warns of it in two lines."""
    return b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0"


def test_a_process_predicts_a_file_and_prints_no_warning_of_a_library(tmp_path, levels):
    (tmp_path / "a.jpg").write_bytes(encode(levels[1], "JPEG", quality=95, exif=damaged_exif()))
    done = brainstage("predict", tmp_path / "a.jpg", PYTHONWARNINGS="")
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
    assert "a.jpg" in done.stdout
    assert "never a diagnosis" in " ".join(done.stdout.split())


def test_predict_without_a_run_stages_one_person_from_all_slices(folder):
    alone, together = (run_cli("predict", folder, "--json", *more) for more in ([], ["--one-person"]))
    assert (alone.code, together.code) == (ExitCode.DONE, ExitCode.DONE)
    by_file, by_person = (json.loads(outcome.out) for outcome in (alone, together))
    assert "On people whom it had not seen" in by_file["notice"]
    assert "never a diagnosis" in by_file["notice"]
    column = "prob_Non_Demented"
    person, *slices = by_person["predictions"]
    assert (person["source"], person["slices"], person["person"]) == ("one person", 4, 1)
    assert [row["person"] for row in by_file["predictions"]] == [1, 2, 3, 4]
    assert [row[column] for row in slices] == pytest.approx(
        [row[column] for row in by_file["predictions"]], abs=1e-5
    )
    assert person[column] not in [row[column] for row in slices]


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.parquet"])
def test_files_that_cannot_be_read_are_named_and_the_others_predicted(name, tmp_path, phantom, trained):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(encode(phantom.images[number]))
    (tmp_path / "images" / "broken.jpg").write_text("a text")
    out = tmp_path / name
    code, _, err = run_cli("predict", trained.path, tmp_path / "images", "--out", out)
    assert code == ExitCode.FAILED
    assert "broken.jpg: not a JPEG, PNG, NIfTI, DICOM or parquet file" in err
    assert "1 of 4 scans could not be read" in err
    if out.suffix == ".json":
        content = json.loads(out.read_text())
        statuses, notice = [row["status"] for row in content["predictions"]], content["notice"]
    elif out.suffix == ".parquet":
        table = pq.read_table(out)
        statuses, notice = table["status"].to_pylist(), read_metadata(table)["notice"]
    else:
        with out.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        statuses, notice = [row["status"] for row in rows], rows[0]["notice"]
    assert statuses == ["predicted"] * 3 + ["failed"]
    assert "never a diagnosis" in notice


def test_parquet_rows_and_globs_are_predicted_together(folder, phantom_folder, trained):
    rows = next(phantom_folder.glob("data/test*"))
    code, out, _ = run_cli("predict", trained.path, rows, folder / "?.png", "--json")
    assert len(json.loads(out)["predictions"]) == 102 + 4
    assert code == ExitCode.DONE


def test_nothing_usable_is_exit_code_3(tmp_path, phantom):
    (tmp_path / "noise.png").write_bytes(encode(picture(0, (128, 128))))
    (tmp_path / "drawn.png").write_bytes(encode(phantom.images[9]))
    code, out, err = run_cli("predict", tmp_path, "--json")
    assert code == ExitCode.NOTHING_USABLE
    for row in json.loads(out)["predictions"]:
        assert (row["status"], row["stage"], row["prob_Non_Demented"]) == ("refused", None, None)
        assert row["reason"] in err
    (tmp_path / "broken.png").write_text("a text")
    for inputs in (["broken.png"], ["broken.png", "missing.png"], ["broken.png", "noise.png"]):
        code, _, err = run_cli("predict", *(tmp_path / name for name in inputs))
        assert code == ExitCode.NOTHING_USABLE
        assert inputs[0] in err
    (tmp_path / "empty").mkdir()
    code, _, err = run_cli("predict", tmp_path / "empty")
    assert code == ExitCode.NOTHING_USABLE
    assert "no JPEG, PNG, NIfTI, DICOM or parquet file found" in err
    assert run_cli("predict", tmp_path / "empty", "--out", tmp_path / "many")[::2] == (code, err)
    assert not (tmp_path / "many").exists()


def test_a_refused_scan_beside_a_predicted_one_is_no_failure(folder):
    (folder / "noise.png").write_bytes(encode(picture(0, (128, 128))))
    code, _, err = run_cli("predict", folder, "--quiet")
    assert code == ExitCode.DONE
    assert "noise.png: does not look like" in err


def test_explain_ends_as_predict_does(folder, tmp_path, trained, phantom):
    (tmp_path / "noise.png").write_bytes(encode(picture(0, (128, 128))))
    (tmp_path / "drawn.png").write_bytes(encode(phantom.images[9]))
    (tmp_path / "broken.png").write_text("a text")
    for number, (names, expected) in enumerate(
        (
            (["drawn.png", "noise.png"], ExitCode.DONE),
            (["drawn.png", "broken.png"], ExitCode.FAILED),
            (["noise.png", "broken.png"], ExitCode.NOTHING_USABLE),
        )
    ):
        inputs = [tmp_path / name for name in names]
        code, _, err = run_cli(
            "explain", trained.path, *inputs, "--out", tmp_path / f"maps-{number}", "--method", "occlusion"
        )
        assert code == expected, err
        assert names[1] in err


def test_predict_takes_a_skull_off_where_one_is_and_draws_the_brain(tmp_path):
    volume = brain((3, 3, 3))
    write_nifti(tmp_path / "brain.nii.gz", volume)
    write_nifti(tmp_path / "head.nii.gz", with_skull(volume))
    names = [tmp_path / "brain.nii.gz", tmp_path / "head.nii.gz"]
    written = run_cli("predict", *names, "--skull", "auto", "--out", tmp_path / "out.json")
    assert written.code == ExitCode.DONE, written.err
    reply = json.loads((tmp_path / "out.json").read_text())
    assert reply["skulls_removed"] == [str(names[1])]
    assert f"The skull was taken off {names[1]}: in its picture the line must follow the edge of" in reply["notice"]
    people = [row for row in reply["predictions"] if row["level"] is None]
    assert [row["status"] for row in people] == ["predicted", "predicted"]
    alone, taken_out = (row["prob_Non_Demented"] for row in people)
    assert taken_out == pytest.approx(alone, abs=0.15)
    assert [file.name for file in (tmp_path / "brains").iterdir()] == ["002.png"]  # the second scan's
    assert f"head.nii.gz: its skull was taken off; check {tmp_path / 'brains' / '002.png'}" in written.err


def test_a_picture_of_a_brain_is_never_overwritten(tmp_path):
    pytest.importorskip("SimpleITK")
    write_nifti(tmp_path / "head.nii.gz", with_skull(brain((3, 3, 3))))
    (tmp_path / "brains").mkdir()
    for name in ("001.png", "002.png"):
        (tmp_path / "brains" / name).write_text("of another scan")
    code, _, err = run_cli("predict", tmp_path / "head.nii.gz", "--skull", "auto", "--out", tmp_path / "b.csv")
    assert code == ExitCode.DONE, err
    assert f"its skull was taken off; check {tmp_path / 'brains' / '003.png'}" in err
    kept = [file.read_bytes() == b"of another scan" for file in sorted((tmp_path / "brains").iterdir())]
    assert kept == [True, True, False]


def test_explain_takes_a_skull_off_too(tmp_path):
    pytest.importorskip("SimpleITK")
    write_nifti(tmp_path / "head.nii.gz", with_skull(brain((3.0, 3.0, 3.0))))
    code, _, err = run_cli("explain", tmp_path / "head.nii.gz", "--skull", "auto", "--out", tmp_path / "pictures")
    assert code == ExitCode.DONE, err
    assert f"its skull was taken off; check {tmp_path / 'brains' / '001.png'}" in err
    assert (tmp_path / "brains" / "001.png").is_file()
    assert (tmp_path / "pictures" / "001.png").is_file()


def test_predict_stages_a_volume_whole_and_slice_by_slice_and_names_no_patient(tmp_path):
    volume = brain((3, 3, 3))
    write_series(tmp_path / "study", volume)
    write_nifti(tmp_path / "head.nii.gz", with_skull(volume))
    written = run_cli("predict", tmp_path / "study", tmp_path / "head.nii.gz", "--out", tmp_path / "out.csv")
    assert written.code == ExitCode.DONE
    assert "head.nii.gz: shows a head with its skull" in written.err
    with (tmp_path / "out.csv").open(newline="") as stream:
        whole, *slices, refused = csv.DictReader(stream)
    assert (whole["source"], whole["slices"], whole["level"]) == (str(tmp_path / "study"), "32", "")
    assert [row["level"] for row in slices] == [str(level) for level in range(32)]
    assert float(whole["prob_Non_Demented"]) > 0.5  # a young adult's brain
    assert (refused["status"], refused["stage"]) == ("refused", "")
    assert "How often it is wrong on scans from elsewhere" in whole["notice"]
    assert 0 < float(whole["stability"]) <= 1
    screen = run_cli("predict", tmp_path / "study")
    assert "Among people like the 200 of the OASIS-1 study" in " ".join(screen.out.split())
    for text in ((tmp_path / "out.csv").read_text(), *written[1:], *screen[1:]):
        assert PATIENT not in text
