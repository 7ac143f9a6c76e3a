"""The tool as a BIDS App: derivatives that the validator accepts, nobody lost between jobs, figures of a cohort."""

import csv
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bids_app import describe, write_dataset
from bids_tree import write_bids
from brainstage.cohorts.bids import open_bids
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.parallel import Processes
from brainstage.inference.predictions import predict_scans
from brainstage.inference.predictor import Predictor
from brainstage.inference.scan_results import is_done
from brainstage.report.derivatives import run_participants, write_phenotype
from brainstage.scans.discover import find_scans
from brainstage.studies import bids_app as module
from brainstage.studies.bids_app import BidsApp
from helpers import without_pictures

VALIDATOR = shutil.which("bids-validator-deno", path=Path(sys.executable).parent)


def app_of(bids, out, *people, skull="stripped"):
    return BidsApp.open(open_bids(bids, people), out, "patient", skull)


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("source") / "bids")


@pytest.fixture(scope="module")
def out(bids, tmp_path_factory):
    """Return the derivatives of two jobs: one of a person, then one of all."""
    out = tmp_path_factory.mktemp("out") / "derivatives"
    run_participants(app_of(bids, out, "01"), workers=Processes(1))
    run_participants(app_of(bids, out), workers=Processes(1))
    return out


def rows_of(out):
    with (out / "phenotype" / "brainstage.tsv").open(newline="") as stream:
        return {row["participant_id"]: row for row in csv.DictReader(stream, delimiter="\t")}


def content(out):
    """Return every file but what may differ from run to run: how long a scan took."""
    files = [file for file in sorted(out.rglob("*")) if file.is_file() and ".brainstage" not in file.parts]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


def errors_of(folder):
    result = subprocess.run([VALIDATOR, folder, "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(result.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]


def test_each_participant_has_a_row_with_what_the_predictor_says_or_a_reason(bids, out):
    rows = rows_of(out)
    statuses = {name: row["status"] for name, row in rows.items()}
    assert statuses == {
        "sub-00": "predicted",
        "sub-01": "predicted",
        "sub-02": "refused",
        "sub-03": "failed",
        "sub-04": "refused",
        "sub-50": "failed",
    }
    reasons = ["n/a", "n/a", "with its skull", "not a JPEG", "does not look like a T1-weighted brain", "no scan"]
    assert all(reason in row["reason"] for reason, row in zip(reasons, rows.values(), strict=True))
    expected = predict_scans(Predictor.open("patient"), find_scans(bids / "sub-01")).rows[0]
    for name in ("stage", "slices", "prob_Non_Demented", "prob_Mild_Demented", "stability", "in_set_Non_Demented"):
        found, right = rows["sub-01"][name], expected[name]
        if isinstance(right, float):
            assert float(found) == pytest.approx(right, abs=1e-5)
        else:
            assert found == (str(right).lower() if isinstance(right, bool) else str(right))
    assert rows["sub-02"]["stage"] == rows["sub-50"]["similarity"] == "n/a"
    columns = json.loads((out / "phenotype" / "brainstage.json").read_text())
    assert set(next(iter(rows.values()))) - {"participant_id"} == set(columns) - {"MeasurementToolMetadata"}
    assert all(column["Description"] for column in columns.values())


def test_only_who_can_be_used_has_volumes_and_everyone_has_a_page(out):
    assert {file.parts[-3] for file in out.rglob("*.nii.gz")} == {"sub-00", "sub-01"}
    assert len(list(out.rglob("*.nii.gz"))) == 4
    pages = {file.stem: file.read_text(encoding="utf-8") for file in out.glob("sub-*.html")}
    assert pages.keys() == rows_of(out).keys()
    for name, page in pages.items():
        assert "never a diagnosis" in page and "Tustison" not in page  # no skull was taken off
        assert "http" not in without_pictures(page)
        assert page.count("data:image/jpeg;base64,") == (name not in ("sub-03", "sub-50"))
    stage = rows_of(out)["sub-01"]
    assert f"{float(stage['prob_Non_Demented']):.3f}" in pages["sub-01"] and "ruled out" in pages["sub-01"]
    assert "with its skull" in pages["sub-02"] and "AUROC" in pages["sub-01"]


def test_the_methods_cite_each_source_that_they_list(out):
    card = (out / "README.md").read_text(encoding="utf-8")
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "brainstage"
    assert Predictor.open("patient").hash in about["GeneratedBy"][0]["Description"]
    text = next(line for line in card.splitlines() if line.startswith("> "))
    assert "Fonov et al. 2011" in text and "Guo" not in card  # the patient model has no temperature
    assert len(about["ReferencesAndLinks"]) == 5  # N4 is not cited: no skull was taken off
    for source in about["ReferencesAndLinks"]:
        assert f"- {source}" in card and source.split()[0] in text


def test_no_path_is_written(bids, out):
    written = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert str(bids.parent).encode() not in written and b"Sommer" not in written


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_validator_finds_no_error(out):
    assert errors_of(out) == []


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_validator_finds_no_error_in_sessions_of_the_phantom(tmp_path):
    from brainstage.cohorts.phantom import write_phantom_bids

    write_phantom_bids(tmp_path / "phantom", participants=5, defects=False)
    twice = next((tmp_path / "phantom").glob("sub-*/ses-02")).parent.name
    results = run_participants(app_of(tmp_path / "phantom", tmp_path / "out", twice), workers=Processes(1))
    assert [(result.session_id, result.status) for result in results] == [("01", "predicted"), ("02", "predicted")]
    assert errors_of(tmp_path / "out") == []
    page = (tmp_path / "out" / f"{twice}.html").read_text()
    assert "ses-01" in page and "ses-02" in page and "says nothing about real brains" in page


def test_started_again_only_what_is_missing_is_done_and_all_is_the_same(bids, out, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    before = content(copy)
    monkeypatch.setattr(module, "process_scan", None)
    run_participants(app_of(bids, copy), workers=Processes(1))
    assert content(copy) == before
    monkeypatch.undo()
    next(copy.glob("sub-00/anat/*_mask.nii.gz")).unlink()  # a volume is missing
    (copy / ".brainstage" / "results" / "sub-01.json").write_text("{")  # killed while it was written
    (copy / "sub-03.html").unlink()
    tasks = pickle.loads(pickle.dumps(app_of(bids, copy).tasks()))  # noqa: S301 - as for another process
    assert [task.scan.scan_id for task in tasks if not is_done(task)] == ["sub-00", "sub-01"]
    run_participants(app_of(bids, copy), workers=Processes(1))
    assert content(copy) == before


def test_a_dataset_under_another_path_is_the_same(bids, out, tmp_path):
    (tmp_path / "mounted").symlink_to(bids)
    assert app_of(tmp_path / "mounted", out).unprocessed() == []


def test_a_scan_that_changed_is_processed_again_and_its_old_volumes_go(tmp_path):
    bids = describe(write_bids(tmp_path / "bids", people=1))
    run_participants(app_of(bids, tmp_path / "out"), workers=Processes(1))
    assert list((tmp_path / "out").rglob("*.nii.gz"))
    (bids / "sub-00" / "anat" / "sub-00_T1w.nii.gz").write_bytes(b"nothing")
    run_participants(app_of(bids, tmp_path / "out"), workers=Processes(1))
    assert rows_of(tmp_path / "out")["sub-00"]["status"] == "failed"
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_job_that_ends_while_another_joins_is_in_the_table(bids, out, tmp_path, monkeypatch):
    app = app_of(bids, Path(shutil.copytree(out, tmp_path / "out")))
    whole = app.all_results()
    answers = iter([whole[:2], whole])
    monkeypatch.setattr(BidsApp, "all_results", lambda _: next(answers, whole))
    write_phenotype(app)
    assert len(rows_of(tmp_path / "out")) == len(whole) == 6


def test_a_scan_that_kills_its_process_is_a_row(tmp_path, monkeypatch):
    bids = describe(write_bids(tmp_path / "bids", people=1))
    monkeypatch.setattr(module, "run_tasks", lambda function, tasks, workers: ((task, None) for task in tasks))
    (result,) = run_participants(app_of(bids, tmp_path / "out"), workers=Processes(1))
    assert (result.status, result.reason) == ("failed", module.DIED)
    assert "too little memory" in (tmp_path / "out" / "sub-00.html").read_text()


def test_no_file_is_written_elsewhere_whatever_the_table_of_participants_names(tmp_path):
    bids = describe(write_bids(tmp_path / "bids", people=1, rows=["sub-../../up\t70\tF\tAD"]))
    results = run_participants(app_of(bids, tmp_path / "a" / "b" / "out", "../../up"), workers=Processes(1))
    assert results[0].status == "failed" and len(list((tmp_path / "a" / "b" / "out").glob("*.html"))) == 1
    assert {file.name for file in tmp_path.rglob("*.html")} == {
        file.name for file in (tmp_path / "a" / "b" / "out").glob("*.html")
    }


def test_one_folder_holds_results_of_one_model_and_one_setting(bids, out, tmp_path):
    settings = tmp_path / "other" / ".brainstage" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"model": "0123", "skull": "stripped"}))
    with pytest.raises(
        ConfigError, match=r"another model \(0123, not .*\); give the same --model, or choose a new folder"
    ):
        app_of(bids, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"another skull \(stripped, not auto\)"):
        app_of(bids, out, skull="auto")
    with pytest.raises(ConfigError, match="is the dataset itself"):
        app_of(bids, bids)
    with pytest.raises(ConfigError, match="holds other files"):
        app_of(bids, tmp_path)


def test_the_group_is_judged_by_what_the_participants_were_predicted(out, bids, tmp_path):
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    validation, slices = app_of(bids, copy).evaluate()
    assert validation.scans == 2 and validation.first == "CN" and validation.positive_people == 1
    assert sum(count for *_, count in validation.flow) == 6 and len(slices) == 64
    rows = rows_of(copy)
    for row in pq.read_table(copy / "validation" / "predictions.parquet").to_pylist():
        told = rows[f"sub-{row['patient_id']}"]
        for name in ("prob_Non_Demented", "prob_Mild_Demented"):
            assert row[name] == pytest.approx(float(told[name]), abs=1e-5)
    with pytest.raises(DataError, match="none of these participants was processed"):
        app_of(bids, tmp_path / "new").evaluate()
    with pytest.raises(DataError, match="all 1 scans are of CN"):
        app_of(bids, copy, "00").evaluate()
