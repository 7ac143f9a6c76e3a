"""What tests share: small pictures and models, the command line, a server."""

import gc
import io
import math
import os
import re
import subprocess
import sys
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from PIL import Image

TINY = {
    "image_size": 32,
    "stem_channels": 8,
    "stage_channels": [8, 16],
    "stage_blocks": [1, 1],
    "epochs": 3,
    "batch_size": 32,
}


def few_people(slices):
    """Return every second slice of a few people: three of a stage, or as many as it has."""
    people_of = {}
    for patient, label in zip(slices.patients, slices.labels, strict=True):
        people_of.setdefault(label, set()).add(patient)
    chosen = {patient for people in people_of.values() for patient in sorted(people)[:3]}
    levels = slices.rows["slice_index"].to_pylist()
    rows = [row for row, patient in enumerate(slices.patients) if patient in chosen and levels[row] % 2]
    return replace(slices, rows=slices.rows.take(rows), images=[slices.images[row] for row in rows])


def picture(seed=0, size=(40, 40)):
    """Return a small grey picture that differs for each seed."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


TERMINAL = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run_cli(*arguments, **environment):
    """Run the command line in this process, as ``brainstage ARGUMENTS`` would, without lines that tell of time."""
    from brainstage.cli import main
    from brainstage.core import progress

    out, err, code, thresholds = io.StringIO(), io.StringIO(), 0, gc.get_threshold()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.dict(os.environ, TERMINAL | environment),
        patch.object(sys, "argv", ["brainstage", *map(str, arguments)]),
        patch.object(progress, "SECONDS_BETWEEN_LINES", math.inf),  # else who prints depends on all tests before
        warnings.catch_warnings(),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            gc.set_threshold(*thresholds)
    return Outcome(code, out.getvalue(), err.getvalue())


def without_pictures(page):
    """Return a page without the bytes of its pictures, which may spell anything."""
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)


def brainstage(*arguments, **environment):
    """Run the command line in a process of its own: slower than :func:`run_cli`, and whole."""
    return subprocess.run(
        [sys.executable, "-m", "brainstage", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **TERMINAL, **environment},
    )


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
    from brainstage.datasets.preprocessing import Preprocessing

    model.save_pretrained(folder)
    Preprocessing(size, None, (0.5, 0.4, 0.5), (0.5, 0.5, 0.6), resample=2).save(folder)
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


def encode(pixels, format="PNG", **options):
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=format, **options)
    return stream.getvalue()
