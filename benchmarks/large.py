"""Claim: everything works on 640,000 slices of 20,000 people in less than 3 GB of memory.

    python benchmarks/large.py [--people 20000] [--keep FOLDER]

The people are synthetic: each is the mean of two of 400 phantoms of one stage. They are written as a cohort, as
`brainstage prepare` writes it, and each command runs on it in a process of its own, which may use all processors.
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
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from brainstage.core.arrays import IntArray, Pixels
from brainstage.core.levels import LEVELS_KEY, PUBLIC
from brainstage.core.parallel import Processes, run_tasks
from brainstage.core.schema import CLASS_ORDER, STACK_LEVELS, STAGES
from brainstage.datasets.phantom import draw_head, stage_counts
from cohort import children

PHANTOMS = 400
PEOPLE_A_FILE = 500
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
        show("cross-validate, 2 folds", "cross-validate", *data, *runs, "--folds", "2", "--name", "folds", *QUICK)
        show("predict", "predict", str(folder / "runs" / "one"), cohort, "--out", str(folder / "predictions"))


def write_cohort(folder: Path, people: int) -> str:
    """Write the people, unless they are there."""
    if not (folder / "data").is_dir():
        stages = np.repeat(np.arange(len(STAGES)), stage_counts(PHANTOMS)).tolist()
        heads: list[list[Pixels]] = [[] for _ in STAGES]
        for (_, stage), head in run_tasks(_draw, enumerate(stages), Processes()):
            if head is None:
                raise SystemExit("a process that drew a phantom was killed")
            heads[stage].append(head)
        parts = folder / "parts"
        parts.mkdir(parents=True)
        rng = np.random.default_rng(0)
        stage_of = rng.permutation(np.repeat(np.arange(len(STAGES)), stage_counts(people)))
        for number, start in enumerate(range(0, people, PEOPLE_A_FILE)):
            rows = stage_of[start : start + PEOPLE_A_FILE]
            count = -(-people // PEOPLE_A_FILE)
            _write_file(parts / f"train-{number:05d}-of-{count:05d}.parquet", start, rows, heads, rng)
        parts.rename(folder / "data")
    return str(folder)


def _draw(phantom: tuple[int, int]) -> Pixels:
    number, stage = phantom
    return draw_head(stage, number, seed=7)


def _write_file(
    file: Path, first: int, stages: IntArray, heads: list[list[Pixels]], rng: np.random.Generator
) -> None:
    """Write some people, a row group each."""
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("patient_id", pa.string()),
            ("scan_id", pa.string()),
            ("slice_index", pa.int32()),
            ("age", pa.float64()),
            ("sex", pa.string()),
        ],
        metadata={
            "huggingface": json.dumps(
                {"info": {"features": {"label": {"names": list(STAGES), "_type": "ClassLabel"}}}}
            ),
            LEVELS_KEY: PUBLIC.name,
            CLASS_ORDER: json.dumps(STAGES),
            "brainstage_synthetic": "true",
        },
    )
    with pq.ParquetWriter(file, schema) as writer:
        for number, stage in enumerate(stages.tolist(), first):
            one, other = rng.choice(len(heads[stage]), 2, replace=False)
            noise = rng.normal(0, 3, (STACK_LEVELS, 128, 128))
            pixels = (heads[stage][one].astype(np.float32) + heads[stage][other]) / 2
            pixels = (pixels + noise * (pixels > 5)).clip(0, 255).astype(np.uint8)
            person = {
                "label": stage,
                "patient_id": f"{number:05d}",
                "scan_id": f"sub-{number:05d}",
                "age": float(rng.integers(55, 95)),
                "sex": "FM"[rng.integers(2)],
            }
            rows = [
                {"image": {"bytes": _jpeg(picture), "path": None}, "slice_index": level, **person}
                for level, picture in enumerate(pixels)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


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
