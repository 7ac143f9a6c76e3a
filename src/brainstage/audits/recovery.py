"""People recovered from the pixels of their slices alone, without labels, names or order.

How it works, on slices of heads registered to one space:

1. **Levels.** Slices of different people at one level are similar; a spectral embedding of that similarity (Belkin
   and Niyogi 2003, Neural Computation 15, 1373) orders all slices from one end of the brain to the other.
2. **Residuals.** What all people share at a level, the local mean over levels, is subtracted.
3. **First links.** Two slices are linked when their residuals match better than those of mirrored heads ever do. A
   mirrored head stands for a stranger of the same population, so the pictures themselves set the threshold: the
   target-decoy method of proteomics (Elias and Gygi 2007, Nature Methods 4, 207).
4. **Joining.** The groups joined so far show how each trait varies along one person's levels. So modelled, a person
   is a Gaussian process over levels (Rasmussen and Williams 2006, chapter 2); two groups are joined when the odds
   that they are one person are 99 to 1 against a random pair of groups. This is repeated until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh, spsolve
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression

from brainstage.audits.trait_model import TraitModel, spaced
from brainstage.core.arrays import Float16Array, Float32Array, Float64Array, IntArray
from brainstage.core.cache import scratch_array
from brainstage.core.parallel import parallel_map
from brainstage.datasets.neighbours import Neighbours, nearest
from brainstage.datasets.signatures import BLOCK_ROWS, EXACT_LIMIT, Signatures, blocks, mirrored, unit

LINK_ERROR_RATE = 0.001
"""Largest share of first links that may be wrong, estimated from mirrored heads."""
JOINING_ODDS = 99.0
"""Odds of being one person that two groups need in order to be joined."""
UNKNOWN = -1
"""Number of the person of a slice whose person is not known."""

_LANDMARKS = 2000
_NEIGHBOURS = 40
_BANDS = 64
_STIFFNESS = 10.0
_FARTHEST = 0.55
"""Difference of place, as a share of the stack, from which on two slices are not neighbours. Of linked slices of
51,200 phantoms, those up to eight levels apart differ by at most 0.45, the two ends of a head by at least 0.66."""
_SEED = 0


@dataclass(frozen=True)
class RecoveredPatients:
    """The person, level and confidence of each of n slices."""

    patient: IntArray
    """Number of the person, from 0; :data:`UNKNOWN` where it is not certain enough, shape (n,)."""
    level: Float64Array
    """Place along the axis of the brain, in steps between neighbouring slices; NaN where unknown, shape (n,)."""
    confidence: Float64Array
    """Probability that the slice belongs to its person and that no other slices do, shape (n,); 0 for unknown."""

    @classmethod
    def nobody(cls, count: int) -> RecoveredPatients:
        """Return that the person of each of ``count`` slices is unknown."""
        return cls(np.full(count, UNKNOWN), np.full(count, np.nan), np.zeros(count))

    @property
    def count(self) -> int:
        """Number of people recovered."""
        return int(self.patient.max(initial=UNKNOWN)) + 1

    def take(self, rows: IntArray) -> RecoveredPatients:
        """Return the result for some slices."""
        return RecoveredPatients(self.patient[rows], self.level[rows], self.confidence[rows])


def recover_patients(signatures: Signatures) -> RecoveredPatients:
    """Group slices by person from their signatures.

    Pass one slice of each picture: duplicates are to be found and set aside before. Slices that belong to no
    series (photographs, single heads) stay unknown.
    """
    recovered = RecoveredPatients.nobody(len(signatures))
    if len(signatures) < 2 * _NEIGHBOURS:
        return recovered
    place, series = find_levels(signatures.coarse)
    for number in range(series.max() + 1):
        rows = np.flatnonzero(series == number)
        part = _recover_series(signatures, rows, place[rows])
        recovered.patient[rows] = np.where(part.patient == UNKNOWN, UNKNOWN, part.patient + recovered.count)
        recovered.level[rows], recovered.confidence[rows] = part.level, part.confidence
    return recovered


# --- levels -----------------------------------------------------------------------------------------------------


def find_levels(coarse: Float32Array) -> tuple[Float64Array, IntArray]:
    """Order slices along the axis of the brain.

    A sample of landmark slices is embedded by the second eigenvector of its neighbour graph; every slice takes the
    mean place of the landmarks most similar to it. In a sample neighbours are strangers more often than slices of
    one person, which is what makes them neighbours in level.

    Args:
        coarse: Coarse anatomy of the slices, float32 of shape (n, 1024).

    Returns:
        Rank of each slice along its series, from 0 to 1, NaN where the slice is similar to no other, float64 of
        shape (n,); and the number of its series (several where the data mixes kinds of slices), -1 for none.
    """
    if len(coarse) < 2 * _NEIGHBOURS:
        return np.full(len(coarse), np.nan), np.full(len(coarse), UNKNOWN)
    sample = np.random.default_rng(_SEED).permutation(len(coarse))[:_LANDMARKS]
    landmarks = coarse[sample]
    graph = _neighbour_graph(landmarks)
    _, part = connected_components(graph.minimum(graph.T), directed=False)
    neighbours, similarity = nearest(coarse, landmarks, 11)
    distance = 1 - similarity[:, 5]
    place, series = np.full(len(coarse), np.nan), np.full(len(coarse), UNKNOWN)
    for number in np.flatnonzero(np.bincount(part) >= 2 * _NEIGHBOURS):
        members = np.flatnonzero(part == number)
        inner = graph[members][:, members]
        rank = np.zeros(len(sample))
        rank[members] = _ranks(_second_eigenvector(inner.maximum(inner.T)))
        among = part[neighbours] == number
        inside = (among.mean(axis=1) > 0.5) & (distance <= 1.5 * distance[sample[members]].max())
        series[inside] = series.max() + 1
        place[inside] = _ranks((rank[neighbours] * among).sum(axis=1)[inside] / among.sum(axis=1)[inside])
    return place, series


def _neighbour_graph(rows: Float32Array) -> csr_array:
    count = len(rows)
    neighbours, _ = nearest(rows, rows, _NEIGHBOURS, same=True)
    starts = np.repeat(np.arange(count), _NEIGHBOURS)
    return coo_array((np.ones(len(starts)), (starts, neighbours.ravel())), shape=(count, count)).tocsr()


def _second_eigenvector(graph: csr_array) -> Float64Array:
    """Return the second eigenvector of the random walk on a connected graph."""
    root = diags_array(1 / np.sqrt(graph.sum(axis=1)))
    walk = root @ graph @ root
    if graph.shape[0] > 100:
        values, vectors = eigsh(walk, k=2, which="LA", v0=np.ones(graph.shape[0]))
    else:
        values, vectors = (part[..., -2:] for part in np.linalg.eigh(walk.toarray()))
    second: Float64Array = root @ vectors[:, np.argmin(values)]
    return second


def _ranks(values: Float64Array) -> Float64Array:
    ranks: Float64Array = np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)
    return ranks


class _Residuals:
    """What remains of features when the mean of all slices at a level is subtracted, computed block by block.

    The mean over levels is taken in bands, with linear interpolation between them.
    """

    def __init__(
        self,
        features: Float32Array | Float16Array,
        members: IntArray,
        place: Float64Array,
        *,
        unit_length: bool = False,
    ) -> None:
        """Compute the mean at each level.

        Args:
            features: Features of all slices, shape (slices, d).
            members: The slices of one series, shape (n,).
            place: Rank of each of these along the series, from 0 to 1, shape (n,).
            unit_length: Scale every row of the residuals to length 1.
        """
        self._features, self._members = features, members
        self._unit_length = unit_length
        self._position = np.clip(place * _BANDS - 0.5, 0, _BANDS - 1).astype(np.float32)
        weights = np.exp(-0.5 * np.square((np.arange(_BANDS, dtype=np.float32)[:, None] - self._position) / 2))
        sums = parallel_map(
            lambda rows: weights[:, rows] @ features[members[rows]].astype(np.float32, copy=False),
            blocks(len(place), BLOCK_ROWS),
        )
        self._shared = np.sum(sums, axis=0, dtype=np.float32) / weights.sum(axis=1, keepdims=True)

    def __len__(self) -> int:
        return len(self._members)

    def rows(self, rows: slice | IntArray) -> Float32Array:
        """Return the residuals of some rows."""
        bands = np.arange(_BANDS, dtype=np.float32)
        shared = np.maximum(0, 1 - np.abs(self._position[rows][:, None] - bands)) @ self._shared
        residuals = np.subtract(self._features[self._members[rows]], shared, out=shared)
        return unit(residuals) if self._unit_length else residuals

    def components(self, count: int) -> PCA:
        """Fit principal components to a sample of the residuals."""
        sample = np.random.default_rng(_SEED).permutation(len(self))[:10_000]
        width = self._shared.shape[1]
        solver = "randomized" if width > 1000 else "covariance_eigh"
        pca = PCA(min(count, len(self) // 8, width), svd_solver=solver, iterated_power=1, random_state=_SEED)
        parts = parallel_map(lambda rows: self.rows(sample[rows]), blocks(len(sample), BLOCK_ROWS))
        return pca.fit(np.concatenate(parts))

    def project(
        self, components: PCA, change: Callable[[Float32Array], Float32Array] | None = None
    ) -> Float32Array:
        """Return the principal components of all residuals, or of changed ones; shape (n, components)."""

        projected: Float32Array = scratch_array((len(self), components.n_components_), np.float32)

        def project(rows: slice) -> None:
            residuals = self.rows(rows)
            projected[rows] = components.transform(change(residuals) if change else residuals)

        parallel_map(project, blocks(len(self), BLOCK_ROWS))
        return projected


# --- one series of slices ---------------------------------------------------------------------------------------


def _recover_series(signatures: Signatures, members: IntArray, place: Float64Array) -> RecoveredPatients:
    own = _Residuals(signatures.pattern, members, place, unit_length=True)
    components = own.components(512)
    pattern = own.project(components)
    first, second, similarity = _first_links(pattern, own.project(components, mirrored), place)
    if not len(first):
        return RecoveredPatients.nobody(len(members))
    groups = _connected(len(members), first, second)
    level = _refined(place, first, second, similarity)
    if np.corrcoef(level, signatures.area[members])[0, 1] > 0:  # heads narrow towards the top: level 0 is low
        level = level.max() - level
    components = [pattern[:, :300]]
    for features, count in ((signatures.grain, 100), (signatures.tones, 20)):
        residuals = _Residuals(features, members, place)
        components.append(residuals.project(residuals.components(count)))
    return _join(_whitened(components), level, groups)


def _whitened(parts: Sequence[Float32Array]) -> Float32Array:
    """Bring components to unit variance, and each slice to the length that is usual in each of some parts.

    The length is set because a Gaussian expects it, and outliers have another (Garcia-Romero and Espy-Wilson
    2011, Interspeech, 249).

    Args:
        parts: Components of n slices, each of shape (n, c).

    Returns:
        Traits of the slices, the parts side by side, of shape (n, traits).
    """
    traits: Float32Array = scratch_array((len(parts[0]), sum(part.shape[1] for part in parts)), np.float32)
    start = 0
    for part in parts:
        spread = part.std(axis=0)
        spread[spread == 0] = 1  # grey values that no picture has
        columns = slice(start, start := start + part.shape[1])
        for rows in blocks(len(part), BLOCK_ROWS):
            traits[rows, columns] = unit(part[rows] / spread) * np.float32(np.sqrt(part.shape[1]))
    return traits


def _first_links(
    pattern: Float32Array, mirror: Float32Array, place: Float64Array
) -> tuple[IntArray, IntArray, Float32Array]:
    """Return pairs of slices that match better than mirrored heads do, and their similarities.

    The first and the last slice of a head can match, and linked they would close its levels to a circle. So slices
    whose places are further apart than the error of places allows are not linked.

    Mirrored heads are compared exactly even where the links are searched in cells, so that the threshold is not
    lowered by strangers that a search in cells overlooks; many slices are sampled for that.
    """
    count = min(10, len(pattern) - 1)
    neighbours, similarity = nearest(pattern, pattern, count, same=True)
    sample = np.sort(np.random.default_rng(_SEED).permutation(len(pattern))[:EXACT_LIMIT])
    _, decoy = Neighbours(mirror, exact=True).search(pattern[sample], 1)
    best, decoys = np.sort(similarity[:, 0]), np.sort(decoy[:, 0])
    above = len(best) - np.searchsorted(best, best)
    wrong = (len(decoys) - np.searchsorted(decoys, best)) * (len(best) / len(decoys))
    passed = best[wrong <= LINK_ERROR_RATE * above]
    threshold = passed[0] if len(passed) else np.inf
    rows, column = np.nonzero((similarity >= threshold) & (np.abs(place[neighbours] - place[:, None]) < _FARTHEST))
    return rows, neighbours[rows, column], similarity[rows, column]


def _refined(place: Float64Array, first: IntArray, second: IntArray, similarity: Float32Array) -> Float64Array:
    """Return levels, in steps between neighbouring slices, from places and from the similarity of linked slices.

    How far apart two slices of one person lie shows in their similarity better than in their places, which are
    compared across people. So distances are predicted from the similarity (by isotonic regression on the
    differences of place), and levels are the least-squares compromise of both.
    """
    apart = np.abs(place[first] - place[second])
    distance = IsotonicRegression(increasing=False).fit(similarity, apart).predict(similarity)
    step = distance[similarity >= np.median(similarity[_strongest(first, similarity)])].mean()
    count, links = len(place), np.arange(len(first))
    springs = csr_array(
        (np.repeat([1.0, -1.0], len(first)), (np.tile(links, 2), np.concatenate([first, second]))),
        shape=(len(first), count),
    )
    links_of = coo_array((similarity.astype(np.float64), (first, second)), shape=(count, count)).tocsr()
    order = _order(links_of.maximum(links_of.T), place)
    target = np.sign(order[first] - order[second]) * distance / step
    system = eye_array(count) + _STIFFNESS * springs.T @ springs
    level: Float64Array = spsolve(system.tocsc(), place / step + _STIFFNESS * springs.T @ target)
    return level


def _order(links: csr_array, place: Float64Array) -> Float64Array:
    """Put the slices of each linked group in order, along the second eigenvector of its links."""
    order = place.copy()
    _, groups = connected_components(links, directed=False)
    for rows in _members(groups):
        if len(rows) > 2:
            along = _second_eigenvector(links[rows][:, rows])
            order[rows] = along * np.sign(np.dot(along - along.mean(), place[rows]))
    return order


def _strongest(first: IntArray, similarity: Float32Array) -> IntArray:
    """Return the number of each slice's strongest link."""
    order = np.lexsort((-similarity, first))
    return order[np.unique(first[order], return_index=True)[1]]


def _connected(count: int, first: IntArray, second: IntArray) -> IntArray:
    _, groups = connected_components(
        coo_array((np.ones(len(first)), (first, second)), shape=(count, count)), directed=False
    )
    return groups.astype(np.int64)


def _members(groups: IntArray) -> list[IntArray]:
    """Return the rows of each group."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


# --- joining ----------------------------------------------------------------------------------------------------


def _join(traits: Float32Array, level: Float64Array, groups: IntArray) -> RecoveredPatients:
    """Join groups until no two of them are one person by :data:`JOINING_ODDS`."""
    while True:
        model = TraitModel(traits, level, _members(groups))
        joined, doubt = _join_by(model, groups)
        if joined.max() == groups.max():
            return _result(model, groups, doubt)
        groups, level = joined, model.level


def _join_by(model: TraitModel, groups: IntArray) -> tuple[IntArray, Float64Array]:
    """Join by one model. Also returns the log odds that each group is part of a larger one."""
    likeliest = model.likeliest(groups)
    while True:
        members = _members(groups)
        pairs = _candidates(*likeliest, groups)
        weighed = np.array([model.odds(members[left], members[right]) for left, right in pairs]).reshape(-1, 2)
        odds = weighed[:, 0] - np.log(len(members))
        best = np.full(len(members), -np.inf)
        for side in (0, 1):
            np.maximum.at(best, pairs[:, side], odds)
        mutual = np.flatnonzero((odds >= best[pairs].max(axis=1)) & (odds > np.log(JOINING_ODDS)))
        if not len(mutual):
            sizes = np.array([len(rows) for rows in members])
            smaller = np.where(sizes[pairs[:, 0]] < sizes[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
            doubt = np.full(len(members), -np.inf)
            np.maximum.at(doubt, smaller, odds)
            return groups, doubt
        number = np.arange(len(members))
        for pair in mutual:
            left, right = pairs[pair]
            number[right] = left
            model.level[members[right]] += weighed[pair, 1]
        groups = np.unique(number[groups], return_inverse=True)[1]


def _candidates(rows: IntArray, evidence: Float32Array, groups: IntArray, most: int = 4) -> IntArray:
    """Return pairs of groups to weigh: for each group those whose slices are most likely its own, shape (m, 2)."""
    group, other = np.repeat(groups, rows.shape[1]), groups[rows.ravel()]
    order = np.lexsort((-evidence.ravel(), group))
    order = order[group[order] != other[order]]
    candidates: dict[int, dict[int, None]] = {}
    for number, candidate in zip(group[order].tolist(), other[order].tolist(), strict=True):
        chosen = candidates.setdefault(number, {})
        if len(chosen) < most:
            chosen[candidate] = None
    size = np.bincount(groups)
    pairs = {
        (min(number, candidate), max(number, candidate))
        for number, chosen in candidates.items()
        for candidate in chosen
        if size[number] + size[candidate] > 2
    }
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _result(model: TraitModel, groups: IntArray, doubt: Float64Array) -> RecoveredPatients:
    """Turn groups into numbered people, with the level and confidence of each slice."""
    patient, level, confidence = groups.copy(), model.level.copy(), np.zeros(len(groups))
    for group, rows in enumerate(_members(groups)):
        level[rows] = spaced(level[rows])
        confidence[rows] = expit(model.membership(rows) - np.log(groups.max() + 1)) * expit(-doubt[group])
        if len(rows) == 1:
            confidence[rows] = 0.0
    patient[confidence < 0.5] = UNKNOWN
    known = patient != UNKNOWN
    patient[known] = np.unique(patient[known], return_inverse=True)[1]
    confidence[~known] = 0.0
    return RecoveredPatients(patient, level - level.min(), confidence)
