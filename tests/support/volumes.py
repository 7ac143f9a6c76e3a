"""Brains for tests: the package's template, moved and cut as a scanner might, and written as a scanner's files."""

import itertools
import warnings

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from brainstage.scans.registration import mapped, mni152, sample
from brainstage.scans.volume import Volume

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
PATIENT = "Sommer^Karl"
"""Stands in every header that is written here, and must come out nowhere."""


def brain(spacing=(2.0, 2.0, 2.0), moved=None):
    """Return the template's brain in voxels of a spacing in millimetres, moved by an affine map."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-98, -134, -72)
    shape = tuple(np.ceil(np.array([196, 230, 188]) / spacing).astype(int))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1).astype(float)
    template = mapped(affine, index) if moved is None else mapped(np.linalg.inv(moved) @ affine, index)
    return Volume(sample(mni152(), template).reshape(shape), affine)


def turned(volume, order, signs):
    """Return the same volume with its axes in another order and direction."""
    affine = volume.affine[:, [*order, 3]].copy()
    voxels = volume.voxels.transpose(order)
    for axis, sign in enumerate(signs):
        if sign < 0:
            voxels = np.flip(voxels, axis)
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(voxels), affine)


def with_skull(volume):
    """Return a head: the brain, and a bright shell around it."""
    from scipy.ndimage import binary_dilation

    inside = volume.voxels > 40
    shell = binary_dilation(inside, iterations=8) & ~binary_dilation(inside, iterations=5)
    return Volume(np.where(shell, 250, volume.voxels).astype(np.float32), volume.affine)


def write_nifti(file, volume, *, kind=nib.Nifti1Image, dtype=np.float32):
    image = kind(volume.voxels.astype(dtype), volume.affine)
    image.header["descrip"] = PATIENT.encode()
    nib.save(image, file)
    return file


def write_series(folder, volume, *, order=None, uid="1.2.3", **changes):
    """Write a volume as one DICOM file a slice; ``changes`` are attributes set on every file."""
    folder.mkdir(parents=True, exist_ok=True)
    count = volume.voxels.shape[2]
    numbers = range(count) if order is None else order
    for file_number, number in enumerate(numbers):
        dataset = _dataset(volume.voxels[:, :, number], uid, MRImageStorage)
        dataset.ImagePositionPatient = _position(volume.affine, number)
        dataset.ImageOrientationPatient = _directions(volume.affine)
        dataset.PixelSpacing = _spacing(volume.affine)
        for name, value in changes.items():
            setattr(dataset, name, value)
        _save(dataset, folder / f"IM{file_number:03}")
    return folder


def write_enhanced(file, volume, *, order=None):
    """Write a volume as one multi-frame DICOM file."""
    order = list(range(volume.voxels.shape[2])) if order is None else order
    pixels = np.stack([volume.voxels[:, :, number] for number in order])
    dataset = _dataset(pixels, "1.2.3", EnhancedMRImageStorage)
    dataset.NumberOfFrames = len(order)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _directions(volume.affine)
    measures.PixelSpacing = _spacing(volume.affine)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number in order:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = _position(volume.affine, number)
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    _save(dataset, file)
    return file


def _dataset(pixels, uid, kind):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.PatientName = dataset.PatientID = PATIENT
    dataset.SeriesInstanceUID, dataset.Modality = uid, "MR"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.round().astype("<u2").tobytes()
    return dataset


def _directions(affine):
    """Return DICOM's cosines: where columns go (voxels' second axis), then where rows go (their first)."""
    lps = np.diag([-1, -1, 1]) @ affine[:3, :3]
    unit = lps / np.linalg.norm(lps, axis=0)
    return [round(float(one), 8) for one in (*unit[:, 1], *unit[:, 0])]


def _spacing(affine):
    return np.linalg.norm(affine[:3, :2], axis=0).tolist()


def _position(affine, number):
    return [round(float(one), 6) for one in np.diag([-1, -1, 1, 1])[:3] @ affine @ [0, 0, number, 1]]


def _save(dataset, file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(file, enforce_file_format=True)
