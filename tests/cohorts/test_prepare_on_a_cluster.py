"""Preparing on Dask and on SLURM: the same cohort as here, whatever is killed on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dask_cluster
import tasks
from bids_tree import write_bids
from brainstage.cohorts.folder import CohortFolder
from brainstage.cohorts.prepare import prepare
from brainstage.core import slurm
from brainstage.core.cluster import open_cluster
from brainstage.core.errors import RunError
from brainstage.core.parallel import Processes, run_tasks

pytest.importorskip("distributed")
PEOPLE = 7
SECONDS_ALONE = 120


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    return write_bids(tmp_path_factory.mktemp("source") / "bids", people=PEOPLE)


@pytest.fixture(scope="module")
def content_here(bids, tmp_path_factory):
    out = tmp_path_factory.mktemp("here") / "cohort"
    prepare(bids, out, workers=Processes(2))
    return content(out)


def content(out):
    """Return a cohort's slices, bytes of the file, and its ledger without the time that each scan took."""
    ledger = pq.read_table(out / "scans.parquet").drop_columns("seconds").to_pylist()
    return {file.name: file.read_bytes() for file in sorted((out / "data").iterdir())}, ledger


def when_parts_are_there(out, count, action):
    """Do something, in a thread, as soon as so many scans are done."""

    def watch():
        for _ in range(10 * SECONDS_ALONE):
            if len(list(CohortFolder(out).private.glob("parts/[!.]*.parquet"))) >= count:
                done.append(action())
                return
            time.sleep(0.1)

    done = []
    threading.Thread(target=watch, daemon=True).start()
    return done


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_the_same_cohort_on_dask_by_a_driver_that_is_stopped_and_goes_on(bids, content_here, dask, tmp_path, stop):
    out = tmp_path / "cohort"
    command = [sys.executable, "-m", "brainstage", "prepare", str(bids), "--out", "cohort", "--cluster", dask]
    driver = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    stopped = when_parts_are_there(out, 1, lambda: driver.send_signal(stop))
    _, errors = driver.communicate(timeout=SECONDS_ALONE)
    assert stopped
    assert driver.returncode == (130 if stop == signal.SIGINT else -stop), errors
    assert "Traceback" not in errors
    time.sleep(3)  # chunks that were under way are finished by their workers
    before = {part.name: part.stat().st_mtime_ns for part in out.glob(".prepare/parts/[!.]*.parquet")}
    assert 1 <= len(before) < PEOPLE
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert content(out) == content_here
    after = {part.name: part.stat().st_mtime_ns for part in out.glob(".prepare/parts/[!.]*.parquet")}
    assert before.items() <= after.items()


def test_the_same_cohort_on_slurm_with_a_job_cancelled_and_a_worker_killed(
    bids, content_here, slurm_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 1.0)
    out = tmp_path / "cohort"

    def jobs():
        return subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True).stdout.split()

    def strike():
        first, second = sorted(jobs())[:2]
        subprocess.run(["scancel", first], check=True)
        (worker,) = workers_of(second)
        os.kill(worker, signal.SIGKILL)
        return {first, second}

    struck = when_parts_are_there(out, 1, strike)
    with open_cluster(str(slurm_file)) as workers:
        while workers.slots < 4:  # until both jobs have reported
            list(run_tasks(abs, [-1, -2], workers))
            time.sleep(0.2)
        prepare(bids, out, workers=workers)
        assert len(set(jobs()) - struck[0]) == 1  # another job in place of the one that was cancelled
    assert content(out) == content_here
    assert [file.name for file in (slurm_file.parent / "shared").iterdir()] == ["logs"]
    for _ in range(300):
        if not jobs():
            break
        time.sleep(0.2)
    assert not jobs()


def workers_of(job):
    """Return the numbers of the worker processes, not their nannies, of a job of this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            of_job = f"SLURM_JOB_ID={job}\0".encode() in (folder / "environ").read_bytes()
            if of_job and b"multiprocessing.spawn" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("main", "gpu", "SLURM refuses the job: .*partition"),
        ("1500MB", "much", r"no workers can be had with these settings \(.*much"),
    ],
)
def test_what_slurm_refuses_is_one_sentence(bids, slurm_file, tmp_path, right, wrong, message):
    file = tmp_path / "slurm.toml"
    file.write_text(slurm_file.read_text().replace(right, wrong))
    with open_cluster(str(file)) as workers, pytest.raises(RunError, match=message):
        prepare(bids, tmp_path / "cohort", workers=workers)


def test_a_worker_that_keeps_most_of_its_memory_goes_on(slurm_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", dask_cluster.SUPPORT)
    file = tmp_path / "slurm.toml"
    file.write_text(slurm_file.read_text().replace("1500MB", "400MB").replace("jobs = 2", "jobs = 1"))
    with open_cluster(str(file)) as workers:
        taken = dict(run_tasks(tasks.keep_memory, [350_000_000 + number for number in range(6)], workers))
    assert sorted(taken.values()) == [1, 2, 3, 4, 5, 6]


def test_jobs_that_never_report_are_given_up(bids, slurm_file, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.2)
    file = tmp_path / "slurm.toml"
    file.write_text(f'{slurm_file.read_text()}python = "false"\n')
    with (
        open_cluster(str(file)) as workers,
        pytest.raises(RunError, match=r"SLURM jobs have ended, and no worker stays; their logs"),
    ):
        prepare(bids, tmp_path / "cohort", workers=workers)
