"""Affine registration of a volume to MNI152 space, in which the training data's levels and field of view are known.

Least squares between grey values at two resolutions, against a template of elderly people: their brains differ from
the young adults' of MNI152 by what age and disease do, and a fit that takes this for a difference of position is
worse for the sicker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, center_of_mass, gaussian_filter, map_coordinates

from brainstage.core.arrays import BoolArray, Float32Array, Float64Array
from brainstage.scans.nifti import decode_nifti
from brainstage.scans.volume import Volume

TEMPLATE_SPACING = 4.0
"""Millimetres between voxels of the templates."""
COARSE_FIT, FINE_FIT = (10.0, 8), (3.0, 4)
"""Width of the Gaussian blur in millimetres, and the step between the template's voxels that are compared."""
TEMPLATE_BRAIN_THRESHOLD = 40
"""Grey value of the template above which a voxel belongs to its brain."""
TEMPLATE_MARGIN = 2
"""Voxels around the template's brain that are compared as well: there the volume must be dark."""
INTERIOR_DEPTH = 4
"""Voxels from the edge of what is compared to the interior of the brain, by which similarity is judged."""
MIN_PLANE_VOXELS = 100
"""Fewest voxels of the interior in an axial plane, 16 cm², by which its similarity is judged."""
MIN_COVERAGE = 0.1
"""Share of the template's squared brightness to be covered; missing coverage is added to the residual."""
MAX_COARSE_OUTSIDE = 0.5
"""Share of the volume's brightness outside of the brain after the coarse fit, from which on no fine fit follows."""
BRAIN_STIFFNESS = 0.5
"""Weight of the strain, by which the brain's shape differs from the template's.

A brain that is 10 % longer costs 0.25 % of the squares. Chosen among 0 to 6, with which slabs of the public dataset
are placed within 2.2 to 5.3 mm.
"""
BRAIN_RADIUS = 70.0
"""Millimetres from a brain's centre to its edge, where one unit of any parameter is then about a millimetre."""
MAX_LOG_GAIN = 20.0
"""Largest absolute logarithm of the gain: a fit to something other than a brain may overflow."""
MAX_EVALUATIONS = 60
"""Most evaluations of a fit: whole brains take up to 20, slabs of the public dataset 48, other things many more."""


@dataclass(frozen=True)
class Registration:
    """The position of a volume relative to the template.

    Attributes:
        affine: From millimetres of the template (MNI152, RAS+) to those of the volume, shape (4, 4).
        similarity: Correlation with the template in the interior of its brain, the median over axial planes that
            the volume shows. Planes are judged one by one, and by their median, since ventricles that are wide for
            a template change a few planes much. The rim is left out: it is what any volume of a brain's outline
            shares, even a mask, and what age changes most.
        outside: Share of the volume's brightness that lies outside of the template's brain: skull, scalp, neck.
    """

    affine: Float64Array
    similarity: float
    outside: float


class Template(Volume):
    """A brain without skull in MNI152 space that volumes are compared with, in voxels of 4 mm."""

    @cached_property
    def head(self) -> BoolArray:
        """Which voxels lie in its brain or close around it."""
        brain = self.voxels > TEMPLATE_BRAIN_THRESHOLD
        head: BoolArray = binary_dilation(brain, iterations=TEMPLATE_MARGIN)
        return head

    @cached_property
    def interior(self) -> BoolArray:
        """Which of those voxels lie well inside of the brain, (n,)."""
        deep: BoolArray = binary_erosion(self.head, iterations=INTERIOR_DEPTH)[self.head]
        return deep

    @cached_property
    def points(self) -> Float64Array:
        """Millimetres of those voxels, (3, n)."""
        return mapped(self.affine, np.stack(np.nonzero(self.head)).astype(np.float64))


@cache
def mni152() -> Template:
    """Return ICBM 152 nonlinear symmetric 2009a, the mean brain of young adults."""
    return _template("mni152_4mm.nii.gz")


@cache
def elderly() -> Template:
    """Return the mean brain of the 200 training people, half of whom have dementia and are older than 60.

    Where their slices do not reach it is MNI152, its grey values changed to theirs (``tools/make_template.py``).
    """
    return _template("elderly_4mm.nii.gz")


def _template(name: str) -> Template:
    volume = decode_nifti(files("brainstage.scans").joinpath(f"templates/{name}").read_bytes(), name)
    return Template(volume.voxels, volume.affine)


def register(
    volume: Volume, stiffness: float = BRAIN_STIFFNESS, template: Callable[[], Template] = elderly
) -> Registration:
    """Register a volume to a template.

    Two starts are tried, the header's own position and the centre of the brightness on that of the template, since
    a header's origin may be arbitrary and a slab's centre is not the brain's.

    Args:
        volume: A brain, in any orientation and position.
        stiffness: Weight of the strain, by which the brain's shape differs from the template's.
        template: Returns the template.
    """
    fixed, moving = template(), _scaled(averaged(volume, TEMPLATE_SPACING))
    starts = (np.eye(4), _centred(moving, fixed))
    coarse = (_fit(moving, fixed, start, *COARSE_FIT, stiffness) for start in starts)
    affine = min(coarse, key=lambda fit: fit[1])[0]
    outside = _outside(moving, fixed, affine)
    if outside < MAX_COARSE_OUTSIDE:
        affine, _ = _fit(moving, fixed, affine, *FINE_FIT, stiffness)
        outside = _outside(moving, fixed, affine)
    return Registration(affine, _similarity(moving, fixed, affine), outside)


def averaged(volume: Volume, spacing: float) -> Volume:
    """Return a volume at about a spacing in millimetres, each voxel the mean of a block; never a finer volume.

    Of a thin volume the blocks are smaller, so that two voxels remain along each axis: slopes need two.
    """
    shape = np.array(volume.voxels.shape)
    blocks = np.clip(np.round(spacing / volume.spacing).astype(int), 1, np.maximum(shape // 2, 1))
    counts = shape // blocks
    voxels = volume.voxels[tuple(slice(end) for end in counts * blocks)]
    voxels = voxels.reshape([side for pair in zip(counts, blocks, strict=True) for side in pair])
    means = np.asarray(voxels.mean(axis=(1, 3, 5), dtype=np.float32))
    affine = volume.affine @ np.diag([*blocks, 1.0])
    affine[:3, 3] = volume.affine[:3] @ [*((blocks - 1) / 2), 1.0]
    return Volume(means, affine)


def _scaled(volume: Volume) -> Volume:
    """Return a volume whose largest value, up or down, is 1."""
    largest = np.abs(volume.voxels).max() or np.float32(1)
    return Volume(volume.voxels / largest, volume.affine)


def covered(volume: Volume, points: Float64Array) -> BoolArray:
    """Return which points (3, n) in millimetres lie in a volume."""
    return _inside(volume.voxels.shape, mapped(inverse(volume.affine), points))


def sample(volume: Volume, points: Float64Array, mode: str = "constant") -> Float32Array:
    """Return grey values at points, float32 of shape (n,), linear between voxels.

    Args:
        volume: The volume.
        points: Millimetres, shape (3, n).
        mode: What is outside: ``constant`` for 0, ``nearest`` for the value at the edge.
    """
    at = mapped(inverse(volume.affine), points)
    values: Float32Array = map_coordinates(volume.voxels, at, order=1, mode=mode)
    return values


def mapped(affine: Float64Array, points: Float64Array) -> Float64Array:
    """Return points (3, n) transformed by an affine map (4, 4)."""
    moved: Float64Array = affine[:3, :3] @ points + affine[:3, 3:]
    return moved


def inverse(affine: Float64Array) -> Float64Array:
    """Return the inverse of an affine map (4, 4)."""
    inverted: Float64Array = np.linalg.inv(affine).astype(np.float64)
    return inverted


def grid_points(shape: tuple[int, ...]) -> Float64Array:
    """Return the indices of all voxels of a volume of that shape, (3, n), in the order of its memory."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return index.reshape(3, -1).astype(np.float64)


def _fit(
    moving: Volume, template: Template, start: Float64Array, blur: float, every: int, stiffness: float
) -> tuple[Float64Array, float]:
    """Return the affine map of least squares from a start, and its cost: half the sum of squared residuals."""
    from scipy.optimize import least_squares  # images do not wait for its import

    squares = _Residuals(moving, template, start, blur, every, stiffness)
    fit = least_squares(squares.residuals, np.zeros(13), squares.derivatives, method="lm", max_nfev=MAX_EVALUATIONS)
    return squares.affine(fit.x), float(fit.cost)


class _Residuals:
    """Differences between template and volume, both blurred, as a function of 13 parameters.

    Nine are those of a matrix around the brain's centre, three of a translation, one is the logarithm of a gain.
    """

    def __init__(
        self, moving: Volume, template: Template, start: Float64Array, blur: float, every: int, stiffness: float
    ) -> None:
        self._start, self._stiffness, self._points = start, stiffness, template.points[:, ::every]
        fixed = gaussian_filter(template.voxels, blur / TEMPLATE_SPACING)[template.head][::every]
        self._fixed = fixed / np.linalg.norm(fixed)
        self._to_voxels = inverse(moving.affine)
        self._moving: Float32Array = gaussian_filter(moving.voxels, blur / moving.spacing)
        self._slopes: list[Float32Array] = [np.gradient(self._moving, axis=axis) for axis in range(3)]
        inside, (values,) = self._at(start, self._moving)
        self._brightness = self._fixed[inside].sum() / max(float(values[inside].sum()), 1e-9)
        self._centre = self._points.mean(axis=1, keepdims=True)
        self._arms = (self._points - self._centre) / BRAIN_RADIUS

    def _matrix(self, parameters: Float64Array) -> Float64Array:
        matrix: Float64Array = np.eye(3) + parameters[:9].reshape(3, 3) / BRAIN_RADIUS
        return matrix

    def affine(self, parameters: Float64Array) -> Float64Array:
        change = np.eye(4)
        change[:3, :3] = self._matrix(parameters)
        change[:3, 3:] = self._centre - change[:3, :3] @ self._centre + parameters[9:12, None]
        moved: Float64Array = self._start @ change
        return moved

    def residuals(self, parameters: Float64Array) -> Float64Array:
        inside, (values,) = self._at(self.affine(parameters), self._moving)
        coverage = self._coverage(inside)
        difference = np.where(inside, values * self._gain(parameters) - self._fixed, 0)
        missing = np.sqrt(max(0, 1 - coverage / MIN_COVERAGE))
        strain = (self._matrix(parameters).T @ self._matrix(parameters) - np.eye(3)) / 2
        scaled = difference / np.sqrt(max(coverage, MIN_COVERAGE))
        return np.concatenate([scaled, [missing], self._stiffness * strain.ravel()])

    def derivatives(self, parameters: Float64Array) -> Float64Array:
        inside, (values, *slope) = self._at(self.affine(parameters), self._moving, *self._slopes)
        along = (self._to_voxels[:3, :3] @ self._start[:3, :3]).T @ np.stack(slope)
        of_matrix = (along[:, None] * self._arms).reshape(9, -1)
        rows = np.concatenate([of_matrix, along, values[None] / BRAIN_RADIUS]) * self._gain(parameters)
        rows = np.where(inside, rows, 0) / np.sqrt(max(self._coverage(inside), MIN_COVERAGE))
        matrix = self._matrix(parameters)
        of_strain = np.einsum("li,kj->klij", np.eye(3), matrix) + np.einsum("lj,ki->klij", np.eye(3), matrix)
        strain = np.concatenate([of_strain.reshape(9, 9) / (2 * BRAIN_RADIUS), np.zeros((4, 9))])
        return np.concatenate([rows, np.zeros((13, 1)), self._stiffness * strain], axis=1).T

    def _at(self, affine: Float64Array, *images: Float32Array) -> tuple[BoolArray, list[Float32Array]]:
        """Return which of the template's points lie in the volume, and the values of images of the volume there."""
        voxels = mapped(self._to_voxels @ affine, self._points)
        values = [map_coordinates(image, voxels, order=1, mode="nearest") for image in images]
        return _inside(self._moving.shape, voxels), values

    def _gain(self, parameters: Float64Array) -> float:
        return float(self._brightness * np.exp(np.clip(parameters[12] / BRAIN_RADIUS, -MAX_LOG_GAIN, MAX_LOG_GAIN)))

    def _coverage(self, inside: BoolArray) -> float:
        """Return the share of the template's squared brightness that lies in the volume."""
        return float(np.square(self._fixed[inside]).sum())


def _similarity(moving: Volume, template: Template, affine: Float64Array) -> float:
    points = mapped(affine, template.points)
    values, fixed = sample(moving, points, mode="nearest"), template.voxels[template.head]
    compared = covered(moving, points) & template.interior
    plane_of = np.nonzero(template.head)[2]
    correlations = []
    for plane in np.unique(plane_of[compared]):
        voxels = compared & (plane_of == plane)
        if voxels.sum() >= MIN_PLANE_VOXELS and np.ptp(values[voxels]) > 0:
            correlations.append(np.corrcoef(values[voxels], fixed[voxels])[0, 1])
    return float(np.median(correlations)) if correlations else 0.0


def _centred(moving: Volume, template: Template) -> Float64Array:
    """Return the shift that puts the centre of the template's brightness on the volume's."""
    shift = np.eye(4)
    shift[:3, 3] = _centre(moving) - _centre(template)
    return shift


def _centre(volume: Volume) -> Float64Array:
    bright = volume.voxels > 0.2 * np.percentile(volume.voxels, 99)
    centre: Float64Array = volume.affine[:3] @ [*center_of_mass(np.where(bright, volume.voxels.clip(0), 0)), 1.0]
    return np.nan_to_num(centre)


def _outside(moving: Volume, template: Template, affine: Float64Array) -> float:
    on_template = mapped(inverse(affine) @ moving.affine, grid_points(moving.voxels.shape))
    inside = sample(Volume(template.head.astype(np.float32), template.affine), on_template)
    bright = moving.voxels.clip(0).ravel()
    return float(bright[inside <= 0.5].sum() / max(float(bright.sum()), 1e-9))


def _inside(shape: tuple[int, ...], voxels: Float64Array) -> BoolArray:
    ends = np.array(shape)[:, None] - 0.5
    return np.all((voxels > -0.5) & (voxels < ends), axis=0)
