"""The nearest training slice: what a split is worth where people are on both sides."""

import numpy as np
import pytest
from PIL import Image

from brainstage.core.schema import PROB_PREFIX
from brainstage.datasets.signatures import square
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.evaluation.slices import evaluate
from brainstage.models.recipes import load_recipe
from brainstage.training import baselines
from brainstage.training.train import train


def decided(table, classes):
    return np.stack([table[PROB_PREFIX + name].to_numpy() for name in classes], axis=1).argmax(axis=1)


def labels_of(slices, ids):
    return slices.targets([slices.row_of[one] for one in ids])


def by_hand(slices, asked, known):
    """The stage of the most similar slice, with the whole matrix of correlations in memory."""
    rows, others = ([slices.row_of[one] for one in ids] for ids in (asked, known))
    pixels = square(slices.images).reshape(len(slices), -1)
    similarity = np.corrcoef(pixels[rows], pixels[others])[: len(rows), len(rows) :]
    return slices.targets([others[best] for best in similarity.argmax(axis=1)])


def test_every_slice_gets_the_stage_of_the_most_similar_training_slice(few, monkeypatch):
    folds = make_splits(few, load_recipe("compact", protocol="patient", folds=3)).folds
    monkeypatch.setattr(baselines, "_ROWS_IN_MEMORY", 100)  # several blocks of rows and of columns
    monkeypatch.setattr(baselines, "BLOCK_ROWS", 70)
    table = baselines.nearest_training_slice(few, dict(enumerate(folds)), {})
    found = decided(table, few.classes)
    expected = [
        stages
        for fold in folds
        for stages in (
            by_hand(few, fold.validation, fold.train),
            by_hand(few, fold.test, fold.train + fold.validation),
        )
    ]
    assert found.tolist() == np.concatenate(expected).tolist()
    assert table["slice_id"].to_pylist() == [one for fold in folds for one in fold.validation + fold.test]
    one = baselines.nearest_stages(few, folds[1].validation, folds[1])
    assert one.tolist() == expected[2].tolist()


def test_many_slices_get_the_stage_of_one_that_is_nearly_the_most_similar(few, monkeypatch):
    splits = make_splits(few, load_recipe("compact"))
    every_pair = baselines.nearest_training_slice(few, dict(enumerate(splits.folds)), {})
    linear = baselines.linear_baseline(few, splits, {})
    monkeypatch.setattr(baselines, "MANY_SLICES", 60)
    few_pairs = baselines.nearest_training_slice(few, dict(enumerate(splits.folds)), {})
    assert (decided(few_pairs, few.classes) == decided(every_pair, few.classes)).mean() > 0.97
    of_sample = baselines.linear_baseline(few, splits, {})
    assert of_sample["slice_id"] == linear["slice_id"]
    assert (decided(of_sample, few.classes) == decided(linear, few.classes)).mean() > 0.8
    assert of_sample != linear


def test_pictures_of_several_sizes_are_compared(few):
    def larger(image):
        return np.asarray(Image.fromarray(image).resize((200, 200)))

    images = [larger(image) if number % 2 else image for number, image in enumerate(few.images)]
    mixed = type(few)(few.rows, images, few.classes)
    fold = make_splits(few, load_recipe("compact")).folds[0]
    found, same = (baselines.nearest_stages(slices, fold.test, fold) for slices in (mixed, few))
    assert (found == same).mean() > 0.9


def test_a_run_is_judged_beside_it(few, tiny, tmp_path):
    run = train(few, tiny.replace(epochs=1), name="run", out=tmp_path)
    found = evaluate(run).to_dict()["baselines"]
    assert list(found) == ["majority", "nearest_training_slice"]
    fold = make_splits(few, tiny).folds[0]
    right = by_hand(few, fold.test, fold.train + fold.validation)
    labels = labels_of(few, fold.test)
    nearest = found["nearest_training_slice"]
    assert nearest["accuracy"]["value"] == pytest.approx((right == labels).mean(), abs=1e-6)
    assert nearest["accuracy"]["low"] <= nearest["accuracy"]["value"] <= nearest["accuracy"]["high"]
    assert nearest["weighted_f1"]["value"] > found["majority"]["weighted_f1"]["value"]
    assert "nearest_training_slice.parquet" in run.verify()
    validation = evaluate(run, split="validation").baselines["nearest_training_slice"].accuracy.value
    assert validation == pytest.approx(
        (by_hand(few, fold.validation, fold.train) == labels_of(few, fold.validation)).mean(), abs=1e-6
    )


def test_the_public_split_is_a_memory_test(real_folder):
    """The figure that the README gives: 1,278 of 1,280 test slices, without any training."""
    slices = load_slices(real_folder)
    fold = make_splits(slices, load_recipe("compact")).folds[0]
    table = baselines.nearest_training_slice(slices, {0: fold}, {})
    test = table.filter(np.array(table["split"].to_pylist()) == "test")
    labels = labels_of(slices, test["slice_id"].to_pylist())
    assert (decided(test, slices.classes) == labels).sum() == 1278
