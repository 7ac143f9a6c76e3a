"""The two sets of levels: written in cohorts and models, refused where they differ, cut where they should be."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bids_tree import write_bids
from brainstage.cohorts import prepare as module
from brainstage.cohorts.prepare import prepare
from brainstage.core.errors import DataError, RunError
from brainstage.core.levels import BRAIN, LEVEL_SETS, LEVELS_KEY, PUBLIC
from brainstage.core.parallel import Processes
from brainstage.datasets.describe import describe
from brainstage.datasets.sources import load_slices
from brainstage.exports.export import export
from brainstage.inference.cohort_predictions import predict_cohort
from brainstage.inference.predictions import predict_scans
from brainstage.inference.predictor import Predictor
from brainstage.models.recipes import load_recipe
from brainstage.report.cohort_card import write_cohort_card
from brainstage.report.explanations import explain
from brainstage.scans.discover import find_scans
from brainstage.scans.registration import mapped, mni152, register, sample
from brainstage.scans.stack import GRIDS, cut, training_stack
from brainstage.scans.volume import Volume
from brainstage.studies.external_validation import validate
from brainstage.training.train import train
from helpers import TINY, run_cli
from volumes import brain, write_nifti

RECIPES = {"patient": {}, "compact": TINY}
OTHER = {PUBLIC: BRAIN, BRAIN: PUBLIC}
both_sets = pytest.mark.parametrize("level_set", LEVEL_SETS.values(), ids=str)


@pytest.fixture(scope="module")
def bids(once):
    return once("levels-bids", lambda folder: write_bids(folder, people=8))


@pytest.fixture(scope="module")
def cohorts(once, bids):
    """Return the folder of the same people's cohort for each set of levels."""

    def make(folder):
        for levels in LEVEL_SETS.values():
            cohort = prepare(bids, folder / levels.name, level_set=levels, workers=Processes(1))
            write_cohort_card(cohort, ["brainstage", "prepare"])

    folder = once("levels-cohorts", make)
    return {levels: folder / levels.name for levels in LEVEL_SETS.values()}


@pytest.fixture(scope="module")
def runs(cohorts, tmp_path_factory):
    """Return a run for each recipe and set of levels."""
    out = tmp_path_factory.mktemp("runs")
    return {
        (recipe, levels): train(
            load_slices(folder),
            load_recipe(recipe, protocol="patient", folds=4, repeats=1, validation_share=0.0, **settings),
            out=out,
            name=f"{recipe}-{levels.name}",
        )
        for recipe, settings in RECIPES.items()
        for levels, folder in cohorts.items()
    }


def test_the_levels_of_the_whole_brain_reach_from_the_temporal_poles_to_the_vertex():
    template = mni152()
    grid = GRIDS[BRAIN]
    step = grid[:3, 0]
    assert np.linalg.norm(step) == pytest.approx(BRAIN.spacing)
    assert np.cross(step, GRIDS[PUBLIC][:3, 0]) == pytest.approx(np.zeros(3))
    np.testing.assert_array_equal(grid[:, 1:3], GRIDS[PUBLIC][:, 1:3])
    index = np.stack(np.nonzero(template.voxels > 40)).astype(float)
    millimetres = mapped(template.affine, index)
    level, row, column = mapped(np.linalg.inv(grid), millimetres)
    assert row.min() > 0 and row.max() < 127 and column.min() > 0 and column.max() < 127
    assert BRAIN.count - 1 < level.max() < BRAIN.count + 2  # the vertex is above the highest level, and near
    poles = (np.abs(millimetres[0]) > 25) & (millimetres[1] > -10)
    assert -3 < level[poles].min() < 1
    for hippocampus in ((27, -21, -16), (-27, -21, -16)):
        at = {
            one: mapped(np.linalg.inv(grid), np.reshape(hippocampus, (3, 1)))[0, 0] for one, grid in GRIDS.items()
        }
        assert 10 < at[BRAIN] < 25 and at[PUBLIC] < -8


@both_sets
def test_a_slice_shows_the_template_at_its_level(level_set):
    volume = brain()
    stack, levels = cut(volume, register(volume), level_set)
    assert stack.shape == level_set.shape and levels == list(range(level_set.count))
    rows, columns = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    for level in (0, level_set.count // 2, level_set.count - 1):
        at = np.stack([np.full(128 * 128, level), rows.ravel(), columns.ravel()]).astype(float)
        expected = sample(mni152(), mapped(GRIDS[level_set], at))
        assert np.corrcoef(stack[level].ravel(), expected)[0, 1] > 0.97


@both_sets
def test_half_of_the_levels_must_be_shown(level_set):
    volume = brain()
    place = mapped(GRIDS[level_set], np.array([[0.0, 0.5 * level_set.count], [64, 64], [64, 64]]))[2, 1]
    enough, too_few = (round((place + over - volume.affine[2, 3]) / 2) for over in (7, -6))
    stack, levels = training_stack(Volume(volume.voxels[:, :, :enough], volume.affine), "a", level_set)
    assert 0.5 * level_set.count <= len(stack) == len(levels) < level_set.count
    with pytest.raises(DataError, match=f"a: .*of the {level_set.count} levels .*too few"):
        training_stack(Volume(volume.voxels[:, :, :too_few], volume.affine), "a", level_set)


@both_sets
def test_a_cohort_states_its_levels_wherever_it_describes_itself(cohorts, level_set):
    folder, name = cohorts[level_set], level_set.name
    slices = load_slices(folder)
    assert slices.level_set == slices.stated_levels == level_set and describe(slices)["levels"] == name
    assert set(slices.levels) == set(range(level_set.count))
    for file in (*folder.glob("data/*.parquet"), folder / "scans.parquet"):
        assert pq.read_schema(file).metadata[LEVELS_KEY.encode()].decode() == name
    assert json.loads((folder / "cohort.json").read_text())["levels"] == name
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    assert f"`{name}`: up to {level_set.count}" in card and f"to {level_set.count - 1};" in card
    assert name in json.loads((folder / "croissant.json").read_text())["description"]


def test_data_that_states_none_is_that_of_the_public_dataset(phantom):
    assert phantom.stated_levels is None and phantom.level_set == PUBLIC
    assert set(phantom.levels) == {None}


def test_a_cohort_keeps_its_levels(bids, cohorts, tmp_path, monkeypatch):
    copied = shutil.copytree(cohorts[BRAIN], tmp_path / "cohort")
    before = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    code, _, err = run_cli("prepare", bids, "--out", copied)
    assert code == 1 and err.count("\n") == 1
    assert "was prepared with --levels brain, not public; give the same levels, or choose a new folder" in err
    assert before == {file: file.read_bytes() for file in before}
    with monkeypatch.context() as patched:
        patched.setattr(module, "prepare_scan", None)  # nothing is prepared again
        prepare(bids, copied, level_set=BRAIN, workers=Processes(1))
    (copied / "cohort.json").unlink()  # as after a kill: nothing is finished, so parts of other levels are redone
    assert prepare(bids, copied, level_set=PUBLIC, workers=Processes(1)).level_set == PUBLIC
    assert set(load_slices(copied).levels) == set(range(PUBLIC.count))


def test_slices_of_different_levels_are_not_mixed(cohorts, tmp_path):
    (tmp_path / "data").mkdir()
    for number, folder in enumerate(cohorts.values()):
        shutil.copy(next(folder.glob("data/*.parquet")), tmp_path / "data" / f"train-0000{number}-of-00002.parquet")
    with pytest.raises(DataError, match="holds slices of different levels, brain and public; prepare"):
        load_slices(tmp_path)


def test_levels_that_are_not_known_or_not_among_those_stated_are_told(cohorts, tmp_path):
    table = pq.read_table(next(cohorts[BRAIN].glob("data/*.parquet")))
    file = tmp_path / "slices.parquet"

    def stating(name):
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, LEVELS_KEY.encode(): name}), file)

    stating(b"spine")
    with pytest.raises(DataError, match="states the levels 'spine', expected one of public, brain"):
        load_slices(file)
    stating(b"public")
    with pytest.raises(DataError, match="has the slice_index 32, expected 0 to 31, since the file states"):
        load_slices(file)


@pytest.mark.parametrize("recipe", RECIPES)
@both_sets
def test_a_model_knows_its_levels_and_refuses_a_cohort_of_the_others(runs, cohorts, tmp_path, recipe, level_set):
    run, other = runs[recipe, level_set], OTHER[level_set]
    assert run.read_manifest()["levels"] == level_set.name
    assert json.loads((run.model / "config.json").read_text())[LEVELS_KEY] == level_set.name
    predictor = Predictor.open(run)
    assert predictor.level_set == predictor.randomised(0).level_set == level_set
    slices = load_slices(cohorts[other])
    told = (
        f"shows the levels {other.name} .* trained on {level_set.name} .*--levels {level_set.name}, or take a model"
    )
    with pytest.raises(DataError, match=told):
        predict_cohort(predictor, slices)
    with pytest.raises(DataError, match=told):
        validate(run, slices, tmp_path / "validation", cohort=cohorts[other])
    shard = str(next(cohorts[other].glob("data/*.parquet")))
    for predict in (predict_scans, lambda model, scans: explain(model, scans, tmp_path / "maps")):
        with pytest.raises(DataError, match=told):
            predict(predictor, find_scans(shard))
    code, out, err = run_cli("predict", run.path, shard)
    assert code == 1 and not out and err.count("\n") == 1 and f"--levels {level_set.name}" in err


@pytest.mark.parametrize("recipe", RECIPES)
@both_sets
def test_a_volume_is_cut_at_the_models_own_levels(runs, tmp_path, recipe, level_set):
    scan = write_nifti(tmp_path / "brain.nii", brain((4.0, 4.0, 4.0)))
    predictor = Predictor.open(runs[recipe, level_set])
    whole, *rows = predict_scans(predictor, find_scans(scan)).rows
    assert whole["status"] == "predicted" and [row["level"] for row in rows] == list(range(level_set.count))
    stack, levels = training_stack(brain((4.0, 4.0, 4.0)), "a", level_set)
    accepted = [number for number, reason in enumerate(predictor.refusals(stack)) if reason is None]
    expected = predictor.predict_proba(
        [stack[number] for number in accepted], ["x"] * len(accepted), [levels[number] for number in accepted]
    )[0]
    np.testing.assert_allclose([whole[f"prob_{name}"] for name in predictor.classes], expected, atol=1e-6)


def test_an_exported_network_keeps_its_levels(runs, cohorts, tmp_path):
    pytest.importorskip("onnxruntime")
    run = runs["compact", BRAIN]
    with pytest.raises(DataError, match="trained on brain"):
        export(run, tmp_path / "other", slices=load_slices(cohorts[PUBLIC]))
    export(run, tmp_path / "onnx", slices=load_slices(cohorts[BRAIN]))
    assert Predictor.open(tmp_path / "onnx").level_set == BRAIN


def test_the_levels_of_a_cohort_are_used_as_they_are(runs, cohorts, tmp_path):
    """Scans of which all lack the lowest levels lie where they lie, not stretched over the whole stack."""
    table = pq.read_table(next(cohorts[BRAIN].glob("data/*.parquet")))
    upper = table.filter(pa.compute.greater_equal(table["slice_index"], 16))
    pq.write_table(upper, tmp_path / "train-00000-of-00001.parquet")
    config = load_recipe("patient", protocol="patient", folds=4, repeats=1, validation_share=0.0)
    part = Predictor.open(train(load_slices(tmp_path), config, out=tmp_path, name="upper"))
    whole = Predictor.open(runs["patient", BRAIN])
    images = training_stack(brain((4.0, 4.0, 4.0)), "a", BRAIN)[0][20:60:5]
    features = part.extract_features(list(images), as_it_is=True)
    apart = np.subtract(part.levels(features, [None] * 8), whole.levels(features, [None] * 8))
    assert np.abs(apart).max() <= 2


def test_a_patient_model_of_unknown_levels_is_told_in_one_line(runs, tmp_path):
    copied = shutil.copytree(runs["patient", BRAIN].model, tmp_path / "run" / "model").parent
    config = json.loads((copied / "model" / "config.json").read_text())
    for wrong, told in (("spine", "states the levels 'spine'"), ("public", "stacks of shape")):
        (copied / "model" / "config.json").write_text(json.dumps({**config, LEVELS_KEY: wrong}))
        with pytest.raises(RunError, match=told) as error:
            Predictor.open(copied)
        assert "\n" not in str(error.value)
