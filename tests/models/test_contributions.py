"""Contributions to the patient model's severity: exact, each of its own feature, from the model's file alone."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import expit

from brainstage.models import slice_components
from brainstage.models.coordinates import ManyPeople
from brainstage.models.patient_features import FEATURES, feature_blocks, patient_features, weights_of_roots
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel
from brainstage.models.weights import bundled_folder
from brainstage.scans.stack import training_stack
from volumes import brain

PLACES = {  # slices of the 32 that are given, and the levels stated
    "a volume": (list(range(32)), list(range(32))),
    "slices with gaps between their levels": (list(range(2, 32, 4)), list(range(2, 32, 4))),
    "slices whose levels are estimated": ([3, 4, 11, 25], None),
    "two slices of one level": ([7, 8, 20], [7, 7, 20]),
    "one slice": ([14], None),
}


@pytest.fixture(scope="module")
def model():
    return PatientModel.open(bundled_folder("patient") / "model")


@pytest.fixture(scope="module")
def features():
    """Return what the model sees of the template's brain in all acquisitions that it looks at."""
    return patient_features(list(training_stack(brain((3, 3, 3)), "template")[0]), PREDICTION_SEEDS)


def added(contributions):
    return contributions.edges.sum() + contributions.tones.sum()


@pytest.mark.parametrize("place", PLACES)
def test_contributions_add_up_to_the_difference_from_the_mean_training_person(model, features, place):
    rows, levels = PLACES[place]
    contributions = model.contributions(features[rows], levels)
    assert contributions.edges.shape == (len(rows), 8, 8, 8)
    difference = contributions.severity - contributions.mean_severity
    assert abs(difference) > 0.1
    assert added(contributions) == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_the_severity_is_what_the_probabilities_come_from(model, features, place):
    rows, levels = PLACES[place]
    alone = features[rows][:, :1]  # in one acquisition, so that the prediction is no mean
    contributions = model.contributions(alone, levels)
    later = expit(contributions.severity - contributions.thresholds)
    expected = -np.diff([1, *later, 0])
    predicted = model.predict(alone, ["a"] * len(rows), levels).probabilities[0]
    np.testing.assert_allclose(predicted, expected, atol=1e-6)


def test_the_mean_training_person_is_in_the_models_file(model):
    """The mean severity of the people whose slices the file holds is the one that is compared with."""
    stacks = load_file(bundled_folder("patient") / "model" / "model.safetensors")["stacks"]
    everyone = [model.contributions(stack[:, None], range(32)) for stack in stacks]
    mean = np.mean([person.severity for person in everyone])
    assert {round(person.mean_severity, 9) for person in everyone} == {round(everyone[0].mean_severity, 9)}
    assert everyone[0].mean_severity == pytest.approx(mean, abs=1e-5)
    assert np.mean([added(person) for person in everyone]) == pytest.approx(0, abs=1e-5)
    assert everyone[0].people == len(stacks) == 200


def test_a_feature_that_changes_changes_its_own_contribution_alone(model, features):
    before = model.contributions(features, range(32))
    changed = features.copy()
    changed[9, :, (3 * 8 + 5) * 8 + 2] += 40  # slice 9, row 3, column 5, direction 2
    after = model.contributions(changed, range(32))
    where = np.argwhere(np.abs(after.edges - before.edges) > 1e-12)
    assert where.tolist() == [[9, 3, 5, 2]]
    np.testing.assert_allclose(after.tones, before.tones, atol=1e-12)
    step = after.edges[9, 3, 5, 2] - before.edges[9, 3, 5, 2]
    assert after.severity - before.severity == pytest.approx(step, abs=1e-5)
    assert abs(step) > 1e-4


@pytest.mark.parametrize("levels", [np.arange(32), np.array([2, 3, 9]), np.array([14])])
def test_weights_of_features_become_weights_of_roots(levels):
    rng = np.random.default_rng(0)
    stack = rng.random((1, len(levels), FEATURES))
    blocks = np.concatenate(feature_blocks(stack, levels), axis=1)[0]
    weights = rng.normal(size=len(blocks))
    assert (weights_of_roots(weights, levels) * stack[0]).sum() == pytest.approx(weights @ blocks, rel=1e-4)


def test_contributions_of_many_people_whose_slices_are_kept_as_components(monkeypatch):
    monkeypatch.setattr(slice_components, "BYTES", 60 * 32 * 6)
    rng = np.random.default_rng(0)
    stages = np.arange(60) % 3
    effect = rng.normal(0, 6, (4, 1, FEATURES))
    shown = 120 + stages[:, None, None, None] * effect + rng.normal(0, 15, (60, 4, 2, FEATURES))
    shown = shown.clip(0, 255).astype(np.uint8)
    names = np.repeat([f"{number:02}" for number in range(60)], 4).tolist()
    places = np.tile(np.arange(4) / 31, 60)
    model = PatientModel.fit(
        shown.reshape(-1, 2, FEATURES), names, places, np.repeat(stages, 4), ("none", "some", "much")
    )
    assert model._scans.components is not None
    assert isinstance(model._scans.at(np.arange(4))[0], ManyPeople)
    contributions = model.contributions(shown[2], range(4))
    difference = contributions.severity - contributions.mean_severity
    assert abs(difference) > 0.3
    assert added(contributions) == pytest.approx(difference, abs=1e-4)
