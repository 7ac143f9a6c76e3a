"""Claim: exported networks answer faster than PyTorch, and a fresh process gives its first answer within 1.5 s.

    python benchmarks/serve.py [--vit]

The bundled ``compact`` as it is, as ONNX, and as ONNX of 8-bit integers: slices a second in batches of 32 on all
cores, how long a single slice takes (median and 99th percentile), both from a decoded slice to its probabilities,
and how long a fresh process takes from its start to its end (median of five). Engines take turns, in one run.
``--vit`` adds a ViT-base for 224 pixels with random weights, in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from brainstage.data.sources import load_slices
from brainstage.data.table import SliceTable
from brainstage.data.transforms import Pixels, Preprocessing
from brainstage.errors import RunError
from brainstage.export import export
from brainstage.models.weights import bundled_folder
from brainstage.predict import BATCH, Predictor
from brainstage.schema import STAGES

ROUNDS, FIRST = 3, 5
"""Turns of each engine, and fresh processes."""


@dataclass
class Contender:
    """A model on an engine, and what was measured of it."""

    name: str
    folder: Path
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of single slices."""
    first: list[float] = field(default_factory=list)


def main() -> None:
    """Print what each engine of each model gives."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vit", action="store_true", help="also a ViT-base with random weights")
    options = parser.parse_args()
    slices = load_slices()
    sides = slices.rows["split"].to_pylist()
    images = [image for image, side in zip(slices.images, sides, strict=True) if side == "test"]
    print(f"{os.cpu_count()} cores, {len(images):,} test slices, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compact, forms = bundled_folder("compact"), {"onnx": False, "onnx int8": True}
        engines(exported("compact", compact, folder, slices, forms), images, folder, 200)
        if options.vit:
            contenders = exported("ViT-base", random_vit(folder / "vit"), folder, slices, {"onnx": False})
            engines(contenders, images[:64], folder, 10)
        patient = Contender("patient, numpy", bundled_folder("patient"))
        first_answers([patient], images[0], folder)
        print(f"{patient.name:22}{'':44}{statistics.median(patient.first):7.2f}")


# --- engines -----------------------------------------------------------------------------------------------------


def exported(name: str, run: Path, folder: Path, slices: SliceTable, forms: Mapping[str, bool]) -> list[Contender]:
    """Return a run and its exports; ``forms`` names them and says which are of 8-bit integers."""
    found = [Contender(f"{name}, torch", run)]
    for label, int8 in forms.items():
        try:
            done = export(run, folder / f"{name}-{label}".replace(" ", "-"), int8=int8, slices=slices)
        except RunError as error:
            print(f"{name}, {label}: {error}")
            continue
        parity = done.parity
        print(f"{done.title}, {done.megabytes} MB")
        print(f"  probabilities within {parity.probabilities:.1e} of PyTorch's on {parity.slices} {parity.source}")
        if done.int8:
            print(f"  accuracy {done.int8.accuracy_fp32:.4f} in fp32, {done.int8.accuracy_int8:.4f} in int8")
        found.append(Contender(f"{name}, {label}", done.folder))
    return found


def random_vit(run: Path) -> Path:
    """Make a run folder of a ViT-base that knows nothing."""
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    numbers = {name: number for number, name in enumerate(STAGES)}
    network = ViTForImageClassification(ViTConfig(id2label=dict(enumerate(STAGES)), label2id=numbers))
    network.save_pretrained(run / "model")
    Preprocessing(224, None, (0.5,) * 3, (0.5,) * 3, resample=2).processor().save_pretrained(run / "model")
    about = {"recipe": "ViT-base, random", "protocol": "official", "leakage": {"sentence": "fitted on nothing"}}
    (run / "manifest.json").write_text(json.dumps(about), encoding="utf-8")
    return run


def engines(contenders: Sequence[Contender], images: Sequence[Pixels], folder: Path, singles: int) -> None:
    """Measure and print each engine, the first as the measure of the others."""
    for _ in range(ROUNDS):
        for one in contenders:
            measure(one, images, singles)
    first_answers(contenders, images[0], folder)
    print(f"{'':22}{'images/s':>10}{'':9}{'p50 ms':>9}{'p99 ms':>9}{'':7}{'first s':>7}")
    base = statistics.median(contenders[0].rates)
    for one in contenders:
        rate, (middle, late) = statistics.median(one.rates), 1000 * np.quantile(one.seconds, [0.5, 0.99])
        print(
            f"{one.name:22}{rate:10,.1f}{rate / base:7.2f} ×{middle:9.2f}{late:9.2f}"
            f"{'':7}{statistics.median(one.first):7.2f}"
        )


def measure(one: Contender, images: Sequence[Pixels], singles: int) -> None:
    """Add one turn of batches on all cores, and of single slices."""
    predictor = Predictor.open(one.folder)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with predictor.pool() as pool:
        list(pool.map(predictor.predict, batches[:2]))  # warm
        start = time.perf_counter()
        list(pool.map(predictor.predict, batches))
        one.rates.append(len(images) / (time.perf_counter() - start))
    for number in range(singles):
        start = time.perf_counter()
        predictor.predict([images[number % len(images)]])
        one.seconds.append(time.perf_counter() - start)


def first_answers(contenders: Sequence[Contender], image: Pixels, folder: Path) -> None:
    """Time fresh processes, from start to end."""
    picture = folder / "one.png"
    Image.fromarray(image).save(picture)
    for _ in range(FIRST):
        for one in contenders:
            command = [sys.executable, "-m", "brainstage", "predict", str(one.folder), str(picture), "--quiet"]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            one.first.append(time.perf_counter() - start)


if __name__ == "__main__":
    main()
