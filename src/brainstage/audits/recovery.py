"""Who is who: people recovered from the pictures of their slices alone, without labels, names or order.

How it works, on slices of heads registered to one space:

1. **Levels.** Slices of different people at one level look alike; a spectral embedding of that likeness (Belkin and
   Niyogi 2003, Neural Computation 15, 1373) orders all slices from one end of the brain to the other.
2. **What is a person's own.** What all people share at a level, the local mean over levels, is subtracted.
3. **First links.** Two slices belong together when what is left matches better than it ever does between mirrored
   heads. A mirrored head stands for a stranger of the same population, so the pictures themselves set the
   threshold: the target-decoy method of proteomics (Elias and Gygi 2007, Nature Methods 4, 207).
4. **Joining.** The groups found so far show how each trait varies along one person's levels. With that, a person is
   a Gaussian process over levels (Rasmussen and Williams 2006, chapter 2); two groups are joined when the odds that
   they are one person are 99 to 1 against a random pair of groups. This is repeated until nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh, spsolve
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression

from brainstage.audits.trait_model import Person, spaced
from brainstage.datasets.signatures import Floats, Signatures, mirrored, nearest, unit

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

ERROR_RATE = 0.001
"""Largest share of first links that may be wrong, as counted on mirrored heads."""
ODDS = 99.0
"""Odds that two groups must have of being one person, to be joined."""
UNKNOWN = -1

_LANDMARKS = 2000
_NEIGHBOURS = 40
_BANDS = 64
_STIFFNESS = 10.0
_SEED = 0


@dataclass(frozen=True)
class People:
    """Who is on each of n slices."""

    patient: Ints
    """Number of the person, from 0; :data:`UNKNOWN` where it is not sure, shape (n,)."""
    level: Reals
    """Place along the axis of the brain, in steps between neighbouring slices; NaN where unknown, shape (n,)."""
    confidence: Reals
    """Probability that the slice belongs to its person and that no other slices do, shape (n,); 0 for unknown."""

    @property
    def count(self) -> int:
        """Number of people found."""
        return int(self.patient.max(initial=UNKNOWN)) + 1


def recover_people(signatures: Signatures) -> People:
    """Group slices by person from their signatures.

    Give one slice of each picture: copies are to be found and set aside before. Slices that belong to no series
    (photographs, single heads) stay unknown.
    """
    count = len(signatures)
    people = People(np.full(count, UNKNOWN), np.full(count, np.nan), np.zeros(count))
    if count < 2 * _NEIGHBOURS:
        return people
    place, series = find_levels(signatures.coarse)
    for number in range(series.max() + 1):
        rows = np.flatnonzero(series == number)
        found = _recover_series(signatures.take(rows), place[rows])
        patient = np.where(found.patient == UNKNOWN, UNKNOWN, found.patient + people.count)
        people.patient[rows], people.level[rows], people.confidence[rows] = patient, found.level, found.confidence
    return people


# --- levels -----------------------------------------------------------------------------------------------------


def find_levels(coarse: Floats) -> tuple[Reals, Ints]:
    """Order slices along the axis of the brain.

    A sample of landmark slices is embedded by the second eigenvector of its neighbour graph; every slice takes the
    mean place of the landmarks it is most like. In a sample neighbours are strangers more often than slices of one
    person, which is what makes them neighbours in level.

    Returns:
        Rank of each slice along its series, from 0 to 1, NaN where the slice is like no other; and the number of
        its series (several where the data mixes kinds of slices), -1 for none.
    """
    sample = np.random.default_rng(_SEED).permutation(len(coarse))[:_LANDMARKS]
    landmarks = coarse[sample]
    graph = _neighbour_graph(landmarks)
    _, part = connected_components(graph.minimum(graph.T), directed=False)
    found, similarity = nearest(coarse, landmarks, 11)
    likeness = similarity[:, 5]
    place, series = np.full(len(coarse), np.nan), np.full(len(coarse), UNKNOWN)
    for one in np.flatnonzero(np.bincount(part) >= 2 * _NEIGHBOURS):
        members = np.flatnonzero(part == one)
        inner = graph[members][:, members]
        rank = np.zeros(len(sample))
        rank[members] = _ranks(_second_eigenvector(inner.maximum(inner.T)))
        among = part[found] == one
        inside = (among.mean(axis=1) > 0.5) & (1 - likeness <= 1.5 * (1 - likeness[sample[members]]).max())
        series[inside] = series.max() + 1
        place[inside] = _ranks((rank[found] * among).sum(axis=1)[inside] / among.sum(axis=1)[inside])
    return place, series


def _neighbour_graph(rows: Floats) -> csr_array:
    count = len(rows)
    found, _ = nearest(rows, rows, _NEIGHBOURS, same=True)
    starts = np.repeat(np.arange(count), _NEIGHBOURS)
    return coo_array((np.ones(len(starts)), (starts, found.ravel())), shape=(count, count)).tocsr()


def _second_eigenvector(graph: csr_array) -> Reals:
    """Return the second eigenvector of the random walk on a connected graph."""
    root = diags_array(1 / np.sqrt(graph.sum(axis=1)))
    walk = root @ graph @ root
    if graph.shape[0] > 100:
        values, vectors = eigsh(walk, k=2, which="LA", v0=np.ones(graph.shape[0]))
    else:
        values, vectors = (part[..., -2:] for part in np.linalg.eigh(walk.toarray()))
    second: Reals = root @ vectors[:, np.argmin(values)]
    return second


def _ranks(values: Reals) -> Reals:
    ranks: Reals = np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)
    return ranks


def _own(rows: Floats, place: Reals) -> Floats:
    """Subtract what slices at one level share: the mean over places, in bands with linear interpolation between."""
    bands = np.arange(_BANDS, dtype=np.float32)
    position = np.clip(place * _BANDS - 0.5, 0, _BANDS - 1).astype(np.float32)
    near = np.exp(-0.5 * np.square((bands[:, None] - position) / 2))
    shared = (near @ rows) / near.sum(axis=1, keepdims=True)
    own: Floats = np.maximum(0, 1 - np.abs(position[:, None] - bands)) @ shared
    return np.subtract(rows, own, out=own)


# --- one series of slices ---------------------------------------------------------------------------------------


def _recover_series(signatures: Signatures, place: Reals) -> People:
    own = unit(_own(signatures.pattern, place))
    components = _components(own, 512)
    pattern, mirror = components.transform(own), components.transform(mirrored(own))
    first, second, similarity = _first_links(pattern, mirror)
    if not len(first):
        return People(np.full(len(place), UNKNOWN), np.full(len(place), np.nan), np.zeros(len(place)))
    groups = _connected(len(place), first, second)
    level = _refined(place, first, second, similarity)
    if np.corrcoef(level, signatures.area)[0, 1] > 0:  # heads narrow towards the top: level 0 is the lower end
        level = level.max() - level
    traits = np.concatenate(
        [
            _whitened(pattern[:, :300]),
            _whitened(_components(own := _own(signatures.grain, place), 100).transform(own)),
            _whitened(_components(own := _own(signatures.tones, place), 20).transform(own)),
        ],
        axis=1,
    )
    return _join(traits, level, groups)


def _components(rows: Floats, count: int) -> PCA:
    count = min(count, len(rows) // 8, rows.shape[1])
    solver = "randomized" if rows.shape[1] > 1000 else "covariance_eigh"
    sample = np.random.default_rng(_SEED).permutation(len(rows))[:10_000]
    return PCA(count, svd_solver=solver, iterated_power=1, random_state=_SEED).fit(rows[sample])


def _whitened(components: Floats) -> Floats:
    """Bring components to unit variance, and each slice to the length that is usual.

    The length is set because a Gaussian expects it, and outliers have another (Garcia-Romero and Espy-Wilson
    2011, Interspeech, 249).
    """
    return unit(components / components.std(axis=0)) * np.float32(np.sqrt(components.shape[1]))


def _first_links(pattern: Floats, mirror: Floats) -> tuple[Ints, Ints, Floats]:
    """Return pairs of slices that match better than mirrored ones do, and their similarities."""
    count = min(10, len(pattern) - 1)
    found, similarity = nearest(pattern, pattern, count, same=True)
    _, decoy = nearest(pattern, mirror, 1)
    best, decoys = np.sort(similarity[:, 0]), np.sort(decoy[:, 0])
    above = len(best) - np.searchsorted(best, best)
    wrong = len(decoys) - np.searchsorted(decoys, best)
    passed = best[wrong <= ERROR_RATE * above]
    rows, column = np.nonzero(similarity >= (passed[0] if len(passed) else np.inf))
    return rows, found[rows, column], similarity[rows, column]


def _refined(place: Reals, first: Ints, second: Ints, similarity: Floats) -> Reals:
    """Return levels, in steps between neighbouring slices, from places and from the likeness of linked slices.

    How far apart two slices of one person lie shows in their likeness better than in their places, which are
    compared across people. So distances are read off the likeness (by isotonic regression on the differences of
    place), and levels are the least-squares compromise of both.
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
    level: Reals = spsolve(system.tocsc(), place / step + _STIFFNESS * springs.T @ target)
    return level


def _order(links: csr_array, place: Reals) -> Reals:
    """Put the slices of each linked group in order, along the second eigenvector of its links."""
    order = place.copy()
    _, groups = connected_components(links, directed=False)
    for rows in _members(groups):
        if len(rows) > 2:
            along = _second_eigenvector(links[rows][:, rows])
            order[rows] = along * np.sign(np.dot(along - along.mean(), place[rows]))
    return order


def _strongest(first: Ints, similarity: Floats) -> Ints:
    """Return the number of each slice's strongest link."""
    order = np.lexsort((-similarity, first))
    return order[np.unique(first[order], return_index=True)[1]]


def _connected(count: int, first: Ints, second: Ints) -> Ints:
    _, groups = connected_components(
        coo_array((np.ones(len(first)), (first, second)), shape=(count, count)), directed=False
    )
    return groups.astype(np.int64)


def _members(groups: Ints) -> list[Ints]:
    """Return the rows of each group."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


# --- joining ----------------------------------------------------------------------------------------------------


def _join(traits: Floats, level: Reals, groups: Ints) -> People:
    """Join groups until no two of them are one person by the odds that are asked for."""
    while True:
        model = Person(traits, level, _members(groups))
        joined, doubt = _join_by(model, groups)
        if joined.max() == groups.max():
            return _people(model, groups, doubt)
        groups, level = joined, model.level


def _join_by(model: Person, groups: Ints) -> tuple[Ints, Reals]:
    """Join by one model. Also returns the log odds that each group is part of a larger one."""
    likeliest = model.likeliest(groups)
    while True:
        members = _members(groups)
        pairs = _candidates(*likeliest, groups)
        weighed = np.array([model.odds(members[one], members[other]) for one, other in pairs]).reshape(-1, 2)
        odds = weighed[:, 0] - np.log(len(members))
        best = np.full(len(members), -np.inf)
        for side in (0, 1):
            np.maximum.at(best, pairs[:, side], odds)
        mutual = np.flatnonzero((odds >= best[pairs].max(axis=1)) & (odds > np.log(ODDS)))
        if not len(mutual):
            sizes = np.array([len(rows) for rows in members])
            smaller = np.where(sizes[pairs[:, 0]] < sizes[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
            doubt = np.full(len(members), -np.inf)
            np.maximum.at(doubt, smaller, odds)
            return groups, doubt
        number = np.arange(len(members))
        for pair in mutual:
            one, other = pairs[pair]
            number[other] = one
            model.level[members[other]] += weighed[pair, 1]
        groups = np.unique(number[groups], return_inverse=True)[1]


def _candidates(found: Ints, evidence: Floats, groups: Ints, most: int = 4) -> Ints:
    """Return pairs of groups worth a look: for each group those whose slices are most likely its own, (m, 2)."""
    one, other = np.repeat(groups, found.shape[1]), groups[found.ravel()]
    order = np.lexsort((-evidence.ravel(), one))
    order = order[one[order] != other[order]]
    named: dict[int, dict[int, None]] = {}
    for group, name in zip(one[order].tolist(), other[order].tolist(), strict=True):
        names = named.setdefault(group, {})
        if len(names) < most:
            names[name] = None
    size = np.bincount(groups)
    pairs = {
        (min(group, name), max(group, name))
        for group, names in named.items()
        for name in names
        if size[group] + size[name] > 2
    }
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _people(model: Person, groups: Ints, doubt: Reals) -> People:
    """Turn groups into people: numbers, levels and how sure each slice is."""
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
    return People(patient, level - level.min(), confidence)
