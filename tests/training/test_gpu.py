"""What differs on a machine with a GPU; ``benchmarks/gpu.py`` measures there."""

import numpy as np
import pytest
import torch

from brainstage.datasets.splits import make_splits
from brainstage.models.backbones import load
from brainstage.models.engines.torch import TorchEngine
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import build_whole, open_frozen, prepare_head
from brainstage.training.trainer import fit_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_backbone_predicts_on_the_gpu_as_on_the_processor(vit_folder):
    pixels = np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)
    engine = TorchEngine.open(vit_folder, grey=False)
    assert engine.network.device.type == "cuda"
    np.testing.assert_allclose(engine.logits(pixels), TorchEngine(load(vit_folder)).logits(pixels), atol=1e-5)


def test_a_head_is_trained_on_the_processor_and_a_network_on_the_gpu(few, vit_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))
    report = load_recipe("report", backbone=str(vit_folder), epochs=1, protocol="patient")
    fold = make_splits(few, report).folds[0]
    head, training, _ = prepare_head(open_frozen(few, fold, report), few, fold, report)
    assert fit_network(head, training, None, report).args.device.type == "cpu"
    whole = load_recipe("fine-tune", backbone=str(vit_folder), epochs=1, protocol="patient")
    network, _, training, _ = build_whole(few, fold, whole)
    assert fit_network(network, training, None, whole).args.device.type == "cuda"
    assert network.device.type == "cuda"
