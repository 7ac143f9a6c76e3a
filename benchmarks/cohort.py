"""Claim: a researcher's volumes become a cohort whose model is as good as one of the slices, come what may.

    python benchmarks/cohort.py

The 200 people of the public dataset become T1-weighted slabs in a BIDS dataset: their 32 slices as a volume,
tilted by up to 8 degrees about each axis, moved by up to 15 mm, in another storage order each. `brainstage
prepare` makes a cohort of them. Printed are scans a minute and core; how many are read, refused and failed, by
stage; the AUROC of any dementia by `cross-validate --recipe patient`, five draws of five folds over people, of the
cohort and of the slices of the same people (optimistic, as the recipe was chosen with these people in view; the two
Moderate people count as Mild, since one of them may be refused); how alike one person's scans are that were read
from two positions, and scans of two people, by the measure of `same_heads`; the largest memory of `prepare` at 50,
100 and 200 people; and what a kill in the middle cost.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq

import volumes
from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.parallel import parallel_map, usable_cpus
from brainstage.core.schema import SLICE_SIDE, STACK_LEVELS, STAGES
from brainstage.datasets.same_heads import COMPARED_LEVELS, MIN_CORRELATION
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import evaluate_patients
from brainstage.models.recipes import load_recipe
from brainstage.scans.registration import register
from brainstage.scans.stack import cut
from brainstage.training.cross_validation import cross_validate
from large import children


def main() -> None:
    """Print speed, reading by stage, AUROC, memory and the cost of a kill."""
    slices = load_slices()
    stages = ["Mild_Demented" if label == "Moderate_Demented" else label for label in slices.labels]
    slices = replace(slices.with_labels(stages), classes=STAGES[:3])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bids = write_bids(slices, folder / "bids")
        seconds, _ = run_prepare(bids, folder / "cohort")
        ledger = pq.read_table(folder / "cohort" / "scans.parquet").to_pylist()
        print(f"{len(ledger)} scans · {60 * len(ledger) / seconds / usable_cpus():.0f} a minute and core")
        show_reading(ledger)
        read = {row["participant_id"] for row in ledger if row["status"] == "prepared"}
        cohort = load_slices(folder / "cohort")
        print("protocol patient · five draws of five folds")
        for what, data in (
            ("volumes", cohort),
            ("slices of the people who were read", of_people(slices, read)),
        ):
            print(f"{what:36} AUROC {auroc(data, folder / what.replace(' ', '-'))}", flush=True)
        show_same_heads(slices, cohort)
        for people in (50, 100, 200):
            _, peak = run_prepare(write_bids(slices, folder / f"bids-{people}", people), folder / f"out-{people}")
            print(f"{people:4} people: {peak / 2**20:.0f} MiB at most, the processes together")
        show_kill(bids, folder / "killed", seconds)


def write_bids(slices: SliceTable, folder: Path, people: int | None = None) -> Path:
    """Write people of the public dataset as tilted slabs, evenly over the stages where not all are wanted."""
    rows_of, names = rows_of_people(slices)
    chosen = np.linspace(0, len(names) - 1, people or len(names)).round().astype(int)
    lines = ["participant_id\tdiagnosis"]
    for number in chosen.tolist():
        rows, name = rows_of[names[number]], f"sub-{number:03d}"
        file = folder / name / "anat" / f"{name}_T1w.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(slab(stack_of(slices, rows), number), file)
        lines.append(f"{name}\t{slices.labels[rows[0]]}")
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def rows_of_people(slices: SliceTable) -> tuple[dict[str, list[int]], list[str]]:
    """Return the rows of each person, and the people by stage; their place is their number in the BIDS dataset."""
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(slices.patients):
        rows_of.setdefault(str(patient), []).append(row)
    return rows_of, sorted(rows_of, key=lambda name: (STAGES.index(str(slices.labels[rows_of[name][0]])), name))


def stack_of(slices: SliceTable, rows: list[int]) -> Pixels:
    """Return a person's slices by level, (32, 128, 128)."""
    levels = slices.rows["slice_index"].to_pylist()
    return np.stack([slices.images[row] for row in sorted(rows, key=lambda row: int(levels[row]))])


def slab(stack: Pixels, seed: int) -> Any:
    """Return slices as a NIfTI volume that its header tilts, moves and stores in some order."""
    volume, _ = volumes.place(stack, seed, volumes.NEAR)
    return nib.Nifti1Image(volume.voxels.astype(np.int16), volume.affine)  # type: ignore[no-untyped-call]


def run_prepare(bids: Path, out: Path) -> tuple[float, float]:
    """Run `brainstage prepare`; return its seconds, and its largest memory in bytes, all processes together."""
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command(bids, out), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(memory(one) for one in [process.pid, *children(process.pid)]))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - start, peak


def command(bids: Path, out: Path) -> list[str]:
    """Return the command that prepares a cohort."""
    return [sys.executable, "-m", "brainstage", "prepare", str(bids), "--out", str(out), "--quiet"]


def memory(pid: int) -> float:
    """Return the bytes of memory that a process uses; what it shares with others is counted in parts."""
    try:
        shares = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", shares, re.MULTILINE)
    return 1024.0 * int(found[1]) if found else 0.0


def show_reading(ledger: list[dict[str, object]]) -> None:
    """Print how many scans of each stage were read, refused and failed."""
    for stage in STAGES[:3]:
        statuses = [row["status"] for row in ledger if row["label"] == stage]
        counts = ", ".join(f"{statuses.count(one)} {one}" for one in ("prepared", "refused", "failed"))
        print(f"  {stage:20} {counts}")


def of_people(slices: SliceTable, names: set[str]) -> SliceTable:
    """Return the slices of some people, by their numbers in the BIDS dataset."""
    rows_of, people = rows_of_people(slices)
    rows = sorted(row for name in names for row in rows_of[people[int(name)]])
    return replace(slices, rows=slices.rows.take(rows), images=[slices.images[row] for row in rows])


def auroc(slices: SliceTable, out: Path) -> str:
    """Return the AUROC of any dementia, cross-validated over people."""
    run = cross_validate(slices, load_recipe("patient", repeats=5), out=out, name="run")
    score = evaluate_patients(run).views[-1].rows["model"]["auroc_ovr"]
    return f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"


def show_same_heads(slices: SliceTable, cohort: SliceTable) -> None:
    """Print how alike scans of one person are, read from two positions, and scans of two people."""
    rows_of, names = rows_of_people(slices)
    first: dict[int, dict[int | None, Pixels]] = {}
    for row, (person, level) in enumerate(zip(cohort.patients, cohort.levels, strict=True)):
        first.setdefault(int(str(person)), {})[level] = cohort.images[row]
    read = sorted(first)
    again = parallel_map(lambda number: read_again(stack_of(slices, rows_of[names[number]]), number), read)
    compared = [round(place * (STACK_LEVELS - 1)) for place in COMPARED_LEVELS]
    alike = np.median(
        [pattern([first[number] for number in read], level) @ pattern(again, level).T for level in compared], axis=0
    )
    own, others = np.diag(alike), alike[~np.eye(len(alike), dtype=bool)]
    print(
        f"one person read twice: at least {own.min():.3f}, 95 % at least {np.quantile(own, 0.05):.3f}, "
        f"{np.mean(own >= MIN_CORRELATION):.1%} at least {MIN_CORRELATION}; two people: at most {others.max():.3f}"
    )


def read_again(stack: Pixels, number: int) -> dict[int | None, Pixels]:
    """Return the slices of a slab that is registered from farther away, by level."""
    volume, _ = volumes.place(stack, 1000 + number, volumes.FAR)
    images, levels = cut(volume, register(volume))
    return dict(zip(levels, images, strict=True))


def pattern(scans: Sequence[dict[int | None, Pixels]], level: int) -> Float32Array:
    """Return the fine anatomy of a level of each scan, (n, 4096); of scans that do not show it zeros."""
    lacking = np.zeros((SLICE_SIDE, SLICE_SIDE), np.uint8)
    return describe_slices([scan.get(level, lacking) for scan in scans]).pattern.astype(np.float32)


def show_kill(bids: Path, out: Path, seconds: float) -> None:
    """Kill `prepare` in the middle, go on, and print what that cost."""
    start = time.perf_counter()
    with subprocess.Popen(command(bids, out), stdout=subprocess.DEVNULL, start_new_session=True) as process:
        time.sleep(seconds / 2)
        os.killpg(process.pid, signal.SIGKILL)
    done = len(list((out / ".prepare" / "parts").glob("*.parquet")))
    run_prepare(bids, out)
    cost = time.perf_counter() - start - seconds
    print(f"killed after {done} scans and started again: {cost:+.1f} s against {seconds:.1f} s unbroken")


if __name__ == "__main__":
    main()
