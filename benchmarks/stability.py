"""Claim: a prediction survives another scanner, as far as simulated acquisitions can say.

    python benchmarks/stability.py [--networks]

Everyone of the public dataset is predicted out of fold (five folds over people): first as they are, then with all
of their slices changed in the same way. ``before`` is the patient model fitted to people as they are and looking at
a scan as it is, ``after`` the recipe, which is fitted to random acquisitions and looks at five. ``--networks`` adds
the network ``compact``, trained with and without acquisitions (half an hour). ``volumes.py`` brings the same people
in as tilted volumes.

AUROC is that of any dementia. P(Non): mean, and mean absolute change by the acquisition. Kept: share of people
whose most probable stage, or whose answer to whether they have any dementia, stays. Covered: share of people whose
stage is in their 90 % set. The changes below the line are outside the family that models are fitted to; nothing was
tuned on them.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform
from sklearn.metrics import roc_auc_score

from brainstage.core.arrays import BoolArray, Float64Array, IntArray, Pixels
from brainstage.core.parallel import parallel_map
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Splits, make_splits
from brainstage.datasets.table import SliceTable
from brainstage.inference.classifiers import Prediction
from brainstage.inference.predictor import Predictor
from brainstage.models.acquisitions import Acquisition
from brainstage.models.histograms import white_matter
from brainstage.models.patient_features import patient_features
from brainstage.models.patient_model import PREDICTION_SEEDS
from brainstage.models.recipes import load_recipe
from brainstage.stats.calibration import in_set
from brainstage.training.cross_validation import cross_validate
from brainstage.training.patient import ACQUISITIONS, fit_patient_model

Change = Callable[[Pixels], Pixels]
Asked = Callable[[int, list[Pixels], list[str | None], list[int | None]], Prediction]
"""From the number of a fold, slices, their people and their levels to predictions."""


def within_family() -> dict[str, Change]:
    """Return changes of the kind that models are fitted to, one at a time."""
    return {
        "none": lambda image: image,
        "Rician noise 2 %": Acquisition(noise=0.02).apply,
        "Rician noise 5 %": Acquisition(noise=0.05).apply,
        "blur by 1 pixel": Acquisition(blur=1).apply,
        "gamma 1.2": Acquisition(gamma=1.2).apply,
        "gamma 0.8": Acquisition(gamma=0.8).apply,
        "shift down by 2 pixels": Acquisition(shift=(2, 0)).apply,
        "shift right by 2 pixels": Acquisition(shift=(0, 2)).apply,
        "turn by 3 degrees": Acquisition(turn=3).apply,
        "zoom 1.05": Acquisition(zoom=1.05).apply,
        "zoom 0.95": Acquisition(zoom=0.95).apply,
    }


def outside_family() -> dict[str, Change]:
    """Return changes of other kinds."""
    return {
        "noise 3 %, around the head too": partial(noisy_everywhere, share=0.03),
        "wider by 5 %, lower by 5 %": anisotropic,
        "ghost of 10 % at half the field": ghosted,
        "JPEG of quality 30": compressed,
        "zoom 1.1": Acquisition(zoom=1.1).apply,
    }


def noisy_everywhere(image: Pixels, share: float) -> Pixels:
    """Add Rician noise, as a share of white matter, to the whole picture, outside of the head too."""
    rng = np.random.default_rng(int(image.sum()))
    real, imaginary = rng.normal(0, share * white_matter(image), (2, *image.shape))
    return np.hypot(image + real, imaginary).round().clip(0, 255).astype(np.uint8)


def anisotropic(image: Pixels) -> Pixels:
    """Make the head wider and lower."""
    middle = (np.array(image.shape) - 1) / 2
    scale = np.array([1 / 0.95, 1 / 1.05])
    moved = affine_transform(image.astype(np.float32), np.diag(scale), middle - scale * middle, order=1)
    return moved.round().astype(np.uint8)


def ghosted(image: Pixels) -> Pixels:
    """Add a faint copy, half a field of view away, as motion in the phase direction does."""
    ghost = np.roll(image, image.shape[0] // 2, axis=0).astype(np.float32)
    return (image + 0.1 * ghost).round().clip(0, 255).astype(np.uint8)


def compressed(image: Pixels) -> Pixels:
    """Save as a JPEG of low quality."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=30)
    return np.asarray(Image.open(stream))


@dataclass
class Everyone:
    """The predictions of all people out of fold."""

    probabilities: Float64Array
    covered: BoolArray | None


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", action="store_true", help="add the network, half an hour")
    arguments = parser.parse_args()
    slices = load_slices()
    splits = make_splits(slices, load_recipe("patient", repeats=1))
    print(f"protocol patient · {splits.verdict} · {len(set(slices.patients))} people, five folds")
    for name, acquisitions, seeds in (
        ("before", 0, PREDICTION_SEEDS[:1]),
        ("after", ACQUISITIONS, PREDICTION_SEEDS),
    ):
        show_table(f"patient, {name}", slices, splits, ask_patient_model(slices, splits, acquisitions, seeds))
    if arguments.networks:
        for augment in ("none", "acquisitions"):
            with tempfile.TemporaryDirectory() as folder:
                config = load_recipe("compact", augment=augment)
                run = cross_validate(slices, config, name="folds", out=folder, splits=splits)
                show_table(f"compact, augment {augment}", slices, splits, ask_network(run.folds))


def ask_patient_model(slices: SliceTable, splits: Splits, acquisitions: int, seeds: Sequence[int | None]) -> Asked:
    """Return how patient models of each fold predict.

    Args:
        slices: The data.
        splits: The folds.
        acquisitions: Random acquisitions of each training person.
        seeds: Acquisitions in which a scan is looked at.
    """
    models = [fit_patient_model(slices, fold, acquisitions=acquisitions) for fold in splits.folds]

    def ask(fold: int, images: list[Pixels], people: list[str | None], levels: list[int | None]) -> Prediction:
        found = models[fold].predict(patient_features(images, seeds), people, levels)
        return Prediction(found.probabilities, found.conformal_threshold)

    return ask


def ask_network(folds: Path) -> Asked:
    """Return how the networks of a cross-validation's folds predict."""
    predictors = [Predictor.open(folder) for folder in sorted(folds.glob("[0-9]*"))]

    def ask(fold: int, images: list[Pixels], people: list[str | None], levels: list[int | None]) -> Prediction:
        predictor = predictors[fold]
        return predictor.predict_features(predictor.extract_features(images), people, levels)

    return ask


def show_table(title: str, slices: SliceTable, splits: Splits, ask: Asked) -> None:
    """Print a row for each change."""
    print(f"\n{title}\n{'':32} AUROC  P(Non)  change  kept of 4  kept of 2  covered")
    people = sorted({str(patient) for patient in slices.patients})
    stage_of = {str(slices.patients[row]): slices.targets([row])[0] for row in range(len(slices))}
    stages = np.array([stage_of[person] for person in people])
    plain = predict_everyone(slices, splits, ask, lambda image: image, people, stages)
    for family in (within_family(), outside_family()):
        for name, change in family.items():
            found = plain if name == "none" else predict_everyone(slices, splits, ask, change, people, stages)
            show_row(name, found, plain, stages)
        print(f"{'':32} {'-' * 54}")


def predict_everyone(
    slices: SliceTable, splits: Splits, ask: Asked, change: Change, people: list[str], stages: IntArray
) -> Everyone:
    """Predict all people from changed slices, each by the model of the fold that they are tested in."""
    number = {person: index for index, person in enumerate(people)}
    probabilities, thresholds = np.zeros((len(people), len(slices.classes))), np.full(len(people), np.nan)
    levels = slices.rows["slice_index"].to_pylist()
    for fold, sides in enumerate(splits.folds):
        rows = [slices.row_of[slice_id] for slice_id in sides.test]
        owners = [slices.patients[row] for row in rows]
        images = parallel_map(change, [slices.images[row] for row in rows])
        found = ask(fold, images, owners, [levels[row] for row in rows])
        places = np.array([number[str(owner)] for owner in owners])
        probabilities[places] = found.probabilities
        if found.conformal_threshold is not None:
            thresholds[places] = found.conformal_threshold
    if np.isnan(thresholds).any():
        return Everyone(probabilities, None)
    return Everyone(probabilities, in_set(probabilities, thresholds, ordered=True)[np.arange(len(people)), stages])


def show_row(name: str, found: Everyone, plain: Everyone, stages: NDArray[np.int64]) -> None:
    """Print what a change does."""
    non, before = found.probabilities[:, 0], plain.probabilities[:, 0]
    kept = (found.probabilities.argmax(axis=1) == plain.probabilities.argmax(axis=1)).mean()
    answer = ((non > 0.5) == (before > 0.5)).mean()
    covered = "" if found.covered is None else f"{found.covered.mean():.3f}"
    print(
        f"{name:32} {roc_auc_score(stages > 0, 1 - non):.3f}  {non.mean():6.2f}  "
        f"{np.abs(non - before).mean():6.3f}  {kept:9.3f}  {answer:9.3f}  {covered:>7}",
        flush=True,
    )


if __name__ == "__main__":
    main()
