"""From a head with its skull to the brain alone, as the training data shows it.

Everyone in the public dataset has the same outline: OASIS-1 registers heads to an atlas and cuts out the atlas's
brain, not each person's own (Marcus et al. 2007, Journal of Cognitive Neuroscience 19, 1498). So does this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from brainstage.core.arrays import BoolArray, Float32Array, Float64Array
from brainstage.core.errors import ConfigError, RefusalError
from brainstage.scans.registration import (
    TEMPLATE_SPACING,
    Registration,
    averaged,
    covered,
    grid_points,
    mapped,
    mni152,
    register,
    sample,
)
from brainstage.scans.stack import MAX_OUTSIDE
from brainstage.scans.volume import Volume

FIELD_SPACING = 8.0
"""Millimetres between the voxels that the bias field is fitted to. At 4 mm N4 takes six times as long, and no head
of ``benchmarks/heads.py`` comes to lie better."""
N4_ITERATIONS = (50, 50, 50, 50)
"""Iterations of N4 at each of its resolutions: the defaults of Tustison et al. 2010."""
HEAD_STIFFNESS = 5.0
"""Stiffness of the first registration: with a skull in the volume only position and angle can be measured.

At 0.5, which suits brains alone, the brain is stretched out to the skull and ends 13 mm off; 2 to 100 do as well.
"""
TEMPLATE_BRAIN_EDGE = 75
"""Grey value of the template where its brain ends (Dice 0.997 with the brain mask at 1 mm)."""
TRAINING_BRAIN_EDGE = 25
"""Grey value of the template where the training slices end: about 2 mm outside the brain (Dice 0.991)."""
MIN_HEAD_SIMILARITY = 0.4
"""Correlation with the template within its brain that a head must have: heads have 0.5 to 0.75, failures 0.3."""


OUTLINE_CHECK = "the line must follow the edge of the brain in every cut"
"""What a person must see in the pictures of an extracted brain before anything that follows from it is used."""


@dataclass(frozen=True)
class Extraction:
    """A brain taken out of a head.

    Attributes:
        head: The head, corrected for the bias field.
        brain: The same within the outline of the training data, 0 outside of it.
        registration: The position of both relative to the template.
        similarity: Correlation with the template within its brain.
    """

    head: Volume
    brain: Volume
    registration: Registration
    similarity: float


def check_extra() -> None:
    """Check that the extra ``heads`` is installed.

    Raises:
        ConfigError: It is not.
    """
    if find_spec("SimpleITK") is None:
        raise ConfigError('taking a brain out of a head needs SimpleITK: pip install "brainstage[heads]"')


def extract_brain(head: Volume, where: str) -> Extraction:
    """Take the brain out of a T1-weighted head.

    The bias field is corrected (N4: Tustison et al. 2010, IEEE Transactions on Medical Imaging 29, 1310), the head
    registered nearly rigidly, then its brain alone to MNI152, whose outline is cut out, by an affine map, twice.

    Args:
        head: A head in any position; its header must say which way is up.
        where: Name of the file, for errors.

    Raises:
        ConfigError: The extra ``heads`` is not installed.
        RefusalError: The head has no skull, or no brain is found in it.
    """
    check_extra()
    if head.voxels.max() <= 0:
        raise RefusalError(f"{where}: no voxel is brighter than 0, so it shows no head; give one that does")
    corrected = correct_bias(head)
    coarse = averaged(corrected, TEMPLATE_SPACING)  # as registration sees it
    registration = register(coarse, HEAD_STIFFNESS)
    if registration.outside < MAX_OUTSIDE:
        raise RefusalError(f"{where}: shows a brain without its skull; `brainstage predict` takes it as it is")
    for _ in range(2):
        registration = register(_within(coarse, registration, TEMPLATE_BRAIN_EDGE), template=mni152)
    similarity = _similarity(corrected, registration)
    if similarity < MIN_HEAD_SIMILARITY:
        raise RefusalError(
            f"{where}: no T1-weighted brain was found in it (similarity to the MNI152 template {similarity:.2f}, "
            f"expected {MIN_HEAD_SIMILARITY} or more); if it is a head, take the brain out with SynthStrip, HD-BET "
            "or FSL's BET"
        )
    return Extraction(corrected, _within(corrected, registration, TRAINING_BRAIN_EDGE), registration, similarity)


def correct_bias(head: Volume) -> Volume:
    """Return a head corrected by N4 for the bias field: the slow change of brightness that coils leave."""
    import SimpleITK as sitk  # noqa: N813 - its users call it so

    coarse = averaged(head, FIELD_SPACING)
    scaled = coarse.voxels.clip(0) * np.float32(1000 / coarse.voxels.max()) + 1  # its logarithm is taken
    image = _image(sitk, scaled, coarse.spacing, (coarse.spacing - head.spacing) / 2)
    mask = sitk.OtsuThreshold(image, 0, 1)
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetMaximumNumberOfIterations(N4_ITERATIONS)
    filter_.Execute(image, mask)
    fine = _image(sitk, head.voxels, head.spacing, np.zeros(3))
    field = np.exp(sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(fine))).transpose(2, 1, 0)
    return Volume((head.voxels.clip(0) / field).astype(np.float32), head.affine)


def brain_mask(volume: Volume, affine: Float64Array, edge: float = TRAINING_BRAIN_EDGE) -> BoolArray:
    """Return which voxels of a volume lie in the template's brain, bool of the volume's shape.

    Args:
        volume: The volume whose voxels are masked.
        affine: From millimetres of the template to those of the volume (:attr:`Registration.affine`).
        edge: Grey value of the template where the brain ends.
    """
    to_template = np.linalg.inv(affine) @ volume.affine
    plane = grid_points((1, *volume.voxels.shape[1:]))  # one at a time: a head's points take a gigabyte
    planes = (plane + np.array([[number], [0], [0]]) for number in range(len(volume.voxels)))
    mask = np.stack([sample(mni152(), mapped(to_template, points)) > edge for points in planes])
    return mask.reshape(volume.voxels.shape)


def _within(head: Volume, registration: Registration, edge: float) -> Volume:
    mask = brain_mask(head, registration.affine, edge)
    return Volume(np.where(mask, head.voxels, np.float32(0)), head.affine)


def _similarity(head: Volume, registration: Registration) -> float:
    template = mni152()
    points = mapped(template.affine, grid_points(template.voxels.shape))
    brain = template.voxels.ravel() > TEMPLATE_BRAIN_EDGE
    inside = brain & covered(head, mapped(registration.affine, points))
    values = sample(averaged(head, TEMPLATE_SPACING), mapped(registration.affine, points[:, inside]))
    fixed = template.voxels.ravel()[inside]
    return float(np.corrcoef(values, fixed)[0, 1]) if inside.any() and values.std() else 0.0


def _image(sitk: Any, voxels: Float32Array, spacing: Float64Array, origin: Float64Array) -> Any:
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    return image
