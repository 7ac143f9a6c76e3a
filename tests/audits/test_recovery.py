"""People recovered from pixels alone: on phantoms, whose people are known, and on the real rows by checks."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.metrics import adjusted_rand_score

from brainstage.audits.recovery import UNKNOWN, recover_people
from brainstage.audits.trait_model import spaced as spaced_apart
from brainstage.datasets.phantom import LEVELS, draw_head, stage_counts
from brainstage.datasets.signatures import describe_slices, nearest, square

PEOPLE = 24


@pytest.fixture(scope="module")
def heads():
    stages = np.repeat(np.arange(4), stage_counts(PEOPLE))
    return np.concatenate([draw_head(int(stage), number, seed=5) for number, stage in enumerate(stages)])


def recovered(images):
    return recover_people(describe_slices(list(images)))


def pair_precision(people, truth):
    known = people.patient != UNKNOWN
    same = people.patient[known][:, None] == people.patient[known]
    right = same & (truth[known][:, None] == truth[known])
    others = np.count_nonzero(same) - np.count_nonzero(known)
    return (np.count_nonzero(right) - np.count_nonzero(known)) / others if others else 1.0


def agreement(people, truth):
    alone = np.arange(len(truth)) + people.count
    return adjusted_rand_score(truth, np.where(people.patient == UNKNOWN, alone, people.patient))


TRUTH = np.repeat(np.arange(PEOPLE), LEVELS)


def test_everyone_is_found_when_all_slices_are_there_in_any_order(heads):
    order = np.random.default_rng(1).permutation(len(heads))
    people = recovered(heads[order])
    assert agreement(people, TRUTH[order]) > 0.97
    assert pair_precision(people, TRUTH[order]) == 1.0
    assert people.confidence.min() > 0.5


def test_levels_put_each_person_s_slices_in_order_from_the_wide_end(heads):
    people = recovered(heads)
    level = people.level.reshape(PEOPLE, LEVELS)
    assert (np.diff(level, axis=1) > 0).mean() > 0.98
    steps = np.diff(level, axis=1)
    assert 0.7 < np.median(steps) < 1.4  # in steps between neighbouring slices


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_a_part_of_the_rows_joins_no_strangers(heads, share):
    rows = np.sort(np.random.default_rng(2).permutation(len(heads))[: int(share * len(heads))])
    people = recovered(heads[rows])
    assert pair_precision(people, TRUTH[rows]) >= 0.98
    assert agreement(people, TRUTH[rows]) > 0.75


def test_unequal_counts_and_missing_levels(heads):
    rng = np.random.default_rng(3)
    first, last = rng.integers(0, 10, PEOPLE), rng.integers(18, 33, PEOPLE)
    rows = np.concatenate([np.arange(a, b) + LEVELS * n for n, (a, b) in enumerate(zip(first, last, strict=True))])
    people = recovered(heads[rows])
    assert pair_precision(people, TRUTH[rows]) >= 0.98
    assert agreement(people, TRUTH[rows]) > 0.9


def test_unrelated_images_stay_unknown(heads):
    rng = np.random.default_rng(4)
    clouds = [gaussian_filter(rng.normal(size=(128, 128)), rng.uniform(1, 12)) for _ in range(20)]
    photographs = [np.uint8(255 * (one - one.min()) / np.ptp(one)) for one in clouds]
    strangers = [draw_head(0, 1000 + number, seed=9)[rng.integers(0, LEVELS)] for number in range(20)]
    people = recovered([*heads, *photographs, *strangers])
    assert (people.patient[len(heads) :] == UNKNOWN).all()
    assert agreement(people, np.concatenate([TRUTH, 1000 + np.arange(40)])) > 0.97


def test_single_heads_alone_are_nobody():
    with ThreadPoolExecutor(2) as pool:
        people = pool.map(partial(draw_head, 0, seed=9), range(80))
    assert recovered([head[number % LEVELS] for number, head in enumerate(people)]).count == 0


@pytest.mark.parametrize("count", [1, 30])
def test_too_few_slices_say_nothing(heads, count):
    people = recovered(heads[:count])
    assert people.count == 0
    assert np.isnan(people.level).all()


def test_brightness_and_size_do_not_matter(heads):
    rng = np.random.default_rng(6)
    bright = [np.uint8(np.clip(head * rng.uniform(0.5, 1.0), 0, 255)) for head in heads]
    large = [np.kron(head, np.ones((2, 2), dtype=np.uint8)) for head in bright[::2]]
    mixed = [large[row // 2] if row % 2 == 0 else bright[row] for row in range(len(heads))]
    people = recovered(mixed)
    assert pair_precision(people, TRUTH) >= 0.98


def test_equal_pixels_give_equal_people(heads):
    one, other = recovered(heads[:640]), recovered(heads[:640])
    assert np.array_equal(one.patient, other.patient)
    assert np.array_equal(one.level, other.level)


@given(st.lists(st.floats(0, 40), min_size=1, max_size=20))
def test_spaced_levels_keep_their_order_and_their_distance(levels):
    levels = np.array(levels)
    spaced = spaced_apart(levels)
    order = np.argsort(levels, kind="stable")
    assert (np.diff(spaced[order]) >= 0.5 - 1e-9).all()
    assert (spaced >= levels - 1e-9).all()


@settings(max_examples=20)
@given(st.integers(2, 700), st.integers(1, 5), st.integers(0, 9))
def test_nearest_is_what_a_full_matrix_says(rows, count, seed):
    points = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    count = min(count, rows - 1)
    found, similarity = nearest(points, points, count, same=True)
    full = points @ points.T
    np.fill_diagonal(full, -np.inf)
    assert np.allclose(similarity, -np.sort(-full, axis=1)[:, :count], atol=1e-5)
    assert np.allclose(np.take_along_axis(full, found, axis=1), similarity, atol=1e-5)


def test_square_keeps_the_shape_of_the_head():
    wide = np.zeros((50, 100), dtype=np.uint8)
    wide[:, 20:80] = 200
    (picture,) = square([wide])
    assert picture.shape == (128, 128)
    assert picture[:30].max() == 0  # filled up above and below
    assert np.isclose(np.square(picture).mean(), 1, atol=1e-3)
    assert np.isfinite(square([np.zeros((9, 9), dtype=np.uint8)])).all()


def test_real_rows_hold_200_complete_people_of_one_label_each(real_folder):
    from brainstage.audits.audit import audit
    from brainstage.datasets.sources import load_slices

    found = audit(load_slices(real_folder))
    report = found.to_dict()
    assert report["people"]["slices_each"] == {"least": 32, "median": 32, "most": 32}
    assert report["checks"]["people_with_one_label"] == 200
    assert report["checks"]["grain_agrees"] > 0.999
    assert report["copies"]["altered"] <= 64
    assert report["leakage"]["sentence"].startswith("leaky: 200 inferred patients on both sides, 1,280 of 1,280")
