"""Claim: everything works on 640,000 slices of 20,000 people in less than 3 GB of memory.

    python benchmarks/large.py [--people 20000] [--keep FOLDER]

The people are synthetic: each is the mean of two of 400 phantoms of one stage, bent in a way of its own. They are
written as a cohort, as `brainstage prepare` writes it, and each command runs on it in a process of its own.
Printed are its seconds, the most memory that it and the processes that it started had of their own, and the most
with what they had mapped of files, which the system takes back when memory is short. Networks are trained for one
epoch, on pictures of 48×48 pixels: their figures say nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from brainstage.core.arrays import IntArray, Pixels
from brainstage.core.levels import LEVELS_KEY, PUBLIC
from brainstage.core.parallel import Processes, run_tasks
from brainstage.core.schema import CLASS_ORDER, STAGES
from brainstage.datasets.phantom import draw_head, stage_counts

Task = TypeVar("Task")
PHANTOMS = 400
PEOPLE_A_FILE = 500
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("patient_id", pa.string()),
        ("scan_id", pa.string()),
        ("slice_index", pa.int32()),
        ("age", pa.float64()),
        ("sex", pa.string()),
    ]
)
QUICK = ("--set", "image_size=48", "--set", "stage_channels=[8,8,16]", "--epochs", "1")


def main() -> None:
    """Write the cohort, run the commands, print what each took."""
    parser = argparse.ArgumentParser(description="Time and memory of each command on a large cohort.")
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="folder for the cohort and the runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        os.environ["BRAINSTAGE_CACHE"] = str(folder / "cache")
        cohort = write_cohort(folder / "cohort", options.people)
        data, runs = ("--data", cohort), ("--out", str(folder / "runs"))
        show("describe, not yet decoded", "data", "describe", *data, "--json")
        show("describe", "data", "describe", *data, "--json")
        show("audit", "audit", *data, "--json")
        show("train", "train", *data, *runs, "--protocol", "patient", "--name", "one", *QUICK)
        show("predict", "predict", str(folder / "runs" / "one"), cohort, "--out", str(folder / "predictions"))
        show("cross-validate, 2 folds", "cross-validate", *data, *runs, "--folds", "2", "--name", "folds", *QUICK)


def write_cohort(folder: Path, people: int) -> str:
    """Write the people, unless they are there."""
    if (folder / "data").is_dir():
        return str(folder)
    parts = folder / "parts"
    parts.mkdir(parents=True)
    phantoms = folder.with_name("phantoms.npy")
    np.lib.format.open_memmap(phantoms, "w+", np.uint8, (PHANTOMS, 32, 128, 128)).flush()
    run_in_processes(_draw_phantom, [(phantoms, number) for number in range(PHANTOMS)])
    stage_of = np.random.default_rng(0).permutation(np.repeat(np.arange(len(STAGES)), stage_counts(people)))
    starts = range(0, people, PEOPLE_A_FILE)
    tasks = [
        (parts / f"train-{number:05d}-of-{len(starts):05d}.parquet", start, stage_of[start : start + PEOPLE_A_FILE])
        for number, start in enumerate(starts)
    ]
    run_in_processes(_write_file, tasks)
    parts.rename(folder / "data")
    return str(folder)


def run_in_processes(function: Callable[[Task], int], tasks: Sequence[Task]) -> None:
    """Run tasks in processes of their own, so that this one, which stays, keeps none of their memory."""
    for task, done in run_tasks(function, tasks, Processes()):
        if done is None:
            raise SystemExit(f"{task}: its process was killed")


def _draw_phantom(task: tuple[Path, int]) -> int:
    """Draw a phantom into the array of all; return its number."""
    file, number = task
    stage = int(np.repeat(np.arange(len(STAGES)), stage_counts(PHANTOMS))[number])
    np.load(file, mmap_mode="r+")[number] = draw_head(stage, number, seed=7)
    return number


def _write_file(task: tuple[Path, int, IntArray]) -> int:
    """Write some people, a row group each, from the number of the first on; return how many."""
    file, first, stages = task
    phantoms = np.load(file.parents[2] / "phantoms.npy", mmap_mode="r")
    stage_of_phantom = np.repeat(np.arange(len(STAGES)), stage_counts(PHANTOMS))
    label = {"names": list(STAGES), "_type": "ClassLabel"}
    schema = SCHEMA.with_metadata(
        {
            "huggingface": json.dumps({"info": {"features": {"label": label}}}),
            LEVELS_KEY: PUBLIC.name,
            CLASS_ORDER: json.dumps(STAGES),
            "brainstage_synthetic": "true",
        }
    )
    with pq.ParquetWriter(file, schema) as writer:
        for number, stage in enumerate(stages.tolist(), first):
            rng = np.random.default_rng([7, number])
            pair = phantoms[rng.choice(np.flatnonzero(stage_of_phantom == stage), 2, replace=False)]
            person = {
                "label": stage,
                "patient_id": f"{number:05d}",
                "scan_id": f"sub-{number:05d}",
                "age": float(rng.integers(55, 95)),
                "sex": "FM"[rng.integers(2)],
            }
            rows = [
                {"image": {"bytes": _jpeg(picture), "path": None}, "slice_index": level, **person}
                for level, picture in enumerate(_bent(pair.mean(axis=0), rng))
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return len(stages)


def _bent(head: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    """Return a head that is bent smoothly by some 4 pixels, the same at all levels, with noise."""
    bend = [gaussian_filter(rng.standard_normal((128, 128)), 8, mode="wrap") for _ in range(2)]
    places = np.mgrid[:128, :128] + 4 * np.stack([field / field.std() for field in bend])
    bent = np.stack([map_coordinates(picture, places, order=1) for picture in head])
    bent += rng.normal(0, 3, bent.shape) * (bent > 5)
    return bent.clip(0, 255).astype(np.uint8)


def _jpeg(picture: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=92)
    return stream.getvalue()


def show(what: str, *words: str) -> None:
    """Run a command and print its seconds and its memory."""
    started, own, mapped = time.perf_counter(), 0, 0
    with subprocess.Popen([sys.executable, "-m", "brainstage", *words], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = [_memory(pid) for pid in (process.pid, *children(process.pid))]
            own, mapped = max(own, sum(size[0] for size in sizes)), max(mapped, sum(size[1] for size in sizes))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{what}: ended with {process.returncode}")
    seconds = time.perf_counter() - started
    print(f"{what:24} {seconds:8.1f} s · {own / 1e6:5.2f} GB of its own, {mapped / 1e6:5.2f} in all", flush=True)


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:  # it has ended
            continue
    return found + [one for child in found for one in children(child)]


def _memory(pid: int) -> tuple[int, int]:
    """Return the kilobytes that a process has in memory of its own, and with what it mapped of files."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0, 0
    sizes = dict(re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", text, re.MULTILINE))
    return int(sizes.get("RssAnon", 0)), int(sizes.get("VmRSS", 0))


if __name__ == "__main__":
    main()
