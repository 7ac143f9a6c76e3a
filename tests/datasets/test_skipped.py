"""Nothing of a source's folder is left out without a word."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import DataError
from brainstage.datasets.describe import describe
from brainstage.datasets.sources import load_slices
from helpers import encode, picture


def write(root, *names):
    """Write one small PNG under each name."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(picture(number)))


def test_twelve_files_give_four_rows_and_a_word_about_each_of_the_others(tmp_path):
    write(tmp_path, "train/CN/a.png", "train/AD/b.png", "test/CN/c.PNG", "test/AD/d.png")
    write(tmp_path, "val/CN/e.png", "val/AD/f.png", "validation/CN/g.png", "stray.png", "train/h.png")
    write(tmp_path, "train/CN/deep/i.png", "test/AD/j.bmp", "train/AD/k.tif")
    slices = load_slices(tmp_path)
    assert len(slices) == 4
    assert slices.skipped == (
        "2 files (stray.png, train/h.png): outside of any class folder; move them into the folder of their class",
        "2 files (test/AD/j.bmp, train/AD/k.tif): only JPEG and PNG images are read; convert them to PNG",
        "1 file (train/CN/deep/i.png): in a folder inside of a class folder; move them up into the class folder",
        "3 files (val/AD/f.png, val/CN/e.png, validation/CN/g.png): of the folders beside train and test none is "
        "read; validation slices are drawn from train; move the files there to use them",
    )
    assert describe(slices)["skipped"] == list(slices.skipped)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["CN/a.nii.gz", "CN/b.dcm"], "2 files (CN/a.nii.gz, CN/b.dcm): a volume is no slice; make a cohort"),
        (["a.png"], "1 file (a.png): outside of any class folder"),
        (["CN/one/a.png"], "1 file (CN/one/a.png): in a folder inside of a class folder"),
        (["notes.txt", "CN/more.json"], "2 files (notes.txt, CN/more.json): not images"),
        (["labels.csv"], "1 file (labels.csv): a CSV file is read where it is named itself"),
        ([f"notes/{number}.txt" for number in range(5)], "5 files (notes/0.txt, notes/1.txt, notes/2.txt, …)"),
        (["validation-0.parquet"], "1 file (validation-0.parquet): a validation side is not read"),
        (["slices.parquet"], "1 file (slices.parquet): only train-*.parquet and test-*.parquet"),
    ],
)
def test_what_is_not_read_is_counted_and_named_once_for_each_reason(tmp_path, names, says):
    write(tmp_path, "CN/0.png", "AD/1.png")
    write(tmp_path, *names)
    (sentence,) = load_slices(tmp_path).skipped
    assert sentence.startswith(says)


def test_beside_parquet_files_of_the_hub_everything_else_is_named(tmp_path):
    write(tmp_path, "CN/a.png", "data/train-0.parquet", "data/validation-0.parquet", "more/data/train-0.parquet")
    for file in tmp_path.rglob("train-*.parquet"):
        pq.write_table(pa.table({"image": [encode(picture(9))], "label": ["CN"]}), file)
    assert [sentence.partition(":")[0] for sentence in load_slices(tmp_path).skipped] == [
        "1 file (CN/a.png)",
        "1 file (data/validation-0.parquet)",
        "1 file (more/data/train-0.parquet)",
    ]


def test_hidden_files_and_descriptions_are_no_data(tmp_path):
    write(tmp_path, "CN/0.png", "AD/1.png")
    write(tmp_path, ".DS_Store", "CN/.thumb.png", ".cache/a.png", "__MACOSX/CN/a.png", "CN/Thumbs.db", "README.md")
    assert load_slices(tmp_path).skipped == ()


def test_a_folder_of_which_nothing_can_be_read_says_why(tmp_path):
    write(tmp_path, "CN/a.tif", "AD/b.tif")
    with pytest.raises(DataError, match=r"no slices found; .* 2 files \(AD/b.tif, CN/a.tif\): only JPEG and PNG"):
        load_slices(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path, "CN/0.png", "AD/1.png", "CN/locked/a.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    assert load_slices(tmp_path).skipped == ("1 file (CN/locked): not readable by this user",)
