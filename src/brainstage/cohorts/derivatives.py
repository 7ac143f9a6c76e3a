"""The derivatives of a scan in BIDS: its brain mask, and its brain in the template's space, with their sidecars."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

from brainstage.cohorts.folder import CohortFolder
from brainstage.cohorts.scan import RegisteredScan
from brainstage.cohorts.sources import CohortScan, nifti_stem, safe_name
from brainstage.core.arrays import Float32Array, Float64Array
from brainstage.core.files import make_folder, write_json
from brainstage.scans.nifti import WRITTEN_MAXIMUM, as_integers, write_nifti
from brainstage.scans.registration import averaged
from brainstage.scans.skull_strip import TEMPLATE_BRAIN_EDGE, brain_mask
from brainstage.scans.volume import Volume

TEMPLATE_SPACE = "MNI152NLin2009aSym"
"""Name in BIDS of the space of :func:`brainstage.scans.registration.mni152`."""
TEMPLATE_SHAPE = (197, 233, 189)
"""Voxels of the template at 1 mm, as its makers give it (Fonov et al. 2011, NeuroImage 54, 313)."""
TEMPLATE_ORIGIN = (-98.0, -134.0, -72.0)
"""Millimetres of its first voxel."""
SOURCE_NAME = "raw"
"""Name of the source dataset in BIDS URIs."""
_SCANNER, _MNI = 1, 4
"""Codes of NIfTI for the space that an affine map leads to."""


@dataclass(frozen=True)
class DerivativesFolder:
    """Paths of a derivatives dataset.

    ========================================= ===========================================================
    ``sub-*/[ses-*/]anat/``                   masks and brains in the template's space, with their sidecars
    ``sub-*.html``                            a page for each participant
    ``phenotype/brainstage.tsv``, ``.json``   a row for each participant and session, and what the columns are
    ``validation/``                           written by the group level
    ``.brainstage/``                          private: what a stopped run goes on from, and the cohort that the
                                              group level evaluates; not to be published
    ========================================= ===========================================================
    """

    path: Path

    @property
    def private(self) -> Path:
        """What a stopped run goes on from."""
        return self.path / ".brainstage"

    @property
    def cohort(self) -> CohortFolder:
        """The slices of the scans, as ``prepare`` keeps them."""
        return CohortFolder(self.private / "cohort")

    def result(self, scan_id: str) -> Path:
        """Return the file of what became of a scan; it is written last."""
        return self.private / "results" / f"{scan_id}.json"

    @property
    def phenotype(self) -> Path:
        """The table of all participants."""
        return self.path / "phenotype" / "brainstage.tsv"

    @property
    def validation(self) -> Path:
        """The evaluation by the group level."""
        return self.path / "validation"

    def page(self, participant_id: str) -> Path:
        """Return the page of a participant."""
        return self.path / f"sub-{safe_name(participant_id)}.html"

    def mask(self, scan: CohortScan) -> Path:
        """Return the brain mask of a scan."""
        return self._derivative(scan, "desc-brain_mask.nii.gz")

    def brain(self, scan: CohortScan) -> Path:
        """Return the brain of a scan in the template's space."""
        return self._derivative(scan, f"space-{TEMPLATE_SPACE}_T1w.nii.gz")

    def _derivative(self, scan: CohortScan, ending: str) -> Path:
        """Return a file that is named as the scan is, but for its ending."""
        session = [f"ses-{scan.session_id}"] if scan.session_id else []
        folder = self.path.joinpath(f"sub-{scan.participant_id}", *session, "anat")
        return folder / f"{nifti_stem(source_file(scan).name).removesuffix('_T1w')}_{ending}"


def source_file(scan: CohortScan) -> Path:
    """Return the file of a scan of a BIDS dataset."""
    if scan.scan is None:
        raise ValueError(f"{scan.scan_id} has no file")
    return Path(scan.scan.files[0])


def source_uri(scan: CohortScan) -> str:
    """Return where a scan lies in the source dataset, as a BIDS URI."""
    file = source_file(scan)
    start = max(number for number, part in enumerate(file.parts[:-1]) if part.startswith("sub-"))
    return f"bids:{SOURCE_NAME}:{'/'.join(file.parts[start:])}"


def write_derivatives(folder: DerivativesFolder, scan: CohortScan, registered: RegisteredScan) -> None:
    """Write the brain mask of a scan and its brain in the template's space, each with its sidecar.

    Grey values of the brain are scaled so that the brightest voxel has 10,000.

    Args:
        folder: Where to.
        scan: The scan.
        registered: The same, with its position.

    Raises:
        RunError: The disk is full or the folder is not writable.
    """
    mask_file, brain_file = folder.mask(scan), folder.brain(scan)
    make_folder(mask_file.parent)
    affine = registered.registration.affine
    mask = brain_mask(registered.volume, affine, TEMPLATE_BRAIN_EDGE)
    write_nifti(mask_file, mask.astype(np.uint8), registered.volume.affine, _SCANNER)
    brain = in_template_space(registered.brain, affine)
    write_nifti(brain_file, as_integers(brain), _template_grid(), _MNI)
    for file, about in ((mask_file, _about_mask(scan)), (brain_file, _about_brain(scan, registered))):
        write_json(_sidecar(file), about)


def remove_derivatives(folder: DerivativesFolder, scan: CohortScan) -> None:
    """Remove what :func:`write_derivatives` wrote of a scan that cannot be used any more."""
    for file in (folder.mask(scan), folder.brain(scan)):
        for each in (file, _sidecar(file)):
            each.unlink(missing_ok=True)


def has_derivatives(folder: DerivativesFolder, scan: CohortScan) -> bool:
    """Return whether all that :func:`write_derivatives` writes of a scan is there."""
    files = (folder.mask(scan), folder.brain(scan))
    return all(file.is_file() and _sidecar(file).is_file() for file in files)


def in_template_space(volume: Volume, affine: Float64Array) -> Float32Array:
    """Return the grey values of a volume on the template's grid of 1 mm, 0 where it has none, never below 0.

    Args:
        volume: The volume.
        affine: From millimetres of the template to those of the volume (:attr:`Registration.affine`).

    Returns:
        float32 of shape :data:`TEMPLATE_SHAPE`.
    """
    coarse = averaged(volume, 1.0)
    to_voxels = np.linalg.inv(coarse.affine) @ affine @ _template_grid()
    values: Float32Array = affine_transform(
        coarse.voxels, to_voxels[:3, :3], to_voxels[:3, 3], TEMPLATE_SHAPE, order=1
    )
    return values.clip(0)


def relative_link(target: Path, start: Path) -> str:
    """Return the way from a folder to another where it names no folder but the other itself; else its name alone.

    Folders may be named after people, so no more of a path is written.
    """
    way = Path(os.path.relpath(target.resolve(), start.resolve()))
    return way.as_posix() if set(way.parts[:-1]) <= {".."} else target.resolve().name


def _template_grid() -> Float64Array:
    """Return the map from the template's voxels of 1 mm to millimetres."""
    grid = np.eye(4)
    grid[:3, 3] = TEMPLATE_ORIGIN
    return grid


def _about_mask(scan: CohortScan) -> dict[str, Any]:
    return {
        "Type": "Brain",
        "Description": (
            "Voxels within the brain of the MNI152 template, which was laid over the scan by an affine "
            "registration; not an outline of the person's own brain."
        ),
        "Sources": [source_uri(scan)],
        "SpatialReference": source_uri(scan),
    }


def _about_brain(scan: CohortScan, registered: RegisteredScan) -> dict[str, Any]:
    here = registered.brain is not registered.volume
    return {
        "SkullStripped": True,
        "Description": (
            f"The brain, registered by an affine map and resampled to 1 mm. The skull was "
            f"{'taken off here, about 2 mm outside of the brain' if here else 'not in the scan'}. Grey values are "
            f"scaled to a maximum of {WRITTEN_MAXIMUM:,}."
        ),
        "Sources": [source_uri(scan)],
        "RegistrationMatrix": registered.registration.affine.tolist(),
        "RegistrationMatrixDescription": (
            "From millimetres (RAS+) of the template to those of the scan; a row of the matrix each."
        ),
    }


def _sidecar(file: Path) -> Path:
    return file.with_name(nifti_stem(file.name) + ".json")
