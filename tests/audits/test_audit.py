"""The audit as a user meets it: planted leaks are found, ids are filled in and read again, nothing is lost."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from brainstage import audits
from brainstage.audits.audit import audit
from brainstage.audits.duplicates import alter_slice
from brainstage.core.config import TrainConfig
from brainstage.core.errors import DataError, LeakageError
from brainstage.datasets.patient_map import with_patients
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable, slice_id
from brainstage.report.audit_page import write_audit
from helpers import without_pictures

STAGES = ("CN", "AD")


def table(images, labels, sides=None, patients=None):
    count = len(images)
    rows = {
        "slice_id": [slice_id(image) for image in images],
        "label": labels,
        "patient_id": patients or [None] * count,
        "patient_id_source": ["given" if patients else "unknown"] * count,
        "slice_index": [None] * count,
        "split": sides or [None] * count,
        "mode": ["L"] * count,
        "source": [f"row {number}" for number in range(count)],
        "session_id": [None] * count,
        "scan_id": [None] * count,
    }
    return SliceTable(pa.table(rows, schema=SLICE_SCHEMA), images, STAGES, synthetic=True)


PEOPLE = 16
TRUTH = np.repeat(np.arange(PEOPLE), 32)
LABELS = [STAGES[person % 2] for person in TRUTH]


@pytest.fixture(scope="module")
def cohort(heads):
    return list(heads[: len(TRUTH)])


@pytest.fixture(scope="module")
def shuffled(cohort):
    """Split by slice, as the public dataset is."""
    sides = np.where(np.random.default_rng(0).random(len(cohort)) < 0.2, "test", "train").tolist()
    return audit(table(cohort, LABELS, sides))


@pytest.fixture(scope="module")
def apart(cohort):
    """Split by person, but for a duplicate of one training slice among the test slices; patients are given."""
    sides = np.where(TRUTH < 12, "train", "test").tolist()
    duplicate = alter_slice(cohort[100], "turned", np.random.default_rng(0))
    patients = [f"p{person}" for person in TRUTH]
    images, labels = [*cohort, duplicate], [*LABELS, LABELS[100]]
    return audit(table(images, labels, [*sides, "test"], [*patients, patients[100]]))


@pytest.fixture(scope="module")
def augmented(heads):
    """Audit slices and altered copies of them in random order; also the person of each, and which are copies."""
    rng = np.random.default_rng(7)
    cohort = list(heads)
    copied = rng.permutation(len(cohort))[: len(cohort) // 3]
    images = [*cohort, *(augment(cohort[row], rng) for row in copied for _ in range(2))]
    person = np.concatenate([np.arange(len(cohort)), np.repeat(copied, 2)]) // 32
    order = rng.permutation(len(images))
    result = audit(table([images[row] for row in order], [STAGES[0]] * len(images)))
    return result, person[order], order >= len(cohort)


def augment(image, rng):
    """Turn, zoom, brighten and, in half of the copies, flip a slice."""
    picture = Image.fromarray(image).rotate(rng.uniform(3, 10) * rng.choice([-1, 1]), Image.Resampling.BILINEAR)
    zoom = rng.uniform(0.9, 1.1)
    inverse = (1 / zoom, 0, 64 * (1 - 1 / zoom), 0, 1 / zoom, 64 * (1 - 1 / zoom))
    picture = picture.transform(picture.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(ImageEnhance.Brightness(picture).enhance(rng.uniform(0.8, 1.2)))


def test_a_split_by_slice_is_called_leaky(shuffled):
    report = shuffled.to_dict()
    assert report["leakage"]["status"] == "leaky"
    assert report["leakage"]["shared_patients"] == PEOPLE
    assert "16 inferred patients on both sides" in str(shuffled.verdict)
    assert report["closest"]["same_person"] > 0.95 * report["closest"]["test_slices"]
    assert report["checks"]["people_with_one_label"] == PEOPLE


def test_a_planted_duplicate_is_found_and_joins_its_person(apart):
    report = apart.to_dict()
    assert report["duplicates"] == {"exact": 0, "altered": 1, "on_both_sides": 1, "with_two_labels": 0}
    assert apart.table["duplicate_of"][-1].as_py() == apart.slices.slice_ids[100]
    assert apart.recovered.patient[-1] == apart.recovered.patient[100] != -1
    assert (report["leakage"]["shared_patients"], report["leakage"]["shared_slices"]) == (1, 1)


def test_given_patients_stay_and_are_compared(apart):
    report = apart.to_dict()
    assert apart.slices.patients[:-1] == [f"p{person}" for person in TRUTH]
    assert report["people"]["patient_id_source"] == "given"
    assert report["checks"]["agreement_with_given"] > 0.99


def test_of_many_slices_whose_people_are_given_those_of_some_people_are_compared(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(audits.audit, "CHECKED_SLICES", 8 * 32 + 31)
    result = audit(table(cohort, LABELS, patients=[f"p{person}" for person in TRUTH]))
    report = result.to_dict()
    people, slices_each = np.unique(TRUTH[~np.isnan(result.recovered.level)], return_counts=True)
    assert 6 <= len(people) <= 8
    assert set(slices_each.tolist()) == {32}  # whole people
    assert report["checks"]["compared_people"] == 8
    assert report["checks"]["agreement_with_given"] > 0.95
    assert report["people"]["patients"] == PEOPLE
    page = write_audit(result, tmp_path, ["brainstage", "audit"])[-1]
    assert "of 8 people drawn at random" in page.read_text()


def test_augmented_copies_join_the_person_of_their_original(augmented):
    result, truth, copy = augmented
    patient = result.recovered.patient
    of_original = np.array(
        [np.bincount(patient[(truth == person) & ~copy] + 1).argmax() - 1 for person in range(24)]
    )
    assert (patient[copy] == of_original[truth[copy]]).mean() >= 0.97
    same = (patient[:, None] == patient) & (patient != -1) & ~np.eye(len(patient), dtype=bool)
    assert (truth[:, None] == truth)[same].mean() >= 0.98


def test_index_counts_the_pictures_of_a_person_by_level(shuffled):
    index = shuffled.slices.rows["slice_index"].to_numpy()
    for person in range(PEOPLE):
        assert sorted(index[person == TRUTH].tolist()) == list(range(32))
        assert abs(np.corrcoef(index[person == TRUTH], np.arange(32))[0, 1]) > 0.999


def test_neither_the_order_of_rows_nor_labels_change_people_or_their_names(shuffled, cohort):
    rng = np.random.default_rng(5)
    order, mixed = rng.permutation(len(cohort)), rng.permutation(LABELS).tolist()
    sides = shuffled.slices.rows["split"].to_pylist()
    again = audit(table([cohort[row] for row in order], mixed, [sides[row] for row in order]))
    assert dict(zip(again.slices.slice_ids, again.slices.patients, strict=True)) == dict(
        zip(shuffled.slices.slice_ids, shuffled.slices.patients, strict=True)
    )
    assert again.to_dict()["checks"]["people_with_several_labels"] == PEOPLE


def test_the_table_gives_the_patients_to_the_same_slices(shuffled, cohort, tmp_path):
    files = write_audit(shuffled, tmp_path, ["brainstage", "audit"])
    assert [file.name for file in files] == ["patients.parquet", "audit.json", "audit.html"]
    bare = table(cohort, LABELS)
    filled = with_patients(bare, files[0])
    assert filled.patients == shuffled.slices.patients
    assert filled.patient_source == "inferred"
    splits = make_splits(filled, TrainConfig("test", protocol="patient", folds=4))
    assert str(splits.verdict) == "clean: no inferred patient on both sides"
    assert splits.verdict.to_dict()["patient_id_source"] == "inferred"
    assert json.loads(files[1].read_text())["notice"]
    page = files[2].read_text()
    assert "16 inferred patients on both sides" in page
    assert "never a diagnosis" in page
    assert page.count('class="person"') == PEOPLE
    assert "http" not in without_pictures(page).replace("http-equiv", "")  # nothing is fetched from elsewhere


def test_slices_that_are_not_sure_stay_out_of_patient_folds(shuffled, cohort, tmp_path):
    unsure = shuffled.table.to_pylist()
    unsure[0]["patient_id"] = None
    pq.write_table(pa.Table.from_pylist(unsure, schema=shuffled.table.schema), tmp_path / "map.parquet")
    filled = with_patients(table(cohort, LABELS), tmp_path / "map.parquet")
    splits = make_splits(filled, TrainConfig("test", protocol="patient", folds=4))
    assert sum(len(fold.test) for fold in splits.folds) == len(cohort) - 1


def test_a_patient_figure_without_patients_is_refused(cohort):
    with pytest.raises(LeakageError, match="brainstage audit"):
        make_splits(table(cohort, LABELS), TrainConfig("test", protocol="patient"))


def test_a_map_of_other_slices_is_refused(shuffled, tmp_path):
    write_audit(shuffled, tmp_path, [])
    other = table([np.full((8, 8), grey, dtype=np.uint8) for grey in range(9)], ["CN"] * 9)
    with pytest.raises(DataError, match="holds none of these slices"):
        with_patients(other, tmp_path / "patients.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="broken.parquet: not a readable parquet"):
        with_patients(other, tmp_path / "broken.parquet")


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="no slices"):
        audit(table([], []))


def test_few_slices_stay_unknown():
    found = audit(table([np.full((8, 8), grey, dtype=np.uint8) for grey in range(9)], ["CN"] * 9))
    report = found.to_dict()
    assert report["people"] == {
        "patients": 0,
        "patient_id_source": "unknown",
        "slices_each": None,
        "unknown_slices": 9,
        "by_class": {},
        "same_heads": {},
    }


def test_the_public_rows_know_their_people_at_once(real_folder):
    slices = load_slices(real_folder)
    assert slices.patient_source == "inferred"
    assert len(set(slices.patients)) == 200
    folds = make_splits(slices, TrainConfig("test", protocol="patient")).folds
    assert sum(len(fold.test) for fold in folds) == 6400


def test_the_page_shows_a_person_of_very_many_slices(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("brainstage.report.audit_page.MAX_STRIP_SLICES", 50)
    grey = [np.full((8, 8), number % 250, dtype=np.uint8) for number in range(400)]
    result = audit(table(grey, ["CN"] * 400, patients=["p"] * 400))
    page = write_audit(result, tmp_path, [])[2].read_text()
    assert "400 slices" in page
    assert 'width="2000"' in page  # fifty thumbnails
