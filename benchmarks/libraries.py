"""Claim: what we wrote ourselves does better here than the library that could have done it, or the same in less.

    python benchmarks/libraries.py

Three pieces, each on one task: duplicates against ImageHash, conformal thresholds against MAPIE, the ordinal model
against statsmodels. Registration against SimpleITK is in ``benchmarks/volumes.py``, Muon against AdamW in
``benchmarks/tune.py``. The real dataset is read (BRAINSTAGE_DATA); one run, one machine.
"""

from __future__ import annotations

import time
import warnings

import imagehash
import numpy as np
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from statsmodels.miscmodels.ordinal_model import OrderedModel

from brainstage.audits.duplicates import ALTERATIONS, alter_slice, find_duplicates
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable
from brainstage.stats.calibration import COVERAGE, conformal_threshold
from brainstage.stats.ordinal import ProportionalOdds

Reals = NDArray[np.float64]


def main() -> None:
    """Print a line for each piece and each library."""
    compare_duplicates(load_slices())
    compare_conformal()
    compare_ordinal()


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
