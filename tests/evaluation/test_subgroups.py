"""Groups of people are judged by themselves, and by person."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from brainstage.core.errors import DataError
from brainstage.evaluation.subgroups import subgroups
from brainstage.stats.validation import threshold_scores


def cohort(count=120, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.5
    probability = np.clip(0.3 * positive + rng.uniform(0, 0.7, count), 0, 1)
    return positive, probability, [f"p{n:03}" for n in range(count)]


def names(values, column="value"):
    """Return the numbers of scans of each group of a column."""
    positive, probability, patients = cohort(len(values))
    groups = subgroups(positive, probability, patients, {column: values}, [column], draws=2)
    assert all(group.column == column for group in groups)
    return {group.name: group.scans for group in groups}


def test_figures_are_those_of_scikit_learn_on_the_subset():
    positive, probability, patients = cohort()
    sex = np.where(np.arange(120) % 3 == 0, "M", "F")
    women, men = subgroups(positive, probability, patients, {"sex": sex.tolist()}, ["sex"], draws=20)
    assert (women.name, men.name) == ("F", "M")
    for group in (women, men):
        rows = sex == group.name
        assert (group.people, group.scans, group.positive_people) == (rows.sum(), rows.sum(), positive[rows].sum())
        assert group.scores["auroc"].value == pytest.approx(roc_auc_score(positive[rows], probability[rows]))
        assert group.scores["balanced_accuracy"].value == pytest.approx(
            balanced_accuracy_score(positive[rows], probability[rows] >= 0.5)
        )


def test_threshold_draws_and_seed_are_those_asked_for():
    positive, probability, patients = cohort()
    options = {"threshold": 0.3, "draws": 30, "seed": 4}
    [group] = subgroups(positive, probability, patients, {"site": ["A"] * 120}, ["site"], **options)
    assert group.scores == threshold_scores(positive, probability, patients, **options)


def test_people_are_counted_and_drawn_whole():
    positive, probability, patients = cohort(40)
    sex = ["F", "M"] * 20
    once = subgroups(positive, probability, patients, {"sex": sex}, ["sex"], draws=50)
    twice = subgroups(
        np.tile(positive, 2), np.tile(probability, 2), patients * 2, {"sex": sex * 2}, ["sex"], draws=50
    )
    for one, two in zip(once, twice, strict=True):
        assert (two.people, two.scans) == (one.people, 2 * one.scans) == (20, 40)
        assert (two.positive_people, two.small) == (one.positive_people, one.small)
        assert vars(two.scores["auroc"]) == pytest.approx(vars(one.scores["auroc"]))


def test_ages_are_grouped_in_years_and_in_order():
    ages = [85.0, 90, 84.9, 75, 74.9, 65, 64.9, 30, None, float("nan")]
    found = names(ages, "age")
    assert found == {"<65": 2, "65–74": 2, "75–84": 2, "85 and older": 2, "not known": 2}
    assert list(found) == ["<65", "65–74", "75–84", "85 and older", "not known"]
    assert names([70, 71], "age") == {"65–74": 2}


def test_text_has_a_group_for_each_value_and_one_for_what_is_not_known():
    found = names(["Oslo", "Bonn", None, "Oslo", "", "Zug"])
    assert found == {"Bonn": 1, "Oslo": 2, "Zug": 1, "not known": 2}
    assert list(found) == ["Bonn", "Oslo", "Zug", "not known"]
    assert names([None, None]) == {"not known": 2}


def test_other_numbers_are_divided_at_the_median_which_is_named():
    assert names([*range(11), 20, 20, None]) == {"up to 6 (median)": 7, "above 6 (median)": 6, "not known": 1}


def test_few_different_numbers_are_codes():
    assert names([2.0, 10.0, 2.0, 0.5]) == {"0.5": 1, "2": 2, "10": 1}
    assert list(names([10.0, 2.0])) == ["2", "10"]
    assert len(names(range(10))) == 10
    assert len(names(range(11))) == 2


@pytest.mark.parametrize(("having", "lacking", "small"), [(10, 10, False), (9, 30, True), (30, 9, True)])
def test_a_group_with_few_people_of_either_outcome_is_small_however_many_scans(having, lacking, small):
    positive = np.tile(np.arange(having + lacking) < having, 3)
    patients = [f"p{n}" for n in range(having + lacking)] * 3
    probability = np.where(positive, 0.6, 0.4)
    site = ["A"] * len(patients)
    [group] = subgroups(positive, probability, patients, {"site": site}, ["site"], draws=5)
    assert group.small is small
    assert group.scores["auroc"].low == 1  # figures are there all the same


def test_someone_with_scans_of_both_outcomes_counts_for_both():
    positive = np.array([True, False] * 10)
    patients = [f"p{n // 2}" for n in range(20)]
    [group] = subgroups(positive, np.full(20, 0.5), patients, {"site": ["A"] * 20}, ["site"], draws=5)
    assert (group.people, group.positive_people, group.small) == (10, 10, False)


def test_columns_come_in_the_order_asked_for():
    positive, probability, patients = cohort(4)
    covariates = {"sex": ["F", "M"] * 2, "site": ["A"] * 4, "age": [70.0] * 4}
    groups = subgroups(positive, probability, patients, covariates, ["site", "sex"], draws=2)
    assert [(group.column, group.name) for group in groups] == [("site", "A"), ("sex", "F"), ("sex", "M")]


def test_a_column_that_does_not_exist_is_refused_with_the_nearest():
    positive, probability, patients = cohort(4)
    with pytest.raises(DataError, match="'sexx'.*did you mean 'sex'"):
        subgroups(positive, probability, patients, {"sex": ["F"] * 4}, ["sex", "sexx"])
