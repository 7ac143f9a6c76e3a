"""Copies of one picture: exact, or re-encoded, resized, flipped, turned, zoomed, brightened.

Every slice is brought to a pose of its own (centre, axes and size of the head), so that a turned, moved or zoomed
copy comes to lie on its original; nearest neighbours among the posed slices and their flips are the candidates. A
candidate is then judged by its tangent distance (Simard, LeCun and Denker 1993, NIPS 5, 50): how much of it the
other slice cannot explain together with small moves, turns, zooms, blurs and changes of tone.

How small is small enough is measured on the data: some slices are copied in every one of these ways, and the
threshold is the one that finds them again.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA

from brainstage.core.errors import ConfigError
from brainstage.datasets.signatures import Floats, nearest, relief, square, unit
from brainstage.datasets.table import slice_id

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

MISSED = 0.0075
"""Share of the copies made for measuring that the threshold may miss."""
_POSED = 64
_CANDIDATES = 4
WAYS = ("re-encoded", "resized", "flipped", "turned", "brightened")
"""What is done to the copies made for measuring, as in the augmented versions of the public dataset."""
_CHUNK = 200
_PLANTED = 200


def find_copies(images: Sequence[Pixels]) -> Ints:
    """Number the pictures that slices show, so that copies of one picture have one number.

    Args:
        images: Grey slices, each uint8 of shape (H, W).

    Returns:
        For each slice the row of the first slice that shows the same picture, its own where there is none
        before; shape (n,).
    """
    first: dict[str, int] = {}
    exact = np.array(
        [first.setdefault(f"{image.shape} {slice_id(image)}", row) for row, image in enumerate(images)]
    )
    # a blank shows no picture
    rows = np.array([row for row in np.unique(exact) if np.ptp(images[row])], dtype=np.int64)
    one, other = _links([images[row] for row in rows])
    starts, ends = np.concatenate([np.arange(len(images)), rows[one]]), np.concatenate([exact, rows[other]])
    graph = coo_array((np.ones(len(starts)), (starts, ends)), shape=(len(images), len(images)))
    _, group = connected_components(graph, directed=False)
    _, lowest = np.unique(group, return_index=True)
    shown: Ints = lowest[group]
    return shown


def _links(images: list[Pixels]) -> tuple[Ints, Ints]:
    """Return pairs of different pictures that are copies of each other."""
    if len(images) <= _CANDIDATES:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    posed = pose(images)
    index = _Index(posed)
    planted, originals = _plant(images)
    flips = np.tile(np.arange(4), (len(planted), 1))
    seen_again = index.likeness(pose(planted), np.repeat(originals[:, None], 4, axis=1), flips).max(axis=1)
    found, flip = index.search(posed)
    one, column = np.nonzero(index.likeness(posed, found, flip) >= np.quantile(seen_again, MISSED))
    return one, found[one, column]


def pose(images: Sequence[Pixels]) -> Floats:
    """Bring slices to their own pose: head in the middle, long axis upright, one size; (n, 64, 64).

    Grey values are above the background's, with a root mean square of 1.
    """
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(_pose, chunks)))


def _pose(images: Sequence[Pixels]) -> Floats:
    pictures = square(images)
    pictures = np.maximum(pictures - np.percentile(pictures, 5, axis=(1, 2), keepdims=True), 0)
    pictures /= np.maximum(np.sqrt(np.square(pictures).mean(axis=(1, 2), keepdims=True)), 1e-6)
    posed = np.empty((len(pictures), _POSED, _POSED), dtype=np.float32)
    for row, (picture, centre, turn, size) in enumerate(zip(pictures, *_axes(pictures), strict=True)):
        cosine, sine = np.cos(turn), np.sin(turn)
        matrix = np.array([[cosine, -sine], [sine, cosine]]) * size / (0.55 * _POSED)
        offset = centre - matrix @ np.full(2, (_POSED - 1) / 2)
        posed[row] = affine_transform(picture, matrix, offset, output_shape=(_POSED, _POSED), order=1)
    return posed


def _axes(pictures: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return centre (row, column), turn of the long axis in radians, and size in pixels of each head.

    They come from the moments of the head's outline, softened, so that noise around the threshold counts little.
    """
    count, side, _ = pictures.shape
    y, x = (np.mgrid[:side, :side].reshape(2, -1) - (side - 1) / 2).astype(np.float32)
    moments = (
        np.minimum(pictures.reshape(count, -1) * 2, 1) @ np.stack([np.ones_like(y), y, x, y * y, x * x, y * x]).T
    )
    _, y, x, yy, xx, yx = moments.T.astype(np.float64) / np.maximum(moments[:, 0], 1e-6)
    yy, xx, yx = yy - y * y, xx - x * x, yx - y * x
    size = 3.5 * np.maximum(yy * xx - yx * yx, 1e-6) ** 0.25
    return np.stack([y, x], axis=1) + (side - 1) / 2, 0.5 * np.arctan2(2 * yx, yy - xx), size


class _Index:
    """Posed slices, to be searched for copies."""

    def __init__(self, posed: Floats) -> None:
        rows = relief(posed, 13)
        sample = np.random.default_rng(0).permutation(len(rows))[:10_000]
        count = min(128, len(sample) - 1)
        self._pca = PCA(count, svd_solver="randomized", iterated_power=1, random_state=0).fit(rows[sample])
        self._keys = unit(self._pca.transform(rows))
        self._rows = unit(relief(gaussian_filter(posed, (0, 1, 1)), 13))

    def search(self, queries: Floats) -> tuple[Ints, Ints]:
        """Return the other slices that are most like each of the index's own, and the flip that they are like in.

        Both have shape (n, candidates).
        """
        count = min(_CANDIDATES, len(self._keys) - 1)
        parts = [
            nearest(unit(self._pca.transform(relief(_flipped(queries, flip), 13))), self._keys, count, same=True)
            for flip in range(4)
        ]
        found, similarity = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(found, best, axis=1), best // count

    def likeness(self, queries: Floats, found: Ints, flip: Ints) -> Floats:
        """Return the tangent likeness, from 0 to 1, of each query to some rows, each in one flip; all (n, m)."""
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(queries), _CHUNK)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = pool.map(lambda rows: self._likeness(queries[rows], found[rows], flip[rows]), chunks)
            return np.concatenate(list(parts))

    def _likeness(self, queries: Floats, found: Ints, flip: Ints) -> Floats:
        pictures = self._rows[found].reshape(*found.shape, _POSED, _POSED)
        for one in range(1, 4):
            pictures[flip == one] = _flipped(pictures[flip == one], one)
        plane = _tangent_plane(queries)
        shadows = plane @ np.swapaxes(pictures.reshape(*found.shape, -1), 1, 2)  # (n, 8, m)
        gram = plane @ np.swapaxes(plane, 1, 2) + 1e-6 * np.eye(plane.shape[1], dtype=np.float32)
        explained = (shadows * np.linalg.solve(gram, shadows)).sum(axis=1)
        likeness: Floats = np.sqrt(np.maximum(explained, 0))
        return likeness


def _flipped(posed: Floats, flip: int) -> Floats:
    """Flip slices: 1 left to right, 2 upside down, 3 both; a long axis stands upright in two ways."""
    return posed[:, :: -1 if flip & 2 else 1, :: -1 if flip & 1 else 1]


def _tangent_plane(posed: Floats) -> Floats:
    """Return what each slice can become by small changes, as vectors of length 1, (n, 8, 4096).

    The slice itself, moves down and right, turn, zoom, blur, and two changes of tone.
    """
    smooth = gaussian_filter(posed, (0, 1, 1))
    down, right = np.gradient(smooth, axis=1), np.gradient(smooth, axis=2)
    y, x = (np.mgrid[:_POSED, :_POSED] - (_POSED - 1) / 2).astype(np.float32)
    blur = np.gradient(down, axis=1) + np.gradient(right, axis=2)
    changes = [smooth, down, right, y * right - x * down, y * down + x * right, blur, smooth**2, smooth**3]
    return np.stack([unit(relief(change, 13)) for change in changes], axis=1)


# --- copies made for measuring ----------------------------------------------------------------------------------


def _plant(images: Sequence[Pixels]) -> tuple[list[Pixels], Ints]:
    """Copy a sample of slices in every way; also returns the row of each copy's original."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(images))[:_PLANTED]
    planted = [copy_slice(images[row], way, rng) for row in rows for way in WAYS]
    return planted, np.repeat(rows, len(WAYS))


def copy_slice(image: Pixels, way: str, rng: np.random.Generator) -> Pixels:
    """Make a copy as augmented versions of the public dataset hold them.

    Args:
        image: Grey slice, uint8 of shape (H, W).
        way: ``re-encoded`` (JPEG quality 50 to 95), ``resized`` (half to twice the side), ``flipped`` (left to
            right), ``turned`` (2 to 10 degrees) or ``brightened`` (0.6 to 1.4 times).
        rng: Where the amount is drawn from.

    Returns:
        The copy, uint8.

    Raises:
        ConfigError: The way is not known.
    """
    picture = Image.fromarray(image)
    if way == "re-encoded":
        stream = io.BytesIO()
        picture.save(stream, format="JPEG", quality=int(rng.integers(50, 96)))
        picture = Image.open(stream)
    elif way == "resized":
        scale = 2 ** rng.uniform(-1, 1)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    elif way == "flipped":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif way == "turned":
        picture = picture.rotate(rng.uniform(2, 10) * rng.choice([-1, 1]), Image.Resampling.BILINEAR)
    elif way == "brightened":
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.6, 1.4))
    else:
        raise ConfigError(f"{way}: not a way to copy a slice; expected one of {', '.join(WAYS)}")
    return np.asarray(picture)
