"""Patient models of many people: the same line from fewer coordinates, and a file that stays small."""

import numpy as np
import pytest

from brainstage.models import slice_components, training_scans
from brainstage.models.coordinates import FewPeople, ManyPeople
from brainstage.models.patient_features import FEATURES
from brainstage.models.patient_model import PatientModel

CLASSES = ("none", "some", "much")
PEOPLE = FEATURES + 40  # more than a slab of levels has numbers


def cohort(people, levels, seed=0):
    """Return features of people whose slices show their stage, (people, levels, 3 acquisitions, FEATURES)."""
    rng = np.random.default_rng(seed)
    stages = np.arange(people) % 3
    mean = rng.uniform(40, 200, (levels, 1, FEATURES))
    effect = rng.normal(0, 4, (levels, 1, FEATURES))
    own = rng.normal(0, 20, (people, levels, 1, FEATURES)) + rng.normal(0, 5, (people, levels, 3, FEATURES))
    return (mean + stages[:, None, None, None] * effect + own).clip(0, 255).astype(np.uint8), stages


def fitted(features, stages):
    people, levels = features.shape[:2]
    places = np.tile(np.arange(levels) / 31, people)
    names = np.repeat(np.char.zfill(np.arange(people).astype(str), 4), levels).tolist()
    return PatientModel.fit(
        features.reshape(-1, *features.shape[2:]), names, places, np.repeat(stages, levels), CLASSES
    )


def answers(model, features):
    levels = [*range(features.shape[1])] * len(features)
    names = np.repeat(np.arange(len(features)).astype(str), features.shape[1]).tolist()
    return model.predict(features.reshape(-1, *features.shape[2:]), names, levels)


def test_many_people_get_the_same_line_from_the_means_of_slabs(monkeypatch):
    features, stages = cohort(PEOPLE + 6, 2)
    models = [fitted(features[:PEOPLE], stages[:PEOPLE]) for _ in range(2)]
    assert isinstance(models[0]._scans.at(np.arange(2))[0], ManyPeople)
    many = answers(models[0], features[PEOPLE:])
    monkeypatch.setattr(training_scans, "FEATURES", 10**6)  # so that no cohort counts as large
    assert isinstance(models[1]._scans.at(np.arange(2))[0], FewPeople)
    few = answers(models[1], features[PEOPLE:])
    assert many.probabilities == pytest.approx(few.probabilities, abs=1e-4)
    assert many.conformal_threshold == pytest.approx(few.conformal_threshold, abs=1e-4)
    assert np.ptp(many.probabilities[:, 0]) > 0.1  # and it tells people apart


def test_a_file_stays_as_small_as_is_said_and_answers_as_before(monkeypatch, tmp_path):
    monkeypatch.setattr(slice_components, "BYTES", 60 * 32 * 50)
    features, stages = cohort(66, 4)
    model = fitted(features[:60], stages[:60])
    model.save(tmp_path)
    assert model._scans.stacks.nbytes <= slice_components.BYTES
    opened = PatientModel.open(tmp_path)
    before, after = answers(model, features[60:]), answers(opened, features[60:])
    assert np.array_equal(before.probabilities, after.probabilities)
