import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError, LeakageError
from brainstage.datasets.splits import Fold, Splits, default_protocol, make_splits
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable


def table(labels, patients=None, splits=None, ids=None):
    count = len(labels)
    rows = {
        "slice_id": ids or [f"slice{number}" for number in range(count)],
        "label": labels,
        "patient_id": patients or [None] * count,
        "patient_id_source": ["given" if patients else "unknown"] * count,
        "slice_index": [None] * count,
        "split": splits or [None] * count,
        "mode": ["L"] * count,
        "source": ["test"] * count,
        "session_id": [None] * count,
        "scan_id": [None] * count,
    }
    classes = tuple(dict.fromkeys(label for label in labels if label))
    return SliceTable(pa.table(rows, schema=SLICE_SCHEMA), [np.zeros((4, 4), np.uint8)] * count, classes)


def config(**changes):
    return TrainConfig("test", **changes)


@st.composite
def cohorts(draw):
    """People of two or three stages with unequal numbers of slices."""
    stages = draw(st.lists(st.sampled_from(["CN", "MCI", "AD"]), min_size=12, max_size=40))
    stages += ["CN", "MCI"] * 4
    counts = draw(st.lists(st.integers(1, 6), min_size=len(stages), max_size=len(stages)))
    labels = [stage for stage, count in zip(stages, counts, strict=True) for _ in range(count)]
    patients = [f"p{person}" for person, count in enumerate(counts) for _ in range(count)]
    order = draw(st.permutations(range(len(labels))))
    return table([labels[i] for i in order], [patients[i] for i in order])


@given(cohorts(), st.integers(2, 5), st.sampled_from([0.0, 0.2]), st.integers(0, 50))
@settings(max_examples=60)
def test_no_person_is_on_two_sides_of_any_fold(slices, folds, validation_share, seed):
    try:
        splits = make_splits(
            slices, config(protocol="patient", folds=folds, validation_share=validation_share, seed=seed)
        )
    except DataError as error:
        assert "one patient" in str(error)  # noqa: PT017 - a class of one person cannot be held out
        return
    tested = []
    for fold in splits.folds:
        people = [{splits.patient_of[i] for i in side} for side in (fold.train, fold.validation, fold.test)]
        assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
        assert sorted(fold.train + fold.validation + fold.test) == sorted(slices.slice_ids)
        tested += fold.test
    assert sorted(tested) == sorted(slices.slice_ids)
    assert splits.verdict.status == "clean"


def test_few_people_of_one_slice_each_are_split_or_the_number_of_folds_is_named():
    labels = ["CN", "MCI", "AD"] * 4 + ["CN", "MCI"]
    slices = table(labels, [f"p{person}" for person in range(len(labels))])
    for fold in make_splits(slices, config(protocol="patient", folds=3, validation_share=0.2)).folds:
        assert len(fold.validation) >= 2
    with pytest.raises(DataError, match="no class has more than 5 slices, too few for 6 folds; give --folds 5"):
        make_splits(slices, config(protocol="patient", folds=6))


@given(st.integers(20, 60), st.integers(0, 100))
@settings(max_examples=30)
def test_official_sides_stay_and_validation_comes_from_train(count, seed):
    sides = ["train"] * count + ["test"] * 10
    slices = table((["CN", "AD"] * 40)[: len(sides)], splits=sides)
    fold = make_splits(slices, config(seed=seed)).folds[0]
    assert set(fold.test) == set(slices.slice_ids[count:])
    assert sorted(fold.train + fold.validation) == sorted(slices.slice_ids[:count])
    assert {slices.labels[slices.row_of[i]] for i in fold.validation} == {"CN", "AD"}


def test_official_without_patients_is_unknown_with_shared_patients_leaky(phantom):
    verdict = make_splits(phantom, config()).verdict
    assert verdict.status == "leaky"
    assert verdict.shared_patients == len(
        {p for p, s in zip(phantom.patients, phantom.rows["split"].to_pylist(), strict=True) if s == "test"}
    )
    slices = table(["CN", "AD"] * 10, splits=["train"] * 14 + ["test"] * 6)
    assert make_splits(slices, config(validation_share=0.2)).verdict.status == "unknown"


def test_identical_slices_on_both_sides_are_a_leak_even_without_patients():
    ids = [f"slice{number}" for number in range(20)]
    ids[19] = ids[0]
    slices = table(["CN", "AD"] * 10, splits=["train"] * 14 + ["test"] * 6, ids=ids)
    verdict = make_splits(slices, config(validation_share=0)).verdict
    assert str(verdict) == "leaky: 1 of 6 test slices affected"


def test_same_seed_same_splits_other_seed_others(phantom):
    assert make_splits(phantom, config(seed=1)).folds == make_splits(phantom, config(seed=1)).folds
    assert make_splits(phantom, config(seed=1)).folds != make_splits(phantom, config(seed=2)).folds


def test_patient_protocol_without_patients_is_refused():
    with pytest.raises(LeakageError, match="20 of 20 slices have no patient id"):
        make_splits(table(["CN", "AD"] * 10), config(protocol="patient"))


def test_official_protocol_without_sides_is_refused():
    with pytest.raises(DataError, match="train and a test side"):
        make_splits(table(["CN", "AD"] * 10), config())


def test_one_image_in_a_class_is_told():
    slices = table(["CN"] * 19 + ["AD"], splits=["test"] * 4 + ["train"] * 16)
    with pytest.raises(DataError, match="class AD has one image in train"):
        make_splits(slices, config())


def test_splits_are_read_back_and_judged_anew(tmp_path, phantom):
    splits = make_splits(phantom, config(protocol="patient", folds=2))
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json", phantom) == splits
    content = json.loads((tmp_path / "splits.json").read_text())
    content["folds"][0]["train"].append(content["folds"][0]["test"][0])  # an edit that plants a leak
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(LeakageError, match="leaky"):
        Splits.load(tmp_path / "splits.json", phantom)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"protocol": "patient"}, "patient_id"),
        ({}, "slice_id"),
        ({"protocol": "patient", "train_rows": 60}, "slice_id"),
    ],
)
def test_sides_are_saved_by_people_where_people_are_whole(tmp_path, phantom, changes, names):
    splits = make_splits(phantom, config(**changes))
    splits.save(tmp_path / "splits.json")
    assert json.loads((tmp_path / "splits.json").read_text())["names"] == names
    assert Splits.load(tmp_path / "splits.json", phantom) == splits


@pytest.mark.parametrize("protocol", ["official", "patient"])
def test_splits_of_other_data_are_refused(tmp_path, phantom, protocol):
    make_splits(phantom, config(protocol=protocol)).save(tmp_path / "splits.json")
    with pytest.raises(DataError, match="are not in this data"):
        Splits.load(tmp_path / "splits.json", table(["CN", "AD"] * 10))


def test_slices_without_a_label_stay_out_of_splits_by_people_and_a_name_is_listed_once(tmp_path, phantom):
    make_splits(phantom, config(protocol="patient", folds=2)).save(tmp_path / "splits.json")
    some = phantom.with_labels([None, *phantom.labels[1:]])
    loaded = Splits.load(tmp_path / "splits.json", some)
    assert phantom.slice_ids[0] not in {one for fold in loaded.folds for one in (*fold.train, *fold.test)}
    content = json.loads((tmp_path / "splits.json").read_text())
    content["folds"][1]["train"].append(content["folds"][1]["train"][0])
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="is listed twice on one side"):
        Splits.load(tmp_path / "splits.json", phantom)


def test_a_splits_file_with_another_protocol_is_refused(tmp_path, phantom):
    make_splits(phantom, config()).save(tmp_path / "splits.json")
    text = (tmp_path / "splits.json").read_text()
    (tmp_path / "splits.json").write_text(text.replace('"official"', '"patients"', 1))
    with pytest.raises(DataError, match="unknown protocol 'patients'"):
        Splits.load(tmp_path / "splits.json", phantom)


@pytest.mark.parametrize(("entry", "value"), [("train", [["p01"]]), ("grouped_by", ["site"])])
def test_a_splits_file_whose_names_are_no_text_is_refused(entry, value, tmp_path, phantom):
    file = tmp_path / "splits.json"
    make_splits(phantom, config()).save(file)
    content = json.loads(file.read_text())
    (content if entry in content else content["folds"][0])[entry] = value
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a readable splits file .a name is not text"):
        Splits.load(file, phantom)


def test_leak_between_validation_and_train_is_refused_too():
    who = {"a": "p", "b": "p", "c": "q"}
    with pytest.raises(LeakageError):
        Splits("patient", (Fold(("a",), ("b",), ("c",)),), 0, "hash", who)


@pytest.mark.parametrize(("count", "told"), [(1, "affected: p0)"), (5, "affected: p0, p1, p2, …)")])
def test_who_is_on_two_sides_is_named(count, told):
    people = {f"{side}{number}": f"p{number}" for side in "ab" for number in range(count)}
    fold = Fold(tuple(name for name in people if name < "b"), (), tuple(name for name in people if name > "b"))
    with pytest.raises(LeakageError, match="leaky") as refused:
        Splits("patient", (fold,), 0, "hash", people)
    assert told in str(refused.value)


def sited(people, **columns):
    """Return two slices of each person, whose label, and covariates, are given by person."""
    labels = [label for label in people for _ in range(2)]
    patients = [f"p{number}" for number in range(len(people)) for _ in range(2)]
    slices = table(labels, patients)
    rows = slices.rows
    for name, values in columns.items():
        rows = rows.append_column(name, pa.array([value for value in values for _ in range(2)]))
    return replace(slices, rows=rows)


THREE = ["A", "B", "C"] * 8
STAGES = ["CN", "CN", "CN", "AD", "AD", "AD"] * 4


def grouped(**changes):
    return config(**{"protocol": "patient", "folds": 3, "group_by": "site", **changes})


def test_nobody_is_tested_by_a_fold_that_trains_on_their_site():
    slices = sited(STAGES, site=[*THREE[:-3], "D", "D", "E"])
    site_of = dict(zip(slices.slice_ids, slices.covariates["site"], strict=True))
    splits = make_splits(slices, grouped(repeats=3, validation_share=0.2))
    tested = []
    for fold in splits.folds:
        assert {site_of[one] for one in fold.test}.isdisjoint(site_of[one] for one in fold.train + fold.validation)
        assert {site_of[one] for one in fold.train} & {site_of[one] for one in fold.validation}  # inner: by person
        tested += fold.test
    assert sorted(tested) == sorted(slices.slice_ids * (len(splits.folds) // 3))
    assert str(splits.verdict) == "clean: no patient and no site on both sides"
    assert splits.verdict.to_dict()["grouped_by"] == "site"
    assert str(make_splits(slices, grouped(group_by=None)).verdict) == "clean: no patient on both sides"


def test_repeats_that_can_only_deal_alike_are_left_out():
    assert len(make_splits(sited(STAGES, site=THREE), grouped(repeats=5)).folds) == 3
    assert len(make_splits(sited(STAGES), grouped(group_by=None, repeats=5)).folds) == 15


def test_sites_that_share_a_person_stay_together():
    slices = sited([*STAGES, "CN"], site=[*THREE, "B"])
    values = slices.rows["site"].to_pylist()
    values[-1] = "C"  # the last person was scanned at two sites
    column = slices.rows.column_names.index("site")
    travelled = replace(slices, rows=slices.rows.set_column(column, "site", pa.array(values)))
    splits = make_splits(travelled, grouped(folds=2))
    assert sorted(len(fold.test) for fold in splits.folds) == [16, 34]
    with pytest.raises(
        DataError, match="2 values of site, those that share a person counted as one, cannot make 3"
    ):
        make_splits(travelled, grouped())


@pytest.mark.parametrize(
    ("columns", "changes", "sentence"),
    [
        ({}, {}, "the data have no column 'site' to group by; they have no covariates"),
        ({"sites": THREE}, {}, "no column 'site' to group by; did you mean 'sites'"),
        ({"site": [None, None, *THREE[2:]]}, {}, "column site is not known of 2 of 24 people"),
        ({"site": THREE}, {"folds": 4}, "3 values of site cannot make 4 folds; give --folds 3 or fewer"),
        ({"site": ["A"] * 24}, {"folds": 2}, "1 value of site cannot make 2 folds; fold by person alone"),
        (
            {"site": ["A" if stage == "AD" else "BC"[number % 2] for number, stage in enumerate(STAGES)]},
            {"folds": 2},
            "fold . tests site A.*, where everyone of class AD is, so there is nobody of it to train on; leave the",
        ),
    ],
)
def test_sites_that_cannot_be_kept_apart_are_told(columns, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        make_splits(sited(STAGES, **columns), grouped(**changes))


def test_grouped_folds_are_read_back_and_an_edit_that_breaks_them_is_refused(tmp_path):
    slices, file = sited(STAGES, site=THREE), tmp_path / "splits.json"
    splits = make_splits(slices, grouped())
    splits.save(file)
    assert Splits.load(file, slices) == splits
    with pytest.raises(DataError, match="no column 'site'"):
        Splits.load(file, sited(STAGES))
    content = json.loads(file.read_text())
    assert content["grouped_by"] == "site" and content["names"] == "patient_id"
    content["folds"][0]["train"].append(content["folds"][0]["test"].pop())
    file.write_text(json.dumps(content))
    with pytest.raises(LeakageError, match="fold 0 does not keep site apart"):
        Splits.load(file, slices)


def test_folds_by_person_are_not_taken_for_folds_by_site():
    slices = sited(STAGES, site=THREE)
    splits = make_splits(slices, grouped(group_by=None))
    with pytest.raises(ConfigError, match="the splits given do not keep site apart"):
        splits.chosen(grouped())
    with pytest.raises(ConfigError, match="group_by: site groups the folds of protocol patient"):
        config(group_by="site")


@pytest.mark.parametrize(
    ("patients", "sides", "protocol"),
    [
        (["a", "b"], None, "patient"),
        (["a", "b"], ["train", "train"], "patient"),
        (["a", "b"], ["train", "test"], "official"),
        (["a", None], None, "official"),
        (None, None, "official"),
    ],
)
def test_people_are_kept_apart_where_they_are_given_and_no_test_side_is(patients, sides, protocol):
    assert default_protocol(table(["x", "y"], patients, sides)) == protocol
