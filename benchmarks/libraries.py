"""Claim: what we wrote ourselves does better here than the library that could have done it, or the same in less.

    python benchmarks/libraries.py [--people 40]

Four pieces, each on one task: registration against SimpleITK, duplicates against ImageHash, conformal thresholds
against MAPIE, the ordinal model against statsmodels. Muon against AdamW is in ``benchmarks/tune.py``. The real
dataset is read (BRAINSTAGE_DATA); one run, one machine.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import imagehash
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users call it so
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation
from sklearn.base import BaseEstimator, ClassifierMixin
from statsmodels.miscmodels.ordinal_model import OrderedModel

from brainstage.audits.duplicates import ALTERATIONS, alter_slice, find_duplicates
from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable
from brainstage.scans.registration import mapped, mni152, register
from brainstage.scans.stack import TRAINING_GRID
from brainstage.scans.volume import Volume
from brainstage.stats.calibration import COVERAGE, conformal_threshold
from brainstage.stats.ordinal import ProportionalOdds

Reals = NDArray[np.float64]


def main() -> None:
    """Print a line for each piece and each library."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=40, help="people whose slices are registered")
    people = parser.parse_args().people
    slices = load_slices()
    compare_registration(slices, people)
    compare_duplicates(slices)
    compare_conformal()
    compare_ordinal()


# --- registration -------------------------------------------------------------------------------------------------


def compare_registration(slices: SliceTable, people: int) -> None:
    """Bring moved stacks of real slices back to MNI152; the dataset's own registration is the truth."""
    names = sorted({patient for patient in slices.patients if patient})[:people]
    moved = [_moved(slices, name, seed) for seed, name in enumerate(names)]
    ways: dict[str, Callable[[Volume], Reals]] = {
        "brainstage.register": lambda volume: register(volume).affine,
        "SimpleITK, affine, correlation": _sitk_affine,
    }
    for name, find in ways.items():
        start = time.perf_counter()
        errors = [_distance(find(volume), move) for volume, move in moved]
        seconds = (time.perf_counter() - start) / len(moved)
        print(
            f"registration  {name:32} median {np.median(errors):5.1f} mm  95 % within "
            f"{np.quantile(errors, 0.95):5.1f} mm  {seconds:.2f} s a volume",
            flush=True,
        )


def _moved(slices: SliceTable, name: str, seed: int) -> tuple[Volume, Reals]:
    """Return a person's slices with a header that turns, moves and scales them, and that map from MNI152."""
    rows = [row for row, patient in enumerate(slices.patients) if patient == name]
    rows.sort(key=lambda row: slices.rows["slice_index"][row].as_py())
    rng = np.random.default_rng(seed)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix()
    move[:3, :3] *= rng.uniform(0.92, 1.08, 3)
    move[:3, 3] = rng.uniform(-40, 40, 3)
    stack = np.stack([slices.images[row] for row in rows]).astype(np.float32)
    return Volume(stack, move @ TRAINING_GRID), move


def _distance(affine: Reals, move: Reals) -> float:
    """Return the mean distance in millimetres of two maps over the brain's part of the stack."""
    index = np.stack(np.meshgrid(np.arange(STACK_LEVELS), np.arange(16, 112), np.arange(16, 112), indexing="ij"))
    points = mapped(TRAINING_GRID, index.reshape(3, -1).astype(np.float64))
    return float(np.linalg.norm(mapped(affine, points) - mapped(move, points), axis=0).mean())


def _sitk_affine(volume: Volume) -> Reals:
    """Register by SimpleITK as its notebooks do: centred by moments, three resolutions, gradient descent."""
    fixed, moving = _image(mni152()), _image(volume)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsGradientDescentLineSearch(1.0, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([8, 4, 2])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    found = sitk.AffineTransform(method.Execute(fixed, moving).GetNthTransform(0))
    matrix = np.array(found.GetMatrix()).reshape(3, 3)
    centre = np.array(found.GetCenter())
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = np.array(found.GetTranslation()) + centre - matrix @ centre
    return affine


def _image(volume: Volume) -> sitk.Image:
    """Return a volume as SimpleITK's image in the same millimetres; a sheared affine loses its shear."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)))
    image.SetSpacing(volume.spacing.tolist())
    left, _, right = np.linalg.svd(volume.affine[:3, :3] / volume.spacing)
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    return image


# --- duplicates ---------------------------------------------------------------------------------------------------


def compare_duplicates(slices: SliceTable, originals: int = 1000) -> None:
    """Plant altered copies of real slices; a hash's threshold is the largest without a false pair."""
    rng = np.random.default_rng(12345)
    rows = rng.permutation(len(slices))[:originals]
    images = [slices.images[row] for row in rows]
    ways = np.arange(originals) % len(ALTERATIONS)
    planted = [alter_slice(image, ALTERATIONS[way], rng) for image, way in zip(images, ways, strict=True)]
    start = time.perf_counter()
    share = (find_duplicates([*images, *planted])[originals:] == np.arange(originals)).mean()
    print(
        f"duplicates    {'brainstage.find_duplicates':32} {share:6.1%} found  {time.perf_counter() - start:.1f} s"
    )
    for name in ("phash", "dhash", "whash"):
        hash_of = getattr(imagehash, name)
        start = time.perf_counter()
        one, other = (
            np.array([hash_of(Image.fromarray(image)).hash.ravel() for image in some]) for some in (images, planted)
        )
        among = (one[:, None] != one).sum(axis=2)
        np.fill_diagonal(among, 64)
        share = ((one != other).sum(axis=1) < among.min()).mean()
        print(
            f"duplicates    ImageHash {name:22} {share:6.1%} found  {time.perf_counter() - start:.1f} s", flush=True
        )


# --- conformal thresholds -----------------------------------------------------------------------------------------


class _Given(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its probabilities."""

    def __init__(self, classes: int = 4):
        self.classes = classes
        self.classes_ = np.arange(classes)
        self.is_fitted_ = True

    def fit(self, X: Reals, y: Reals) -> _Given:
        """Do nothing."""
        return self

    def predict_proba(self, X: Reals) -> Reals:
        """Return the features."""
        return X

    def predict(self, X: Reals) -> NDArray[np.int64]:
        """Return the likeliest class."""
        return X.argmax(axis=1)


def compare_conformal(draws: int = 50, people: int = 200) -> None:
    """Compare thresholds on simulated people: MAPIE's score is 1 less the probability of the true stage."""
    differences = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        probabilities = rng.dirichlet(np.ones(4), people)
        labels = np.array([rng.choice(4, p=row) for row in probabilities])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = SplitConformalClassifier(_Given(), COVERAGE, conformity_score="lac", prefit=True)
            other.conformalize(probabilities, labels)
            scores = other._mapie_classifier.conformity_scores_.ravel()
        rank = int(np.ceil((people + 1) * COVERAGE))
        theirs = 1 - np.sort(scores)[rank - 1]
        differences.append(abs(theirs - conformal_threshold(probabilities[np.arange(people), labels])))
    print(f"conformal     largest difference of the threshold from MAPIE's, {draws} draws: {max(differences):.1e}")


# --- ordinal model ------------------------------------------------------------------------------------------------


def compare_ordinal() -> None:
    """Fit stages of 200 people to one score by both."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [100, 70, 28, 2])
    scores = labels + rng.normal(0, 1.5, len(labels))
    start = time.perf_counter()
    ours = ProportionalOdds(scores, labels, 4).predict(scores)
    middle = time.perf_counter()
    theirs = OrderedModel(labels, scores[:, None], distr="logit").fit(method="bfgs", disp=False)
    end = time.perf_counter()
    difference = np.abs(ours - np.asarray(theirs.predict(scores[:, None]))).max()
    print(
        f"ordinal       brainstage {1000 * (middle - start):.0f} ms, statsmodels {1000 * (end - middle):.0f} ms, "
        f"largest difference of a probability {difference:.3f}"
    )


if __name__ == "__main__":
    main()
