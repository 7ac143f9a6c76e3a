"""Duplicates of one picture: exact, or re-encoded, resized, flipped, turned, zoomed, brightened.

Every slice is brought to a pose of its own (centre, axes and size of the head), so that a turned, moved or zoomed
duplicate lies on its original; the nearest neighbours among the posed slices and their flips are the candidates. A
candidate is then judged by its tangent distance (Simard, LeCun and Denker 1993, NIPS 5, 50): how much of it the
other slice cannot explain together with small moves, turns, zooms, blurs and changes of tone.

The threshold is measured on the data: some slices are duplicated in each of these ways, and the threshold is the
one that recovers these duplicates.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA

from brainstage.core.arrays import Float16Array, Float32Array, Float64Array, IntArray, Pixels
from brainstage.core.errors import ConfigError
from brainstage.core.parallel import parallel_map
from brainstage.datasets.neighbours import Neighbours
from brainstage.datasets.signatures import blocks, relief, square, unit
from brainstage.datasets.table import slice_id

ALTERATIONS = ("re-encoded", "resized", "flipped", "turned", "brightened")
"""How slices are altered to measure the threshold, as in augmented copies of the public dataset."""
ALLOWED_MISS_RATE = 0.0075
"""Share of the duplicates made for measuring that the threshold may miss."""
_POSE_SIDE = 64
_SURROUNDINGS = 13
_CANDIDATES = 4
_COMPONENTS = 128
_FLIPS = 4
_BLOCK_ROWS = 200
_SAMPLED_ORIGINALS = 200


def find_duplicates(images: Sequence[Pixels]) -> IntArray:
    """Find slices that show the same picture, whether its pixels are equal or were altered.

    Args:
        images: Grey slices, each uint8 of shape (H, W).

    Returns:
        For each slice the row of the first slice that shows the same picture, which is its own row where no
        earlier slice does; shape (n,).
    """
    exact = find_exact_duplicates(images)
    # a blank shows no picture
    rows = np.array([row for row in np.unique(exact) if np.ptp(images[row])], dtype=np.int64)
    shown = exact.copy()
    shown[rows] = rows[_first_of_group(_altered_groups([images[row] for row in rows]))]
    duplicate_of: IntArray = shown[exact]
    return duplicate_of


def find_exact_duplicates(images: Sequence[Pixels]) -> IntArray:
    """Return for each slice, uint8 of shape (H, W), the row of the first slice with the same pixels; shape (n,)."""
    first: dict[str, int] = {}
    rows = [first.setdefault(f"{image.shape} {slice_id(image)}", row) for row, image in enumerate(images)]
    return np.array(rows, dtype=np.int64)


def _altered_groups(images: list[Pixels]) -> IntArray:
    """Group slices with different pixels that show the same picture; returns the number of each slice's group.

    A picture with many duplicates may fall into several groups, each slice's candidates all being of its own; so
    large groups are compared again with the slices of other groups until none grows.
    """
    groups = np.arange(len(images))
    if len(images) <= _CANDIDATES:
        return groups
    posed = pose(images)
    index = _PosedIndex(posed)
    threshold = _threshold(images, index)
    rows = groups
    while len(rows):
        candidates, flip = index.candidates(rows, groups)
        left, column = np.nonzero(index.similarity(posed[rows], candidates, flip) >= threshold)
        joined = _connected(groups, groups[rows[left]], groups[candidates[left, column]])
        grown = np.unique(joined[rows[left]])
        rows = np.flatnonzero(np.isin(joined, grown) & (np.bincount(joined)[joined] > _CANDIDATES))
        groups = joined
    return groups


def _threshold(images: list[Pixels], index: _PosedIndex) -> float:
    """Return the similarity above which slices are duplicates, measured on duplicates made for it."""
    duplicates, originals = _sample_duplicates(images)
    flips = np.tile(np.arange(_FLIPS), (len(duplicates), 1))
    similarity = index.similarity(pose(duplicates), np.repeat(originals[:, None], _FLIPS, axis=1), flips)
    return float(np.quantile(similarity.max(axis=1), ALLOWED_MISS_RATE))


def _connected(groups: IntArray, left: IntArray, right: IntArray) -> IntArray:
    """Join pairs of groups; returns the new group of each slice."""
    count = groups.max() + 1
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    _, joined = connected_components(graph, directed=False)
    connected: IntArray = joined[groups].astype(np.int64)
    return connected


def _first_of_group(groups: IntArray) -> IntArray:
    """Return the first row of each row's group."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    rows: IntArray = first[group]
    return rows


def pose(images: Sequence[Pixels]) -> Float16Array:
    """Bring slices to a pose of their own: head in the middle, long axis upright, one size.

    Returns:
        Grey values above the background's with a root mean square of 1; float16 (to halve its memory) of shape
        (n, 64, 64).
    """
    posed = np.empty((len(images), _POSE_SIDE, _POSE_SIDE), dtype=np.float16)

    def fill(rows: slice) -> None:
        posed[rows] = _pose(images[rows])

    parallel_map(fill, blocks(len(images), _BLOCK_ROWS))
    return posed


def _pose(images: Sequence[Pixels]) -> Float16Array:
    pictures = square(images)
    pictures = np.maximum(pictures - np.percentile(pictures, 5, axis=(1, 2), keepdims=True), 0)
    pictures /= np.maximum(np.sqrt(np.square(pictures).mean(axis=(1, 2), keepdims=True)), 1e-6)
    posed = np.empty((len(pictures), _POSE_SIDE, _POSE_SIDE), dtype=np.float16)
    for row, (picture, centre, turn, size) in enumerate(zip(pictures, *_axes(pictures), strict=True)):
        cosine, sine = np.cos(turn), np.sin(turn)
        matrix = np.array([[cosine, -sine], [sine, cosine]]) * size / (0.55 * _POSE_SIDE)
        offset = centre - matrix @ np.full(2, (_POSE_SIDE - 1) / 2)
        posed[row] = affine_transform(picture, matrix, offset, output_shape=posed.shape[1:], order=1)
    return posed


def _axes(pictures: Float32Array) -> tuple[Float64Array, Float64Array, Float64Array]:
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


class _PosedIndex:
    """Posed slices that are searched for duplicates of each other."""

    def __init__(self, posed: Float16Array) -> None:
        """Compute what is searched: principal components in each flip, and smoothed pictures to compare with."""
        count = len(posed)
        sample = np.random.default_rng(0).permutation(count)[:10_000]
        pca = PCA(min(_COMPONENTS, len(sample) - 1), svd_solver="randomized", iterated_power=1, random_state=0)
        pca.fit(np.concatenate(parallel_map(lambda rows: _relief(posed[sample[rows]]), blocks(len(sample), 1000))))
        # flipping the components instead of the slices is the same, and done once
        axes = np.concatenate([_flipped(_as_pictures(pca.components_), flip) for flip in range(_FLIPS)])
        axes, shift = axes.reshape(len(axes), -1).T, pca.mean_ @ pca.components_.T
        self._components = np.empty((_FLIPS, count, len(shift)), dtype=np.float32)
        self._smooth = np.empty((count, _POSE_SIDE**2), dtype=np.float16)

        def fill(rows: slice) -> None:
            components = (_relief(posed[rows]) @ axes).reshape(-1, _FLIPS, len(shift)) - shift
            for flip in range(_FLIPS):
                self._components[flip, rows] = unit(components[:, flip])
            self._smooth[rows] = unit(_relief(gaussian_filter(posed[rows].astype(np.float32), (0, 1, 1))))

        parallel_map(fill, blocks(count, _BLOCK_ROWS))
        self._neighbours = Neighbours(self._components[0])

    def candidates(self, rows: IntArray, groups: IntArray) -> tuple[IntArray, IntArray]:
        """Return the most similar slices of other groups, and the flip that they are similar in.

        Args:
            rows: Slices to find candidates for, shape (n,).
            groups: Group of every slice of the index.

        Returns:
            Rows of the index and flips, 0 to 3, both of shape (n, candidates).
        """
        count = min(_CANDIDATES, len(groups) - 1)
        parts = [
            self._neighbours.search(flipped[rows], count, groups=(groups[rows], groups))
            for flipped in self._components
        ]
        candidates, similarity = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(candidates, best, axis=1), best // count

    def similarity(self, queries: Float16Array, rows: IntArray, flip: IntArray) -> Float32Array:
        """Return the tangent similarity of posed slices to some rows of the index.

        Args:
            queries: Posed slices, shape (n, 64, 64).
            rows: Rows of the index to compare each query with, shape (n, m).
            flip: Flip of each of these rows, 0 to 3, shape (n, m).

        Returns:
            From 0 to 1, shape (n, m).
        """
        parts = parallel_map(
            lambda part: self._similarity(queries[part].astype(np.float32), rows[part], flip[part]),
            blocks(len(queries), _BLOCK_ROWS),
        )
        return np.concatenate(parts)

    def _similarity(self, queries: Float32Array, rows: IntArray, flip: IntArray) -> Float32Array:
        pictures = _as_pictures(self._smooth[rows].astype(np.float32))
        for number in range(1, _FLIPS):
            pictures[flip == number] = _flipped(pictures[flip == number], number)
        plane = _tangent_plane(queries)
        shadows = plane @ np.swapaxes(pictures.reshape(*rows.shape, -1), 1, 2)  # (n, 8, m)
        gram = plane @ np.swapaxes(plane, 1, 2) + 1e-6 * np.eye(plane.shape[1], dtype=np.float32)
        explained = (shadows * np.linalg.solve(gram, shadows)).sum(axis=1)
        similarity: Float32Array = np.sqrt(np.maximum(explained, 0))
        return similarity


def _relief(posed: Float32Array | Float16Array) -> Float32Array:
    return relief(posed.astype(np.float32, copy=False), _SURROUNDINGS)


def _as_pictures(rows: Float32Array) -> Float32Array:
    return rows.reshape(*rows.shape[:-1], _POSE_SIDE, _POSE_SIDE)


def _flipped(posed: Float32Array, flip: int) -> Float32Array:
    """Flip slices: 1 left to right, 2 upside down, 3 both; a long axis stands upright in two ways."""
    return posed[:, :: -1 if flip & 2 else 1, :: -1 if flip & 1 else 1]


def _tangent_plane(posed: Float32Array) -> Float32Array:
    """Return what each slice can become by small changes, as vectors of length 1, (n, 8, 4096).

    The slice itself, moves down and right, turn, zoom, blur, and two changes of tone.
    """
    smooth = gaussian_filter(posed, (0, 1, 1))
    down, right = np.gradient(smooth, axis=1), np.gradient(smooth, axis=2)
    y, x = (np.mgrid[:_POSE_SIDE, :_POSE_SIDE] - (_POSE_SIDE - 1) / 2).astype(np.float32)
    blur = np.gradient(down, axis=1) + np.gradient(right, axis=2)
    changes = [smooth, down, right, y * right - x * down, y * down + x * right, blur, smooth**2, smooth**3]
    return np.stack([unit(_relief(change)) for change in changes], axis=1)


# --- duplicates made for measuring ------------------------------------------------------------------------------


def _sample_duplicates(images: Sequence[Pixels]) -> tuple[list[Pixels], IntArray]:
    """Duplicate a sample of slices in every way; also returns the row of each duplicate's original."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(images))[:_SAMPLED_ORIGINALS]
    duplicates = [alter_slice(images[row], alteration, rng) for row in rows for alteration in ALTERATIONS]
    return duplicates, np.repeat(rows, len(ALTERATIONS))


def alter_slice(image: Pixels, alteration: str, rng: np.random.Generator) -> Pixels:
    """Make a duplicate as augmented copies of the public dataset hold them.

    Args:
        image: Grey slice, uint8 of shape (H, W).
        alteration: ``re-encoded`` (JPEG quality 50 to 95), ``resized`` (half to twice the side), ``flipped``
            (left to right), ``turned`` (2 to 10 degrees) or ``brightened`` (0.6 to 1.4 times).
        rng: Generator that the amount is drawn from.

    Returns:
        The duplicate, uint8.

    Raises:
        ConfigError: The alteration is not known.
    """
    picture = Image.fromarray(image)
    if alteration == "re-encoded":
        stream = io.BytesIO()
        picture.save(stream, format="JPEG", quality=int(rng.integers(50, 96)))
        picture = Image.open(stream)
    elif alteration == "resized":
        scale = 2 ** rng.uniform(-1, 1)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    elif alteration == "flipped":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif alteration == "turned":
        picture = picture.rotate(rng.uniform(2, 10) * rng.choice([-1, 1]), Image.Resampling.BILINEAR)
    elif alteration == "brightened":
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.6, 1.4))
    else:
        raise ConfigError(f"{alteration}: not a known alteration; expected one of {', '.join(ALTERATIONS)}")
    return np.asarray(picture)
