"""
From one DICOM export to an answer
==================================

A folder comes from the scanner or the archive, with several series in it. This tutorial finds the right
one, checks that its brain lies where the model expects it, and stages it with the model that comes with
brainstage.

This is research software. It is not a medical device, and its answer is never a diagnosis.
"""

# %%
# A stand-in for an export
# ------------------------
#
# With a folder of your own, skip this part. We draw a synthetic brain and write it as two DICOM series, as
# scanners do: one file a slice, among files of other kinds.

import tempfile
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from brainstage.cohorts.phantom_brains import draw_anatomy


def write_series(folder, voxels, spacing, number, description):
    """Write axial slices, from the feet upwards, as one DICOM file each."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for level in range(voxels.shape[2]):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
        image.SeriesInstanceUID, image.SeriesNumber, image.SeriesDescription = series, number, description
        image.Modality, image.PatientName, image.PatientID = "MR", "PHANTOM", "0"
        pixels = np.rot90(voxels[:, :, level]).round().astype("<u2")  # rows run from front to back
        pixels = pixels[:, ::-1]  # and columns from the person's right to the left
        image.Rows, image.Columns = pixels.shape
        image.PixelSpacing = [spacing, spacing]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [-image.Columns * spacing / 2, -image.Rows * spacing / 2, level * spacing]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.PixelData = pixels.tobytes()
        image.save_as(folder / f"IM{number}{level:03}", enforce_file_format=True)


export = Path(tempfile.mkdtemp()) / "export"
brain = draw_anatomy(number=3, atrophy=0.3)
grey = 1000 * np.clip(brain.voxels / brain.voxels.max(), 0, 1)
write_series(export / "1", grey[:, :, ::8], 2.0, 1, "localizer")
write_series(export / "2", grey, 2.0, 2, "t1 axial")
(export / "DICOMDIR.txt").write_text("not an image")

# %%
# What is in the folder?
# ----------------------
#
# The same as ``brainstage scans export/``. Headers are read, pixels are not.

from brainstage.scans.discover import describe_scans

for info in describe_scans(export):
    print(info.number, info.kind, info.matrix, info.spacing, info.slices)

# %%
# The second series has all levels of the brain.

from brainstage import find_scans
from brainstage.scans.discover import choose_series

scan = choose_series(find_scans(export), 2)

# %%
# How it will be seen
# -------------------
#
# A volume is registered to MNI152 and cut at the levels that the model knows. A head with its skull would
# be stripped first: ``predict --skull auto``. Look at the cuts: the nose points down, and the person's
# right is on the left.

import matplotlib.pyplot as plt

cut = scan.read()
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for axis, row in zip(axes, np.linspace(2, len(cut.images) - 3, 4).astype(int), strict=True):
    axis.imshow(cut.images[row], cmap="gray")
    axis.set_title(f"level {cut.levels[row]}", fontsize=9)
    axis.axis("off")
figure.tight_layout()

# %%
# The answer
# ----------

from brainstage import Predictor, predict_scans

predictor = Predictor.open()  # the bundled patient model
predictions = predict_scans(predictor, [scan])
person = predictions.people[0][0]
print(person["status"], person["stage"])
print(person["words"])

# %%
# One bar for each stage. Those that are not ruled out at 90 % are dark.

names = [name.replace("_Demented", "").replace("_", " ") for name in predictions.classes]
shares = [person[f"prob_{name}"] for name in predictions.classes]
kept = [person[f"in_set_{name}"] for name in predictions.classes]
figure, axis = plt.subplots(figsize=(6, 2.2))
axis.barh(names, shares, color=["#2a5d84" if inside else "#c5d5e2" for inside in kept])
axis.invert_yaxis()
axis.set(xlim=(0, 1), xlabel="probability")
figure.tight_layout()

# %%
# What the answer is worth stands beside it:

print(predictions.notice)

# %%
# Keep it
# -------
#
# ``write_predictions`` writes CSV, JSON or parquet. Nothing of the DICOM headers is in it.

from brainstage import write_predictions

write_predictions(predictions, export.parent / "stages.csv")
print((export.parent / "stages.csv").read_text().splitlines()[0])
