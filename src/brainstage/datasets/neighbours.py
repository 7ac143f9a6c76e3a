"""Nearest rows by scalar product: exact among few rows, in cells among many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from brainstage.core.arrays import Float16Array, Float32Array, IntArray
from brainstage.core.parallel import parallel_map
from brainstage.datasets.signatures import BLOCK_ROWS, EXACT_LIMIT, blocks, unit

_CELL_ROWS = 200
_PROBES = 8
_SHORT_ROW = 128
_SHORTLIST = 8
_SEED = 0


class Neighbours:
    """Rows that are searched for those with the largest scalar product with a query.

    Up to :data:`EXACT_LIMIT` rows each query is compared with all of them. Above, k-means divides them into cells
    of some 200, and a query is compared with the rows of the eight cells whose centres are nearest (an inverted
    file: Sivic and Zisserman 2003, ICCV, 1470), so that the cost grows with the number of rows, not its square.
    """

    def __init__(self, keys: Float32Array, *, exact: bool = False) -> None:
        """Prepare a search.

        Args:
            keys: The rows to search, shape (m, d).
            exact: Compare each query with all rows, however many there are.
        """
        self._keys = keys
        self._centres: Float32Array | None = None
        if not exact and len(keys) > EXACT_LIMIT:
            self._centres = _cell_centres(keys)
            nearest_cell = self._probe(keys, 1)[:, 0]
            order = np.argsort(nearest_cell, kind="stable")
            self._cells = np.split(order, np.searchsorted(nearest_cell[order], np.arange(1, len(self._centres))))

    def search(
        self, queries: Float32Array, count: int, *, groups: tuple[IntArray, IntArray] | None = None
    ) -> tuple[IntArray, Float32Array]:
        """Find the keys with the largest scalar product with each query.

        Args:
            queries: Shape (n, d).
            count: Number of keys to find for each query, at most m.
            groups: Group of each query, shape (n,), and of each key, shape (m,); a key of the query's own group
                is never its neighbour.

        Returns:
            Row numbers of the keys, best first, int64, and their scalar products, float32; both of shape
            (n, count). Where fewer keys were available the last products are -inf.
        """
        if self._centres is None:
            parts = parallel_map(
                lambda rows: self._best(queries[rows], rows, slice(None), count, groups),
                blocks(len(queries), BLOCK_ROWS),
            )
            keys, products = zip(*parts, strict=True)
            return np.concatenate(keys), np.concatenate(products)
        return self._search_cells(queries, count, groups)

    def _search_cells(
        self, queries: Float32Array, count: int, groups: tuple[IntArray, IntArray] | None
    ) -> tuple[IntArray, Float32Array]:
        probed = self._probe(queries, _PROBES)
        order = np.argsort(probed, axis=None, kind="stable")
        visits = np.split(order, np.searchsorted(probed.ravel()[order], np.arange(1, len(self._cells))))
        keys = np.zeros((probed.size, count), dtype=np.int64)
        products = np.full((probed.size, count), -np.inf, dtype=np.float32)

        def search(number: int) -> None:
            cell, visit = self._cells[number], visits[number]
            best = min(count, len(cell))
            for part in blocks(len(visit) if best else 0, BLOCK_ROWS):
                rows = visit[part] // _PROBES
                keys[visit[part], :best], products[visit[part], :best] = self._best(
                    queries[rows], rows, cell, best, groups
                )

        parallel_map(search, range(len(self._cells)))
        column, products = largest(products.reshape(len(queries), -1), count)
        return np.take_along_axis(keys.reshape(len(queries), -1), column, axis=1), products

    def _best(
        self,
        queries: Float32Array,
        rows: IntArray | slice,
        cell: IntArray | slice,
        count: int,
        groups: tuple[IntArray, IntArray] | None,
    ) -> tuple[IntArray, Float32Array]:
        """Compare some queries with some keys; returns row numbers of all keys, and products."""
        products = queries @ self._keys[cell].T
        if groups:
            products[groups[0][rows][:, None] == groups[1][cell]] = -np.inf
        column, best = largest(products, count)
        return (column if isinstance(cell, slice) else cell[column]), best

    def _probe(self, rows: Float32Array, count: int) -> IntArray:
        """Return the numbers of the cells nearest to each row, shape (n, count)."""
        centres = self._centres
        assert centres is not None  # noqa: S101
        half_power = 0.5 * np.square(centres).sum(axis=1)
        parts = parallel_map(
            lambda part: largest(rows[part] @ centres.T - half_power, count)[0],
            blocks(len(rows), BLOCK_ROWS),
        )
        return np.concatenate(parts)


def _cell_centres(keys: Float32Array) -> Float32Array:
    """Return the centres of cells, shape (cells, d), from a sample of the keys."""
    sample = keys[np.random.default_rng(_SEED).permutation(len(keys))[:EXACT_LIMIT]]
    means = KMeans(len(keys) // _CELL_ROWS, init="random", n_init=1, max_iter=10, random_state=_SEED).fit(sample)
    centres: Float32Array = means.cluster_centers_
    return centres


def nearest(
    queries: Float32Array, keys: Float32Array, count: int, *, same: bool = False
) -> tuple[IntArray, Float32Array]:
    """Find each query's most similar keys by scalar product.

    Args:
        queries: Shape (n, d).
        keys: Shape (m, d).
        count: Number of keys to find, at most m (m - 1 with ``same``).
        same: Queries and keys are the same rows, and a row is not its own neighbour.

    Returns:
        Row numbers of the keys, best first, and their similarities; both of shape (n, count).
    """
    rows = np.arange(len(queries))
    return Neighbours(keys).search(queries, count, groups=(rows, rows) if same else None)


def most_similar(
    pattern: Float32Array | Float16Array, queries: IntArray, keys: IntArray
) -> tuple[IntArray, Float32Array]:
    """Find the most similar key of each query, where rows are long: few components say which are compared whole.

    Args:
        pattern: Rows of length 1, shape (rows, d).
        queries: Rows to find the most similar key of, shape (n,).
        keys: Rows that are searched, shape (m,).

    Returns:
        Position in ``keys`` of the most similar key, and its similarity; both of shape (n,).
    """
    short = shortened(len(pattern), lambda rows: pattern[rows].astype(np.float32))
    shortlist, _ = nearest(short[queries], short[keys], min(_SHORTLIST, len(keys)))
    column, best = largest(_compared(pattern, queries, keys[shortlist]), 1)
    return np.take_along_axis(shortlist, column, axis=1)[:, 0], best[:, 0]


def similar_in_other_groups(
    pattern: Float32Array | Float16Array, groups: IntArray, count: int
) -> tuple[IntArray, Float32Array]:
    """Find the rows of other groups that are most similar to each row; of many rows as :func:`most_similar` does.

    Args:
        pattern: Rows of length 1, shape (n, d).
        groups: Group of each row, shape (n,).
        count: Number of rows to find.

    Returns:
        Their numbers and similarities, best first, both of shape (n, count); a similarity is -inf where there are
        fewer.
    """
    if len(pattern) <= EXACT_LIMIT:
        rows = pattern.astype(np.float32)
        return Neighbours(rows).search(rows, count, groups=(groups, groups))
    short = shortened(len(pattern), lambda rows: pattern[rows].astype(np.float32))
    shortlist, known = Neighbours(short).search(short, max(count, _SHORTLIST), groups=(groups, groups))
    similarity = np.where(np.isfinite(known), _compared(pattern, np.arange(len(pattern)), shortlist), -np.inf)
    column, best = largest(similarity.astype(np.float32), count)
    return np.take_along_axis(shortlist, column, axis=1), best


def shortened(count: int, rows_of: Callable[[IntArray], Float32Array]) -> Float32Array:
    """Return the principal components of long rows, fitted to a sample of them, each of length 1.

    Args:
        count: Number of rows, n.
        rows_of: Returns some of the rows by their numbers, shape (rows, d).

    Returns:
        Shape (n, c), of 128 components at most.
    """
    chosen = np.random.default_rng(_SEED).permutation(count)[: EXACT_LIMIT // 2]
    sample = np.concatenate(parallel_map(lambda part: rows_of(chosen[part]), blocks(len(chosen), BLOCK_ROWS)))
    components = min(_SHORT_ROW, *sample.shape)
    pca = PCA(components, svd_solver="randomized", iterated_power=1, random_state=_SEED).fit(sample)
    short = np.empty((count, components), dtype=np.float32)

    def fill(rows: slice) -> None:
        short[rows] = unit(pca.transform(rows_of(np.arange(count)[rows])))

    parallel_map(fill, blocks(count, BLOCK_ROWS))
    return short


def _compared(pattern: Float32Array | Float16Array, queries: IntArray, candidates: IntArray) -> Float32Array:
    """Return the scalar products of some rows with candidates of theirs.

    Args:
        pattern: Shape (rows, d).
        queries: Numbers of rows, shape (n,).
        candidates: Numbers of rows to compare each with, shape (n, k).

    Returns:
        Shape (n, k).
    """

    def compare(rows: slice) -> Float32Array:
        others = pattern[candidates[rows]].astype(np.float32)
        products: Float32Array = np.einsum("nd,nkd->nk", pattern[queries[rows]].astype(np.float32), others)
        return products

    return np.concatenate(parallel_map(compare, blocks(len(queries), BLOCK_ROWS)))


def largest(block: Float32Array, count: int) -> tuple[IntArray, Float32Array]:
    """Return the columns of each row's largest values, largest first, and the values; both (rows, count)."""
    best = block.argmax(axis=1)[:, None] if count == 1 else np.argpartition(block, -count, axis=1)[:, -count:]
    values = np.take_along_axis(block, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
