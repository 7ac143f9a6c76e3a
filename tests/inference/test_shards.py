"""Predictions of many scans as files: the same rows as of few, on any workers; what was written is kept."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bids_tree import write_bids
from brainstage.cohorts.prepare import prepare
from brainstage.core import parallel
from brainstage.core.cluster import open_cluster
from brainstage.core.errors import ConfigError, InUseError, RunError
from brainstage.core.files import locked
from brainstage.core.parallel import Processes
from brainstage.core.schema import read_metadata
from brainstage.datasets.table import slice_id
from brainstage.inference import shards as module
from brainstage.inference.predictions import predict_scans
from brainstage.inference.predictor import Predictor
from brainstage.inference.shards import predict_shards
from brainstage.scans.discover import find_scans
from helpers import encode, picture, run_cli


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_bids(tmp_path_factory.mktemp("source") / "bids", people=2)


@pytest.fixture(scope="module")
def rows(bids):
    return without_person(predict_scans(Predictor.open("patient"), find_scans(bids)).rows)


def without_person(rows):
    return [{name: value for name, value in row.items() if name != "person"} for row in rows]


def rows_of(result):
    return without_person(pa.concat_tables(map(pq.read_table, result.files)).to_pylist())


def test_volumes_in_files_are_predicted_as_without(bids, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VOLUMES_A_SHARD", 1)
    result = predict_shards("patient", [str(bids)], tmp_path / "out", workers=Processes(2))
    assert rows_of(result) == rows
    assert (len(result.files), sum(result.counts.values())) == (2, 2)
    assert "never a diagnosis" in read_metadata(pq.read_table(result.files[0]))["notice"]
    assert "scans from elsewhere" in result.performance


def test_the_same_files_on_a_cluster(bids, rows, dask, tmp_path):
    with open_cluster(dask) as workers:
        assert rows_of(predict_shards("patient", [str(bids)], tmp_path / "out", workers=workers)) == rows


def test_what_is_there_is_kept_and_what_is_of_other_scans_goes(bids, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VOLUMES_A_SHARD", 1)
    scans, out = shutil.copytree(bids, tmp_path / "scans"), tmp_path / "out"
    before = {file: file.stat().st_mtime_ns for file in predict_shards("patient", [str(scans)], out).files}
    shutil.copy(scans / "sub-00/anat/sub-00_T1w.nii.gz", scans / "sub-01/anat/sub-01_T1w.nii.gz")
    after = {file: file.stat().st_mtime_ns for file in predict_shards("patient", [str(scans)], out).files}
    assert sorted(before.items() & after.items()) == sorted(
        item for item in before.items() if "-00001-" not in str(item[0])
    )
    assert sorted(out.glob("[!.]*")) == sorted(after)


def test_rows_of_another_file_of_the_name_and_of_another_column_are_predicted_anew(tmp_path):
    table, out = tmp_path / "s.parquet", tmp_path / "out"
    shown = [[encode(picture(seed, (128, 128))) for seed in seeds] for seeds in ((1, 2), (3, 4), (5, 6))]

    def ids(column):
        result = predict_shards("patient", [str(table)], out, image_column=column)
        return {row["slice_id"] for row in rows_of(result)}, result.removed

    found = []
    for image in shown[:2]:
        pq.write_table(pa.table({"image": image, "other": shown[2]}), table)
        found.append(ids("image"))
    kept = next(out.glob("part-*")).stat().st_mtime_ns
    assert ids("image") == (found[1][0], "")
    assert next(out.glob("part-*")).stat().st_mtime_ns == kept
    found.append(ids("other"))
    assert len(set().union(*(slices for slices, _ in found))) == 6
    replaced = f"{out}: replaced 1 file of predictions, since scans or the column of images changed"
    assert [removed for _, removed in found] == ["", replaced, replaced]


def test_of_a_cohort_the_column_that_is_named_is_predicted(tmp_path):
    (tmp_path / "data").mkdir()
    images = {column: [encode(picture(seed, (128, 128)))] for column, seed in (("image", 1), ("other", 2))}
    pq.write_table(pa.table({**images, "label": ["CN"]}), tmp_path / "data" / "train-0.parquet")
    found = [
        predict_shards("patient", [str(tmp_path)], tmp_path / column, image_column=column) for column in images
    ]
    one, other = (rows_of(result)[0]["slice_id"] for result in found)
    assert one == slice_id(picture(1, (128, 128))) and other == slice_id(picture(2, (128, 128)))


def test_predictions_of_scans_that_are_not_given_again_are_removed_and_counted(tmp_path):
    out, first, second = (tmp_path / name for name in ("out", "d1", "d2"))
    for number, folder in enumerate((first, second)):
        folder.mkdir()
        for seed in range(3 - number):
            (folder / f"{seed}.png").write_bytes(encode(picture(seed, (128, 128))))
    assert run_cli("predict", first, second, "--out", out, "--jobs", "1").err.count("removed") == 0
    less = run_cli("predict", second, "--out", out, "--jobs", "1", "--quiet").err
    assert (
        f"{out}: removed the predictions of 3 scans that are not among those given now; to have all, give" in less
    )
    assert [row["source"] for row in pq.read_table(out).to_pylist()] == [str(second / f"{n}.png") for n in range(2)]


def test_each_scan_of_a_cohort_is_predicted_from_all_of_its_slices(bids, rows, tmp_path):
    cohort = prepare(bids, tmp_path / "cohort", workers=Processes(1))
    result = predict_shards("patient", [str(cohort.folder)], tmp_path / "out")
    assert rows_of(result)[0]["source"] == "sub-00"
    figures = [[row["slices"], row["level"], row["slice_id"], row["prob_Non_Demented"]] for row in rows]
    assert [
        [row[name] for name in ("slices", "level", "slice_id", "prob_Non_Demented")] for row in rows_of(result)
    ] == figures


def test_the_command_counts_and_names(bids, tmp_path):
    scans, out = shutil.copytree(bids, tmp_path / "scans"), tmp_path / "out"
    (scans / "sub-01/anat/sub-01_T1w.nii.gz").write_bytes(b"nothing")
    done = run_cli("predict", scans, "--out", out, "--jobs", "1")
    assert done.code == 1
    assert "1 failed" in done.out
    assert "sub-01_T1w.nii.gz: not a" in done.err
    assert "protocol patient" in done.out
    assert run_cli("predict", scans, "--jobs", "1").code == 2


def test_a_folder_with_other_files_is_refused(bids, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files; choose a new folder"):
        predict_shards("patient", [str(bids)], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_predictions_of_other_scans_or_by_another_model_are_not_replaced(bids, tmp_path):
    out, others = tmp_path / "out", shutil.copytree(bids, tmp_path / "others")
    kept = {file: file.read_bytes() for file in predict_shards("patient", [str(bids)], out).files}
    with pytest.raises(ConfigError, match=f"out: holds predictions of {bids}; choose a new folder for other scans"):
        predict_shards("patient", [str(others)], out)
    with pytest.raises(ConfigError, match="out: holds predictions of another model"):
        predict_shards("compact", [str(bids)], out)
    assert {file: file.read_bytes() for file in out.glob("part-*")} == kept
    with locked(out, "in use"), pytest.raises(InUseError, match="another process writes predictions into it"):
        predict_shards("patient", [str(bids)], out)


def test_a_process_that_is_killed_is_named(bids, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "run_tasks", lambda _function, tasks, _workers: ((t, None) for t in tasks))
    with pytest.raises(RunError, match=r"part-00000-.*was killed; too little memory\? Fewer --jobs"):
        predict_shards("patient", [str(bids)], tmp_path / "out")
