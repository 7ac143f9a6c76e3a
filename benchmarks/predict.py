"""``brainstage predict`` beside ``transformers.pipeline`` on the same saved model, in one run.

    python benchmarks/predict.py [RUN] [--data FOLDER]

Both get the 1,280 test slices as JPEG files and give every class's probability; the pipeline with its defaults.
Also timed: the first prediction of a fresh process, from its start to its end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from transformers import pipeline

from brainstage.datasets.layouts import hub_files
from brainstage.datasets.sources import default_source, load_slices
from brainstage.inference.predictions import predict_scans
from brainstage.inference.predictor import Predictor
from brainstage.scans.discover import find_scans
from brainstage.training.train import train


def main() -> None:
    """Print images a second, the ratio, the largest difference and the seconds of a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="without it compact-fast is trained first")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory() as runs:
        run = options.run or train(load_slices(options.data), "compact-fast", out=runs).path
        files = _unpack(hub_files(options.data or default_source())["test"][0], Path(temporary))

        start = time.perf_counter()
        answers = predict_scans(Predictor.open(run), find_scans([temporary]))
        ours = time.perf_counter() - start

        start = time.perf_counter()
        classify = pipeline("image-classification", model=str(run / "model"))
        theirs_raw = classify([str(file) for file in files], top_k=None)
        theirs = time.perf_counter() - start

        start = time.perf_counter()
        command = [sys.executable, "-m", "brainstage", "predict", str(run), str(files[0]), "--quiet"]
        subprocess.run(command, check=True, capture_output=True)
        first = time.perf_counter() - start

    probabilities = [[row["prob_" + name] for name in answers.classes] for row in answers.rows]
    by_name = [{entry["label"]: entry["score"] for entry in entries} for entries in theirs_raw]
    expected = [[scores[name] for name in answers.classes] for scores in by_name]
    gap = np.abs(np.array(probabilities) - np.array(expected)).max()
    print(f"{len(files)} slices, model opened in both times")
    print(f"brainstage   {ours:7.2f} s  {len(files) / ours:8.0f} images/s")
    print(f"pipeline     {theirs:7.2f} s  {len(files) / theirs:8.0f} images/s")
    print(f"ratio {theirs / ours:.1f}, largest difference of a probability {gap:.1e}")
    print(f"first prediction of a fresh process {first:.1f} s")


def _unpack(parquet: Path, folder: Path) -> list[Path]:
    files = []
    for number, image in enumerate(pq.read_table(parquet)["image"].to_pylist()):
        files.append(folder / f"{number:05d}.jpg")
        files[-1].write_bytes(image["bytes"])
    return files


if __name__ == "__main__":
    main()
