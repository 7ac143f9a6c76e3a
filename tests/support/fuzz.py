"""Broken files of every format through the command line and the API: `python tests/support/fuzz.py --files 2000`.

Each is predicted, refused or reported as unreadable: no crash, no reply after more than two seconds, no 5xx.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.scans.stack import training_stack
from helpers import encode, served
from volumes import brain, write_enhanced, write_nifti, write_series

LONGEST = 2.0
"""Seconds that a reply may take."""
START = 60
"""Seconds that a process may take before its first file, on a machine with other work."""
AT_ONCE = 250
"""Files of one call of the command line."""
HEADER = 600
"""Bytes at the beginning, where most changes are made: errors there do most harm."""

ONE_BY_ONE = """
import sys, time
import numpy as np
from brainstage.cli import main
from brainstage.inference.predictor import Predictor
opened = Predictor.open()
opened.predict_proba(list(np.random.default_rng(0).integers(0, 255, (32, 128, 128), np.uint8)), None, range(32))
Predictor.open = staticmethod(lambda *_, **__: opened)  # its time is not a file's
for name in sys.argv[1:]:
    sys.argv = ["brainstage", "predict", "-q", "--json", name]
    begun = time.perf_counter()
    try:
        main()
    except SystemExit as end:
        print("OUTCOME", end.code, time.perf_counter() - begun, file=sys.stderr)
"""
"""The command line once for each file, in one process."""


def originals(folder):
    """Return whole files of each format."""
    slices = training_stack(brain(), "template")[0][4:20:4]
    volume = brain((6, 6, 6))
    pq.write_table(pa.table({"image": [encode(one) for one in slices], "label": [0] * 4}), folder / "a.parquet")
    packed = write_nifti(folder / "a.nii.gz", volume).read_bytes()
    second = write_nifti(folder / "b.nii", volume, kind=nib.Nifti2Image).read_bytes()
    series = sorted(write_series(folder / "series", volume).iterdir())[10:13]
    return {
        "JPEG": [encode(one, "JPEG") for one in slices],
        "PNG": [encode(one) for one in slices],
        "NIfTI": [gzip.decompress(packed), packed, second],
        "DICOM": [*(one.read_bytes() for one in series), write_enhanced(folder / "c", volume).read_bytes()],
        "parquet": [(folder / "a.parquet").read_bytes()],
    }


def mutated(data, draw):
    """Return a file with something wrong in it; a gzip file is unpacked for that as often as not."""
    if data.startswith(b"\x1f\x8b") and draw.random() < 0.5:
        return gzip.compress(mutated(gzip.decompress(data), draw), 1)
    changed = bytearray(data)
    end = len(data) if draw.random() < 0.3 else min(HEADER, len(data))
    kind = draw.integers(5)
    if kind == 0:
        return bytes(changed[: draw.integers(len(data))])
    at = int(draw.integers(end))
    length = int(draw.integers(1, 40))
    if kind == 1:
        changed[at : at + length] = draw.bytes(length)
    elif kind == 2:
        changed[at : at + length] = bytes([draw.choice([0, 1, 127, 128, 255])]) * length
    elif kind == 3:
        changed[at:at] = changed[at : at + length] if draw.random() < 0.5 else draw.bytes(length)
    else:
        for place in draw.integers(end, size=int(draw.integers(1, 30))):
            changed[place] ^= 1 << draw.integers(8)
    return bytes(changed)


def through_the_api(files, address):
    """Send each file alone; return how often each outcome occurred, the longest time and what went wrong."""
    outcomes, longest, wrong = Counter(), 0.0, []
    with httpx2.Client(base_url=address, timeout=60) as client:
        for number, content in enumerate(files):
            begun = time.perf_counter()
            reply = client.post("/v1/predict", files={"files": content})
            seconds = time.perf_counter() - begun
            longest = max(longest, seconds)
            if reply.status_code != 200 or seconds > LONGEST:
                wrong.append(f"file {number}: {reply.status_code} after {seconds:.1f} s")
            else:
                outcomes[reply.json()["predictions"][0]["status"]] += 1
    return outcomes, longest, wrong


def written(files, folder):
    """Write files under numbers; return their names."""
    names = [folder / str(number) for number in range(len(files))]
    for name, content in zip(names, files, strict=True):
        name.write_bytes(content)
    return names


def through_the_command_line(files, folder, model):
    """Name files to `predict`, many at a time; return how often each outcome occurred and what went wrong."""
    outcomes, wrong = Counter(), []
    for start in range(0, len(files), AT_ONCE):
        names = written(files[start : start + AT_ONCE], folder)
        out = folder / "out.json"
        done = subprocess.run(
            [sys.executable, "-m", "brainstage", "predict", "-q", "--out", out, model, *names],
            capture_output=True,
            text=True,
            timeout=START + LONGEST * len(names),
        )
        if done.returncode not in (0, 1, 3) or "Traceback" in done.stderr:
            wrong.append(f"files {start} to {start + len(names)}: {done.returncode}, {done.stderr[-300:]}")
        if out.is_file():
            people = {row["person"]: row["status"] for row in reversed(json.loads(out.read_text())["predictions"])}
            outcomes.update(people.values())
            out.unlink()
        elif not done.stderr.startswith("Error: "):
            wrong.append(f"files {start} to {start + len(names)}: no predictions, {done.stderr[-300:]}")
        for name in names:
            name.unlink()
    return outcomes, wrong


def parquet_by_the_command_line(files, folder, _model):
    """Name parquet files one by one, in one process: one that is damaged ends a command."""
    outcomes, wrong = Counter(), []
    for start in range(0, len(files), AT_ONCE):
        names = written(files[start : start + AT_ONCE], folder)
        done = subprocess.run(
            [sys.executable, "-c", ONE_BY_ONE, *names],
            capture_output=True,
            text=True,
            timeout=START + LONGEST * len(names),
        )
        outcome_lines = [line.split() for line in done.stderr.splitlines() if line.startswith("OUTCOME")]
        outcomes.update("predicted" if code == "0" else "failed" for _, code, _ in outcome_lines)
        if len(outcome_lines) < len(names) or "Traceback" in done.stderr:
            wrong.append(f"files {start} to {start + len(names)}: {done.returncode}, {done.stderr[-300:]}")
        wrong += [f"{float(seconds):.1f} s" for _, _, seconds in outcome_lines if float(seconds) > LONGEST]
    return outcomes, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="of each format")
    parser.add_argument("--formats", nargs="*", help="JPEG PNG NIfTI DICOM parquet")
    parser.add_argument(
        "--model", default="patient", help="compact is faster: it is not fitted to the levels of each scan"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as temporary, served(options.model) as address:
        time.sleep(10)  # the model is fitted to each level when it first meets it
        folder = Path(temporary)
        for name, whole in originals(folder).items():
            if options.formats and name not in options.formats:
                continue
            draw = np.random.default_rng(options.seed)
            files = [mutated(whole[number % len(whole)], draw) for number in range(options.files)]
            by_line = parquet_by_the_command_line if name == "parquet" else through_the_command_line
            outcomes, wrong = by_line(files, folder, options.model)
            sent, longest, wrong_sent = through_the_api(files, address)
            print(
                f"{name}: {len(files):,} files; command line {dict(outcomes)}; API {dict(sent)}, "
                f"longest {longest:.2f} s; wrong: {len(wrong) + len(wrong_sent)}",
                flush=True,
            )
            for one in [*wrong, *wrong_sent][:20]:
                print(f"  {one}")
            failures += len(wrong) + len(wrong_sent)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
