"""
A BIDS cohort, from scans to validation
=======================================

From a folder of T1-weighted scans to a model that was tested on people it has never seen, and then on a
second cohort. Everything here also has a command: ``prepare``, ``audit``, ``cross-validate`` and
``validate``.
"""

# %%
# Two cohorts of synthetic brains
# -------------------------------
#
# Each brain is a template, bent at random, with ventricles and hippocampi that follow the diagnosis. The
# last scans of the first cohort have deliberate defects, as real cohorts do. ``brainstage data phantom
# --bids bids/`` draws the same.

import tempfile
from pathlib import Path

from brainstage.cohorts.phantom import write_phantom_bids

folder = Path(tempfile.mkdtemp())
defects = write_phantom_bids(folder / "bids", participants=20, seed=1)
write_phantom_bids(folder / "other-bids", participants=6, defects=False, seed=2)
for scan, defect in defects.items():
    print(f"{Path(scan).name}: {defect}")

# %%
# Prepare
# -------
#
# Each scan is read, checked, stripped of its skull where it has one, registered to MNI152 and cut into
# slices. A scan that cannot be used stops nothing: it has a row in the ledger, with the reason.

from collections import Counter

from brainstage import Processes, prepare

here = Processes(1)  # in this process; without it, one for each processor
cohort = prepare(folder / "bids", folder / "cohort", workers=here)
print(cohort.about["scans"], cohort.classes)
for reason, count in Counter(row["reason"] for row in cohort.ledger.to_pylist() if row["reason"]).items():
    print(f"{count}: {reason}")

# %%
# ``cohort/qc.html`` shows every scan with the outline that its brain must fill, the most doubtful first.
# Look at it before you train. Here are three cuts of one scan, as a model will see them.

import matplotlib.pyplot as plt

from brainstage import load_slices

slices = load_slices(folder / "cohort")
figure, axes = plt.subplots(1, 3, figsize=(8, 3))
for axis, row in zip(axes, (4, 16, 28), strict=True):
    axis.imshow(slices.images[row], cmap="gray")
    axis.set_title(f"{slices.patients[row]}, level {slices.levels[row]}", fontsize=9)
    axis.axis("off")
figure.tight_layout()

# %%
# One head under two names
# ------------------------
#
# One defect above is a brain that is there twice, under two ids. Trained on under one and tested under the
# other, it would make every figure too good. It is recognised by its pixels, and the two count as one
# person in every fold.

from brainstage import load_recipe, make_splits

splits = make_splits(slices, load_recipe("patient", folds=2, repeats=1))
print(splits.same_heads)
print(splits.verdict)

# %%
# Train, and judge by people
# --------------------------
#
# ``cross_validate`` trains a model for each fold and one on everyone. Every person is predicted by models
# that never saw them. Two folds, drawn once, keep this page short; the recipe has five folds, drawn five
# times.

from brainstage import cross_validate, evaluate_patients

run = cross_validate(slices, load_recipe("patient", folds=2, repeats=1), name="patient", out=folder / "runs")
evaluation = evaluate_patients(run)
print(evaluation.title)
print(evaluation.caution)

# %%
# Each figure has an interval over people, and stands beside what needs no pictures. With so few people the
# intervals are wide: that is what they are for.

view = evaluation.views[-1]
print(view.name)
for name, scores in view.rows.items():
    accuracy, auroc = scores["accuracy"], scores["auroc_ovr"]
    print(
        f"{name:24} accuracy {accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]   "
        f"AUROC {auroc.value:.2f} [{auroc.low:.2f}, {auroc.high:.2f}]"
    )

# %%
# Validate on the second cohort
# -----------------------------
#
# The finished model, on people of another cohort: who was excluded and why, discrimination, calibration,
# subgroups. ``write_validation`` writes the page for reviewers with its charts; the command writes the
# checklists CLAIM 2024 and TRIPOD+AI as well. Six synthetic people are far too few to judge a model by: look
# at how wide the interval is.

from brainstage import validate, write_validation

prepare(folder / "other-bids", folder / "other", workers=here)
other = load_slices(folder / "other")
validation = validate(run.path, other, folder / "validation", cohort=folder / "other", by=("sex",))
write_validation(validation, other, folder / "validation", command=["a notebook"])
print(validation.title)
for status, reason, count in validation.flow:
    print(f"{count} {status} {reason}")
auroc = validation.scores["auroc"]
print(f"AUROC {auroc.value:.2f} [{auroc.low:.2f}, {auroc.high:.2f}]")
print(sorted(path.name for path in (folder / "validation").iterdir()))
