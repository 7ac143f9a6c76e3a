"""Out-of-distribution detection: slices unlike the training slices are refused.

A slice's coarse anatomy (32×32 pixels less their surroundings) is correlated with the centroids of clusters of
training slices, at most one for each level; its out-of-distribution score is 1 minus the largest correlation. On
registered heads, as these are, that score separates brain slices from everything else: other pictures, other
planes, species and contrasts, heads with skull (`benchmarks/refusal.py`). Of the whole brain's levels a single
picture that lies upside down can pass (``docs/explanation/levels.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.levels import PUBLIC
from brainstage.datasets.signatures import coarse_anatomy, unit
from brainstage.models.folder import DETECTOR

FILE = DETECTOR
MAX_CLUSTERS = PUBLIC.count
"""Most clusters of training slices: one for each level."""
SLICES_A_CLUSTER = 50
"""Fewest training slices of a cluster, on average."""
MAX_TRAINING_SLICES = 2000
"""Most training slices that the centroids are fitted to, where their clusters need no more."""
ANGLE_MARGIN = 1.3
"""Largest accepted angle to the nearest centroid, as a multiple of that of 99 % of the training slices.

Chosen between the angles of scikit-image's pictures, drawn shapes and text, and those of training slices.
"""

TURNS: dict[str, Callable[[Pixels], Pixels]] = {
    "flip it top to bottom": lambda image: image[::-1],
    "turn it by 180 degrees": lambda image: image[::-1, ::-1],
    "turn it by 90 degrees to the left": lambda image: np.rot90(image),
    "turn it by 90 degrees to the right": lambda image: np.rot90(image, -1),
}
"""How a slice of another orientation is brought to that of the training slices."""
HEAD_SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the picture that a head is scaled to, in search of the size that it should have."""
MAX_EXPLAINED_SIDE = 512
"""Longest side, in pixels, of a picture whose refusal is explained: the frame of a long strip is huge."""


class OutOfDistributionDetector:
    """Compares pictures with the training slices.

    Attributes:
        threshold: Largest out-of-distribution score that is accepted.
    """

    def __init__(self, centroids: Float32Array, threshold: float) -> None:
        """Take the clusters' centroids, float32 of shape (clusters, 1024), each of length 1, and the threshold."""
        self._centroids = centroids
        self.threshold = threshold

    @classmethod
    def fit(cls, images: Sequence[Pixels], max_clusters: int = MAX_CLUSTERS) -> OutOfDistributionDetector:
        """Fit to training slices, each uint8 of shape (H, W); a random sample of many.

        Args:
            images: The slices.
            max_clusters: Most clusters: the number of levels.
        """
        from sklearn.cluster import KMeans  # takes a second to import, and prediction does not need it

        most = max(MAX_TRAINING_SLICES, SLICES_A_CLUSTER * max_clusters)
        chosen = np.random.default_rng(0).permutation(len(images))[:most]
        rows = coarse_anatomy([images[row] for row in chosen])
        clusters = int(np.clip(len(rows) // SLICES_A_CLUSTER, 1, max_clusters))
        centroids = unit(KMeans(clusters, random_state=0).fit(rows).cluster_centers_.astype(np.float32))
        angle = np.arccos(np.clip(np.quantile((rows @ centroids.T).max(axis=1), 0.01), -1, 1))
        return cls(centroids, 1 - float(np.cos(min(angle * ANGLE_MARGIN, np.pi / 2))))

    def score(self, images: Sequence[Pixels]) -> Float32Array:
        """Return the out-of-distribution score of each picture, from 0 to 2, float32 of shape (n,)."""
        scores: Float32Array = 1 - (coarse_anatomy(images) @ self._centroids.T).max(axis=1)
        return scores

    def refusals(self, images: Sequence[Pixels]) -> list[str | None]:
        """Return for each picture why it is refused; None where it may be staged."""
        if not len(images):
            return []
        return [
            None if score <= self.threshold else self._reason(image, float(score))
            for image, score in zip(images, self.score(images), strict=True)
        ]

    def _reason(self, image: Pixels, score: float) -> str:
        if np.ptp(image) == 0:
            return "shows nothing, all its pixels have the same value"
        image = _reduced(image)
        turned = self.score([turn(image) for turn in TURNS.values()])
        if turned.min() <= self.threshold:
            turn = list(TURNS)[turned.argmin()]
            return f"is oriented differently from the slices that the model was trained on; {turn}"
        if self.score([_framed(image, share) for share in HEAD_SHARES]).min() <= self.threshold:
            return (
                "shows the head at another size or place than the slices that the model was trained on; crop it or "
                "pad it to match them"
            )
        return (
            "does not look like the slices that the model was trained on (its out-of-distribution score is "
            f"{score:.2f}, expected {self.threshold:.2f} or less)"
        )

    def save(self, folder: Path) -> None:
        """Write ``out_of_distribution.safetensors`` into a folder."""
        tensors = {"centroids": self._centroids.astype(np.float16)}
        save_file(tensors, folder / FILE, {"threshold": f"{self.threshold:.4f}"})

    @classmethod
    def open(cls, folder: Path) -> OutOfDistributionDetector | None:
        """Read what :meth:`save` wrote into a folder; None where a model has no such file.

        Raises:
            OSError, ValueError, SafetensorError: The file is damaged or does not fit.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        with safe_open(file, "numpy") as tensors:
            centroids = tensors.get_tensor("centroids")
            threshold = float((tensors.metadata() or {}).get("threshold", "nan"))
        if centroids.ndim != 2 or centroids.shape[1] != len(coarse_anatomy([np.zeros((2, 2), np.uint8)])[0]):
            raise ValueError(f"{FILE}: centroids of shape {centroids.shape}")
        if not 0 <= threshold <= 2:
            raise ValueError(f"{FILE}: no usable threshold")
        return cls(centroids.astype(np.float32), threshold)


def _reduced(image: Pixels) -> Pixels:
    """Return a picture whose longer side has at most :data:`MAX_EXPLAINED_SIDE` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_EXPLAINED_SIDE, MAX_EXPLAINED_SIDE))
    return np.asarray(picture)


def _framed(image: Pixels, share: float) -> Pixels:
    """Return the head alone, in the middle of a square picture of which it fills a share."""
    rows, columns = np.nonzero(image >= 0.1 * image.max())
    head = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = round(max(head.shape) / share)
    square = Image.new("L", (side, side))
    square.paste(Image.fromarray(head), ((side - head.shape[1]) // 2, (side - head.shape[0]) // 2))
    return np.asarray(square)
