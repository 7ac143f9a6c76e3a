"""The patient model on phantom people: what it reads together, what it knows of levels, what it writes."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_info, threadpool_limits

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError, LeakageError, RunError
from brainstage.core.levels import BRAIN
from brainstage.core.schema import STACK_LEVELS
from brainstage.datasets.sources import load_slices
from brainstage.evaluation.patients import evaluate_patients
from brainstage.inference.predictor import Predictor
from brainstage.models import ridge
from brainstage.models.acquisitions import Acquisition
from brainstage.models.patient_features import EDGES, FEATURES, patient_features
from brainstage.models.patient_model import PREDICTION_SEEDS, PatientModel, stratified_folds
from brainstage.models.recipes import load_recipe
from brainstage.training.cross_validation import cross_validate
from brainstage.training.patient import AcquiredFeatures, acquired_features
from brainstage.training.train import train


@pytest.fixture(scope="module")
def people(phantom):
    """Return slices of 16 phantom people."""
    return phantom


@pytest.fixture(scope="module")
def histograms(people):
    return patient_features(people.images, PREDICTION_SEEDS[:2])


@pytest.fixture(scope="module")
def levels(people):
    return np.array(people.rows["slice_index"].to_pylist())


@pytest.fixture(scope="module")
def model(people, histograms, levels):
    return fitted(people, histograms, levels, list(range(len(people))))


def fitted(people, histograms, levels, rows):
    places = levels[rows] / (STACK_LEVELS - 1)
    names = [people.patients[row] for row in rows]
    return PatientModel.fit(histograms[rows], names, places, people.targets(rows), people.classes)


@pytest.fixture(scope="module")
def run(people, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return cross_validate(people, load_recipe("patient", repeats=1, folds=2), out=out, name="patient")


def of_one(people, number=0):
    """Return the rows of a person's slices."""
    patient = sorted(set(people.patients))[number]
    return [row for row, one in enumerate(people.patients) if one == patient]


def test_a_run_is_a_model_that_the_predictor_opens(run, people):
    rows = of_one(people)
    predictor = Predictor.open(run.path)
    images = [people.images[row] for row in rows]
    together = predictor.predict_proba(images, ["a"] * len(rows))
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    assert (together == together[0]).all()
    alone = predictor.predict_proba(images)
    assert (alone != alone[0]).any()
    assert predictor.predict_proba([]).shape == (0, 4)


def test_other_people_in_the_batch_and_the_order_change_nothing(model, people, histograms):
    one, other = of_one(people, 0), of_one(people, 1)
    rows = np.random.default_rng(0).permutation(one + other)
    mixed = model.predict_proba(histograms[rows], [people.patients[row] for row in rows])
    alone = model.predict_proba(histograms[one], ["x"] * len(one))[0]
    np.testing.assert_allclose(mixed[np.isin(rows, one)], np.tile(alone, (len(one), 1)), atol=1e-6)


def test_levels_are_told_from_the_picture(model, histograms, levels):
    away = np.abs(model.levels(histograms) - levels)
    assert np.median(away) <= 1
    assert (away <= 4).mean() > 0.85


def test_a_level_that_is_known_counts_more_than_the_look(model, people, histograms, levels):
    rows = of_one(people)
    alone = [model.predict_proba(histograms[[row]], levels=[levels[row]])[0] for row in rows]
    np.testing.assert_allclose(model.predict_proba(histograms[rows], levels=levels[rows]), alone, atol=1e-6)
    elsewhere = model.predict_proba(histograms[rows], levels=(levels[rows] + 9) % STACK_LEVELS)
    assert np.abs(elsewhere - alone).max() > 0.01
    guessed = model.predict_proba(histograms[rows], levels=[None] * len(rows))
    np.testing.assert_allclose(guessed, model.predict_proba(histograms[rows]), atol=1e-6)


def test_on_real_people_more_slices_tell_more(real_folder):
    """Half of the people train, the others are read whole and slice by slice; both answers are calibrated."""
    slices = load_slices(real_folder)
    rows = [row for row, level in enumerate(slices.rows["slice_index"].to_pylist()) if level % 2]  # half the time
    people = replace(slices, rows=slices.rows.take(rows), images=[slices.images[row] for row in rows])
    seen = patient_features(people.images, PREDICTION_SEEDS[:1])
    stage_of = dict(zip(people.patients, people.targets(range(len(people))).tolist(), strict=True))
    names = sorted(stage_of, key=lambda patient: (stage_of[patient], patient))
    train, test = (np.flatnonzero(np.isin(people.patients, names[half::2])) for half in (0, 1))
    model = fitted(people, seen, np.array(people.rows["slice_index"].to_pylist()), train)
    labels = people.targets(test)
    alone, together = (
        model.predict_proba(seen[test]),
        model.predict_proba(seen[test], [people.patients[row] for row in test]),
    )

    def surprise(found):
        return -np.log(found[np.arange(len(test)), labels]).mean()

    shares = np.bincount(labels) / len(labels)
    assert surprise(together) < surprise(alone) - 0.03 < -(shares * np.log(shares)).sum() - 0.03
    assert roc_auc_score(labels > 0, together[:, 1:].sum(axis=1)) > 0.75
    for found in (alone, together):
        assert found[:, 0].mean() == pytest.approx(shares[0], abs=0.08)


def test_directions_stand_for_acquisitions():
    """Means and directions give the weights that a ridge on every acquisition gives."""
    rng = np.random.default_rng(0)
    people, copies, features = 30, 5, 12
    acquired = rng.normal(size=(people, 1, features)) + 0.5 * rng.normal(size=(people, copies, features))
    targets = rng.normal(size=people)
    means = acquired.mean(axis=1)
    within = (acquired - means[:, None]).reshape(-1, features) / np.sqrt(people * copies)
    line = ridge.RidgeLine.fit(means, targets, within)
    every = Ridge(ridge.RIDGE * copies).fit(acquired.reshape(-1, features), np.repeat(targets, copies))
    np.testing.assert_allclose(line.weights, every.coef_, atol=1e-8)
    assert line.intercept == pytest.approx(every.intercept_)
    scores = acquired @ line.weights
    assert line.spread(within) == pytest.approx(np.sqrt(scores.var(axis=1).mean()))


def test_acquisitions_change_a_model_that_was_fitted_to_them_less(people, levels):
    """Every person is asked about as they are and zoomed and noisier, by models of all people."""
    rows = list(range(len(people)))
    change = Acquisition(zoom=1.05, gamma=1.25, noise=0.05)
    seen = patient_features([change.apply(image) for image in people.images], (None,))
    asked = patient_features(people.images, (None,))
    moved = []
    for seeds in ((None,), (None, *range(10, 15))):
        model = fitted(people, patient_features(people.images, seeds), levels, rows)
        before, after = (model.predict(features, people.patients, levels) for features in (asked, seen))
        moved.append(np.abs(before.probabilities[:, 0] - after.probabilities[:, 0]).mean())
    assert moved[1] < 0.6 * moved[0], moved


def test_stability_tells_how_far_acquisitions_agree(model, people, histograms, levels):
    rows = of_one(people)
    found = model.predict(histograms[rows], ["a"] * len(rows), levels[rows].tolist())
    each = [
        model.predict(histograms[rows, number : number + 1], ["a"] * len(rows), levels[rows].tolist())
        for number in range(histograms.shape[1])
    ]
    probabilities = np.array([one.probabilities[0] for one in each])
    stage = probabilities.mean(axis=0).argmax()
    np.testing.assert_allclose(found.probabilities[0], probabilities.mean(axis=0), atol=1e-6)
    assert found.stability[0] == (probabilities.argmax(axis=1) == stage).mean()
    assert found.spread[0] == pytest.approx(probabilities[:, stage].std(), abs=1e-6)
    assert [one.stability[0] for one in each] == [1, 1]


def test_a_training_person_may_lack_levels(model, people, histograms, levels):
    rows = np.random.default_rng(0).permutation(len(people))[: len(people) * 2 // 3]
    part = fitted(people, histograms, levels, sorted(rows))
    assert len(part) == len(set(people.patients))
    difference = part.predict_proba(histograms[rows], [people.patients[row] for row in rows])
    difference -= model.predict_proba(histograms[rows], [people.patients[row] for row in rows])
    assert np.abs(difference).mean() < 0.1


def test_levels_are_recovered_where_the_data_has_none(people, tmp_path, histograms):
    column = people.rows.schema.get_field_index("slice_index")
    unnumbered = people.rows.set_column(column, "slice_index", pa.nulls(len(people), pa.int32()))
    config = load_recipe("patient", protocol="official")
    with_levels = train(people, config, out=tmp_path, name="with")
    without = train(replace(people, rows=unnumbered), config, out=tmp_path, name="without")
    one, other = (load_file(run.model / "model.safetensors")["stacks"] for run in (with_levels, without))
    same = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    turned = np.corrcoef(one.ravel(), other[:, ::-1].ravel())[0, 1]  # which end is up is not told
    assert max(same, turned) > 0.95


@pytest.mark.parametrize("levels_each", [1, 3])
def test_too_few_slices_to_recover_levels_from_are_told(people, tmp_path, levels_each):
    rows = [row for row, level in enumerate(people.rows["slice_index"].to_pylist()) if level < levels_each]
    table = people.rows.take(rows)
    unnumbered = table.set_column(
        table.schema.get_field_index("slice_index"), "slice_index", pa.nulls(len(rows), pa.int32())
    )
    few = replace(people, rows=unnumbered, images=[people.images[row] for row in rows])
    with pytest.raises(DataError, match="needs the level of each slice, and .* number each person's slices"):
        cross_validate(few, load_recipe("patient", folds=2, repeats=1), out=tmp_path)


def test_features_are_read_where_they_are_asked_for(few, monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))
    rows, seeds = [5, 0, 9], [(None, 3), (None, 4), (7, None)]
    read = AcquiredFeatures(few, rows, seeds)
    computed = [patient_features([few.images[row]], own)[0] for row, own in zip(rows, seeds, strict=True)]
    assert np.array_equal(read[np.array([2, 0, 2])], [computed[number] for number in (2, 0, 2)])
    assert np.array_equal(acquired_features(few, rows, seeds), computed)
    assert acquired_features(few, [], []).shape == (0, len(PREDICTION_SEEDS), FEATURES)


@pytest.mark.parametrize("strata", [[2] * 9 + [0] * 7 + [1] * 5, [0, 1] * 30 + [1] * 13, [3, 0, 3, 1, 1, 0] * 5])
def test_inner_folds_are_those_of_scikit_learn(strata):
    strata = np.random.default_rng(1).permutation(strata)
    folds = stratified_folds(strata, 5)
    for number, (_, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(strata, strata)):
        assert np.flatnonzero(folds == number).tolist() == test.tolist()


def test_slices_without_patients_are_refused(phantom, tmp_path):
    column = phantom.rows.schema.get_field_index("patient_id")
    rows = phantom.rows.set_column(column, "patient_id", pa.nulls(len(phantom), pa.string()))
    with pytest.raises(LeakageError, match="brainstage audit"):
        train(replace(phantom, rows=rows), load_recipe("patient", protocol="official"), out=tmp_path)


def test_settings_of_networks_are_refused():
    with pytest.raises(ConfigError, match="epochs: a setting of networks"):
        load_recipe("patient", epochs=3)
    with pytest.raises(ConfigError, match="model"):
        TrainConfig("x", model="forest")


def other_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "stacks": tensors["stacks"][:, :5].copy()}, folder / "model.safetensors")


def a_stage_too_many(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "labels": tensors["labels"] + 1}, folder / "model.safetensors")


def without_classes(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": config["model_type"]}))


def without_weights(folder):
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("damage", [other_shape, a_stage_too_many, without_classes, without_weights])
def test_a_damaged_model_is_told_in_one_line(run, tmp_path, damage):
    copied = shutil.copytree(run.path, tmp_path / "copy")
    damage(copied / "model")
    with pytest.raises(RunError, match="not a usable model folder|no such file") as told:
        Predictor.open(copied)
    assert "\n" not in str(told.value)


def test_a_set_is_fitted_to_the_levels_that_are_seen(people, model, histograms, levels):
    rows = of_one(people)
    names = [people.patients[row] for row in rows]
    whole, threshold, *_ = model.predict(histograms[rows], names, levels[rows].tolist())
    _alone, threshold_alone, *_ = model.predict(histograms[rows], None, levels[rows].tolist())
    assert np.array_equal(whole, model.predict_proba(histograms[rows], names, levels[rows].tolist()))
    assert len(set(threshold)) == 1
    assert len(set(threshold_alone)) > 5
    assert ((threshold > 0) & (threshold < 0.7)).all()


def test_a_runs_predictions_carry_their_sets(run):
    evaluation = evaluate_patients(run)
    assert evaluation.leakage["status"] == "clean"
    assert evaluation.sets.coverage.value > 0.6  # 16 phantom people
    assert evaluation.temperatures[0] == 1


@pytest.mark.parametrize(("cells", "effect"), [(3, 40), (EDGES, 1.5)], ids=["in a few features", "in all"])
def test_a_model_of_the_whole_brain_sees_an_effect_wherever_it_is(cells, effect):
    """Of the whole brain's levels, eight are given; half of the people train."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(80) % 2, 8)
    levels = np.tile(np.arange(16, 24), 80)
    values = rng.normal(100, 20, (len(labels), 1, FEATURES))
    values[:, :, :cells] += effect * labels[:, None, None]
    features = values.round().clip(0, 255).astype(np.uint8)
    names = [f"{number:02d}" for number in np.repeat(np.arange(80), 8)]
    half = len(labels) // 2
    model = PatientModel.fit(
        features[:half], names[:half], levels[:half] / (BRAIN.count - 1), labels[:half], ("a", "b"), None, BRAIN
    )
    found = model.predict_proba(features[half:], names[half:], levels[half:].tolist())
    assert roc_auc_score(labels[half:], found[:, 1]) > 0.92


def test_who_asks_while_it_is_fitted_waits_for_that_fit(people, histograms, levels, monkeypatch):
    fits, fit = [], PatientModel._fit

    def counted(model, given):
        fits.append(given)
        return fit(model, given)

    monkeypatch.setattr(PatientModel, "_fit", counted)
    own = fitted(people, histograms, levels, list(range(len(people))))
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: own.predict_proba(histograms[:1], None, levels[:1]), range(4))
    assert len(fits) == 1
    assert all(np.array_equal(first, other) for other in others)


def test_a_fit_leaves_the_threads_of_linear_algebra_as_they_were(people, histograms, levels):
    with threadpool_limits(2, "blas"):
        fitted(people, histograms, levels, list(range(len(people)))).predict_proba(histograms[:1], None, levels[:1])
        libraries = [one for one in threadpool_info() if one["user_api"] == "blas"]
    assert libraries
    assert {one["num_threads"] for one in libraries} == {2}


FITTED_ALONE = """
import sys
from brainstage import cross_validate, load_slices
from brainstage.models.recipes import load_recipe
cross_validate(load_slices(sys.argv[1]), load_recipe("patient", folds=2, repeats=1), out=sys.argv[2])
print({"torch", "transformers"} & set(sys.modules))
"""


def test_it_is_fitted_without_torch_which_takes_seconds_to_import(phantom_folder, tmp_path):
    command = [sys.executable, "-c", FITTED_ALONE, str(phantom_folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
