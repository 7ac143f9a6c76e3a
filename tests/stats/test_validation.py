"""The numbers of an external validation, held to scikit-learn, statsmodels, sums by hand and simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn import metrics as sk

from brainstage.stats.metrics import resamples
from brainstage.stats.validation import (
    _fit_logistic,
    calibration_curve,
    calibration_line,
    compare_with_covariates,
    decision_curve,
    expected_calibration_error,
    threshold_scores,
)


def sample(count, seed=0, *, slope=1.0, shift=0.0, spread=1.5):
    """Return outcomes and probabilities, whose log odds are those of the truth times a slope, plus a shift."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.3, spread, count)
    positive = rng.random(count) < expit(truth)
    positive[:2] = True, False
    return positive, expit(slope * truth + shift)


def twice(positive, probability):
    """Return everyone with two equal scans, and whose they are."""
    return np.tile(positive, 2), np.tile(probability, 2), [f"p{n:05}" for n in range(len(positive))] * 2


def bounds(score):
    return [score.value, score.low, score.high]


@given(st.integers(12, 200), st.integers(0, 10_000), st.sampled_from([0.5, 0.3]))
@settings(max_examples=40)
def test_every_score_is_scikit_learns(count, seed, threshold):
    positive, probability = sample(count, seed)
    probability = probability.round(2)  # with ties, some of them at the threshold
    called, smallest = probability >= threshold, np.finfo(np.float32).eps
    found = threshold_scores(positive, probability, threshold=threshold, draws=5)
    expected = {
        "auroc": sk.roc_auc_score(positive, probability),
        "balanced_accuracy": sk.balanced_accuracy_score(positive, called),
        "sensitivity": sk.recall_score(positive, called),
        "specificity": sk.recall_score(~positive, ~called),
        "ppv": sk.precision_score(positive, called, zero_division=np.nan),
        "npv": sk.precision_score(~positive, ~called, zero_division=np.nan),
        "brier": sk.brier_score_loss(positive, probability),
        "log_loss": sk.log_loss(positive, probability.clip(smallest, 1 - smallest)),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_intervals_are_those_of_scikit_learn_on_each_draw():
    positive, probability = sample(80)
    [weights] = resamples(80, None, 50, 3)
    found = threshold_scores(positive, probability, draws=50, seed=3)
    for name, function in {"auroc": sk.roc_auc_score, "brier": sk.brier_score_loss}.items():
        draws = [function(positive, probability, sample_weight=weight) for weight in weights]
        assert bounds(found[name])[1:] == pytest.approx(np.percentile(draws, (2.5, 97.5)).tolist()), name


@pytest.mark.parametrize(
    "figures",
    [
        threshold_scores,
        lambda *arguments, **options: vars(calibration_line(*arguments, **options)),
        lambda *arguments, **options: {"error": expected_calibration_error(*arguments, **options)},
    ],
    ids=["scores", "calibration line", "calibration error"],
)
def test_a_second_equal_scan_of_everyone_is_no_new_person(figures):
    positive, probability = sample(60)
    once = figures(positive, probability, draws=500)
    grouped = figures(*twice(positive, probability), draws=500)
    as_people = figures(*twice(positive, probability)[:2], draws=500)
    for name, score in once.items():
        assert bounds(grouped[name]) == pytest.approx(bounds(score)), name
        assert as_people[name].high - as_people[name].low < 0.9 * (score.high - score.low), name


def test_scores_are_means_over_the_scans_drawn_however_many_they_are():
    groups = ["often"] * 9 + ["once"]
    positive, probability = np.zeros(10, bool), np.full(10, 0.3)
    found = threshold_scores(positive, probability, groups, draws=20)
    assert bounds(found["brier"]) == pytest.approx([0.09] * 3)
    assert bounds(found["log_loss"]) == pytest.approx([-np.log(0.7)] * 3)
    assert bounds(expected_calibration_error(positive, probability, groups, draws=20)) == pytest.approx([0.3] * 3)


def test_without_positive_rows_what_divides_by_them_is_not_defined():
    found = threshold_scores(np.zeros(10, bool), np.full(10, 0.2), draws=10)
    undefined = {name for name, score in found.items() if np.isnan(bounds(score)).all()}
    assert undefined == {"auroc", "balanced_accuracy", "sensitivity", "ppv"}
    assert bounds(found["specificity"]) == bounds(found["npv"]) == [1, 1, 1]
    found = threshold_scores(np.ones(10, bool), np.full(10, 0.8), draws=10)
    undefined = {name for name, score in found.items() if np.isnan(bounds(score)).all()}
    assert undefined == {"auroc", "balanced_accuracy", "specificity", "npv"}


def test_draws_without_positive_rows_do_not_count():
    positive = np.arange(12) == 0  # a third of the draws lacks them
    found = threshold_scores(positive, np.where(positive, 0.9, 0.1), draws=100)
    assert bounds(found["auroc"]) == bounds(found["sensitivity"]) == [1, 1, 1]


def statsmodels_line(positive, probability, weights):
    """Return intercept at slope 1, and slope."""
    api = pytest.importorskip("statsmodels.api")
    log_odds = logit(probability)
    options = {"family": api.families.Binomial(), "freq_weights": weights}
    in_the_large = api.GLM(positive * 1.0, np.ones((len(positive), 1)), offset=log_odds, **options).fit(tol=1e-12)
    both = api.GLM(positive * 1.0, api.add_constant(log_odds), **options).fit(tol=1e-12)
    return float(in_the_large.params[0]), float(both.params[1])


@pytest.mark.parametrize(("slope", "shift"), [(1, 0), (3, 1), (0.4, -2), (-1, 0)])
def test_calibration_line_is_statsmodels_also_in_each_draw(slope, shift):
    positive, probability = sample(120, slope=slope, shift=shift)
    [weights] = resamples(120, None, 20, 1)
    found = calibration_line(positive, probability, draws=20, seed=1)
    point = statsmodels_line(positive, probability, np.ones(120))
    draws = [statsmodels_line(positive, probability, weight) for weight in weights]
    low, high = np.percentile(draws, (2.5, 97.5), axis=0).tolist()
    assert bounds(found.intercept) == pytest.approx([point[0], low[0], high[0]], abs=1e-5)
    assert bounds(found.slope) == pytest.approx([point[1], low[1], high[1]], abs=1e-5)


def test_calibration_line_finds_the_simulated_truth():
    positive, probability = sample(20_000, slope=2)
    assert calibration_line(positive, probability, draws=5).slope.value == pytest.approx(0.5, abs=0.03)
    positive, probability = sample(20_000, shift=0.7)  # risks overestimated
    found = calibration_line(positive, probability, draws=50)
    assert bounds(found.intercept) == pytest.approx([-0.7] * 3, abs=0.08)
    assert found.intercept.low < -0.7 < found.intercept.high
    assert bounds(found.slope) == pytest.approx([1] * 3, abs=0.08)


@pytest.mark.parametrize("probability", [1e-6, 0.5, 1 - 1e-6])
def test_intercept_of_one_probability_for_all_has_a_closed_form(probability):
    positive = np.arange(50) < 20
    found = calibration_line(positive, np.full(50, probability), draws=5)
    assert found.intercept.value == pytest.approx(logit(0.4) - logit(probability))
    assert np.isnan(bounds(found.slope)).all()


def test_no_slope_where_predictions_separate_the_outcomes_and_no_line_for_one_outcome():
    probability = np.linspace(0.01, 0.99, 40)
    for positive in (probability > 0.5, probability < 0.5):
        found = calibration_line(positive, probability, draws=5)
        assert np.isnan(bounds(found.slope)).all() and not np.isnan(bounds(found.intercept)).any()
    for positive in (np.ones(40, bool), np.zeros(40, bool)):
        found = calibration_line(positive, probability, draws=5)
        assert np.isnan([bounds(found.slope), bounds(found.intercept)]).all()


def test_draws_in_which_predictions_separate_the_outcomes_do_not_count():
    probability = np.linspace(0.1, 0.9, 14)
    positive = np.arange(14) >= 7
    positive[[6, 7]] = True, False  # draws without either of these are separated
    [weights] = resamples(14, None, 100, 0)
    draws = [statsmodels_line(positive, probability, weight)[1] for weight in weights if weight[[6, 7]].all()]
    found = calibration_line(positive, probability, draws=100).slope
    assert len(draws) < 60
    assert bounds(found)[1:] == pytest.approx(np.percentile(draws, (2.5, 97.5)).tolist(), abs=1e-5)


def test_calibration_line_converges_for_certain_and_wrong_predictions():
    positive = np.array([True, False] * 20)
    probability = np.where(np.arange(40) < 6, 1 - positive, positive).astype(float)  # 0 and 1
    probability[:2] = 0.5
    found = calibration_line(positive, probability, draws=20)
    # by symmetry no intercept; the slope fits 34 correct rows of 38
    assert found.intercept.value == pytest.approx(0, abs=1e-8)
    assert found.slope.value == pytest.approx(logit(34 / 38) / logit(1 - 1e-7), rel=1e-6)
    assert not np.isnan([bounds(found.slope), bounds(found.intercept)]).any()


@pytest.mark.parametrize("seed", range(5))
def test_calibration_line_converges_for_few_people_and_extreme_predictions(seed):
    """At the maximum of the likelihood both of its derivatives are 0."""
    rng = np.random.default_rng(seed)
    for spread in (0.01, 1, 10, 100):
        positive = rng.random(12) < 0.4
        positive[:4] = True, True, False, False
        log_odds = rng.normal(0, spread, 12).clip(-16, 16)
        log_odds[:4] = 1, -1, 1, -1  # the outcomes overlap
        intercept, slope = _fit_logistic(positive, log_odds, np.ones((1, 12)), fixed_slope=False)
        residual = positive - expit(intercept + slope * log_odds)
        assert [residual.sum(), residual @ log_odds] == pytest.approx([0, 0], abs=1e-8)


def test_calibration_curve_has_wilsons_intervals_of_equally_many_rows():
    positive, probability = sample(200)
    found = calibration_curve(positive, probability, bins=5)
    assert [one.count for one in found] == [40] * 5
    for one, rows in zip(found, np.split(np.argsort(probability), 5), strict=True):
        interval = binomtest(int(positive[rows].sum()), 40).proportion_ci(method="wilson")
        expected = [probability[rows].mean(), positive[rows].mean(), interval.low, interval.high]
        assert [one.predicted, one.observed, one.low, one.high] == pytest.approx(expected)
    assert len(calibration_curve(positive, probability)) == 10


def test_equal_probabilities_share_a_bin():
    found = calibration_curve(np.arange(60) % 3 == 0, np.repeat([0.2, 0.7], [40, 20]))
    assert [(one.predicted, one.count) for one in found] == [(pytest.approx(0.2), 40), (pytest.approx(0.7), 20)]


def test_calibration_error_by_hand():
    positive = np.array([True, False, True, False, True])
    probability = np.array([0.9, 0.9, 0.6, 0.6, 1.0])
    # bins of 15: 0.9 observed 0.5, 0.6 observed 0.5, 1.0 observed 1
    error = expected_calibration_error(positive, probability, draws=5)
    assert error.value == pytest.approx((2 * 0.4 + 2 * 0.1 + 0) / 5)


def test_risks_overestimated_on_both_sides_of_a_half_do_not_cancel():
    probability = np.repeat([0.3, 0.7], 100)
    positive = np.r_[np.arange(100) < 20, np.arange(100) < 60]
    assert expected_calibration_error(positive, probability, draws=5).value == pytest.approx(0.1)


def test_decision_curve_by_hand():
    positive = np.array([True, True, False, False, False])
    probability = np.array([0.9, 0.25, 0.5, 0.2, 0.1])
    curve = decision_curve(positive, probability, [0.2, 0.25, 0.5])
    # true and false positives of five: 2 and 2, 2 and 1, 1 and 1; odds 1/4, 1/3 and 1
    assert curve.model == pytest.approx([(2 - 2 / 4) / 5, (2 - 1 / 3) / 5, 0])
    assert curve.treat_all == pytest.approx([(2 - 3 / 4) / 5, (2 - 3 / 3) / 5, (2 - 3) / 5])
    assert curve.treat_none.tolist() == [0, 0, 0]
    assert decision_curve(positive, probability).thresholds == pytest.approx(np.arange(1, 20) * 0.05)


def people(count=300, seed=0):
    """Return random numbers, ages and sexes; columns of covariates are age, its square and sex."""
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(50, 90, count), rng.integers(0, 2, count)
    return rng, age, np.column_stack([age, age**2, sex])


def test_where_age_decides_a_model_that_knows_nothing_adds_nothing():
    rng, age, covariates = people()
    positive = rng.random(300) < expit((age - 70) / 3)
    found = compare_with_covariates(positive, rng.uniform(0.1, 0.9, 300), covariates, draws=200)
    assert (found.people, found.scans, found.reason) == (300, 300, None)
    assert found.auroc["covariates"].value > 0.9 and found.auroc["both"].value > 0.9
    assert 0.4 < found.auroc["model"].value < 0.6
    assert found.auroc["both - covariates"].high < 0.02
    assert found.auroc["model - covariates"].high < -0.2


def test_the_square_of_age_is_fitted_beside_age():
    rng, age, covariates = people()
    positive = rng.random(300) < expit((np.abs(age - 70) - 10) / 2)  # the youngest and the oldest
    found = compare_with_covariates(positive, np.full(300, 0.5), covariates, draws=20)
    assert found.auroc["covariates"].value > 0.85
    assert (
        compare_with_covariates(positive, np.full(300, 0.5), covariates[:, [0, 2]], draws=20)
        .auroc["covariates"]
        .value
        < 0.65
    )


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_a_covariate_does_not_matter(unit):
    rng, age, covariates = people(100)
    positive = rng.random(100) < expit((np.abs(age - 70) - 10) / 2)
    found, other = (
        compare_with_covariates(positive, np.full(100, 0.5), columns, draws=20).auroc["covariates"]
        for columns in (covariates, covariates * [unit, unit**2, 1])
    )
    assert bounds(other) == pytest.approx(bounds(found), abs=1e-3)


def test_a_model_that_sees_what_age_does_not_adds_it():
    rng, age, covariates = people()
    atrophy = rng.normal(size=300)
    positive = rng.random(300) < expit((age - 70) / 8 + 2 * atrophy)
    found = compare_with_covariates(positive, expit(2 * atrophy), covariates, draws=200).auroc
    assert found["model"].value == pytest.approx(sk.roc_auc_score(positive, atrophy))
    assert found["both"].value > found["model"].value > found["covariates"].value
    assert found["both - covariates"].low > 0.05
    for name in ("both", "model"):
        difference = found[name].value - found["covariates"].value
        assert found[f"{name} - covariates"].value == pytest.approx(difference)


def test_differences_are_paired():
    rng, age, covariates = people()
    positive = rng.random(300) < expit((age - 70) / 8)
    found = compare_with_covariates(positive, expit(age - 70), covariates[:, :1], draws=200).auroc
    of_one, of_difference = found["model"], found["model - covariates"]
    assert of_difference.high - of_difference.low < 0.5 * (of_one.high - of_one.low)


def test_only_rows_whose_covariates_are_known_take_part():
    rng, age, covariates = people()
    positive, probability = rng.random(300) < expit((age - 70) / 8), rng.random(300)
    names = [f"p{n // 2}" for n in range(300)]
    unknown = covariates.copy()
    unknown[200:250, 0], unknown[250:, 2] = np.nan, np.nan
    found = compare_with_covariates(positive, probability, unknown, names, draws=20)
    assert (found.people, found.scans) == (100, 200)
    assert found == compare_with_covariates(
        positive[:200], probability[:200], covariates[:200], names[:200], draws=20
    )


def test_nobody_is_in_the_fit_that_predicts_them():
    """A covariate that names the person says nothing of other people."""
    positive = np.repeat(np.arange(30) % 2 == 0, 4)
    names = np.repeat([f"p{n:02}" for n in range(30)], 4).tolist()
    covariates = np.repeat(np.eye(30), 4, axis=0)
    found = compare_with_covariates(positive, np.full(120, 0.5), covariates, names, draws=20)
    assert found.auroc["covariates"].value < 0.6
    leaky = compare_with_covariates(positive, np.full(120, 0.5), covariates, draws=20)
    assert leaky.auroc["covariates"].value > 0.9


def test_comparison_draws_people():
    rng, age, covariates = people(100)
    positive = rng.random(100) < expit((age - 70) / 8)
    found = compare_with_covariates(*twice(positive, age / 100)[:2], np.tile(covariates, (2, 1)), draws=100)
    by_person = compare_with_covariates(
        *twice(positive, age / 100)[:2],
        np.tile(covariates, (2, 1)),
        twice(positive, age)[2],
        draws=100,
    )
    assert bounds(by_person.auroc["model"]) == pytest.approx(
        bounds(threshold_scores(*twice(positive, age / 100), draws=100)["auroc"])
    )
    assert found.auroc["model"].low > by_person.auroc["model"].low


@pytest.mark.parametrize(("having", "lacking"), [(9, 30), (30, 9), (0, 30)])
def test_few_people_are_not_compared_however_many_scans_they_have(having, lacking):
    positive = np.tile(np.arange(having + lacking) < having, 5)
    names = [f"p{n}" for n in range(having + lacking)] * 5
    probability, covariates = np.full(len(names), 0.5), np.arange(len(names) * 1.0)[:, None]
    found = compare_with_covariates(positive, probability, covariates, names)
    assert found.auroc is None
    assert (found.people, found.scans) == (having + lacking, 5 * (having + lacking))
    assert f"{having} have the outcome and {lacking} do not" in found.reason


def test_ten_people_of_each_are_compared():
    found = compare_with_covariates(np.arange(20) < 10, np.full(20, 0.5), np.arange(20.0)[:, None], draws=10)
    assert found.reason is None and found.auroc["covariates"].value > 0.9
