"""Claim: people and copies are found from pixels alone, in seconds, and strangers are not joined.

    python benchmarks/audit.py [--scale 100000]

Phantoms, whose people are known, prove the method. On the real rows the people of all 6,400 stand for the truth,
once they pass the checks that need none (all complete, one label each, a second signature agrees); parts of the
rows are held against them. A slice that stays unknown counts as a person of its own. `--scale` times so many
phantom slices.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix

from brainstage.audits.audit import audit
from brainstage.audits.duplicates import WAYS, copy_slice, find_copies
from brainstage.audits.recovery import UNKNOWN, recover_people
from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.phantom import draw_head, stage_counts
from brainstage.datasets.signatures import describe_slices
from brainstage.datasets.sources import load_slices


def main() -> None:
    """Run every part and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=int, help="number of phantom slices")
    scale = parser.parse_args().scale
    if scale:
        heads = draw(scale // STACK_LEVELS)
        report(
            f"{len(heads):,} phantom slices", heads, np.repeat(np.arange(len(heads) // STACK_LEVELS), STACK_LEVELS)
        )
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
        return
    slices = load_slices()
    found = audit(slices).to_dict()
    print(
        f"{found['slices']:,} real rows: {found['people']['patients']} people of {found['people']['slices_each']}, "
    )
    print(f"  {found['checks']}")
    print(f"  {found['leakage']['sentence']}; nearest training slice {found['closest']}")
    sides = np.array(slices.rows["split"].to_pylist())
    images = np.stack(slices.images)
    truth = recover_people(describe_slices(list(images))).patient
    recovery(images, truth, sides)
    copies(images)
    heads = draw(200)
    recovery(heads, np.repeat(np.arange(200), STACK_LEVELS), None)


def recovery(images: np.ndarray, truth: np.ndarray, sides: np.ndarray | None) -> None:
    """Recover people from all rows and from parts of them."""
    kind = "phantom" if sides is None else "real"
    report(f"{kind}, all", images, truth)
    if sides is not None:
        report("real, train side", images[sides == "train"], truth[sides == "train"])
    for seed in range(3):
        half = np.random.default_rng(seed).permutation(len(images))[: len(images) // 2]
        report(f"{kind}, random half {seed}", images[half], truth[half])
    if sides is not None:
        report("real, test side", images[sides == "test"], truth[sides == "test"])
        fifth = np.random.default_rng(0).permutation(len(images))[: len(images) // 5]
        report("real, random fifth", images[fifth], truth[fifth])


def report(name: str, images: np.ndarray, truth: np.ndarray) -> None:
    """Recover people from some rows and print how far they are right."""
    start = time.perf_counter()
    people = recover_people(describe_slices(list(images)))
    seconds = time.perf_counter() - start
    alone = people.count + np.arange(len(truth))
    groups = np.where(people.patient == UNKNOWN, alone, people.patient)
    (_, wrong), (missed, right) = pair_confusion_matrix(truth, groups)
    print(
        f"{name:24} {len(images):7,} slices  adjusted Rand {adjusted_rand_score(truth, groups):.4f}  "
        f"pair precision {right / max(right + wrong, 1):.4f}  recall {right / (right + missed):.4f}  "
        f"{people.count:4} people  {np.count_nonzero(people.patient == UNKNOWN):4} unknown  {seconds:6.1f} s",
        flush=True,
    )


def copies(images: np.ndarray) -> None:
    """Plant copies of a thousand slices, each way in turn, and look for them."""
    rng = np.random.default_rng(12345)
    originals = rng.permutation(len(images))[:1000]
    ways = np.arange(len(originals)) % len(WAYS)
    planted = [copy_slice(images[row], WAYS[way], rng) for row, way in zip(originals, ways, strict=True)]
    start = time.perf_counter()
    shown = find_copies([*images, *planted])
    seconds = time.perf_counter() - start
    hit = shown[len(images) :] == originals
    by_way = ", ".join(f"{way} {hit[ways == number].mean():.1%}" for number, way in enumerate(WAYS))
    false = (shown[: len(images)] != np.arange(len(images))).mean()
    print(f"copies: {hit.mean():.1%} of {len(hit):,} planted found ({by_way}), {false:.2%} false, {seconds:.1f} s")


def draw(people: int) -> np.ndarray:
    """Draw a phantom cohort: uint8 of shape (people * 32, 128, 128)."""
    stages = np.repeat(np.arange(4), stage_counts(people))
    with ThreadPoolExecutor() as pool:
        return np.concatenate(list(pool.map(partial(draw_head, seed=5), stages.tolist(), range(people))))


if __name__ == "__main__":
    main()
