"""Claim: the same work on processes, on Dask and on SLURM gives the same result at nearly the same speed.

    python benchmarks/scale.py [--scans 200]

Slab volumes of the public dataset's people (as in `benchmarks/cohort.py`) are prepared with one process, with two,
by two workers of Dask and by two jobs of SLURM. SLURM is a node of its own that `tests/support/slurm_node.py`
starts (needs root, and Debian's slurm-wlm and munge). Each time is that of the whole command; that of SLURM has the
start of its jobs in it. Printed are seconds, the speed-up over one process, and whether the slices are the same
bytes; what an empty task costs, of 10,000 and of 100,000, and the driver's memory; what it costs to kill a worker
and to kill the driver in the middle; and the folds of `cross-validate --recipe patient` on the public dataset with
one process, two, and on Dask, after a first run that leaves the features in the cache. How far one machine goes is
another benchmark, `benchmarks/large.py`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

import pyarrow.parquet as pq

import slurm_node
import tasks
from brainstage.core.cluster import open_cluster
from brainstage.core.parallel import Processes, Workers, run_tasks
from dask_cluster import dask_cluster
from peak import peak_memory

ONE_DRAW = ("--folds", "5", "--repeats", "1")


def main() -> None:
    """Print times and costs."""
    parser = argparse.ArgumentParser(description="The same work on processes, Dask and SLURM.")
    parser.add_argument("--scans", type=int, default=200)
    scans = parser.parse_args().scans
    os.environ["OMP_NUM_THREADS"] = "1"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["BRAINSTAGE_CACHE"] = str(folder / "cache")
        scheduler, _ = stack.enter_context(dask_cluster(folder / "dask"))
        show_empty_tasks("2 processes", Processes(2))
        with open_cluster(scheduler) as workers:
            show_empty_tasks("Dask", workers)
        bids = write_bids(folder / "bids", scans)
        alone = show_prepare("1 process", bids, folder, ["--jobs", "1"])
        again = run("prepare", str(bids), "--out", str(folder / "1-process"))
        print(f"prepare · again, with nothing to prepare {again:.1f} s: the part that is done here, not by workers")
        show_prepare("2 processes", bids, folder, ["--jobs", "2"], alone)
        show_prepare("Dask", bids, folder, ["--cluster", scheduler], alone)
        if why := slurm_node.why_not():
            print(f"without SLURM: {why}")
        else:
            file = folder / "slurm.toml"
            file.write_text(
                f'[slurm]\njobs = 2\nmemory = "2GB"\nwalltime = "01:00:00"\nshared_folder = "{folder}/shared"\n'
            )
            with slurm_node.slurm_node(folder / "node") as environment:
                os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
                show_prepare("SLURM", bids, folder, ["--cluster", str(file)], alone)
        show_kill("worker", bids, folder, scheduler)
        show_kill("driver", bids, folder, scheduler)
        run("cross-validate", "--recipe", "patient", *ONE_DRAW, "--name", "first", "--out", str(folder / "runs"))
        show_folds("1 process", folder, [])
        show_folds("2 processes", folder, ["--jobs", "2"])
        show_folds("Dask", folder, ["--cluster", scheduler])


def write_bids(folder: Path, scans: int) -> Path:
    """Write the volumes."""
    import cohort  # not above: a process that is started imports this module again, and it is to start fast
    from brainstage.datasets.sources import load_slices

    return cohort.write_bids(load_slices(), folder, scans)


def show_empty_tasks(what: str, workers: Workers) -> None:
    """Print the cost of an empty task and the driver's memory."""
    for count in (10_000, 100_000):
        started = time.perf_counter()
        done = sum(1 for _ in run_tasks(tasks.double, range(count), workers))
        each = (time.perf_counter() - started) / done
        print(
            f"{what:12} {done:7,} empty tasks: {1e6 * each:6.1f} µs each · driver {1e3 * peak_memory():.0f} MB",
            flush=True,
        )
    with mock.patch("brainstage.core.parallel.MAX_CHUNK", 1):
        started = time.perf_counter()
        done = sum(1 for _ in run_tasks(tasks.double, range(2000), workers))
    print(
        f"{what:12} {done:7,} chunks of one: {1e3 * (time.perf_counter() - started) / done:.2f} ms each", flush=True
    )


def command(*words: str) -> list[str]:
    """Return a command line of brainstage."""
    return [sys.executable, "-m", "brainstage", *words, "--quiet"]


def run(*words: str) -> float:
    """Run a command and return its seconds."""
    started = time.perf_counter()
    subprocess.run(command(*words), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def slices_of(out: Path) -> list[bytes]:
    """Return the bytes of a cohort's files of slices."""
    return [file.read_bytes() for file in sorted((out / "data").iterdir())]


def show_prepare(what: str, bids: Path, folder: Path, options: Sequence[str], alone: float | None = None) -> float:
    """Prepare and print the time, and how it compares with one process."""
    out = folder / what.replace(" ", "-")
    seconds = run("prepare", str(bids), "--out", str(out), *options)
    compared = ""
    if alone:
        same = "the same bytes" if slices_of(out) == slices_of(folder / "1-process") else "OTHER BYTES"
        compared = f" · {alone / seconds:.2f} times one process · {same}"
    print(f"prepare · {what:12} {seconds:6.1f} s{compared}", flush=True)
    return seconds


def show_kill(what: str, bids: Path, folder: Path, scheduler: str) -> None:
    """Kill a worker, or the driver and start it again, in the middle; print what it cost beside a run without."""
    whole = run("prepare", str(bids), "--out", str(folder / f"whole-{what}"), "--cluster", scheduler)
    words = ("prepare", str(bids), "--out", str(folder / f"killed-{what}"), "--cluster", scheduler)
    parts = folder / f"killed-{what}" / ".prepare" / "parts"
    half = len(list(bids.glob("sub-*"))) // 2
    started = time.perf_counter()
    driver = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL)
    while len(list(parts.glob("[!.]*.parquet"))) < half:
        time.sleep(0.1)
    if what == "worker":
        with open_cluster(scheduler) as workers:
            [(_, worker)] = run_tasks(tasks.process_number, [0], workers)
        os.kill(int(str(worker)), signal.SIGKILL)
        driver.wait()
        again = ""
    else:
        driver.kill()
        driver.wait()
        before = {file: file.stat().st_mtime_ns for file in parts.glob("[!.]*.parquet")}
        run(*words)
        kept = sum(file.stat().st_mtime_ns == changed for file, changed in before.items())
        again = f" · {len(before) - kept} of {len(before)} finished scans prepared again"
    seconds = time.perf_counter() - started
    same = slices_of(folder / f"killed-{what}") == slices_of(folder / "1-process")
    cost = f"{whole:.1f} s without, {seconds - whole:+.1f} s"
    print(f"{what} killed in the middle: {cost}{again} · {'the same' if same else 'OTHER'} bytes", flush=True)


def show_folds(what: str, folder: Path, options: Sequence[str]) -> None:
    """Cross-validate and print the time."""
    name = what.replace(" ", "-")
    words = ("cross-validate", "--recipe", "patient", *ONE_DRAW, "--name", name)
    seconds = run(*words, "--out", str(folder / "runs"), *options)
    tables = [pq.read_table(folder / "runs" / run / "predictions.parquet") for run in ("1-process", name)]
    same = "the same predictions" if tables[0] == tables[1] else "OTHER PREDICTIONS"
    print(f"cross-validate · {what:12} {seconds:6.1f} s · {same}", flush=True)


if __name__ == "__main__":
    main()
