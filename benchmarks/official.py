"""The three compact recipes on the official split, three seeds each; with the first beside a plain PyTorch loop.

    python benchmarks/official.py [--data FOLDER] [--seeds 0 1 2] [--recipes compact]

Each fit uses all 5,120 training rows and the recipe's fixed schedule; the test rows are looked at once, at the
end. Seconds run from decoded slices to a trained network: resizing, training and, for Trainer, its checkpoints.
The plain loop has the same network, optimiser, schedule, batches a step and augmentation, and no checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import get_cosine_schedule_with_warmup

from brainstage.core.config import TrainConfig
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Fold, make_splits
from brainstage.datasets.table import SliceTable
from brainstage.inference.classifiers import SliceClassifier
from brainstage.inference.predictor import Predictor
from brainstage.models.engines.torch import TorchEngine
from brainstage.models.network import build_model, build_optimizer
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import prepare
from brainstage.training.trainer import SliceDataset, fit_network, uses_bf16

RECIPES = ("compact-fast", "compact", "compact-best")


def fit_trainer(slices: SliceTable, fold: Fold, config: TrainConfig) -> tuple[Any, Any, float]:
    """Return the network, its preprocessing and the seconds of a fit by Trainer."""
    start = time.perf_counter()
    preprocessing, training, _ = prepare(slices, fold, config)
    model = build_model(config, slices.classes)
    with tempfile.TemporaryDirectory() as folder:
        fit_network(model, training, None, config, Path(folder))
    return model, preprocessing, time.perf_counter() - start


def fit_plain(slices: SliceTable, fold: Fold, config: TrainConfig) -> tuple[Any, Any, float]:
    """Return the network, its preprocessing and the seconds of a plain loop."""
    start = time.perf_counter()
    preprocessing, training, _ = prepare(slices, fold, config)
    model = build_model(config, slices.classes).train()
    _loop(model, training, config)
    return model, preprocessing, time.perf_counter() - start


def _loop(model: Any, training: SliceDataset, config: TrainConfig) -> None:
    optimizer = build_optimizer(model, config)
    steps = -(-len(training) // config.batch_size) * config.epochs
    schedule = get_cosine_schedule_with_warmup(optimizer, int(config.warmup_share * steps), steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    for epoch in range(config.epochs):
        training.start_epoch(epoch)
        order = torch.randperm(len(training)).tolist()
        for first in range(0, len(order), config.batch_size):
            batch = training.__getitems__(order[first : first + config.batch_size])
            with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(config)):
                loss = loss_of(model(batch["pixel_values"]).logits, batch["labels"])
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def judge(model: Any, preprocessing: Any, slices: SliceTable, fold: Fold) -> tuple[float, float, float]:
    """Return accuracy, weighted and macro F1 on the test rows."""
    rows = [slices.row_of[slice_id] for slice_id in fold.test]
    predictor = Predictor(SliceClassifier(TorchEngine(model), preprocessing), "", {})
    predicted = predictor.predict_proba([slices.images[row] for row in rows]).argmax(1)
    labels = slices.targets(rows)
    weighted, macro = (float(f1_score(labels, predicted, average=name)) for name in ("weighted", "macro"))
    return float(accuracy_score(labels, predicted)), weighted, macro


def main() -> None:
    """Print one line a fit and one mean a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    options = parser.parse_args()
    slices = load_slices(options.data)
    print(f"official split · {make_splits(slices, load_recipe('compact')).verdict}")
    numbers = (
        "bf16" if uses_bf16(load_recipe("compact")) else "fp32, since this processor has no instructions for bf16"
    )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {numbers}")
    print(f"{'recipe':<14}{'loop':<9}{'seed':>4}{'accuracy':>10}{'weighted F1':>13}{'macro F1':>10}{'seconds':>9}")
    for recipe in options.recipes:
        lines = [_fit(slices, recipe, seed, "Trainer", fit_trainer) for seed in options.seeds]
        _print(recipe, "Trainer", "mean", tuple(np.mean(lines, axis=0)))
        plain = _fit(slices, recipe, options.seeds[0], "plain", fit_plain)
        print(f"{recipe}: Trainer takes {lines[0][3] / plain[3]:.2f} times the plain loop's time")


def _fit(slices: SliceTable, recipe: str, seed: int, loop: str, fit: Callable[..., Any]) -> tuple[float, ...]:
    """Fit once; print and return accuracy, the two F1 and the seconds."""
    config = load_recipe(recipe, seed=seed, validation_share=0.0)
    fold = make_splits(slices, config).folds[0]
    model, preprocessing, seconds = fit(slices, fold, config)
    line = (*judge(model, preprocessing, slices, fold), seconds)
    _print(recipe, loop, str(seed), line)
    return line


def _print(recipe: str, loop: str, seed: str, line: tuple[float, ...]) -> None:
    accuracy, weighted, macro, seconds = line
    print(
        f"{recipe:<14}{loop:<9}{seed:>4}{accuracy:>10.4f}{weighted:>13.4f}{macro:>10.4f}{seconds:>9.1f}", flush=True
    )


if __name__ == "__main__":
    main()
