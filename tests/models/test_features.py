import os
import shutil

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from brainstage.core.cache import clear
from brainstage.core.errors import ConfigError
from brainstage.models import features
from brainstage.models.backbones import split_head
from brainstage.models.features import FeatureCache, features_folder
from helpers import small_vit

KEY = {"weights": "a", "precision": "fp32"}
IDS = [f"{number:064x}" for number in range(300)]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))


class Counting:
    """Gives each slice its number as features, and counts what it was asked for."""

    def __init__(self, fails_at=None):
        self.asked, self.fails_at = [], fails_at

    def __call__(self, ids):
        if self.fails_at is not None and len(self.asked) >= self.fails_at:
            raise KeyboardInterrupt
        self.asked += ids
        return np.array([[int(slice_id, 16), 0.5] for slice_id in ids], np.float32)


def expected(ids):
    return [[int(slice_id, 16), 0.5] for slice_id in ids]


def test_each_slice_is_computed_once_whatever_is_asked_for():
    compute = Counting()
    assert FeatureCache(KEY).get(IDS[:200], compute).tolist() == expected(IDS[:200])
    mixed = [IDS[299], IDS[3], IDS[3], IDS[250]]
    assert FeatureCache(KEY).get(mixed, compute).tolist() == expected(mixed)
    assert compute.asked == [*IDS[:200], IDS[299], IDS[250]]


def test_another_backbone_has_its_own_features():
    compute = Counting()
    FeatureCache(KEY).get(IDS[:3], compute)
    FeatureCache(KEY | {"weights": "b"}).get(IDS[:3], compute)
    assert len(compute.asked) == 6


def test_an_interrupted_run_goes_on():
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(KEY).get(IDS, Counting(fails_at=features.CHUNK * 2))
    compute = Counting()
    assert FeatureCache(KEY).get(IDS, compute).tolist() == expected(IDS)
    assert compute.asked == IDS[features.CHUNK * 2 :]


def test_a_damaged_file_is_computed_again():
    FeatureCache(KEY).get(IDS[:5], Counting())
    file = next(features_folder().rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    compute = Counting()
    assert FeatureCache(KEY).get(IDS[:5], compute).tolist() == expected(IDS[:5])
    assert compute.asked == IDS[:5]


def test_features_that_another_process_removes_meanwhile_are_computed_again(monkeypatch):
    trimmed = []

    def trim(folder, _limit):
        if not trimmed:
            trimmed.append(shutil.rmtree(folder))

    monkeypatch.setattr(features, "use", trim)
    compute = Counting()
    assert FeatureCache(KEY).get(IDS[:5], compute).tolist() == expected(IDS[:5])
    assert compute.asked == 2 * IDS[:5]


def test_filling_computes_what_is_read_later():
    compute = Counting()
    FeatureCache(KEY).fill(IDS, compute)
    assert compute.asked == IDS
    assert FeatureCache(KEY).get(IDS[250:] + IDS[:3], compute).tolist() == expected(IDS[250:] + IDS[:3])
    assert compute.asked == IDS


def test_beyond_the_limit_what_was_not_used_for_longest_goes(monkeypatch):
    for age, name in ((20, "a"), (30, "b"), (10, "c")):
        FeatureCache(KEY | {"weights": name}).get(IDS[:50], Counting())
        newest = max(features_folder().iterdir(), key=lambda folder: folder.stat().st_mtime)
        os.utime(newest, (1e9 - age, 1e9 - age))
    size = sum(file.stat().st_size for file in features_folder().rglob("*.safetensors"))
    monkeypatch.setenv("BRAINSTAGE_FEATURES_GB", str(size / 3 * 2.5 / 1e9))
    for name, computed in (("c", 0), ("a", 0), ("b", 50)):
        compute = Counting()
        FeatureCache(KEY | {"weights": name}).get(IDS[:50], compute)
        assert len(compute.asked) == computed


def test_what_another_process_may_be_using_stays_beyond_the_limit(monkeypatch):
    monkeypatch.setenv("BRAINSTAGE_FEATURES_GB", "0")
    for name in ("a", "b"):
        FeatureCache(KEY | {"weights": name}).get(IDS[:5], Counting())
    compute = Counting()
    FeatureCache(KEY | {"weights": "a"}).get(IDS[:5], compute)
    assert compute.asked == []


def test_a_limit_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setenv("BRAINSTAGE_FEATURES_GB", "much")
    with pytest.raises(ConfigError, match="BRAINSTAGE_FEATURES_GB: 'much' is not a number"):
        FeatureCache(KEY).get(IDS[:1], Counting())


def test_clear_removes_all():
    FeatureCache(KEY).get(IDS[:5], Counting())
    assert clear(features_folder()) > 0
    assert not features_folder().exists()
    assert clear(features_folder()) == 0


def test_the_last_layer_of_a_vit_works_on_the_class_token_alone():
    model = small_vit()
    inputs = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    flops = []
    for network in (model, split_head(model)[0]):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network.eval()(inputs)
        flops.append(counter.get_total_flops())
    assert flops[1] < 0.9 * flops[0]  # of two layers; that the features are the same is tested for every backbone
