"""Example files of one synthetic person, for each command that reads scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import distance_transform_edt

from brainstage.cohorts.phantom_brains import draw_brain
from brainstage.cohorts.phantom_people import Participant, Session
from brainstage.core.arrays import Float64Array
from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, make_folder, write_text
from brainstage.core.run import StrPath
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.scans.dicom import LPS_TO_RAS
from brainstage.scans.nifti import as_integers, write_nifti
from brainstage.scans.stack import training_stack
from brainstage.scans.volume import Volume

BRAIN, HEAD, DICOM, SLICES, README = "brain.nii.gz", "head.nii.gz", "dicom", "slices", "README.txt"
"""What is written, by its name in the folder."""
PERSON = Participant("example", number=7, age=74, sex="F", site="B", sessions=(Session("ses-01", "MCI", 1.0),))
"""The number is one whose field of view shows the whole brain, in voxels of 1.2 mm."""
SCANNER_SPACE = 1
"""NIfTI's code of the space that millimetres are of: the scanner's."""
SHELL = ((4.0, 0.25), (9.0, 0.06), (15.0, 0.9))
"""How far from the brain fluid, bone and scalp end, in millimetres, and how bright each is against the brain."""


def write_example(folder: StrPath) -> dict[str, str]:
    """Write scans of one synthetic person in each format that is read. Each call writes equal bytes.

    ``brain.nii.gz`` is a T1-weighted brain without its skull, drawn as those of
    :func:`~brainstage.cohorts.phantom.write_phantom_bids` are; ``dicom/`` is the same brain as a DICOM series,
    ``slices/`` its 32 axial slices as PNG, nose down, and ``head.nii.gz`` the brain in a drawn shell of fluid, bone
    and scalp. ``README.txt`` says that all of it is synthetic.

    Args:
        folder: Folder to write to; it must be empty or missing.

    Returns:
        What each file or folder is, by its name in ``folder``.

    Raises:
        ConfigError: The folder is not empty.
        OutputError: The folder is not writable.
    """
    folder = Path(folder)
    if any(make_folder(folder).iterdir()):
        raise ConfigError(f"{folder}: is not empty; choose another folder")
    brain = draw_brain(PERSON, PERSON.sessions[0])
    head = with_shell(brain)
    slices, levels = training_stack(brain, BRAIN)
    write_nifti(folder / BRAIN, as_integers(brain.voxels), brain.affine, SCANNER_SPACE)
    write_nifti(folder / HEAD, as_integers(head.voxels), head.affine, SCANNER_SPACE)
    count = write_dicom(make_folder(folder / DICOM), brain)
    make_folder(folder / SLICES)
    for level, pixels in zip(levels, slices, strict=True):
        with atomic(folder / SLICES / f"{level:02d}.png") as part:
            Image.fromarray(pixels).save(part, format="PNG")
    contents = {
        BRAIN: "a brain without its skull (NIfTI)",
        f"{DICOM}/": f"the same brain as a DICOM series of {count} files",
        f"{SLICES}/": f"{len(levels)} axial slices of it (PNG), nose down",
        HEAD: "the same brain in a drawn skull (NIfTI)",
    }
    listed = "\n".join(f"{name}: {what}" for name, what in contents.items())
    write_text(folder / README, f"{_README}\n{listed}\n")
    return contents


def with_shell(brain: Volume) -> Volume:
    """Draw fluid, bone and scalp around a brain without its skull: as bright as they are in T1-weighted heads."""
    away = np.asarray(distance_transform_edt(brain.voxels == 0, sampling=brain.spacing))
    white = float(np.percentile(brain.voxels[brain.voxels > 0], 90))
    rng = np.random.default_rng(PERSON.number)
    layer = np.searchsorted([end for end, _ in SHELL], away)
    signal = np.array([*(brightness for _, brightness in SHELL), 0.0])[layer]
    noise = 0.02 * rng.standard_normal((2, *away.shape))
    shell = white * np.hypot(signal + noise[0], noise[1])
    return Volume(np.where(away > 0, shell, brain.voxels).astype(np.float32), brain.affine)


def write_dicom(folder: Path, volume: Volume) -> int:
    """Write a volume as a DICOM series, a file for each index of its third axis.

    Args:
        folder: An existing folder.
        volume: Whole grey values from 0 to 65,535.

    Returns:
        The number of files.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    count = volume.voxels.shape[2]
    for number in range(count):
        with atomic(folder / f"{number + 1:03d}.dcm") as part:
            _dicom_slice(volume, number).save_as(part, enforce_file_format=True)
    return count


def _dicom_slice(volume: Volume, number: int) -> Dataset:
    """Return a slice with the header that a scanner would write, but for dates and names."""
    to_lps = LPS_TO_RAS @ volume.affine[:3]  # the map is its own inverse
    directions = to_lps[:, :3] / volume.spacing
    pixels = volume.voxels[:, :, number]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = _uid(f"image {number}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid("study"), _uid("series")
    dataset.FrameOfReferenceUID = _uid("frame of reference")
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.PatientBirthDate = dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = "Synthetic^Example", "SYNTHETIC", PERSON.sex
    dataset.ImageComments, dataset.Manufacturer = SYNTHETIC_NOTICE, "brainstage"
    dataset.SeriesDescription, dataset.Modality = "synthetic T1-weighted brain", "MR"
    dataset.ImageType, dataset.ScanningSequence, dataset.SequenceVariant = ["DERIVED", "SECONDARY"], "GR", "NONE"
    dataset.ScanOptions = dataset.EchoTime = dataset.RepetitionTime = dataset.EchoTrainLength = None
    dataset.MRAcquisitionType = "3D"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number + 1
    dataset.ImagePositionPatient = _rounded(to_lps @ [0, 0, number, 1])
    dataset.ImageOrientationPatient = _rounded(np.concatenate([directions[:, 1], directions[:, 0]]))
    dataset.PixelSpacing = _rounded(volume.spacing[:2])
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _rounded(volume.spacing[2:])[0]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset


def _uid(name: str) -> UID:
    """Return the unique identifier of what has this name: the same in each call."""
    return generate_uid(entropy_srcs=["brainstage example", name])


def _rounded(values: Float64Array) -> list[float]:
    return [round(float(value), 6) for value in values]


_README = """\
These files are synthetic and say nothing about real brains. No person was scanned.

`brainstage data example` made them from the ICBM 152 nonlinear symmetric 2009a template (Fonov et al. 2011,
NeuroImage 54, 313), bent at random. Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal
Neurological Institute, McGill University.
"""
