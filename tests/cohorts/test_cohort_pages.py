"""What stands beside a cohort's slices: other tools read it, and its author may write in it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import mlcroissant
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from bids_tree import write_bids
from brainstage.cohorts.checks import check_cuts, template_outline
from brainstage.cohorts.prepare import prepare
from brainstage.cohorts.scan import read_cuts
from brainstage.core.parallel import Processes
from brainstage.report.cohort_card import write_cohort_card
from brainstage.report.quality_page import write_quality_page
from brainstage.scans.registration import Registration
from volumes import brain, with_skull, write_nifti

COMMAND = ["brainstage", "prepare", "bids", "--out", "cohort"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    bids = write_bids(folder / "bids", people=4, rows=["sub-50\t70\tF\tAD"])
    write_nifti(bids / "sub-03" / "anat" / "sub-03_T1w.nii.gz", with_skull(brain((4.0, 4.0, 4.0))))
    made = prepare(bids, folder / "cohort", skull="stripped", workers=Processes(1))
    write_quality_page(made)
    assert write_cohort_card(made, COMMAND)
    return made


def test_the_library_datasets_opens_the_slices_with_their_class_names(cohort, tmp_path):
    rows = datasets.load_dataset("parquet", data_dir=str(cohort.folder / "data"), cache_dir=str(tmp_path))["train"]
    assert len(rows) == 3 * 32 and rows.features["label"].names == ["CN", "MCI", "AD"]
    assert rows[0]["image"].size == (128, 128) and rows[0]["patient_id"] == "00" and rows[0]["age"] == 60


def test_croissant_metadata_are_valid_and_their_records_are_the_slices(cohort):
    data = mlcroissant.Dataset(jsonld=str(cohort.folder / "croissant.json"))
    assert not data.metadata.issues.errors
    name = next(cohort.folder.glob("data/*.parquet")).stem
    first = next(iter(data.records(name)))
    assert first[f"{name}/image"].size == (128, 128) and first[f"{name}/slice_index"] == 0


def test_the_card_counts_people_and_scans_and_says_how_they_were_made(cohort):
    card = (cohort.folder / "README.md").read_text(encoding="utf-8")
    assert "never a diagnosis" in card and "3 people. Scans: 3 prepared, 1 refused, 1 failed" in card
    assert "| CN | 1 | 1 |" in card and "brainstage prepare bids --out cohort\n" in card and "| `age` |" in card
    about = json.loads((cohort.folder / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "brainstage"


def test_a_card_that_its_author_changed_is_kept(cohort, tmp_path):
    copy = type(cohort)(shutil.copytree(cohort.folder, tmp_path / "copy"), *list(vars(cohort).values())[1:])
    card = copy.folder / "README.md"
    assert write_cohort_card(copy, COMMAND)
    card.write_text(card.read_text() + "\nScans of the memory clinic, CC BY 4.0.\n")
    assert not write_cohort_card(copy, COMMAND)
    assert card.read_text().endswith("CC BY 4.0.\n")


def test_the_page_shows_what_is_worst_first_and_offers_what_was_prepared_to_be_left_out(cohort):
    page = (cohort.folder / "qc.html").read_text(encoding="utf-8")
    places = [page.index(f"<strong>sub-{name}</strong>") for name in ("03", "50")]
    prepared = [page.index(f'value="sub-{name}"') for name in ("00", "01", "02")]
    assert places[0] < min(prepared) and max(prepared) < places[1]
    assert page.count("data:image/jpeg;base64,") == 4 and page.count("<input") == 3
    assert "shows a head with its skull" in page and "never a diagnosis" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_brain_fills_the_outline_of_the_cuts(cohort):
    cuts, outline = read_cuts(cohort.folder / ".prepare" / "parts" / "sub-00.parquet"), template_outline()
    assert cuts.shape == outline.shape and cuts.dtype == np.uint8
    inside = binary_fill_holes(outline)
    assert (cuts[inside] > 30).mean() > 0.95 and (cuts[~inside] > 30).mean() < 0.02


def test_the_command_names_no_folder(tmp_path, monkeypatch, capsys):
    from brainstage.cli import main

    bids = write_bids(tmp_path / "Sommer" / "bids", people=2)
    out = tmp_path / "Sommer" / "cohort"
    monkeypatch.setattr(sys, "argv", ["brainstage", "prepare", str(bids), "--out", str(out), "--jobs", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code in (0, None), shown.err
    assert "2 prepared, 0 refused, 0 failed · 2 people" in shown.out
    assert not any(b"Sommer" in file.read_bytes() for file in Path(out).glob("*.*") if file.is_file())
    assert "brainstage prepare bids --out cohort --jobs 1" in (out / "README.md").read_text()


def test_cuts_have_the_persons_right_on_the_left():
    scan = brain((4.0, 4.0, 4.0))
    right = (scan.affine @ np.array([*((np.array(scan.voxels.shape) - 1) / 2), 1]))[0]
    columns = scan.affine[0, 0] * np.arange(scan.voxels.shape[0]) + scan.affine[0, 3]
    brighter = replace(scan, voxels=scan.voxels * np.where(columns > right, 2, 1).astype(np.float32)[:, None, None])
    cuts = check_cuts(brighter, Registration(np.eye(4), 1.0, 0.0)).astype(float)
    width = len(range(-95, 96, 2))
    axial, coronal = cuts[:, :width], cuts[:, width : 2 * width]
    for cut in (axial, coronal):
        assert cut[:, : width // 2].sum() > 1.5 * cut[:, width // 2 + 1 :].sum()
