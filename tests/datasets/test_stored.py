"""Slices in files that are mapped into memory: the same slices, decoded once."""

import os
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import ConfigError, RunError
from brainstage.datasets import sources
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.sources import load_slices
from brainstage.datasets.stored import PIXELS, open_slices, store_slices
from helpers import encode, few_people, picture, run_cli

ALIKE = ("classes", "unreadable", "synthetic", "skipped", "ordered", "stated_levels", "data_hash", "covariates")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the folder of decoded slices of a cache of its own; every source counts as large."""
    monkeypatch.setattr(sources, "LARGE_BYTES", 0)
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slices"


@pytest.fixture
def no_decoding(monkeypatch):
    """Return a function after which nothing can be decoded."""

    def decode_nothing(_readers):
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(sources, "read_chunk", decode_nothing)


def are_alike(slices, others):
    assert slices.rows.equals(others.rows)
    assert all(np.array_equal(image, other) for image, other in zip(slices.images, others.images, strict=True))
    for name in ALIKE:
        assert getattr(slices, name) == getattr(others, name)


def test_slices_that_were_stored_anew_are_opened_anew(phantom, tmp_path):
    assert open_slices(store_slices(phantom, tmp_path / "stored")).labels == phantom.labels
    shutil.rmtree(tmp_path / "stored")  # as by a command that is started again, while a worker of Dask goes on
    other = phantom.with_labels([None, *phantom.labels[1:]])
    assert open_slices(store_slices(other, tmp_path / "stored")).labels == other.labels


def test_slices_that_a_killed_command_left_are_replaced_by_others_and_kept_for_the_same(phantom, tmp_path):
    file = store_slices(phantom, tmp_path / "stored") / PIXELS
    written = file.stat()
    store_slices(phantom, tmp_path / "stored")
    assert file.stat().st_mtime_ns == written.st_mtime_ns
    column = phantom.rows.column_names.index("patient_id")
    regrouped = phantom.rows.set_column(column, "patient_id", pa.array(["someone", *phantom.patients[1:]]))
    for changed in (replace(phantom, rows=regrouped), few_people(phantom)):
        are_alike(open_slices(store_slices(changed, tmp_path / "stored")), changed)


@pytest.mark.parametrize("square", [True, False])
def test_stored_slices_are_the_slices(phantom, tmp_path, square):
    slices = phantom
    if not square:
        first, second, *rest = phantom.images
        slices = replace(phantom, images=[first[:50], second[:, :7], *rest])
    opened = open_slices(store_slices(slices, tmp_path / "stored"))
    are_alike(opened, slices)
    assert len(opened.images[2:9:3]) == 3
    again = open_slices(store_slices(opened, tmp_path / "again"))
    are_alike(again, slices)
    assert (tmp_path / "stored" / PIXELS).samefile(tmp_path / "again" / PIXELS)  # not written twice


def test_slices_of_a_large_source_are_those_of_a_small_one_and_decoded_once(
    phantom, phantom_folder, cache, no_decoding
):
    are_alike(load_slices(phantom_folder), phantom)
    no_decoding()
    are_alike(load_slices(phantom_folder), phantom)
    assert [file.name for folder in cache.iterdir() for file in folder.glob(PIXELS)] == [PIXELS]


def test_what_is_not_readable_is_told_again(tmp_path, cache, no_decoding):
    for name in ("CN/0.png", "AD/1.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(b"no image")
    slices = [load_slices(tmp_path / "data", max_unreadable=1)]
    no_decoding()
    slices.append(load_slices(tmp_path / "data", max_unreadable=1))
    for table in slices:
        assert len(table) == 0
        assert [sentence.rpartition("/")[2] for sentence in table.unreadable] == [
            "1.png: not a JPEG or PNG image; save it as one of these",
            "0.png: not a JPEG or PNG image; save it as one of these",
        ]


def test_a_source_that_changed_is_decoded_again(tmp_path, cache):
    folder = write_phantom(tmp_path / "phantom", patients=8)
    before = load_slices(folder)
    file = folder / "data" / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(3), file)
    assert load_slices(folder).slice_ids == [*before.slice_ids[:-51], *before.slice_ids[-48:]]
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("target", ["MCI/2.png", "test/CN/2.png"])
def test_a_slice_that_moved_to_another_class_or_side_is_read_anew(tmp_path, cache, target):
    folder = tmp_path / "data"
    first = folder / ("train" if target.startswith("test") else "") / "CN" / "2.png"
    for number, file in enumerate([first, first.with_name("1.png")]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(picture(number)))
    load_slices(folder)
    (folder / target).parent.mkdir(parents=True)
    first.rename(folder / target)
    rows = load_slices(folder).rows
    [moved] = rows.filter(pa.compute.equal(rows["source"], target)).to_pylist()
    assert (moved["label"], moved["split"]) == (("MCI", None) if target == "MCI/2.png" else ("CN", "test"))


def test_the_least_recently_used_source_is_removed_above_the_limit(tmp_path, cache, monkeypatch):
    folders = [write_phantom(tmp_path / str(seed), patients=8, seed=seed) for seed in range(3)]
    monkeypatch.setenv("BRAINSTAGE_SLICES_GB", str(2.5 * 8 * 32 * 128 * 128 / 1e9))
    made = []
    for folder in folders:
        load_slices(folder)
        made += [entry for entry in cache.iterdir() if entry not in made]
        os.utime(made[-1], (len(made), len(made)))
    assert not made[0].exists()
    assert made[1].exists()
    monkeypatch.setenv("BRAINSTAGE_SLICES_GB", "much")
    with pytest.raises(ConfigError, match="BRAINSTAGE_SLICES_GB: 'much' is not a number"):
        load_slices(folders[1])


def test_what_a_killed_process_left_is_removed_after_a_day(phantom_folder, cache):
    for name, age in ((".killed", 25 * 60 * 60), (".at-work", 60 * 60)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age,) * 2)
    load_slices(phantom_folder)
    assert sorted(folder.name[:8] for folder in cache.iterdir())[0] == ".at-work"
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_one_sentence(phantom_folder, cache):
    cache.parent.write_text("a file")
    with pytest.raises(RunError, match="cannot be made .*; name another cache in BRAINSTAGE_CACHE"):
        load_slices(phantom_folder)


def test_decoded_slices_are_deleted_on_request(phantom_folder, cache):
    slices = load_slices(phantom_folder)
    code, out, err = run_cli("data", "clear-slices")
    assert (code, err) == (0, "")
    assert re.search(r"[89]\.\d MB removed from .*slices", out)
    assert not cache.exists()
    assert slices.images[-1].any()  # what is open stays readable
