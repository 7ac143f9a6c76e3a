"""Shared fixtures: a small phantom cohort, a trained run, and the real dataset where it is there."""

import os

# tests share the machine: torch's threads must not spin while they wait
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import io
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainstage.config import TrainConfig
from brainstage.data.phantom import write_phantom
from brainstage.data.sources import load_slices
from brainstage.models.recipes import load_recipe

TINY = {
    "image_size": 32,
    "stem_channels": 8,
    "stage_channels": [8, 16],
    "stage_blocks": [1, 1],
    "epochs": 3,
    "batch_size": 32,
}


def picture(seed=0, size=(40, 40)):
    """Return a small grey picture that differs for each seed."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@contextmanager
def served(*models):
    """Give the address of a server of its own."""
    command = [sys.executable, "-m", "brainstage", "serve", "--port", "0", *models]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def save_backbone(folder, model, size=32):
    """Write a network with random weights as the hub would give it, with a ViT's image processor."""
    from brainstage.data.transforms import Preprocessing

    model.save_pretrained(folder)
    Preprocessing(size, None, (0.5, 0.4, 0.5), (0.5, 0.5, 0.6), resample=2).processor().save_pretrained(folder)
    return folder


def small_vit(labels=None, layers=2):
    """Return a ViT of a few layers for pictures of 32 pixels; ``labels`` names what its head was trained for."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    labels = labels or [f"thing {number}" for number in range(7)]
    torch.manual_seed(0)
    settings = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
    )
    return ViTForImageClassification(settings)


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("vit"), small_vit())


def encode(pixels, format="PNG", **options):
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=format, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom"), patients=16)


@pytest.fixture(scope="session")
def phantom(phantom_folder):
    return load_slices(phantom_folder)


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    """Settings that train in a second."""
    return load_recipe("compact", **TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, phantom, tiny):
    """Return a finished run on the phantom cohort, judged."""
    from brainstage.evaluate import evaluate, write_evaluation
    from brainstage.train import train

    run = train(phantom, tiny, name="trained", out=tmp_path_factory.mktemp("runs"))
    write_evaluation(evaluate(run), run.path, run.history)
    return run


@pytest.fixture(scope="session")
def real_folder():
    named = os.environ.get("BRAINSTAGE_DATA")
    if not named:
        pytest.skip("BRAINSTAGE_DATA does not name the real dataset")
    return Path(named)
