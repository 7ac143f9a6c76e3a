"""The audit as a user meets it: planted leaks are found, ids are filled in and read again, nothing is lost."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.audits.audit import audit
from brainstage.audits.duplicates import copy_slice
from brainstage.core.config import TrainConfig
from brainstage.core.errors import DataError, LeakageError
from brainstage.datasets.patient_map import with_patients
from brainstage.datasets.phantom import draw_head
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable, slice_id
from brainstage.report.audit_page import write_audit

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
    }
    return SliceTable(pa.table(rows, schema=SLICE_SCHEMA), images, STAGES, synthetic=True)


@pytest.fixture(scope="module")
def heads():
    return np.concatenate([draw_head(number % 4, number, seed=8) for number in range(20)])


TRUTH = np.repeat(np.arange(20), 32)
LABELS = [STAGES[person % 2] for person in TRUTH]


@pytest.fixture(scope="module")
def shuffled(heads):
    """Split by slice, as the public dataset is."""
    sides = np.where(np.random.default_rng(0).random(len(heads)) < 0.2, "test", "train").tolist()
    return audit(table(list(heads), LABELS, sides))


@pytest.fixture(scope="module")
def apart(heads):
    """Split by person, but for one copy of a training slice among the test slices."""
    sides = np.where(TRUTH < 16, "train", "test").tolist()
    copy = copy_slice(heads[100], "turned", np.random.default_rng(0))
    return audit(table([*heads, copy], [*LABELS, LABELS[100]], [*sides, "test"]))


def test_a_split_by_slice_is_called_leaky(shuffled):
    report = shuffled.to_dict()
    assert report["leakage"]["status"] == "leaky"
    assert report["leakage"]["shared_patients"] == 20
    assert "20 inferred patients on both sides" in str(shuffled.verdict)
    assert report["closest"]["same_person"] > 0.95 * report["closest"]["test_slices"]
    assert report["checks"]["people_with_one_label"] == 20


def test_a_planted_copy_is_found_and_joins_its_person(apart, heads):
    report = apart.to_dict()
    assert report["copies"] == {"exact": 0, "altered": 1, "on_both_sides": 1, "with_two_labels": 0}
    assert apart.slices.patients[-1] == apart.slices.patients[100]
    assert (report["leakage"]["shared_patients"], report["leakage"]["shared_slices"]) == (1, 1)


def test_index_counts_the_pictures_of_a_person_by_level(shuffled):
    index = shuffled.slices.rows["slice_index"].to_numpy()
    for person in range(20):
        assert sorted(index[person == TRUTH].tolist()) == list(range(32))
        assert abs(np.corrcoef(index[person == TRUTH], np.arange(32))[0, 1]) > 0.999


def test_names_do_not_hang_on_the_order_of_rows(shuffled, heads):
    order = np.random.default_rng(5).permutation(len(heads))
    sides = shuffled.slices.rows["split"].to_pylist()
    again = audit(
        table([heads[row] for row in order], [LABELS[row] for row in order], [sides[row] for row in order])
    )
    assert dict(zip(again.slices.slice_ids, again.slices.patients, strict=True)) == dict(
        zip(shuffled.slices.slice_ids, shuffled.slices.patients, strict=True)
    )


def test_labels_are_not_looked_at(shuffled, heads):
    sides = shuffled.slices.rows["split"].to_pylist()
    mixed = np.random.default_rng(6).permutation(LABELS).tolist()
    again = audit(table(list(heads), mixed, sides))
    assert again.slices.patients == shuffled.slices.patients
    assert again.to_dict()["checks"]["people_with_several_labels"] == 20


def test_given_patients_stay_and_are_compared(heads):
    given = [f"p{person}" for person in TRUTH]
    found = audit(table(list(heads), LABELS, patients=given))
    assert found.slices.patients == given
    assert found.to_dict()["people"]["patient_id_source"] == "given"
    assert found.to_dict()["checks"]["agreement_with_given"] > 0.99
    assert found.verdict is None


def test_the_table_gives_the_patients_to_the_same_slices(shuffled, heads, tmp_path):
    files = write_audit(shuffled, tmp_path, ["brainstage", "audit"])
    assert [file.name for file in files] == ["patients.parquet", "audit.json", "audit.html"]
    bare = table(list(heads), LABELS)
    filled = with_patients(bare, files[0])
    assert filled.patients == shuffled.slices.patients
    assert filled.patient_source == "inferred"
    splits = make_splits(filled, TrainConfig("test", protocol="patient", folds=4))
    assert str(splits.verdict) == "clean: no inferred patient on both sides"
    assert splits.verdict.to_dict()["patient_id_source"] == "inferred"
    assert json.loads(files[1].read_text())["notice"]
    page = files[2].read_text()
    assert "20 inferred patients on both sides" in page
    assert "never a diagnosis" in page
    assert page.count('class="person"') == 20
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched from elsewhere


def test_slices_that_are_not_sure_stay_out_of_patient_folds(shuffled, heads, tmp_path):
    unsure = shuffled.table.to_pylist()
    unsure[0]["patient_id"] = None
    pq.write_table(pa.Table.from_pylist(unsure, schema=shuffled.table.schema), tmp_path / "map.parquet")
    filled = with_patients(table(list(heads), LABELS), tmp_path / "map.parquet")
    splits = make_splits(filled, TrainConfig("test", protocol="patient", folds=4))
    assert sum(len(fold.test) for fold in splits.folds) == len(heads) - 1


def test_a_patient_figure_without_patients_is_refused(heads):
    with pytest.raises(LeakageError, match="brainstage audit"):
        make_splits(table(list(heads), LABELS), TrainConfig("test", protocol="patient"))


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
    }


def test_the_public_rows_know_their_people_at_once(real_folder):
    slices = load_slices(real_folder)
    assert slices.patient_source == "inferred"
    assert len(set(slices.patients)) == 200
    folds = make_splits(slices, TrainConfig("test", protocol="patient")).folds
    assert sum(len(fold.test) for fold in folds) == 6400
