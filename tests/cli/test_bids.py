"""brainstage bids: the arguments of BIDS Apps, and the exit codes of the BIDS execution specification."""

import json
from pathlib import Path

import pytest

from bids_app import write_dataset
from brainstage.cli import bids as module
from brainstage.cli.bids import CODES, BidsExitCode, one_value_each
from brainstage.core.errors import BrainstageError
from helpers import run_cli


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("source") / "bids")


def files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_participants_then_group_on_the_command_line(bids, tmp_path):
    out = tmp_path / "out"
    arguments = (bids, out, "participant", "--skull", "stripped", "--jobs", "1", "--participant_label")
    code, said, err = run_cli("bids", *arguments, "sub-00", "01", "02", "--quiet")
    assert (code, said) == (BidsExitCode.DONE, "")  # a refused scan beside predicted ones is no error
    assert err.startswith("sub-02: refused: shows a head with its skull") and len(err.splitlines()) == 1
    code, said, err = run_cli("bids", *arguments, "03")
    assert code == BidsExitCode.DATA_ERROR and "0 predicted, 0 refused, 1 failed" in said
    code, said, err = run_cli("bids", bids, out, "group", "--skull", "stripped")
    assert code == BidsExitCode.DONE
    assert "not processed yet, so not in the results: sub-04, sub-50" in err
    assert "2 predicted, 1 refused, 1 failed" in said and "CN against any other" in said
    assert {"validation/validation.html", "phenotype/brainstage.tsv", "sub-03.html"} <= set(files(out))
    code, said, _ = run_cli("bids", bids, out, "group", "--skull", "stripped", "--json", "--label-column", "sex")
    assert code == BidsExitCode.DATA_ERROR  # the order of M and F is not known
    assert [scan["status"] for scan in json.loads(said)["scans"]] == ["predicted", "predicted", "refused", "failed"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(bids, tmp_path):
    code, said, _ = run_cli(
        "bids", bids, tmp_path / "out", "participant", "--dry-run", "--participant-label", "00", "50"
    )
    assert code == BidsExitCode.DONE and not (tmp_path / "out").exists()
    assert said == "sub-00: to do\nsub-50: no scan: no scan, but a row of participants.tsv\n"


def bare(root):
    (root / "bare").mkdir()
    return root / "bare"


def without_scans(root):
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return root


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((bare, "out", "participant"), 16, "this is no BIDS dataset"),
        (("{bids}", "out", "session"), 17, "unknown analysis level, expected one of participant, group"),
        (("{bids}", "out", "participant", "--participant-label", "99"), 18, "sub-99 is not in the dataset"),
        (("{bids}", "out"), 64, "Missing argument"),
        (("{bids}", "out", "participant", "--jobs", "many"), 64, "Invalid value for '--jobs'"),
        (("{bids}", "out", "participant", "--jobs", "0"), 64, "Invalid value for '--jobs'"),
        (
            ("{bids}", "out", "participant", "--map", "foo"),
            64,
            "Invalid value for '--map': 'foo': expected LABEL=NAME",
        ),
        (("{bids}", "out", "participant", "--jobs", "1", "--cluster", "tcp://x"), 64, "goes without --jobs"),
        (("{bids}", "out", "participant", "--skull", "of"), 64, "is not one of auto, strip, stripped"),
        (("{bids}", "{bids}", "participant"), 64, "is the dataset itself"),
        (("{bids}", "{none}", "group"), 65, "run the participant level first"),
        (("{none}", "out", "participant"), 66, "no such folder"),
        ((without_scans, "out", "participant"), 66, "holds no T1-weighted scan"),
        (("{bids}", "out", "participant", "--model", "runs/none"), 66, "no such run"),
        (("{bids}", "/dev/null/out", "participant"), 73, "cannot make this folder"),
    ],
)
def test_each_kind_of_error_has_the_code_of_the_specification(bids, arguments, code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"bids": bids, "none": tmp_path / "none"}
    filled = [each(tmp_path) if callable(each) else each.format(**places) for each in arguments]
    outcome = run_cli("bids", *filled)
    assert outcome.code == code, outcome.err
    assert says in " ".join(outcome.err.split())


def test_an_error_of_the_disk_and_a_folder_in_use_have_codes_too(bids, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(5, "Input/output error", "sub-00_T1w.nii.gz")

    monkeypatch.setattr("brainstage.cohorts.bids.open_bids", full)
    code, _, err = run_cli("bids", bids, tmp_path / "out", "participant")
    assert code == BidsExitCode.IO_ERROR and err == "Error: sub-00_T1w.nii.gz: Input/output error\n"


def test_every_error_has_a_code_of_its_kind():
    kinds = [BrainstageError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in kinds[1:]:
        assert next(known for known in CODES if issubclass(kind, known)) in kind.__mro__
    order = list(CODES)
    for number, kind in enumerate(order):
        assert not any(issubclass(kind, earlier) for earlier in order[:number])  # else its code is never given


def test_the_codes_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md").read_text()
    for code in BidsExitCode:
        assert f"| {code.value} |" in text and f"{code.value} " in module.EXIT_CODES


@pytest.mark.parametrize(
    ("typed", "single"),
    [
        ("a b group", "a b group"),
        ("a b group --participant-label 01 02", "a b group --participant-label 01 --participant-label 02"),
        (
            "--session_label 1 2 --jobs 3 --participant_label 01",
            "--session_label 1 --session_label 2 --jobs 3 --participant_label 01",
        ),
        ("--participant-label 01 02 -q x", "--participant-label 01 --participant-label 02 -q x"),
        ("--participant-label", "--participant-label"),
    ],
)
def test_each_value_gets_an_option_of_its_own(typed, single):
    assert one_value_each(typed.split()) == single.split()
