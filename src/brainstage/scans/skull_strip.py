"""From a head with its skull to the brain alone, as the training data shows it.

Everyone in the public dataset has the same outline: OASIS-1 registers heads to an atlas and cuts out the atlas's
brain, not each person's own (Marcus et al. 2007, Journal of Cognitive Neuroscience 19, 1498). So does this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainstage.core.errors import ConfigError, RefusalError
from brainstage.scans.registration import (
    Registration,
    averaged,
    covered,
    grid_points,
    mapped,
    mni152,
    register,
    sample,
)
from brainstage.scans.stack import OUTSIDE
from brainstage.scans.volume import Reals, Volume

Mask = NDArray[np.bool_]

COARSE = 4.0
"""Millimetres between the voxels that the field of brightness is fitted to."""
ITERATIONS = (50, 50, 50, 50)
"""Iterations of N4 at each of its resolutions: the defaults of Tustison et al. 2010."""
UNKNOWN = 5.0
"""Stiffness of the first registration: with a skull in the picture only place and angle can be told.

At 0.5, which suits brains alone, the brain is stretched out to the skull and ends 13 mm off; 2 to 100 do alike.
"""
BRAIN = 75
"""Grey value of the template where its brain ends, as at 1 mm (overlap of both: Dice 0.997)."""
EDGE = 25
"""Grey value of the template where the training slices end: about 2 mm outside the brain (Dice 0.991)."""
LIKENESS = 0.4
"""Least correlation with the template within its brain: heads have 0.5 to 0.75, what lies wrong 0.3."""


@dataclass(frozen=True)
class Extraction:
    """A brain taken out of a head.

    Attributes:
        head: The head with its brightness evened out.
        brain: The same within the outline of the training data, 0 outside of it.
        registration: How both lie on the template.
        likeness: Correlation with the template within its brain.
    """

    head: Volume
    brain: Volume
    registration: Registration
    likeness: float


def check_extra() -> None:
    """Raise where the extra is missing.

    Raises:
        ConfigError: It is.
    """
    if find_spec("SimpleITK") is None:
        raise ConfigError("taking a brain out of a head needs SimpleITK: pip install 'brainstage[heads]'")


def extract_brain(head: Volume, where: str) -> Extraction:
    """Take the brain out of a T1-weighted head.

    The brightness is evened out (N4: Tustison et al. 2010, IEEE Transactions on Medical Imaging 29, 1310), the head
    placed on MNI152 as if it were of the template's size, then its brain alone by an affine map, twice.

    Args:
        head: A head in any position, upright by its header.
        where: Name of the file, for errors.

    Raises:
        ConfigError: The extra ``heads`` is not installed.
        RefusalError: The head has no skull, or no brain is found in it.
    """
    check_extra()
    even = evened(head)
    found = register(even, UNKNOWN)
    if found.outside < OUTSIDE:
        raise RefusalError(f"{where}: shows a brain without its skull; `brainstage predict` takes it as it is")
    for _ in range(2):
        found = register(_within(even, found, BRAIN))
    likeness = _likeness(even, found)
    if likeness < LIKENESS:
        raise RefusalError(
            f"{where}: no T1-weighted brain was found in it (likeness to the MNI152 template {likeness:.2f}, "
            f"expected {LIKENESS} or more); if it is a head, take it out with SynthStrip, HD-BET or FSL's BET"
        )
    return Extraction(even, _within(even, found, EDGE), found, likeness)


def evened(head: Volume) -> Volume:
    """Return a head without the slow changes of brightness that a scanner's coils leave, by N4.

    Brightness is scaled so that its field has the mean 1 in the head.
    """
    import SimpleITK as sitk  # noqa: N813 - its users call it so

    coarse = averaged(head, COARSE)
    scaled = coarse.voxels.clip(0) * np.float32(1000 / coarse.voxels.max()) + 1  # its logarithm is taken
    image = _image(sitk, scaled, coarse.spacing, (coarse.spacing - head.spacing) / 2)
    mask = sitk.OtsuThreshold(image, 0, 1)
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetMaximumNumberOfIterations(ITERATIONS)
    filter_.Execute(image, mask)
    fine = _image(sitk, head.voxels, head.spacing, np.zeros(3))
    field = np.exp(sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(fine))).transpose(2, 1, 0)
    return Volume((head.voxels.clip(0) / field).astype(np.float32), head.affine)


def brain_mask(volume: Volume, affine: Reals, edge: float = EDGE) -> Mask:
    """Return which voxels of a volume lie in the template's brain, bool of the volume's shape.

    Args:
        volume: Where the mask is wanted.
        affine: From millimetres of the template to those of the volume (:attr:`Registration.affine`).
        edge: Grey value of the template where the brain ends.
    """
    to_template = np.linalg.inv(affine) @ volume.affine
    plane = grid_points((1, *volume.voxels.shape[1:]))  # one at a time: a head's points take a gigabyte
    planes = (plane + np.array([[number], [0], [0]]) for number in range(len(volume.voxels)))
    mask = np.stack([sample(mni152(), mapped(to_template, points)) > edge for points in planes])
    return mask.reshape(volume.voxels.shape)


def _within(head: Volume, found: Registration, edge: float) -> Volume:
    return Volume(np.where(brain_mask(head, found.affine, edge), head.voxels, np.float32(0)), head.affine)


def _likeness(head: Volume, found: Registration) -> float:
    template = mni152()
    points = mapped(template.affine, grid_points(template.voxels.shape))
    seen = (template.voxels.ravel() > BRAIN) & covered(head, mapped(found.affine, points))
    values = sample(averaged(head, COARSE), mapped(found.affine, points[:, seen]))
    return float(np.corrcoef(values, template.voxels.ravel()[seen])[0, 1]) if seen.any() and values.std() else 0.0


def _image(sitk: Any, voxels: NDArray[np.float32], spacing: Reals, origin: Reals) -> Any:
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    return image
