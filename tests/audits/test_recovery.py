"""People recovered from pixels alone: on phantoms, whose people are known, and on the real rows by checks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.metrics import adjusted_rand_score

from brainstage.audits.audit import audit
from brainstage.audits.recovery import UNKNOWN, recover_patients
from brainstage.audits.trait_model import spaced as spaced_apart
from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.signatures import describe_slices, square
from brainstage.datasets.sources import load_slices


def recovered(images):
    return recover_patients(describe_slices(list(images)))


def pair_precision(people, truth):
    known = people.patient != UNKNOWN
    same = people.patient[known][:, None] == people.patient[known]
    right = same & (truth[known][:, None] == truth[known])
    others = np.count_nonzero(same) - np.count_nonzero(known)
    return (np.count_nonzero(right) - np.count_nonzero(known)) / others if others else 1.0


def agreement(people, truth):
    alone = np.arange(len(truth)) + people.count
    return adjusted_rand_score(truth, np.where(people.patient == UNKNOWN, alone, people.patient))


def test_everyone_is_found_when_all_slices_are_there_in_any_order(heads, truth):
    order = np.random.default_rng(1).permutation(len(heads))
    people = recovered(heads[order])
    assert agreement(people, truth[order]) > 0.97
    assert pair_precision(people, truth[order]) == 1.0
    assert people.confidence.min() > 0.5


def test_levels_put_each_person_s_slices_in_order_from_the_wide_end(heads):
    people = recovered(heads)
    level = people.level.reshape(24, STACK_LEVELS)
    assert (np.diff(level, axis=1) > 0).mean() > 0.98
    steps = np.diff(level, axis=1)
    assert 0.7 < np.median(steps) < 1.4  # in steps between neighbouring slices


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_a_part_of_the_rows_joins_no_strangers(heads, share, truth):
    rows = np.sort(np.random.default_rng(2).permutation(len(heads))[: int(share * len(heads))])
    people = recovered(heads[rows])
    assert pair_precision(people, truth[rows]) >= 0.98
    assert agreement(people, truth[rows]) > 0.75


def test_the_two_ends_of_a_head_are_not_taken_for_neighbours(heads, truth):
    """Linked, they close a head's levels to a circle: 0.91 and 39 slices unknown on these rows."""
    rows = np.sort(np.random.default_rng(2).permutation(len(heads))[: int(0.65 * len(heads))])
    people = recovered(heads[rows])
    assert agreement(people, truth[rows]) > 0.94
    assert np.count_nonzero(people.patient == UNKNOWN) < 30


def test_unequal_counts_and_missing_levels(heads, truth):
    rng = np.random.default_rng(3)
    first, last = rng.integers(0, 10, 24), rng.integers(18, 33, 24)
    rows = np.concatenate(
        [np.arange(a, b) + STACK_LEVELS * n for n, (a, b) in enumerate(zip(first, last, strict=True))]
    )
    people = recovered(heads[rows])
    assert pair_precision(people, truth[rows]) >= 0.98
    assert agreement(people, truth[rows]) > 0.9


def test_unrelated_images_stay_unknown(heads, truth):
    rng = np.random.default_rng(4)
    clouds = [gaussian_filter(rng.normal(size=(128, 128)), rng.uniform(1, 12)) for _ in range(20)]
    photographs = [np.uint8(255 * (cloud - cloud.min()) / np.ptp(cloud)) for cloud in clouds]
    cohort, strangers = (
        heads[: 20 * STACK_LEVELS],
        heads[20 * STACK_LEVELS :][:: STACK_LEVELS // 2],
    )  # two distant slices a stranger
    people = recovered([*cohort, *photographs, *strangers])
    assert (people.patient[len(cohort) :] == UNKNOWN).all()
    alone = 1000 + np.arange(len(photographs) + len(strangers))
    assert agreement(people, np.concatenate([truth[: len(cohort)], alone])) > 0.97


def test_slices_without_neighbours_are_nobody(heads):
    distant = np.flatnonzero(np.arange(len(heads)) % STACK_LEVELS % 8 == 0)  # of each person four slices, far apart
    assert recovered(heads[distant]).count == 0


@pytest.mark.parametrize("count", [1, 30])
def test_too_few_slices_say_nothing(heads, count):
    people = recovered(heads[:count])
    assert people.count == 0
    assert np.isnan(people.level).all()


def test_brightness_and_size_do_not_matter(heads, truth):
    rng = np.random.default_rng(6)
    bright = [np.uint8(np.clip(head * rng.uniform(0.5, 1.0), 0, 255)) for head in heads]
    large = [np.kron(head, np.ones((2, 2), dtype=np.uint8)) for head in bright[::2]]
    mixed = [large[row // 2] if row % 2 == 0 else bright[row] for row in range(len(heads))]
    people = recovered(mixed)
    assert pair_precision(people, truth) >= 0.98


def test_equal_pixels_give_equal_people(heads):
    first, second = recovered(heads[:320]), recovered(heads[:320])
    assert first.count == 10
    assert np.array_equal(first.patient, second.patient)
    assert np.array_equal(first.level, second.level)


@given(st.lists(st.floats(0, 40), min_size=1, max_size=20))
def test_spaced_levels_keep_their_order_and_their_distance(levels):
    levels = np.array(levels)
    spaced = spaced_apart(levels)
    order = np.argsort(levels, kind="stable")
    assert (np.diff(spaced[order]) >= 0.5 - 1e-9).all()
    assert (spaced >= levels - 1e-9).all()


def test_square_keeps_the_shape_of_the_head():
    wide = np.zeros((50, 100), dtype=np.uint8)
    wide[:, 20:80] = 200
    (picture,) = square([wide])
    assert picture.shape == (128, 128)
    assert picture[:30].max() == 0  # filled up above and below
    assert np.isclose(np.square(picture).mean(), 1, atol=1e-3)
    assert np.isfinite(square([np.zeros((9, 9), dtype=np.uint8)])).all()


def test_cells_find_the_same_people(heads, truth, monkeypatch):
    monkeypatch.setattr("brainstage.datasets.neighbours.EXACT_LIMIT", 300)
    monkeypatch.setattr("brainstage.datasets.neighbours._CELL_ROWS", 24)
    monkeypatch.setattr("brainstage.audits.trait_model.EXACT_LIMIT", 300)
    monkeypatch.setattr("brainstage.datasets.signatures.EXACT_LIMIT", 300)
    people = recovered(heads)
    assert agreement(people, truth) > 0.97
    assert pair_precision(people, truth) == 1.0


def test_real_rows_of_60_people_are_complete_and_have_one_label_each(real_folder):
    """Of all 200, ``benchmarks/audit.py`` prints the same."""
    slices = load_slices(real_folder)
    chosen = set(sorted(set(slices.patients))[:60])
    rows = [row for row, patient in enumerate(slices.patients) if patient in chosen]
    some = replace(slices, rows=slices.rows.take(rows), images=[slices.images[row] for row in rows])
    found = audit(some)
    report = found.to_dict()
    assert report["people"]["slices_each"] == {"minimum": 32, "median": 32, "maximum": 32}
    assert report["checks"]["people_with_one_label"] == 60
    assert report["checks"]["grain_agrees"] > 0.99
    assert report["duplicates"]["altered"] <= 20
    assert report["leakage"]["sentence"].startswith("leaky: 60 inferred patients on both sides")
    mapped = np.unique(some.patients, return_inverse=True)[1]
    assert agreement(found.recovered, mapped) > 0.99
    assert pair_precision(found.recovered, mapped) == 1.0
