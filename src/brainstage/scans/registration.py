"""Where in a standard head a brain lies: an affine map to the MNI152 template.

Least squares between grey values at two resolutions: enough to bring a brain without skull to the levels and the
field of view of the training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, center_of_mass, gaussian_filter, map_coordinates

from brainstage.scans.nifti import decode_nifti
from brainstage.scans.volume import Reals, Volume

Grey = NDArray[np.float32]

SPACING = 4.0
"""Millimetres between voxels of the template."""
COARSE, FINE = (10.0, 8), (4.0, 2)
"""Width of the Gaussian in millimetres, and one of how many of the template's voxels counts: blurred, few do."""
BRAIN = 40
"""Grey value of the template above which a voxel is the brain's."""
MARGIN = 2
"""Voxels of the template around the brain that count as well: there the volume must be dark."""
LEAST = 0.1
"""Share of the brain's brightness that a volume must hold; what lacks counts as left over."""
HOPELESS = 0.5
"""Share of the volume's brightness outside of the brain after the coarse fit that no fine one will mend."""
STIFFNESS = 0.5
"""How much a brain of another shape than the template's counts: 10 % longer, as much as 0.25 % of the squares.

Of 0 to 6, with which slabs of the public dataset come to lie within 2.2 to 5.3 mm of where they belong.
"""
ARM = 70.0
"""Millimetres from a brain's centre to its edge: there one unit of any parameter is about a millimetre."""
MOST_GAIN = 20.0
"""Largest logarithm of the gain, up and down: a fit to what is no brain may ask for more than numbers can hold."""
MOST = 60
"""Most steps of a fit: whole brains take up to 20, slabs of the public dataset 48; what is no brain would go on."""


@dataclass(frozen=True)
class Registration:
    """How a volume lies on the template.

    Attributes:
        affine: From millimetres of the template (MNI152, RAS+) to those of the volume, shape (4, 4).
        likeness: Correlation with the template in and around its brain, where the volume has voxels.
        outside: Share of the volume's brightness that lies outside of the template's brain: skull, scalp, neck.
    """

    affine: Reals
    likeness: float
    outside: float


def register(volume: Volume, stiffness: float = STIFFNESS) -> Registration:
    """Bring a volume onto the template.

    Two starts are tried, the header's own position and the centre of the brightness on that of the template, since
    a header's origin may mean nothing and a slab's centre is not the brain's.

    Args:
        volume: A brain, in any orientation and position.
        stiffness: How much a brain of another shape than the template's counts.
    """
    moving = _scaled(averaged(volume, SPACING))
    starts = (np.eye(4), _centred(moving))
    affine = min((_fit(moving, start, *COARSE, stiffness) for start in starts), key=lambda fit: fit[1])[0]
    outside = _outside(moving, affine)
    if outside < HOPELESS:
        affine, _ = _fit(moving, affine, *FINE, stiffness)
        outside = _outside(moving, affine)
    return Registration(affine, _likeness(moving, affine), outside)


@cache
def mni152() -> Volume:
    """Return the template: ICBM 152 nonlinear symmetric 2009a, the brain alone, in voxels of 4 mm."""
    file = files("brainstage.scans").joinpath("templates/mni152_4mm.nii.gz")
    return decode_nifti(file.read_bytes(), file.name)


def averaged(volume: Volume, spacing: float) -> Volume:
    """Return a volume of voxels of about a spacing in millimetres, each the mean of a block; never a finer one."""
    blocks = np.clip(np.round(spacing / volume.spacing).astype(int), 1, volume.voxels.shape)
    counts = np.array(volume.voxels.shape) // blocks
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


def covered(volume: Volume, points: Reals) -> NDArray[np.bool_]:
    """Return which points (3, n) in millimetres lie in a volume."""
    return _inside(volume.voxels.shape, mapped(_inverse(volume.affine), points))


def sample(volume: Volume, points: Reals, mode: str = "constant") -> Grey:
    """Return grey values at points (3, n) in millimetres, linear between voxels, 0 outside."""
    at = mapped(_inverse(volume.affine), points)
    values: Grey = map_coordinates(volume.voxels, at, order=1, mode=mode)
    return values


def mapped(affine: Reals, points: Reals) -> Reals:
    """Return points (3, n) moved by an affine map (4, 4)."""
    moved: Reals = affine[:3, :3] @ points + affine[:3, 3:]
    return moved


def grid_points(shape: tuple[int, ...]) -> Reals:
    """Return the indices of all voxels of a volume of that shape, (3, n), in the order of its memory."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return index.reshape(3, -1).astype(np.float64)


def _fit(moving: Volume, start: Reals, blur: float, every: int, stiffness: float) -> tuple[Reals, float]:
    """Return the affine map of least squares from a start, and half the squares left, in those of the brain."""
    from scipy.optimize import least_squares  # pictures do not wait for its import

    squares = _Squares(moving, start, blur, every, stiffness)
    fit = least_squares(squares.residuals, np.zeros(13), squares.derivatives, method="lm", max_nfev=MOST)
    return squares.affine(fit.x), float(fit.cost)


class _Squares:
    """What is left between template and volume, both blurred, as a function of 13 parameters.

    Nine are a matrix's around the brain's centre, three a shift's, one the logarithm of a gain.
    """

    def __init__(self, moving: Volume, start: Reals, blur: float, every: int, stiffness: float) -> None:
        self._start, self._stiffness, self._points = start, stiffness, _points()[:, ::every]
        fixed = gaussian_filter(mni152().voxels, blur / SPACING)[_head()][::every]
        self._fixed = fixed / np.linalg.norm(fixed)
        self._to_voxels = _inverse(moving.affine)
        self._moving: Grey = gaussian_filter(moving.voxels, blur / moving.spacing)
        self._slopes: list[Grey] = [np.gradient(self._moving, axis=axis) for axis in range(3)]
        there, (values,) = self._at(start, self._moving)
        self._brightness = self._fixed[there].sum() / max(float(values[there].sum()), 1e-9)
        self._centre = self._points.mean(axis=1, keepdims=True)
        self._arms = (self._points - self._centre) / ARM

    def _matrix(self, parameters: Reals) -> Reals:
        matrix: Reals = np.eye(3) + parameters[:9].reshape(3, 3) / ARM
        return matrix

    def affine(self, parameters: Reals) -> Reals:
        change = np.eye(4)
        change[:3, :3] = self._matrix(parameters)
        change[:3, 3:] = self._centre - change[:3, :3] @ self._centre + parameters[9:12, None]
        moved: Reals = self._start @ change
        return moved

    def residuals(self, parameters: Reals) -> Reals:
        there, (values,) = self._at(self.affine(parameters), self._moving)
        seen = self._seen(there)
        left = np.where(there, values * self._gain(parameters) - self._fixed, 0) / np.sqrt(max(seen, LEAST))
        lacking = np.sqrt(max(0, 1 - seen / LEAST))
        strain = (self._matrix(parameters).T @ self._matrix(parameters) - np.eye(3)) / 2
        return np.concatenate([left, [lacking], self._stiffness * strain.ravel()])

    def derivatives(self, parameters: Reals) -> Reals:
        there, (values, *slope) = self._at(self.affine(parameters), self._moving, *self._slopes)
        along = (self._to_voxels[:3, :3] @ self._start[:3, :3]).T @ np.stack(slope)
        of_matrix = (along[:, None] * self._arms).reshape(9, -1)
        rows = np.concatenate([of_matrix, along, values[None] / ARM]) * self._gain(parameters)
        rows = np.where(there, rows, 0) / np.sqrt(max(self._seen(there), LEAST))
        matrix = self._matrix(parameters)
        of_strain = np.einsum("li,kj->klij", np.eye(3), matrix) + np.einsum("lj,ki->klij", np.eye(3), matrix)
        strain = np.concatenate([of_strain.reshape(9, 9) / (2 * ARM), np.zeros((4, 9))])
        return np.concatenate([rows, np.zeros((13, 1)), self._stiffness * strain], axis=1).T

    def _at(self, affine: Reals, *images: Grey) -> tuple[NDArray[np.bool_], list[Grey]]:
        """Return which of the template's points lie in the volume, and the values of images of it there."""
        voxels = mapped(self._to_voxels @ affine, self._points)
        values = [map_coordinates(image, voxels, order=1, mode="nearest") for image in images]
        return _inside(self._moving.shape, voxels), values

    def _gain(self, parameters: Reals) -> float:
        return float(self._brightness * np.exp(np.clip(parameters[12] / ARM, -MOST_GAIN, MOST_GAIN)))

    def _seen(self, there: NDArray[np.bool_]) -> float:
        """Return the share of the template's brightness that lies in the volume."""
        return float(np.square(self._fixed[there]).sum())


@cache
def _head() -> NDArray[np.bool_]:
    """Return the template's voxels in and around its brain."""
    head: NDArray[np.bool_] = binary_dilation(mni152().voxels > BRAIN, iterations=MARGIN)
    return head


@cache
def _points() -> Reals:
    """Return the millimetres of those voxels, (3, n)."""
    return mapped(mni152().affine, np.stack(np.nonzero(_head())).astype(np.float64))


def _likeness(moving: Volume, affine: Reals) -> float:
    points = mapped(affine, _points())
    there = covered(moving, points)
    values, fixed = sample(moving, points[:, there], mode="nearest"), mni152().voxels[_head()][there]
    return float(np.corrcoef(values, fixed)[0, 1]) if there.any() and values.std() > 0 else 0.0


def _centred(moving: Volume) -> Reals:
    """Return the shift that puts the centre of the template's brightness on the volume's."""
    shift = np.eye(4)
    shift[:3, 3] = _centre(moving) - _centre(mni152())
    return shift


def _centre(volume: Volume) -> Reals:
    bright = volume.voxels > 0.2 * np.percentile(volume.voxels, 99)
    centre: Reals = volume.affine[:3] @ [*center_of_mass(np.where(bright, volume.voxels.clip(0), 0)), 1.0]
    return np.nan_to_num(centre)


def _outside(moving: Volume, affine: Reals) -> float:
    on_template = mapped(_inverse(affine) @ moving.affine, grid_points(moving.voxels.shape))
    inside = sample(Volume(_head().astype(np.float32), mni152().affine), on_template)
    bright = moving.voxels.clip(0).ravel()
    return float(bright[inside <= 0.5].sum() / max(float(bright.sum()), 1e-9))


def _inside(shape: tuple[int, ...], voxels: Reals) -> NDArray[np.bool_]:
    ends = np.array(shape)[:, None] - 0.5
    return np.all((voxels > -0.5) & (voxels < ends), axis=0)


def _inverse(affine: Reals) -> Reals:
    inverse: Reals = np.linalg.inv(affine).astype(np.float64)
    return inverse
