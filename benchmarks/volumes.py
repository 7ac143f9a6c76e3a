"""Claim: volumes of people of every stage are read, where they belong, and answered about as well as their slices.

    python benchmarks/volumes.py

Each person of the public dataset becomes a volume: the 32 slices in another storage order, with a header that turns
and moves them, "near" (by up to 8 degrees about each axis, 15 mm along each) and "far" (15 degrees, 40 mm, and each
axis up to 8 % longer or shorter). A slab of 32 mm holds far less than a whole head, so real volumes are registered
more easily than these.

Printed are, by stage, how many are read and how far they come to lie from the dataset's own registration: with
`register`, with the same fits to MNI152 in place of the template of elderly people, and, near, for every tenth
person with SimpleITK (affine, correlation, three resolutions) on the same template and voxels from the same starts.
Each person is one of the 200 of whom the template is the mean. Then slabs of fewer levels, whole brains (MNI152,
bent, with atrophy), what must be refused, and what models that were fitted to other people (five folds) make of the
volumes and of the slices (protocol patient, optimistic: the recipe was chosen with these people in view).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users call it so
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from brainstage.cohorts.phantom_brains import draw_anatomy
from brainstage.cohorts.phantom_people import DIAGNOSES
from brainstage.core.arrays import Float32Array, Float64Array, IntArray, Pixels
from brainstage.core.levels import PUBLIC
from brainstage.core.parallel import parallel_map
from brainstage.core.schema import STACK_LEVELS, STAGES
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable
from brainstage.models.patient_features import patient_features
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel
from brainstage.scans.registration import (
    TEMPLATE_SPACING,
    Registration,
    averaged,
    elderly,
    grid_points,
    mapped,
    mni152,
    register,
)
from brainstage.scans.stack import MIN_SIMILARITY, TRAINING_GRID, cut, refusal
from brainstage.scans.volume import Volume
from brainstage.training.patient import ACQUISITIONS, acquired_features, training_seeds

Cut = tuple[Pixels, list[int]]
Way = Callable[[Volume], Registration]
THICKNESSES = (8, 12, 16, 20, 24, 28)
"""Levels of thinner slabs."""


class Reach(NamedTuple):
    """How far a header puts a head from where it is: degrees, millimetres, and a share of its size."""

    tilt: float
    shift: float
    scale: float = 0.0


NEAR, FAR = Reach(8, 15), Reach(15, 40, 0.08)


class Reading(NamedTuple):
    """What came of a volume: slices, millimetres from its place, similarity, whether it is read, CPU seconds."""

    cut: Cut
    distance: float
    similarity: float
    read: bool
    seconds: float


def main() -> None:
    """Print what registration does to people of each stage, and what it costs."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    slices = load_slices()
    order, stacks, stage = by_person(slices)
    for name, reach in (("near", NEAR), ("far", FAR)):
        placed = [place(stack, number, reach) for number, stack in enumerate(stacks)]
        readings = read_all(placed, register)
        show(f"{name}, template of elderly people", readings, stage)
        show(f"{name}, MNI152", read_all(placed, to_mni152), stage)
        if reach is NEAR:
            show("near, SimpleITK", read_all(placed[::10], simpleitk), stage[::10])
        show_staging(slices, order, stacks, stage, readings)
    show_thin(stacks)
    show_whole()
    show_refused(stacks)


# --- volumes whose place is known ---------------------------------------------------------------------------------


def by_person(slices: SliceTable) -> tuple[list[int], list[Pixels], IntArray]:
    """Return the rows by person and level, each person's stack (32, 128, 128), and each person's stage."""
    levels = slices.rows["slice_index"].to_pylist()
    order = sorted(range(len(slices)), key=lambda row: (str(slices.patients[row]), levels[row]))
    firsts = range(0, len(order), STACK_LEVELS)
    stacks = [np.stack([slices.images[row] for row in order[first : first + STACK_LEVELS]]) for first in firsts]
    return order, stacks, slices.targets(order[::STACK_LEVELS])


def place(stack: Pixels, seed: int, reach: Reach, lowest: int = 0) -> tuple[Volume, Float64Array]:
    """Return levels as a volume that its header turns and moves, in some storage order, and that movement.

    Args:
        stack: uint8 of shape (levels, 128, 128).
        seed: Of what is drawn.
        reach: How far the header puts the head from where it is.
        lowest: Level of the first slice.
    """
    rng = np.random.default_rng(seed)
    move = moved(rng, reach)
    grid = TRAINING_GRID.copy()
    grid[:3, 3] += lowest * grid[:3, 0]
    return reordered(Volume(stack.astype(np.float32), move @ grid), rng), move


def moved(rng: np.random.Generator, reach: Reach) -> Float64Array:
    """Return a movement as an affine map of millimetres, (4, 4)."""
    move = np.eye(4)
    turn = rng.uniform(-reach.tilt, reach.tilt, 3)
    move[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    move[:3, 3] = rng.uniform(-reach.shift, reach.shift, 3)
    move[:3, :3] *= 1 + rng.uniform(-reach.scale, reach.scale, 3)
    return move


def reordered(volume: Volume, rng: np.random.Generator) -> Volume:
    """Return the same volume with its axes in another order and direction."""
    axes, signs = rng.permutation(3), rng.choice([-1, 1], 3)
    voxels, affine = volume.voxels.transpose(axes), volume.affine[:, [*axes, 3]].copy()
    for axis in np.flatnonzero(signs < 0).tolist():
        voxels = np.flip(voxels, axis)
        affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
        affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(voxels), affine)


def to_mni152(volume: Volume) -> Registration:
    """Register by the same fits to the mean brain of young adults."""
    return register(volume, template=mni152)


def read_all(placed: Sequence[tuple[Volume, Float64Array]], way: Way) -> list[Reading]:
    """Register volumes whose place is known, and cut them again."""
    return parallel_map(lambda known: read(*known, way), placed)


def read(volume: Volume, move: Float64Array, way: Way) -> Reading:
    """Register a volume and cut it again."""
    start = time.thread_time()
    registration = way(volume)
    seconds = time.thread_time() - start
    slices = cut(volume, registration)
    points = mapped(np.linalg.inv(move) @ volume.affine, grid_points(volume.voxels.shape)[:, ::97])
    points = points[:, (volume.voxels.ravel()[::97] > 0)]  # the head, where it lies in MNI152
    apart = float(np.linalg.norm(mapped(registration.affine, points) - mapped(move, points), axis=0).mean())
    accepted = refusal(registration) is None and len(slices[1]) >= PUBLIC.min_count
    return Reading(slices, apart, registration.similarity, accepted, seconds)


# --- tables -------------------------------------------------------------------------------------------------------


def show(name: str, readings: Sequence[Reading], stage: IntArray, names: Sequence[str] = STAGES[:3]) -> None:
    """Print how many volumes of each stage are read, and how far from their place; the last stages are one."""
    seconds = np.mean([reading.seconds for reading in readings])
    print(f"{name} · {len(readings)} volumes, {seconds:.2f} s a core each")
    of_stage = np.minimum(stage, len(names) - 1)
    for number, label in enumerate([*names, "all"]):
        chosen = [
            reading for reading, its in zip(readings, of_stage, strict=True) if label == "all" or its == number
        ]
        refused = [reading for reading in chosen if not reading.read]
        near = sum(reading.distance < 4 for reading in refused)
        print(
            f"  {label:20} {len(chosen) - len(refused):3} read, {spread([one for one in chosen if one.read])}; "
            f"{len(refused)} refused{f', {near} of them within 4 mm' if refused else ''}"
        )


def spread(readings: Sequence[Reading]) -> str:
    """Return how far volumes lie from their place, in words."""
    distances = np.array([reading.distance for reading in readings] or [np.nan])
    ninety_five = np.quantile(distances, 0.95)
    return f"median {np.median(distances):4.1f} mm, 95 % within {ninety_five:4.1f}, farthest {distances.max():4.1f}"


def show_thin(stacks: Sequence[Pixels]) -> None:
    """Print how far thin slabs come to lie from their place, whether they are read or not."""
    for count in THICKNESSES:
        lowest = np.random.default_rng(count).integers(0, STACK_LEVELS - count + 1, len(stacks))[::4]
        cases = [
            place(stack[low : low + count], number, NEAR, int(low))
            for number, (stack, low) in enumerate(zip(stacks[::4], lowest, strict=True))
        ]
        readings = read_all(cases, register)
        similar = np.mean([reading.similarity >= MIN_SIMILARITY for reading in readings])
        print(f"slabs of {count:2} levels · {spread(readings)}; {similar:.0%} similar enough")


def show_whole(people: int = 60) -> None:
    """Print the same of whole brains: MNI152, bent, of another size, with the atrophy of a diagnosis, and noise."""
    stage = np.arange(people) % len(DIAGNOSES)
    placed = [whole(number, float(atrophy)) for number, atrophy in enumerate(0.55 * stage)]
    show("whole brains, template of elderly people", read_all(placed, register), stage, DIAGNOSES)
    show("whole brains, MNI152", read_all(placed, to_mni152), stage, DIAGNOSES)


def whole(number: int, atrophy: float) -> tuple[Volume, Float64Array]:
    """Return a phantom's brain far from its place, and its movement."""
    rng = np.random.default_rng(number)
    anatomy, move = draw_anatomy(number, atrophy), moved(rng, FAR)
    noise = rng.normal(0, 0.03, anatomy.voxels.shape) * (anatomy.voxels > 0)
    voxels = (anatomy.voxels + noise).clip(0).astype(np.float32)
    return reordered(Volume(voxels, move @ anatomy.affine), rng), move


def show_refused(stacks: Sequence[Pixels], people: int = 20) -> None:
    """Print the similarity of what must be refused, of slabs and of whole brains."""
    changes: dict[str, Callable[[Volume], Volume]] = {
        "as they are": lambda volume: volume,
        "contrast inverted": inverted,
        "of noise": of_noise,
        "of one grey value": lambda volume: Volume((volume.voxels > 0).astype(np.float32), volume.affine),
        "nose to the back": partial(flipped, signs=(-1, -1, 1)),
        "upside down": partial(flipped, signs=(1, -1, -1)),
    }
    heads = [place(stacks[number], number, NEAR)[0] for number in range(0, len(stacks), len(stacks) // people)]
    brains = [whole(number, 0.03 * number)[0] for number in range(people)]
    for name, change in changes.items():
        for what, volumes in (("slabs", heads), ("whole brains", brains)):
            registrations = parallel_map(register, [change(volume) for volume in volumes])
            alike = [registration.similarity for registration in registrations]
            count = sum(refusal(registration) is None for registration in registrations)
            print(
                f"{what} {name:24} similarity {min(alike):5.2f} to {max(alike):4.2f}, {count} of {len(alike)} read"
            )


def inverted(volume: Volume) -> Volume:
    """Return a brain with dark tissue bright, about as T2 weighting shows it."""
    bright = np.where(volume.voxels > 0, 1.1 * volume.voxels.max() - volume.voxels, 0)
    return Volume(bright.astype(np.float32), volume.affine)


def of_noise(volume: Volume) -> Volume:
    """Return a brain's outline filled with noise."""
    noise = np.random.default_rng(0).random(volume.voxels.shape)
    return Volume(np.where(volume.voxels > 0, noise, 0).astype(np.float32), volume.affine)


def flipped(volume: Volume, signs: Sequence[int]) -> Volume:
    """Return a volume whose header has some directions the wrong way round."""
    return Volume(volume.voxels, np.diag([*signs, 1.0]) @ volume.affine)


# --- SimpleITK ----------------------------------------------------------------------------------------------------


def simpleitk(volume: Volume) -> Registration:
    """Register by SimpleITK as its notebooks do, on the voxels and from the starts of `register`."""
    moving = averaged(volume, TEMPLATE_SPACING)
    centred = np.eye(4)
    centred[:3, 3] = brightness_centre(moving) - brightness_centre(elderly())
    affine = min((fitted(moving, start) for start in (np.eye(4), centred)), key=lambda fit: fit[1])[0]
    return Registration(affine, 1.0, 0.0)  # all are read


def brightness_centre(volume: Volume) -> Float64Array:
    """Return the centre of a volume's brightness in millimetres, (3,)."""
    weights = volume.voxels.clip(0).ravel()
    centre: Float64Array = mapped(volume.affine, grid_points(volume.voxels.shape)) @ weights / weights.sum()
    return centre


def fitted(moving: Volume, start: Float64Array) -> tuple[Float64Array, float]:
    """Return an affine map by correlation at three resolutions with gradient descent, and its metric."""
    fixed, moved_image = as_image(elderly()), as_image(moving)
    centre = brightness_centre(elderly())
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist())
    transform.SetTranslation((mapped(start, centre[:, None])[:, 0] - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(as_image(Volume(elderly().head.astype(np.float32), elderly().affine), sitk.sitkUInt8))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)
    method.SetOptimizerAsGradientDescentLineSearch(1.0, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1, 1])
    method.SetSmoothingSigmasPerLevel([10, 6, 3])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=False)
    try:
        result = sitk.AffineTransform(method.Execute(fixed, moved_image).GetNthTransform(0))
    except RuntimeError:  # no voxel of the start lies in the volume
        return start, np.inf
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(result.GetMatrix(), (3, 3))
    affine[:3, 3] = np.array(result.GetTranslation()) + centre - affine[:3, :3] @ centre
    return affine, float(method.GetMetricValue())


def as_image(volume: Volume, kind: int = sitk.sitkFloat32) -> sitk.Image:
    """Return a volume as SimpleITK's image in the same millimetres; a sheared affine loses its shear."""
    image = sitk.Cast(sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0))), kind)
    image.SetSpacing(volume.spacing.tolist())
    left, _, right = np.linalg.svd(volume.affine[:3, :3] / volume.spacing)
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    return image


# --- staging ------------------------------------------------------------------------------------------------------


def show_staging(
    slices: SliceTable, order: list[int], stacks: Sequence[Pixels], stage: IntArray, readings: Sequence[Reading]
) -> None:
    """Print how well the volumes that are read are staged, and the slices of the same people."""
    read_ones = np.array([reading.read for reading in readings])
    true = stage[read_ones]
    whole_stacks = [(stack, list(range(STACK_LEVELS))) for stack in stacks]
    for fitted_to, training, prediction in (("slices as they are", 0, 1), ("acquisitions", ACQUISITIONS, None)):
        features = acquired_features(slices, order, training_seeds(slices, order, training))
        features = features.reshape(len(stacks), STACK_LEVELS, *features.shape[1:])
        for name, cuts in (("slices", whole_stacks), ("volumes", [reading.cut for reading in readings])):
            seeds = PREDICTION_SEEDS[:prediction]
            shown = [(patient_features(list(stack), seeds), levels) for stack, levels in cuts]
            scores = out_of_fold(features, shown, stage, slices.classes, read_ones)[read_ones]
            print(
                f"  fitted to {fitted_to:18} {name:8} accuracy {np.mean(scores.argmax(axis=1) == true):.3f}  "
                f"AUROC {roc_auc_score(true > 0, 1 - scores[:, 0]):.3f}  "
                f"log loss {-np.log(scores[np.arange(len(true)), true]).mean():.3f}",
                flush=True,
            )


def out_of_fold(
    features: Pixels,
    shown: list[Cut],
    stage: IntArray,
    classes: tuple[str, ...],
    read_ones: NDArray[np.bool_],
) -> Float32Array:
    """Stage what was cut of each person by a model of other people."""
    scores = np.zeros((len(stage), len(classes)), np.float32)
    few = np.minimum(stage, 2)  # two Moderate people cannot be dealt out to five folds
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(features, few):
        model = PatientModel.fit(
            features[train].reshape(-1, *features.shape[2:]),
            np.repeat(train, STACK_LEVELS).astype(str).tolist(),
            np.tile(np.arange(STACK_LEVELS) / (STACK_LEVELS - 1), len(train)),
            np.repeat(stage[train], STACK_LEVELS),
            classes,
        )
        for person in test[read_ones[test]]:
            seen, levels = shown[person]
            scores[person] = model.predict_proba(seen, ["one"] * len(levels), levels)[0]
    return scores


if __name__ == "__main__":
    main()
