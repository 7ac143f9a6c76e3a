"""Shared fixtures: a small phantom cohort, a trained run, and the real dataset where it is there."""

import os

# tests share the machine: torch's threads must not spin while they wait
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import io
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
