"""Claim: a volume is answered about as well as the slices that were cut from it by hand.

    python benchmarks/volumes.py

Each person of the public dataset becomes a volume: the 32 slices, with a header that turns them by up to 15 degrees
about each axis, moves them by up to 40 mm and makes the head up to 8 % larger or smaller along each axis. It is
registered and cut again, and both stacks are staged by models that were fitted to other people (five folds): one to
their slices as they are, and asked so, and the recipe, which is fitted to acquisitions and looks at some. A slab of
32 mm holds far less than a whole head does, so real volumes are registered more easily than these.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from brainstage.core.arrays import Pixels
from brainstage.core.levels import PUBLIC
from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.sources import load_slices
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel, patient_features
from brainstage.scans.registration import mapped, register
from brainstage.scans.stack import TRAINING_GRID, cut, refusal
from brainstage.scans.volume import Volume
from brainstage.training.inputs import ACQUISITIONS, acquired_features, training_seeds

Cut = tuple[Pixels, list[int]]


def main() -> None:
    """Print what registration costs."""
    slices = load_slices()
    people = sorted({patient for patient in slices.patients if patient is not None})
    order, stacks, labels = [], [], []
    for person in people:
        rows = [row for row, patient in enumerate(slices.patients) if patient == person]
        rows.sort(key=lambda row: slices.rows["slice_index"][row].as_py())
        order += rows
        stacks.append(np.stack([slices.images[row] for row in rows]))
        labels.append(int(slices.targets(rows[:1])[0]))
    start = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(there_and_back, stacks, range(len(stacks))))
    seconds = time.perf_counter() - start
    errors = np.array([error for _, error, _ in found])
    answered = np.array([reason is None and len(levels) >= PUBLIC.min_count for (_, levels), _, reason in found])
    print(
        f"{len(found)} volumes registered, {seconds / len(found):.1f} s each, {(~answered).sum()} of them refused"
    )
    print(f"away from the dataset's own registration: median {np.median(errors):.1f} mm, ", end="")
    print(f"95 % within {np.quantile(errors, 0.95):.1f} mm; the answered ones:")
    stage, whole = np.array(labels), [(stack, list(range(STACK_LEVELS))) for stack in stacks]
    cut_again, true = [one for one, *_ in found], stage[answered]
    for fitted_to, training, prediction in (("slices as they are", 0, 1), ("acquisitions", ACQUISITIONS, None)):
        print(f"fitted to {fitted_to}")
        seen = acquired_features(slices, order, training_seeds(slices, order, training))
        seen = seen.reshape(len(stacks), STACK_LEVELS, *seen.shape[1:])
        for name, cuts in (("slices", whole), ("volumes, registered", cut_again)):
            seeds = PREDICTION_SEEDS[:prediction]
            shown = [(patient_features(list(stack), seeds), levels) for stack, levels in cuts]
            scores = out_of_fold(seen, shown, stage, slices.classes, answered)[answered]
            print(
                f"  {name:20} accuracy {np.mean(scores.argmax(axis=1) == true):.3f}  "
                f"AUROC {roc_auc_score(true > 0, 1 - scores[:, 0]):.3f}  "
                f"log loss {-np.log(scores[np.arange(len(true)), true]).mean():.3f}"
            )


def there_and_back(stack: Pixels, seed: int) -> tuple[Cut, float, str | None]:
    """Move a stack by its header, register it and cut it again: what is cut, the error, and why it is refused."""
    rng = np.random.default_rng(seed)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix()
    move[:3, :3] *= rng.uniform(0.92, 1.08, 3)
    move[:3, 3] = rng.uniform(-40, 40, 3)
    volume = Volume(stack.astype(np.float32) * np.float32(rng.uniform(0.5, 8)), move @ TRAINING_GRID)
    registration = register(volume)
    index = np.stack(np.meshgrid(np.arange(STACK_LEVELS), np.arange(16, 112), np.arange(16, 112), indexing="ij"))
    points = mapped(TRAINING_GRID, index.reshape(3, -1).astype(np.float64))
    apart = mapped(registration.affine, points) - mapped(move, points)
    error = float(np.linalg.norm(apart, axis=0).mean())
    return cut(volume, registration), error, refusal(registration)


def out_of_fold(
    seen: Pixels,
    shown: list[Cut],
    stage: NDArray[np.int64],
    classes: tuple[str, ...],
    answered: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Stage what was cut of each person by a model of other people."""
    scores = np.zeros((len(stage), len(classes)), np.float32)
    few = np.minimum(stage, 2)  # two Moderate people cannot be dealt out to five folds
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(seen, few):
        model = PatientModel.fit(
            seen[train].reshape(-1, *seen.shape[2:]),
            np.repeat(train, STACK_LEVELS).astype(str).tolist(),
            np.tile(np.arange(STACK_LEVELS) / (STACK_LEVELS - 1), len(train)),
            np.repeat(stage[train], STACK_LEVELS),
            classes,
        )
        for person in test[answered[test]]:
            looks, levels = shown[person]
            scores[person] = model.predict_proba(looks, ["one"] * len(levels), levels)[0]
    return scores


if __name__ == "__main__":
    main()
