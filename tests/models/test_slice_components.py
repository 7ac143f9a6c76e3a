"""Principal components of slices: how many are kept, and what a file of them holds."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from brainstage.core.errors import RunError
from brainstage.core.schema import PROB_PREFIX
from brainstage.inference.predictor import Predictor
from brainstage.models import slice_components
from brainstage.models.patient_features import FEATURES, as_roots
from brainstage.models.recipes import load_recipe
from brainstage.models.slice_components import BYTES, SliceComponents, components_that_fit
from brainstage.training.train import train

LEVELS = 6


def scans(count, seed=0):
    """Return scans whose slices move in 12 directions, and hardly in others."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(9).normal(size=(12, FEATURES))
    moved = 100 + 8 * rng.normal(size=(count, LEVELS, 12)) @ axes + rng.normal(size=(count, LEVELS, FEATURES))
    return moved.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("levels", [32, 64])
@pytest.mark.parametrize("people", [200, 1_000, 5_000, 20_000, 100_000])
def test_a_file_is_smaller_than_50_megabytes(people, levels):
    numbers = components_that_fit(people, levels) or FEATURES
    directions, components = 2 * 64 * levels * FEATURES, 4 * FEATURES * (levels + 1 + numbers)
    labels_and_people = 2 * 8 * people
    assert people * levels * numbers <= BYTES
    assert people * levels * numbers + directions + components + labels_and_people < 50e6


def test_few_people_keep_all_features():
    assert components_that_fit(200, 32) is None
    assert components_that_fit(5_000, 32) == 250


def test_what_varies_is_kept():
    shown = scans(60)
    components = SliceComponents.fit(shown, 12)
    decoded = components.decode(components.encode(shown), np.arange(LEVELS))
    roots = as_roots(shown)
    lost = (decoded - roots).var() / (roots - roots.mean(axis=0)).var()
    assert lost < 0.05
    others = as_roots(scans(20, seed=1)) - components.means
    np.testing.assert_allclose(
        components.through(components.through(others)), components.through(others), atol=1e-4
    )
    assert (others - components.through(others)).var() < 0.05 * others.var()


@pytest.fixture(scope="module")
def small(few, tmp_path_factory):
    """Return a run whose file has room for 20 components a slice."""
    with pytest.MonkeyPatch.context() as patch:
        people = len(set(few.patients))
        patch.setattr(slice_components, "BYTES", 20 * 32 * people)
        return train(
            few, load_recipe("patient", protocol="official"), out=tmp_path_factory.mktemp("runs"), name="s"
        )


def test_a_run_that_keeps_components_predicts_as_it_did_before_it_was_saved(small, few):
    tensors = load_file(small.model / "model.safetensors")
    assert tensors["stacks"].shape[2] == 20
    assert tensors["component_axes"].shape == (20, FEATURES)
    table = pq.read_table(small.predictions)
    rows = [few.row_of[slice_id] for slice_id in table["slice_id"].to_pylist()]
    images, names = [few.images[row] for row in rows], [few.patients[row] for row in rows]
    opened = Predictor.open(small.path).predict_proba(images, names)
    before = np.stack([table[PROB_PREFIX + stage].to_numpy() for stage in few.classes], axis=1)
    np.testing.assert_allclose(opened, before, atol=1e-6)


@pytest.mark.parametrize("name", ["component_means", "component_scales", "component_axes"])
@pytest.mark.parametrize(
    "damage", [lambda tensor: tensor[..., :5].copy(), lambda tensor: tensor * np.float32("nan"), None]
)
def test_damaged_components_are_told_in_one_line(small, tmp_path, name, damage):
    copied = shutil.copytree(small.path, tmp_path / "copy")
    file = copied / "model" / "model.safetensors"
    tensors = load_file(file)
    whole = tensors.pop(name)
    save_file(tensors | ({name: damage(whole)} if damage else {}), file)
    (copied / "manifest.json").unlink()  # a file that was changed would be refused for that
    with pytest.raises(RunError, match="not a usable model folder") as told:
        Predictor.open(copied)
    assert "\n" not in str(told.value)
