"""Claim: whoever has one slice of someone can tell whether a patient model was fitted on that person.

    python benchmarks/membership.py

``docs/explanation/data-statement.md`` says what a model's file tells about its people; this measures it. A patient
model is fitted on a random half of the people of the public dataset. Of each person of both halves one slice, drawn
at random, has no part in the fit; it is compared with every training person's mean histograms at the level that the
model itself estimates. Named: share of training people whose own row is the nearest. Membership: AUROC of
the distance to the nearest row, training people against the others, with a 95 % interval over people.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from brainstage.datasets.sources import load_slices
from brainstage.models.folder import WEIGHTS
from brainstage.models.patient_features import STEP
from brainstage.models.patient_model import PatientModel
from brainstage.stats import metrics
from brainstage.training.patient import acquired_features, training_seeds

PEOPLE, LEVELS = 200, 32


def main() -> None:
    """Print how many training people are named by one slice, and how well membership is told."""
    slices = load_slices()
    rng = np.random.default_rng(0)
    names = sorted({str(patient) for patient in slices.patients})
    rows_of = {name: [row for row, one in enumerate(slices.patients) if one == name] for name in names}
    shown = {name: int(rng.choice(rows)) for name, rows in rows_of.items()}
    inside = sorted(rng.permutation(names)[: PEOPLE // 2].tolist())
    rows = [row for name in inside for row in rows_of[name] if row != shown[name]]
    model = PatientModel.fit(
        acquired_features(slices, rows, training_seeds(slices, rows)),
        [str(slices.patients[row]) for row in rows],
        np.array([slices.rows["slice_index"][row].as_py() for row in rows]) / (LEVELS - 1),
        slices.targets(rows),
        slices.classes,
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        stacks = load_file(Path(folder) / WEIGHTS)["stacks"].astype(np.float32) * STEP
    asked = acquired_features(slices, list(shown.values()), [(None,)] * PEOPLE)
    levels = model.levels(asked)
    distances = np.linalg.norm(stacks[:, levels].swapaxes(0, 1) - asked * np.float32(STEP), axis=2)
    nearest = distances.argmin(axis=1)
    member = np.isin(list(shown), inside)
    named = [inside[row] == name for name, row in zip(shown, nearest.tolist(), strict=True) if name in set(inside)]
    near = -distances.min(axis=1)
    chance = (near - near.min()) / np.ptp(near)
    told = metrics.score_repeats(member.astype(np.int64), [np.stack([1 - chance, chance], axis=1)])["auroc_ovr"]
    print(f"{len(inside)} training people, {PEOPLE - len(inside)} others, one slice of each that no fit had")
    print(f"named       {sum(named)} of {len(named)} training people")
    print(f"membership  AUROC {told.value:.3f} [{told.low:.2f}, {told.high:.2f}]")


if __name__ == "__main__":
    main()
