import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import DataError
from brainstage.core.schema import STAGES
from brainstage.datasets.layouts import Columns
from brainstage.datasets.sources import default_source, load_slices
from brainstage.datasets.table import slice_id
from helpers import encode, picture


def write_parquet(path, rows=6, **columns):
    table = {"image": [encode(picture(seed)) for seed in range(rows)], "label": ["CN", "AD"] * (rows // 2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**table, **columns}), path)
    return path


def write_folders(root, names=("CN", "AD"), count=3):
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / name / f"{index}.png").write_bytes(encode(picture(100 * number + index)))
    return root


def write_csv(root, lines, header="path,label,patient_id"):
    for index in range(len(lines)):
        (root / f"{index}.png").write_bytes(encode(picture(index)))
    (root / "slices.csv").write_text("\n".join([header, *lines]))
    return root / "slices.csv"


def test_hub_layout_keeps_sides_classes_and_patients(phantom, phantom_folder):
    assert len(phantom) == 16 * 32
    assert phantom.classes == STAGES
    assert set(phantom.rows["split"].to_pylist()) == {"train", "test"}
    assert len(set(phantom.patients)) == 16
    assert phantom.synthetic
    assert load_slices(phantom_folder.parent / phantom_folder.name / "data").data_hash == phantom.data_hash


def test_a_slice_is_known_by_its_pixels(tmp_path):
    slices = load_slices(write_parquet(tmp_path / "a.parquet"))
    assert slices.slice_ids[0] == slice_id(picture(0))
    assert np.array_equal(slices.images[0], picture(0))


def test_class_numbers_take_the_names_in_the_schema(tmp_path):
    names = {"info": {"features": {"label": {"names": ["CN", "AD"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [encode(picture(0)), encode(picture(1)), encode(picture(2))], "label": [0, 1, -1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "a.parquet")
    assert load_slices(tmp_path / "a.parquet").labels == ["CN", "AD", None]


def test_options_map_columns_and_classes(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"scan": [encode(picture(0)), encode(picture(1))], "dx": [0, 1], "who": [7, 8]}), file)
    columns = Columns(
        image="scan",
        label="dx",
        patient="who",
        class_names={"0": "CN", "1": "MCI"},
        class_order=("CN", "MCI", "AD"),
    )
    slices = load_slices(file, columns=columns)
    assert slices.labels == ["CN", "MCI"]
    assert slices.classes == ("CN", "MCI", "AD")
    assert slices.patients == ["7", "8"]
    assert slices.rows["patient_id_source"].to_pylist() == ["given", "given"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_an_option_that_matches_nothing_is_an_error(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    (tmp_path / "a.png").write_bytes(encode(picture(0)))
    if suffix == "csv":
        file.write_text("path,label\na.png,AD\n")
    else:
        pq.write_table(pa.table({"image": [encode(picture(0))], "label": ["AD"]}), file)
    with pytest.raises(DataError, match="--class-name 0=CN names a label that no slice has; the labels are AD"):
        load_slices(file, columns=Columns(class_names={"0": "CN"}))
    with pytest.raises(DataError, match="who"):
        load_slices(file, columns=Columns(patient="who"))
    assert load_slices(file).patients == [None]


def test_class_folders_with_and_without_sides(tmp_path):
    flat = load_slices(write_folders(tmp_path / "flat"))
    assert flat.classes == ("CN", "AD")
    assert flat.rows["split"].to_pylist() == [None] * 6
    write_folders(tmp_path / "sides" / "train")
    write_folders(tmp_path / "sides" / "test", count=1)
    sides = load_slices(tmp_path / "sides")
    assert sides.rows["split"].to_pylist().count("test") == 2


@pytest.mark.parametrize(
    ("names", "classes", "ordered"),
    [
        (("AD", "CN", "MCI"), ("CN", "MCI", "AD"), True),
        (
            ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented"),
            ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"),
            True,
        ),
        (("Mild Dementia", "Non Demented", "Very mild Dementia"), None, True),
        (("a", "c", "b"), ("a", "b", "c"), False),
        (("0", "1", "2", "3"), ("0", "1", "2", "3"), False),
    ],
)
def test_classes_stand_in_clinical_order_or_are_said_not_to(tmp_path, names, classes, ordered):
    slices = load_slices(write_folders(tmp_path, names, count=1))
    assert slices.classes == (classes or ("Non Demented", "Very mild Dementia", "Mild Dementia"))
    assert slices.ordered is ordered
    given = load_slices(tmp_path, columns=Columns(class_order=tuple(reversed(names))))
    assert given.classes == tuple(reversed(names)) and given.ordered


def test_numbers_are_ratings_where_their_column_says_so_and_a_missing_one_is_no_class(tmp_path):
    file, images = tmp_path / "a.parquet", [encode(picture(seed)) for seed in range(4)]
    pq.write_table(pa.table({"image": images, "cdr": [1.0, 0.0, 2.0, float("nan")]}), file)
    slices = load_slices(file, columns=Columns(label="cdr"))
    assert slices.labels == ["1.0", "0.0", "2.0", None]
    assert slices.classes == ("0.0", "1.0", "2.0") and slices.ordered
    pq.write_table(pa.table({"image": images, "label": [1, 0, 2, 3]}), file)
    assert not load_slices(file).ordered


@pytest.mark.parametrize("sides", [("", ""), ("train/", "test/")])
def test_two_spellings_of_one_stage_are_an_error_that_names_the_way_out(tmp_path, sides):
    for side, name in zip(sides, ("NonDemented", "Non_Demented"), strict=True):
        write_folders(tmp_path / side, (name, "Mild Dementia"))
    with pytest.raises(DataError, match="two spellings of one stage; .* --class-name 'Non_Demented'='NonDemented'"):
        load_slices(tmp_path)
    slices = load_slices(tmp_path, columns=Columns(class_names={"Non_Demented": "NonDemented"}))
    assert slices.classes == ("NonDemented", "Mild Dementia")


def test_a_misspelt_stage_is_an_error_in_copies_of_the_dataset_too(tmp_path):
    write_folders(tmp_path, ("NonDemented", "MildDemented", "ModerateDementd"))
    with pytest.raises(DataError, match="'ModerateDementd', expected one of MildDemented, NonDemented; .*order"):
        load_slices(tmp_path)


def test_csv_of_paths_labels_and_patients(tmp_path):
    slices = load_slices(write_csv(tmp_path, ["0.png,CN,p1", "1.png,AD,p2", "2.png,,p2"]))
    assert slices.labels == ["CN", "AD", None]
    assert slices.patients == ["p1", "p2", "p2"]


def test_a_csv_file_says_scans_and_levels_as_parquet_does(tmp_path):
    lines = ["0.png,CN,p1,a,0", "1.png,CN,p1,a,1.0", "2.png,AD,p2,,", "3.png,AD,p2,b,7"]
    header = "path,label,patient_id,scan_id,slice_index"
    slices = load_slices(write_csv(tmp_path, lines, header))
    assert slices.rows["scan_id"].to_pylist() == ["a", "a", None, "b"]
    assert slices.rows["slice_index"].to_pylist() == [0, 1, None, 7]
    assert slices.covariates == {}
    with pytest.raises(DataError, match=r"slices\.csv: column slice_index holds what is no whole number"):
        load_slices(write_csv(tmp_path, ["0.png,CN,p1,a,first"], header))


def test_scans_that_share_a_name_are_told_apart_by_person_and_session(tmp_path):
    rows = [("p1", None, "v0"), ("p1", None, "v1"), ("p2", None, "v0"), ("p3", "1", "t1"), ("p3", "2", "t1")]
    people, sessions, scans = zip(*rows, (None, None, "v0"), strict=True)
    file = write_parquet(tmp_path / "a.parquet", patient_id=people, session_id=sessions, scan_id=scans)
    assert load_slices(file).stacks == ["p1 v0", "v1", "p2 v0", "p3 1 t1", "p3 2 t1", "v0"]


@pytest.mark.parametrize(
    ("lines", "header", "says"),
    [
        (["../0.png,CN,p"], "path,label,patient_id", "outside"),
        (["/etc/hostname,CN,p"], "path,label,patient_id", "outside"),
        (["0.png,CN"], "file,label", "column path not found; it has file, label"),
        (["0.png,Non_Demented,p", "1.png,Non_Dementd,p"], "path,label,patient_id", "did you mean 'Non_Demented'"),
        (["0.png,CN,p,validate"], "path,label,patient_id,split", "split 'validate' is not one of train, test"),
        (["0.png,CN,p,validate"], "path,label,patient_id", "line 2: has more cells than the header"),
        ([], "path,label", "no slices found"),
    ],
)
def test_bad_csv_is_told(tmp_path, lines, header, says):
    with pytest.raises(DataError, match=says):
        load_slices(write_csv(tmp_path, lines, header))


def test_nothing_named_in_a_parquet_row_is_opened(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode(picture()))
    image = pa.array(
        [{"bytes": None, "path": str(secret)}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"image": image, "label": ["CN"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 0: column image has no bytes; a path or an address"):
        load_slices(tmp_path / "a.parquet")


def test_a_column_of_paths_is_refused(tmp_path):
    pq.write_table(pa.table({"image": ["a.png"], "label": ["CN"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="expected the bytes"):
        load_slices(tmp_path / "a.parquet")


def test_missing_columns_say_found_and_expected(tmp_path):
    pq.write_table(pa.table({"img": [b""], "dx": ["CN"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column image, label not found; it has img, dx"):
        load_slices(tmp_path / "a.parquet")


def test_unreadable_rows_are_named_and_left_out(tmp_path):
    blobs = [encode(picture(seed)) for seed in range(40)]
    blobs[17] = b"broken"
    file = write_parquet(tmp_path / "a.parquet", rows=40, image=blobs)
    slices = load_slices(file)
    assert len(slices) == 39
    assert slices.unreadable == ("a.parquet row 17: not a JPEG or PNG image; save it as one of these",)
    with pytest.raises(
        DataError, match="1 of 40 slices cannot be read, more than the allowed 1%; .*; the first: a.parq"
    ):
        load_slices(file, max_unreadable=0.01)


@pytest.mark.parametrize("make", ["missing", "empty", "text.parquet"])
def test_unusable_places_are_told(tmp_path, make):
    place = tmp_path / make
    if make == "empty":
        place.mkdir()
    if make == "text.parquet":
        place.write_text("no parquet")
    with pytest.raises(DataError, match=make):
        load_slices(place)


def test_without_data_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("BRAINSTAGE_DATA", raising=False)
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="brainstage data fetch"):
        default_source()


def test_the_real_dataset_is_whole(real_folder):
    slices = load_slices(real_folder)
    assert len(slices) == 6400
    assert slices.skipped == () and slices.ordered
    assert len(set(slices.slice_ids)) == 6400
    train = [
        label
        for label, side in zip(slices.labels, slices.rows["split"].to_pylist(), strict=True)
        if side == "train"
    ]
    assert [train.count(stage) for stage in slices.classes] == [2566, 1781, 724, 49]
    assert {image.shape for image in slices.images} == {(128, 128)}


def test_columns_that_hold_something_else_are_one_sentence(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", patient_id=[["a"], ["b"]] * 3)
    with pytest.raises(DataError, match=r"a\.parquet: column patient_id holds list.*, expected names or numbers"):
        load_slices(file)
    file = write_parquet(tmp_path / "b.parquet", slice_index=["first", "second"] * 3)
    with pytest.raises(DataError, match=r"b\.parquet: column slice_index holds what is no whole number"):
        load_slices(file)
    file = write_parquet(tmp_path / "c.parquet", split=["train", "test", "train", "dev", "dev", "test"])
    with pytest.raises(DataError, match=r"c\.parquet row 3: split 'dev' is not one of train, test"):
        load_slices(file)


def test_categories_are_read_as_names_and_an_empty_name_is_nobody(tmp_path):
    people = pa.array(["a", "", None, "b", "a", "b"]).dictionary_encode()
    slices = load_slices(write_parquet(tmp_path / "a.parquet", patient_id=people, site=people))
    assert slices.patients == ["a", None, None, "b", "a", "b"]
    assert slices.rows["patient_id_source"].to_pylist() == [
        "given",
        "unknown",
        "unknown",
        "given",
        "given",
        "given",
    ]
    assert slices.covariates == {"site": ["a", None, None, "b", "a", "b"]}
