"""The brains of the phantom cohort: the MNI152 template, bent at random and scanned, with effects that are known.

Ventricles and hippocampi follow the diagnosis with as much overlap as makes staging hard. A phantom says nothing
about real brains.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, label, map_coordinates

from brainstage.cohorts.phantom_people import FIELD_STRENGTHS, Participant, Session
from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.volume import Volume

EFFECTS = ("ventricles", "hippocampus")
"""What can change with atrophy."""

RESOLUTION = 2
"""Millimetres between voxels of the template that is bent."""
VENTRICLE_SEEDS = ((14, -30, 20), (-14, -30, 20))
"""A point in each lateral ventricle of MNI152, in millimetres."""
MAX_FLUID = 0.42
"""Grey value of the template below which a voxel is fluid: between its fluid, 0.3, and grey matter, 0.65."""
VENTRICLE_SHIFT, VENTRICLE_BLUR = 2.0, 4.0
"""Millimetres by which a unit of atrophy moves the ventricles' walls, and how far around them that reaches."""
HIPPOCAMPI = ((27, -21, -16), (-27, -21, -16))
"""Centres of the hippocampi in MNI152, in millimetres."""
HIPPOCAMPUS_WIDTH = (6.0, 10.0, 5.0)
"""Standard deviations in millimetres of the bell in which a hippocampus changes: to the right, front and top."""
HIPPOCAMPUS_SHRINKAGE, HIPPOCAMPUS_DARKENING = 0.15, 0.10
"""Shares by which a unit of atrophy shrinks and darkens a hippocampus."""
BEND_SHIFT, BEND_COSINES = 2.0, 6
"""Standard deviation of the random displacement in millimetres, and how many cosines along each axis make it up."""
FIELD_OF_VIEW = ((-92.0, -126.0, -92.0), (92.0, 98.0, 104.0))
"""Corners of the field of view in millimetres, before some are cut."""


class _Template(NamedTuple):
    """MNI152 at :data:`RESOLUTION`, and how atrophy changes it."""

    brain: Float32Array  # grey values from 0 to 1, 0 around the brain, shape (I, J, K)
    affine: Float64Array  # from voxels to millimetres, shape (4, 4)
    to_ventricles: Float32Array  # voxels towards the lateral ventricles' walls, at most 1, shape (3, I, J, K)
    from_hippocampi: Float32Array  # voxels away from the hippocampi's centres, shape (3, I, J, K)
    hippocampi: Float32Array  # bells around those centres, from 0 to 1, shape (I, J, K)


def draw_brain(
    person: Participant, session: Session, *, effects: tuple[str, ...] = EFFECTS, seed: int = 0
) -> Volume:
    """Draw the brain of a participant at a session: whole grey values, 0 around the brain, axes in RAS+ order.

    The shape is the person's own; position, voxels and noise are those of the session.

    Args:
        person: The participant.
        session: One of the person's sessions.
        effects: What changes with atrophy, of :data:`EFFECTS`.
        seed: Seed of the cohort.
    """
    scanner = np.random.default_rng([seed, person.number, int(session.name[-2:])])
    anatomy = draw_anatomy(person.number, session.atrophy, effects=effects, seed=seed)
    size = anatomy.affine[:3, :3] @ np.linalg.inv(load_template().affine[:3, :3])
    return _acquired(anatomy.voxels, _turn(scanner) @ size, FIELD_STRENGTHS[person.site], scanner)


def draw_anatomy(number: int, atrophy: float, *, effects: tuple[str, ...] = EFFECTS, seed: int = 0) -> Volume:
    """Draw a brain before any scanner: the template, bent and of another size, where the template lies.

    Args:
        number: Number of the brain.
        atrophy: What the effects follow: about 0 for CN and 1.1 for AD.
        effects: What changes with atrophy, of :data:`EFFECTS`.
        seed: Seed of the cohort.
    """
    rng = np.random.default_rng([seed, number])
    size = np.diag([*rng.normal(1, 0.03, 3), 1.0])
    return Volume(_bent(_random_bend(rng), atrophy, effects), size @ load_template().affine)


@cache
def load_template() -> _Template:
    """Return the template, which comes with the package (Fonov et al. 2011, NeuroImage 54, 313)."""
    file = files("brainstage.scans").joinpath(f"templates/mni152_{RESOLUTION}mm.nii.gz")
    volume = decode_nifti(file.read_bytes(), file.name)
    brain, affine = volume.voxels / np.float32(255), volume.affine
    return _Template(brain, affine, _to_ventricles(brain, affine), *_around_hippocampi(brain.shape, affine))


def _to_ventricles(brain: Float32Array, affine: Float64Array) -> Float32Array:
    """Return directions of shape (3, I, J, K) along which the lateral ventricles come nearer, at most 1 long."""
    fluid, _ = label((brain > 0) & (brain < MAX_FLUID))
    seeds = np.linalg.inv(affine) @ np.vstack([np.transpose(VENTRICLE_SEEDS), np.ones(len(VENTRICLE_SEEDS))])
    i, j, k = seeds[:3].round().astype(int)
    ventricles = np.isin(fluid, fluid[i, j, k]).astype(np.float32)
    slopes = np.stack(np.gradient(gaussian_filter(ventricles, VENTRICLE_BLUR / RESOLUTION)))
    return slopes / np.linalg.norm(slopes, axis=0).max()


def _around_hippocampi(shape: tuple[int, ...], affine: Float64Array) -> tuple[Float32Array, Float32Array]:
    """Return the steps from the hippocampi's centres in voxels, (3, I, J, K), times bells, and these, (I, J, K)."""
    millimetres = np.tensordot(affine[:3, :3], np.indices(shape), axes=1) + affine[:3, 3, None, None, None]
    steps, bells = np.zeros((3, *shape), np.float32), np.zeros(shape, np.float32)
    for centre in HIPPOCAMPI:
        away = millimetres - np.reshape(centre, (3, 1, 1, 1))
        bell = np.exp(-np.square(away / np.reshape(HIPPOCAMPUS_WIDTH, (3, 1, 1, 1))).sum(axis=0) / 2)
        steps += (away * bell / RESOLUTION).astype(np.float32)
        bells += bell.astype(np.float32)
    return steps, bells


def _random_bend(rng: np.random.Generator) -> Float32Array:
    """Return a smooth random displacement of the template's voxels, in voxels, shape (3, I, J, K).

    It is a sum of cosines, as in SPM's spatial normalisation (Ashburner and Friston 1999, Human Brain Mapping 7,
    254).
    """
    i, j, k = (_cosines(side) for side in load_template().brain.shape)
    weights = rng.standard_normal((3, *[BEND_COSINES] * 3))
    bend = np.einsum("abcd,bi,cj,dk->aijk", weights, i, j, k, optimize=True)
    return (bend * (BEND_SHIFT / RESOLUTION / bend.std())).astype(np.float32)


def _cosines(side: int) -> Float64Array:
    """Return half a wave, a whole one and so on along an axis, shape (BEND_COSINES, side)."""
    waves: Float64Array = np.cos(np.pi * np.outer(np.arange(BEND_COSINES), (np.arange(side) + 0.5) / side))
    return waves


def _bent(bend: Float32Array, atrophy: float, effects: tuple[str, ...]) -> Float32Array:
    """Return the template's grey values, each taken from the place that displacement and atrophy point to."""
    template = load_template()
    places = np.indices(template.brain.shape, dtype=np.float32) + bend
    shading = np.ones_like(template.brain)
    if "ventricles" in effects:
        places += template.to_ventricles * np.float32(atrophy * VENTRICLE_SHIFT / RESOLUTION)
    if "hippocampus" in effects:
        places += template.from_hippocampi * np.float32(atrophy * HIPPOCAMPUS_SHRINKAGE)
        shading -= template.hippocampi * np.float32(atrophy * HIPPOCAMPUS_DARKENING)
    return map_coordinates(template.brain, places, order=1) * shading


def _turn(rng: np.random.Generator) -> Float64Array:
    """Return a rotation by a few degrees about each axis, shape (3, 3)."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(rng.normal(0, 5, 3))):
        plane = np.ix_(*[[(axis + 1) % 3, (axis + 2) % 3]] * 2)
        turn[plane] = turn[plane] @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def _acquired(brain: Float32Array, shape: Float64Array, tesla: float, rng: np.random.Generator) -> Volume:
    """Return a brain on the template's voxels as a scanner shows it.

    Args:
        brain: float32 of shape (I, J, K).
        shape: From millimetres of the template to those of the scanner, shape (3, 3).
        tesla: Field strength, to which the signal is proportional.
        rng: Position, voxels, brightness and noise are drawn from it.
    """
    low, high = _field_of_view(rng)
    spacing = rng.uniform(1, 2.2, 3) if rng.random() < 0.4 else np.full(3, rng.uniform(1, 2.2))
    sides = np.floor((high - low) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    to_template = np.eye(4)
    to_template[:3, :3] = np.linalg.inv(shape)
    to_voxels = np.linalg.inv(load_template().affine) @ to_template @ affine
    values = affine_transform(brain, to_voxels, output_shape=tuple(sides), order=1)
    signal = values * _bias(values.shape, rng)
    noise = rng.uniform(0.02, 0.04) / tesla * rng.standard_normal((2, *sides), np.float32)
    greys = np.hypot(signal + noise[0], noise[1]) * 10 ** rng.uniform(2.3, 4)
    greys = np.where(values > MAX_FLUID / 2, greys, 0).astype(np.float32)
    affine[:3, 3] += rng.normal(0, 10, 3)  # the origin of a scanner is not that of MNI152
    return Volume(greys.round(), affine)


def _field_of_view(rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    """Return its corners in millimetres; a fifth lack the base of the brain, a fifth its top."""
    low, high = (np.add(corner, rng.uniform(-6, 6, 3)) for corner in FIELD_OF_VIEW)
    cut = rng.random()
    if cut < 0.2:
        low[2] = rng.uniform(-60, -40)
    elif cut < 0.4:
        high[2] = rng.uniform(60, 75)
    return low, high


def _bias(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Return a bias field of that shape: one to within some tenths, smooth, the exponential of a parabola."""
    field = np.zeros(shape, np.float32)
    for axis, (slope, curve) in enumerate(rng.normal(0, 0.08, (3, 2))):
        at = np.linspace(-1, 1, shape[axis], dtype=np.float32)
        field += np.expand_dims(slope * at + curve * at**2, tuple({0, 1, 2} - {axis})).astype(np.float32)
    return np.exp(field)
