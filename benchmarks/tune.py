"""How the compact recipes were chosen: one change at a time, judged on validation slices only.

    python benchmarks/tune.py [--recipe compact] [--held-out 0.25] [--data FOLDER] [--seeds 0 1]

Every line is a fit on the training rows that are not held out, judged on those that are after the last epoch.
The test rows are not read. The last variant replaces Muon by AdamW for all weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from brainstage.core.config import TrainConfig
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.models.network import build_model
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import prepare
from brainstage.training.trainer import fit_network

VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "compact": (
        {},
        {"stem_channels": 32},
        {"stage_channels": [32, 64, 128]},
        {"learning_rate": 0.003},
        {"stage_blocks": [2, 2, 2]},
        {"downsample_first": False, "image_size": 64},
        {"image_size": 80},
        {"image_size": 112},
        {"max_shift": 0},
        {"max_shift": 2},
        {"label_smoothing": 0.0},
        {"label_smoothing": 0.2},
        {"filter_learning_rate": 0.05},
        {"filter_learning_rate": 0.2},
        {"epochs": 8},
        {"epochs": 20},
    ),
    "compact-best": (
        {},
        {"mirror": False},
        {"stem_channels": 16},
        {"epochs": 30},
        {"max_shift": 3},
        {"image_size": 112},
        {"downsample_first": False},
        {"stage_channels": [32, 96, 192]},
        {"stage_channels": [32, 64, 128], "stage_blocks": [2, 2, 2]},
        {"label_smoothing": 0.0},
        {"label_smoothing": 0.2},
        {"weight_decay": 0.3},
        {"filter_learning_rate": 0.05},
        {"filter_learning_rate": 0.2},
    ),
}


def adamw(model: Any, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW for every weight, at the better of the three rates tried (1.5e-3, 3e-3, 6e-3)."""
    return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=config.weight_decay, fused=True)


def main() -> None:
    """Print one line a fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", choices=VARIANTS, default="compact")
    parser.add_argument("--held-out", type=float, default=0.25)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    slices = load_slices(options.data)
    print(f"{options.recipe}, official train side, {options.held_out:.0%} held out: not a test figure")
    for seed in options.seeds:
        recipe = load_recipe(options.recipe, seed=seed, validation_share=options.held_out)
        for changes in VARIANTS[options.recipe]:
            fit(slices, recipe.replace(**changes), str(changes or "as it is"))
        with mock.patch("brainstage.training.trainer.build_optimizer", adamw):
            fit(slices, recipe, "AdamW for every weight")


def fit(slices: Any, config: TrainConfig, name: str) -> None:
    """Fit once and print the last epoch's validation figures and the seconds."""
    start = time.perf_counter()
    _, training, validation = prepare(slices, make_splits(slices, config).folds[0], config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = fit_network(build_model(config, slices.classes), training, validation, config, Path(folder))
    last = [entry for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    print(
        f"{name:<58} seed {config.seed} accuracy {last['eval_accuracy']:.4f} loss {last['eval_cross_entropy']:.4f}"
        f"  {time.perf_counter() - start:5.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
