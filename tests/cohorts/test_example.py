"""The example of one synthetic person: each file is accepted by the command that it is for."""

import json

import numpy as np
import pydicom
import pytest

from brainstage.cli.data import EXAMPLE_COMMANDS
from brainstage.cohorts.example import write_example
from brainstage.core.errors import RefusalError
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.scans import skull_strip
from brainstage.scans.discover import find_scans
from brainstage.scans.skull_strip import extract_brain
from brainstage.scans.stack import MIN_SIMILARITY
from helpers import run_cli


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("made") / "example"
    code, out, err = run_cli("data", "example", "--out", folder)
    assert (code, err) == (0, "")
    return folder, out


def _predicted(*arguments):
    """Return the rows of ``predict``, the person's first."""
    code, out, err = run_cli("predict", *arguments, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["predictions"]
    assert {row["status"] for row in rows} == {"predicted"}
    return rows


def _probabilities(row):
    return [value for name, value in row.items() if name.startswith("prob_")]


def test_the_command_says_what_it_wrote_and_what_to_run_next(made):
    folder, out = made
    names = [line.split()[0] for line in out.splitlines()[1:5]]
    assert sorted(names) == ["brain.nii.gz", "dicom/", "head.nii.gz", "slices/"]
    assert all((folder / name).exists() for name in names)
    assert all(f"  {command.format(folder)}\n" in out for command in EXAMPLE_COMMANDS)
    assert SYNTHETIC_NOTICE in out


def test_the_bundled_model_accepts_the_brain_the_series_and_the_slices(made):
    folder, _ = made
    brain, series = _predicted(folder / "brain.nii.gz"), _predicted(folder / "dicom")
    assert len(brain) == len(series) == 33  # the person, and 32 levels
    assert np.allclose(_probabilities(brain[0]), _probabilities(series[0]), atol=0.02)
    assert len(_predicted(folder / "slices", "--one-person")) == 33


def test_the_head_is_refused_as_it_is_and_its_brain_is_found(made, monkeypatch):
    pytest.importorskip("SimpleITK")
    monkeypatch.setattr(skull_strip, "N4_ITERATIONS", (2, 2))
    folder, _ = made
    [head], [brain] = find_scans(folder / "head.nii.gz"), find_scans(folder / "brain.nii.gz")
    with pytest.raises(RefusalError, match="with its skull"):
        head.read()
    extraction = extract_brain(head.volume(), "head")
    assert extraction.similarity > MIN_SIMILARITY
    truth = brain.volume().voxels > 0
    assert (extraction.brain.voxels[truth] > 0).mean() > 0.97


def test_the_series_holds_no_date_and_says_that_it_is_synthetic(made):
    folder, _ = made
    files = sorted((folder / "dicom").iterdir())
    headers = [pydicom.dcmread(file) for file in files]
    assert {str(header.PatientName) for header in headers} == {"Synthetic^Example"}
    assert {header.ImageComments for header in headers} == {SYNTHETIC_NOTICE}
    assert not any(str(element.value) for element in headers[0] if element.VR in ("DA", "TM", "DT"))
    assert len({header.SOPInstanceUID for header in headers}) == len(files)
    assert "No person was scanned" in (folder / "README.txt").read_text(encoding="utf-8")


def test_each_call_writes_equal_bytes(made, tmp_path):
    folder, _ = made
    write_example(tmp_path / "again")
    for file in folder.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes(), file.name


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    code, _, err = run_cli("data", "example", "--out", tmp_path)
    assert code == 1
    assert err == f"Error: {tmp_path}: is not empty; choose another folder\n"
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
