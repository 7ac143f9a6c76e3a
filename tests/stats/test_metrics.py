import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from brainstage.stats import metrics
from brainstage.stats.metrics import differences_from_leader, majority, score, score_decisions

CLASSES = ("a", "b", "c", "d")


def sample(count, seed, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.round(3) / probabilities.round(3).sum(1, keepdims=True)


@given(st.integers(12, 200), st.integers(0, 10_000))
@settings(max_examples=50)
def test_every_score_is_scikit_learns(count, seed):
    labels, probabilities = sample(count, seed)
    labels[:4] = range(4)
    ours = score(labels, probabilities, CLASSES, draws=10)
    predicted = probabilities.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "weighted_f1": sk.f1_score(labels, predicted, average="weighted"),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "auroc_ovr": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "quadratic_kappa": sk.cohen_kappa_score(labels, predicted, weights="quadratic"),
        "log_loss": sk.log_loss(labels, probabilities.clip(1e-7)),
    }
    for name, value in expected.items():
        assert ours.overall[name].value == pytest.approx(value, abs=1e-6), name
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for number, name in enumerate(CLASSES):
        found = ours.by_class[name]
        assert [found["precision"].value, found["recall"].value, found["f1"].value] == pytest.approx(
            [precision[number], recall[number], f1[number]]
        )
        assert ours.support[name] == support[number]
    assert np.array_equal(ours.confusion, sk.confusion_matrix(labels, predicted))


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    # bin of 0.9: confidence 0.9, accuracy 0.5; bin of 0.6: confidence 0.6, accuracy 1
    assert score(labels, probabilities, ("a", "b"), draws=5).overall["calibration_error"].value == pytest.approx(
        0.4
    )


def test_a_class_that_does_not_occur_has_no_recall_and_spoils_no_mean():
    labels, probabilities = sample(60, 0, classes=3)
    probabilities = np.concatenate([probabilities, np.zeros((60, 1))], axis=1)
    found = score(labels, probabilities, CLASSES, draws=20)
    assert np.isnan(found.by_class["d"]["recall"].value)
    assert found.by_class["d"]["recall"].to_dict()["value"] is None
    assert found.overall["macro_f1"].value == pytest.approx(
        sk.f1_score(labels, probabilities.argmax(1), average="macro")
    )


def test_interval_of_accuracy_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(100):
        right = rng.random(200) < 0.8
        probabilities = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
        found = score(np.zeros(200, np.int64), probabilities, ("a", "b"), draws=200, seed=trial).overall["accuracy"]
        hits += found.low <= 0.8 <= found.high
    assert 88 <= hits <= 100


def test_patients_drawn_whole_give_wider_intervals_than_slices():
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(20) < 0.7, 32)  # all slices of a person share their fate
    probabilities = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    labels = np.zeros(640, np.int64)
    people = np.repeat([f"p{i}" for i in range(20)], 32)
    by_slice = score(labels, probabilities, ("a", "b")).overall["accuracy"]
    by_person = score(labels, probabilities, ("a", "b"), groups=people).overall["accuracy"]
    assert by_person.high - by_person.low > 3 * (by_slice.high - by_slice.low)


def test_majority_baseline():
    labels = np.array([2, 2, 0, 1])
    assert majority(labels, 4) == 2


def test_decisions_without_probabilities_have_the_scores_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, decisions = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    found = score_decisions(labels, decisions, 4)
    assert found["accuracy"].value == pytest.approx(sk.accuracy_score(labels, decisions))
    assert found["weighted_f1"].value == pytest.approx(sk.f1_score(labels, decisions, average="weighted"))
    certain = score(labels, np.eye(4)[decisions], "abcd").overall
    assert found == {name: certain[name] for name in found}  # intervals too


def of_accuracy(rng, labels, share):
    """Return predictions of which about a share is correct."""
    predicted = np.where(rng.random(len(labels)) < share, labels, 1 - labels)
    return np.eye(2)[predicted] * 0.8 + 0.1


def test_equal_models_are_rarely_called_different():
    rng = np.random.default_rng(11)
    trials, claimed = 120, 0
    for trial in range(trials):
        labels = rng.integers(0, 2, 100)
        candidates = [of_accuracy(rng, labels, 0.75) for _ in range(6)]
        accuracies = [(candidate.argmax(1) == labels).mean() for candidate in candidates]
        leader = int(np.argmax(accuracies))
        differences = differences_from_leader(labels, candidates, leader, draws=100, seed=trial)
        claimed += any(difference["accuracy"].low > 0 for difference in differences)
    # 5 % are expected; with an interval for each pair alone the leader of six is above some other in a third
    assert claimed / trials < 0.09


def test_a_better_model_is_distinguished():
    rng = np.random.default_rng(12)
    labels = rng.integers(0, 2, 600)
    candidates = [of_accuracy(rng, labels, share) for share in (0.7, 0.9, 0.8)]
    differences = differences_from_leader(labels, candidates, 1)
    assert vars(differences[1]["accuracy"]) == {"value": 0, "low": 0, "high": 0}
    assert all(differences[number]["accuracy"].low > 0 for number in (0, 2))


def test_a_score_that_is_not_defined_has_no_difference():
    labels = np.zeros(20, dtype=np.int64)  # one class, so no area under a curve
    differences = differences_from_leader(labels, [np.full((20, 2), 0.5)] * 2, 0, draws=20)
    assert np.isnan(differences[1]["auroc_ovr"].low)
    assert differences[1]["accuracy"].to_dict() == {"value": 0, "low": 0, "high": 0}


def test_draws_are_the_same_however_few_of_them_are_in_memory_at_once(monkeypatch):
    rng = np.random.default_rng(5)
    labels, probabilities = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    groups = [f"person {row // 3}" for row in range(60)]

    def all_scores():
        scores = metrics.score(labels, probabilities, ["a", "b", "c"], groups, draws=150).overall
        return [[score.value, score.low, score.high] for score in scores.values()]

    at_once = all_scores()
    monkeypatch.setattr(metrics, "WEIGHTS_AT_ONCE", 7 * 60)
    assert max(len(part) for part in metrics.resamples(60, groups, 150, 0)) == 7
    assert np.allclose(all_scores(), at_once, rtol=1e-12)


def test_labels_are_shuffled_between_people_and_not_between_their_scans():
    rng = np.random.default_rng(6)
    person = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    groups = [f"p{number}" for number in person]
    within = 0
    for trial in range(100):  # a model that knows nothing, and says nearly the same of all scans of a person
        labels = rng.integers(0, 2, 60)[person]
        sure = 1 / (1 + np.exp(rng.normal(size=60)[person] + 0.1 * rng.normal(size=len(person))))
        repeats = [np.c_[sure, 1 - sure]]
        shuffled = metrics.shuffled_labels(labels, repeats, groups=groups, draws=100, seed=trial)["accuracy"]
        within += shuffled.low <= (repeats[0].argmax(1) == labels).mean() <= shuffled.high
    assert 87 <= within <= 100  # of scans shuffled one by one: about 70


def test_everyone_exchanges_labels_and_a_stage_that_changes_still_does():
    for counts in (range(1, 13), [1] * 12 + [12]):  # nobody has as many scans as another; one has more than others
        person = np.repeat(np.arange(len(counts)), counts)
        labels, groups = person % 2, [f"p{number}" for number in person]
        assert metrics.shuffled_labels(labels, [np.eye(2)[labels]], groups=groups)["accuracy"].value < 0.6
    worse, twice = np.tile([0, 1], 30), [f"p{number}" for number in np.repeat(np.arange(30), 2)]
    assert metrics.shuffled_labels(worse, [np.eye(2)[worse]], groups=twice)["accuracy"].low == 1


def test_people_of_one_scan_are_shuffled_alike_with_and_without_their_names():
    labels, probabilities = sample(57, 7)
    names = [f"p{number}" for number in np.random.default_rng(0).permutation(57)]
    named = metrics.shuffled_labels(labels, [probabilities], groups=names, draws=20)
    assert named == metrics.shuffled_labels(labels, [probabilities], draws=20)
    rng = np.random.default_rng(0)
    shuffles = [rng.permutation(labels) for _ in range(20)]  # the figures that stored pages quote
    right = [(shuffle == probabilities.argmax(1)).mean() for shuffle in shuffles]
    assert named["accuracy"].value == pytest.approx(np.mean(right))
    assert named["accuracy"].high == pytest.approx(np.quantile(right, 0.975))


def test_a_person_has_one_true_stage_in_all_repeats_and_scans():
    _, probabilities = sample(120, 8)
    once = metrics.calibration_error_if_perfect([probabilities], draws=200)
    assert vars(metrics.calibration_error_if_perfect([probabilities] * 10, draws=200)) == pytest.approx(vars(once))
    scans = np.tile(probabilities, (3, 1))  # three scans that are predicted alike
    groups = [f"p{number}" for number in np.tile(np.arange(120), 3)]
    found = metrics.calibration_error_if_perfect([scans], groups=groups, draws=200)
    assert vars(found) == pytest.approx(vars(once))
