"""Claim: people and duplicates are recovered from pixels alone, at a cost about linear in the number of slices.

    python benchmarks/audit.py [--recovery] [--scale [N ...]] [--augmented] [--heads FILE]

Without options all three parts are run:

- recovery: phantoms, whose people are known, prove the method. On the real rows the people of all 6,400 stand for
  the truth, once they pass the checks that need none (all complete, one label each, a second feature agrees);
  recovery from parts of the rows is compared with them. A slice that stays unknown counts as a person of its own.
- scale: time and peak memory of the whole audit on phantoms, each size in a process of its own.
- augmented: the public rows together with turned, zoomed, flipped and brightened copies of them, 33,984 slices in
  random order. The person of a copy is the person of its original in the patient map of the package.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix

from brainstage.audits.audit import audit
from brainstage.audits.duplicates import ALTERATIONS, alter_slice, find_duplicates
from brainstage.audits.recovery import UNKNOWN, recover_patients
from brainstage.core.arrays import Pixels
from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.phantom import draw_head, stage_counts
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable, slice_id
from peak import peak_memory

SCALES = (6_400, 12_800, 25_600, 51_200)
COPIES = {"Non_Demented": 2, "Very_Mild_Demented": 3, "Mild_Demented": 9, "Moderate_Demented": 100}
"""Copies of each slice, which make the class sizes of the popular augmented dataset: 9,600, 8,960, 8,960, 6,464."""


def main() -> None:
    """Run every part that is asked for and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recovery", action="store_true", help="recovery of people and of planted duplicates")
    parser.add_argument("--scale", type=int, nargs="*", metavar="N", help="numbers of phantom slices to audit")
    parser.add_argument("--augmented", action="store_true", help="the augmented copy of the public rows")
    parser.add_argument("--heads", type=Path, help="file (.npy) to keep the drawn phantoms in; read if it exists")
    chosen = parser.parse_args()
    everything = not (chosen.recovery or chosen.augmented or chosen.scale is not None)
    if everything or chosen.recovery:
        recovery()
    if everything or chosen.scale is not None:
        scale(chosen.scale or SCALES, chosen.heads)
    if everything or chosen.augmented:
        in_own_process(augmented)


# --- recovery ---------------------------------------------------------------------------------------------------


def recovery() -> None:
    """Recover people from all rows and from parts of them, and planted duplicates."""
    slices = load_slices()
    report = audit(slices).to_dict()
    people = report["people"]
    print(f"{report['slices']:,} real rows: {people['patients']} people of {people['slices_each']}")
    print(f"  {report['checks']}")
    print(f"  {report['leakage']['sentence']}; nearest training slice {report['closest']}")
    sides = np.array(slices.rows["split"].to_pylist())
    images = np.stack(slices.images)
    truth = recover_patients(describe_slices(list(images))).patient
    print_recovery("real, all", images, truth)
    print_recovery("real, train side", images[sides == "train"], truth[sides == "train"])
    print_halves("real", images, truth)
    print_recovery("real, test side", images[sides == "test"], truth[sides == "test"])
    fifth = np.random.default_rng(0).permutation(len(images))[: len(images) // 5]
    print_recovery("real, random fifth", images[fifth], truth[fifth])
    print_duplicates(images)
    heads, truth = draw(np.repeat(np.arange(4), stage_counts(200))), np.repeat(np.arange(200), STACK_LEVELS)
    print_recovery("phantom, all", heads, truth)
    print_halves("phantom", heads, truth)


def print_halves(kind: str, images: Pixels, truth: NDArray[np.int64]) -> None:
    """Recover people from three random halves."""
    for seed in range(3):
        half = np.random.default_rng(seed).permutation(len(images))[: len(images) // 2]
        print_recovery(f"{kind}, random half {seed}", images[half], truth[half])


def print_recovery(name: str, images: Pixels, truth: NDArray[np.int64]) -> None:
    """Recover people from some rows and compare them with the truth."""
    start = time.perf_counter()
    patient = recover_patients(describe_slices(list(images))).patient
    seconds = time.perf_counter() - start
    print(f"{name:24} {len(images):7,} slices  {agreement(patient, truth)}  {seconds:6.1f} s", flush=True)


def agreement(patient: NDArray[np.int64], truth: NDArray[np.int64]) -> str:
    """Return how far recovered people agree with the true ones; a slice of nobody is a person of its own."""
    count, unknown = patient.max(initial=UNKNOWN) + 1, patient == UNKNOWN
    groups = np.where(unknown, count + np.arange(len(truth)), patient)
    (_, wrong), (missed, right) = pair_confusion_matrix(truth, groups)
    precision, recall = right / max(right + wrong, 1), right / (right + missed)
    return (
        f"adjusted Rand {adjusted_rand_score(truth, groups):.4f}  pair precision {precision:.4f}  "
        f"recall {recall:.4f}  {count:4} people  {np.count_nonzero(unknown):4} unknown"
    )


def print_duplicates(images: Pixels) -> None:
    """Plant duplicates of a thousand slices, each alteration in turn, and find them."""
    rng = np.random.default_rng(12345)
    originals = rng.permutation(len(images))[:1000]
    ways = np.arange(len(originals)) % len(ALTERATIONS)
    planted = [alter_slice(images[row], ALTERATIONS[way], rng) for row, way in zip(originals, ways, strict=True)]
    start = time.perf_counter()
    duplicate_of = find_duplicates([*images, *planted])
    seconds = time.perf_counter() - start
    hit = duplicate_of[len(images) :] == originals
    by_way = ", ".join(f"{way} {hit[ways == number].mean():.1%}" for number, way in enumerate(ALTERATIONS))
    false = (duplicate_of[: len(images)] != np.arange(len(images))).mean()
    print(
        f"duplicates: {hit.mean():.1%} of {len(hit):,} planted found ({by_way}), {false:.2%} false, {seconds:.1f} s"
    )


# --- scale ------------------------------------------------------------------------------------------------------


def scale(counts: Sequence[int], heads: Path | None) -> None:
    """Time the whole audit on so many phantom slices."""
    with tempfile.TemporaryDirectory() as folder:
        file = heads or Path(folder) / "heads.npy"
        if not file.exists():
            people = -(-max(counts) // STACK_LEVELS)
            stages = np.random.default_rng(0).permutation(np.repeat(np.arange(4), stage_counts(people)))
            np.save(file, draw(stages))
        for count in counts:
            in_own_process(time_audit, file, count)


def time_audit(file: Path, count: int) -> None:
    """Audit the first phantoms of a file and print time, peak memory and agreement with the truth."""
    images = [np.array(image) for image in np.load(file, mmap_mode="r")[:count]]
    sides = np.where(np.random.default_rng(0).random(count) < 0.2, "test", "train").tolist()
    patient, used = timed(slice_table(images, ["CN"] * count, sides))
    print(f"{count:7,} phantom slices  {used}  {agreement(patient, np.arange(count) // STACK_LEVELS)}", flush=True)


def timed(slices: SliceTable) -> tuple[NDArray[np.int64], str]:
    """Audit slices; returns the number of each slice's person, and time and peak memory as text."""
    start, cpu = time.perf_counter(), time.process_time()
    result = audit(slices)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"  {result.to_dict()['duplicates']}")
    return result.recovered.patient, f"{wall:6.1f} s  {cpu:6.1f} s of processor  peak {peak_memory():.2f} GB"


def in_own_process(function: Any, *arguments: Any) -> None:
    """Call a function in a new process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


def draw(stages: NDArray[np.int64]) -> Pixels:
    """Draw a phantom cohort, one person for each stage: uint8 of shape (people * 32, 128, 128)."""
    heads = np.empty((len(stages), STACK_LEVELS, 128, 128), dtype=np.uint8)
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(partial(draw_head, seed=5), stages.tolist(), range(len(stages)), chunksize=4)
        for number, head in enumerate(drawn):
            heads[number] = head
    return heads.reshape(-1, 128, 128)


def slice_table(images: list[Pixels], labels: list[str], sides: Sequence[str | None]) -> SliceTable:
    """Return a slice table of pictures without patients."""
    rows = {
        "slice_id": [slice_id(image) for image in images],
        "label": labels,
        "patient_id": [None] * len(images),
        "patient_id_source": ["unknown"] * len(images),
        "slice_index": [None] * len(images),
        "split": list(sides),
        "mode": ["L"] * len(images),
        "source": [f"row {number}" for number in range(len(images))],
        "session_id": [None] * len(images),
        "scan_id": [None] * len(images),
    }
    return SliceTable(pa.table(rows, schema=SLICE_SCHEMA), images, tuple(dict.fromkeys(labels)))


# --- the augmented copy -----------------------------------------------------------------------------------------


def augmented() -> None:
    """Audit the public rows and copies of them, all changes at once and one change a copy."""
    slices = load_slices()
    for name, at_once in (("all changes at once", True), ("one change a copy", False)):
        rng = np.random.default_rng(0)
        images, original, is_copy = [], [], []
        for row, (image, label) in enumerate(zip(slices.images, slices.labels, strict=True)):
            copies = [augment(image, rng, at_once=at_once) for _ in range(COPIES[str(label)])]
            images += [image, *copies]
            original += [row] * (1 + len(copies))
            is_copy += [False] + [True] * len(copies)
        order = rng.permutation(len(images))
        origin, copy = np.array(original)[order], np.array(is_copy)[order]
        labels = [str(slices.labels[row]) for row in origin]
        patient, used = timed(slice_table([images[row] for row in order], labels, [None] * len(images)))
        truth = np.unique(np.array(slices.patients, dtype=str), return_inverse=True)[1][origin]
        joined = patient[copy] == main_group(patient[~copy], truth[~copy])[truth[copy]]
        beside = patient[copy] == patient[~copy][np.argsort(origin[~copy])][origin[copy]]
        print(f"augmented, {name}: {len(images):,} slices  {used}")
        print(
            f"  {joined.mean():.4f} of {copy.sum():,} copies join their person "
            f"({(beside & joined).mean():.4f} together with their original)"
        )
        print(f"  {agreement(patient, truth)}", flush=True)


def main_group(patient: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each true person, the recovered person that most of their slices have; -2 where none has."""
    groups = np.full(truth.max() + 1, -2)
    for person in range(len(groups)):
        known = patient[(truth == person) & (patient != UNKNOWN)]
        if len(known):
            groups[person] = np.bincount(known).argmax()
    return groups


def augment(image: Pixels, rng: np.random.Generator, *, at_once: bool) -> Pixels:
    """Turn (to 10 degrees), zoom (0.9 to 1.1), flip (left to right) and brighten (0.8 to 1.2) a slice, as JPEG.

    Args:
        image: Grey slice, uint8 of shape (H, W).
        rng: Generator that changes and amounts are drawn from.
        at_once: Make all changes (a flip in half of the copies), else one of the four.
    """
    picture, change = Image.fromarray(image), rng.integers(4)
    if at_once or change == 0:
        picture = picture.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    if at_once or change == 1:
        zoom, (width, height) = rng.uniform(0.9, 1.1), picture.size
        inverse = (1 / zoom, 0, (1 - 1 / zoom) * width / 2, 0, 1 / zoom, (1 - 1 / zoom) * height / 2)
        picture = picture.transform(picture.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    if change == 2 if not at_once else rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if at_once or change == 3:
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.8, 1.2))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=95)
    return np.asarray(Image.open(stream))


if __name__ == "__main__":
    main()
