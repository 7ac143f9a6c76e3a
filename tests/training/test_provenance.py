"""Settings that were chosen with people in view are optimistic on them, in whatever selection of these people."""

from dataclasses import replace

import pytest

from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.models.recipes import load_recipe
from brainstage.training.provenance import optimism


@pytest.fixture(scope="module")
def real(real_folder):
    return load_slices(real_folder)


def part(slices, rows):
    return replace(slices, rows=slices.rows.take(rows), images=[slices.images[row] for row in rows])


def without_one_slice(slices):
    return part(slices, list(range(1, len(slices))))


def without_moderate(slices):
    rows = [row for row, label in enumerate(slices.labels) if label != "Moderate_Demented"]
    return replace(part(slices, rows), classes=slices.classes[:3])


def renamed(slices):
    names = dict(zip(slices.classes, ("CN", "EMCI", "MCI", "AD"), strict=True))
    return replace(slices.with_labels([names[label] for label in slices.labels]), classes=tuple(names.values()))


@pytest.mark.real
@pytest.mark.parametrize("recipe", ["compact", "patient"])
@pytest.mark.parametrize("change", [lambda slices: slices, without_one_slice, without_moderate, renamed])
def test_bundled_recipes_are_optimistic_on_people_of_the_public_dataset(recipe, change, real):
    slices, config = change(real), load_recipe(recipe, protocol="patient")
    fold = make_splits(slices, config).chosen(config)
    assert optimism(config, slices, fold) == "the settings were tuned on these same people"


def test_and_not_on_others(few):
    config = load_recipe("compact", protocol="patient", folds=2)
    assert optimism(config, few, make_splits(few, config).chosen(config)) is None


@pytest.mark.real
def test_nor_on_test_slices_that_played_no_part(real):
    config = load_recipe("compact")
    assert optimism(config, real, make_splits(real, config).chosen(config)) is None
