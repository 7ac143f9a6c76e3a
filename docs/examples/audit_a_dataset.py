"""
Audit a dataset
===============

Before you trust a figure, look at who is on which side. This tutorial audits slices that carry no patient
ids, as most public datasets do. It looks for duplicates, recovers the people from the pictures alone, and
gives the leakage verdict of the split that the dataset brings.
"""

# %%
# A dataset without names
# -----------------------
#
# The phantom cohort has the layout of the public dataset *Falah/Alzheimer_MRI*: parquet files with a
# training and a test side, shuffled slice by slice. Everything goes into a temporary folder.

import tempfile
from pathlib import Path

from brainstage import write_phantom

folder = Path(tempfile.mkdtemp()) / "slices"
write_phantom(folder, patients=24, seed=3)

# %%
# The phantom names its people. The public dataset does not, so we take the names out, and keep them to
# check the result at the end.

import pyarrow.parquet as pq

truth = []
for side in ("train", "test"):  # the order in which the slices are read
    (file,) = folder.glob(f"data/{side}-*.parquet")
    table = pq.read_table(file)
    truth += table["patient_id"].to_pylist()
    pq.write_table(table.drop_columns(["patient_id", "slice_index"]), file)

# %%
# What is in it?
# --------------
#
# The same as ``brainstage data describe``.

from brainstage import describe, load_slices

slices = load_slices(folder)
facts = describe(slices)
for name in ("rows", "classes", "patients", "duplicates"):
    print(f"{name}: {facts[name]}")

# %%
# A look at some slices. Each row shows the first slices of a class.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(len(slices.classes), 6, figsize=(9, 6.2))
for row, name in enumerate(slices.classes):
    chosen = [number for number, label in enumerate(slices.labels) if label == name]
    for axis, number in zip(axes[row], chosen, strict=False):
        axis.imshow(slices.images[number], cmap="gray")
        axis.axis("off")
    axes[row, 0].set_title(name.replace("_", " "), loc="left", fontsize=9)
figure.tight_layout()

# %%
# The audit
# ---------
#
# The same as ``brainstage audit --data slices/ --out audit/``, which writes a page and a table as well.

from brainstage import audit

result = audit(slices)
for name, value in result.to_dict()["people"].items():
    print(f"{name}: {value}")

# %%
# The verdict on the split that the dataset brings:

print(result.verdict)

# %%
# So a score on this test side says how well slices are staged of people in the training set, and nothing
# about others. How often does the training slice that looks most like a test slice show the same head?

print(result.to_dict()["closest"])

# %%
# Are the recovered people the true ones?
# ---------------------------------------
#
# The adjusted Rand index is 1 where two groupings are the same and 0 where they agree by chance. Slices
# that the audit left without a person count as wrong here.

from sklearn.metrics import adjusted_rand_score

recovered = [patient or f"unknown {row}" for row, patient in enumerate(result.slices.patients)]
print(f"adjusted Rand index {adjusted_rand_score(truth, recovered):.3f}")

# %%
# From here on
# ------------
#
# ``result.slices`` has the inferred people, so the patient protocol can keep them apart. The verdict of
# folds made of them is clean, and says that the people were inferred.

from brainstage import load_recipe, make_splits

splits = make_splits(result.slices, load_recipe("compact", protocol="patient", folds=3))
print(splits.verdict)
