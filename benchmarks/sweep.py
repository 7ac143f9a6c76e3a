"""Ten trials on the cached features of all rows, beside each trial run alone.

    python benchmarks/sweep.py [--data FOLDER] [--backbone FOLDER]

Without a backbone a ViT-base cut down to one layer is taken: its features are as wide as the whole one's. The
features are computed before the clock starts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from brainstage.core.files import read_json_lines
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import open_frozen
from brainstage.training.sweep import sweep
from brainstage.training.sweep_trials import Factor
from brainstage.training.train import train
from brainstage.training.trainer import FIGURES

FACTORS = (
    Factor("learning_rate", (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    Factor("gradient_accumulation", (1, 2, 4)),
    Factor("weight_decay", (0.005, 0.01, 0.05, 0.1)),
)


def main() -> None:
    """Print seconds and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--backbone")
    options = parser.parse_args()
    slices = load_slices(options.data)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BRAINSTAGE_CACHE"] = folder
        backbone = options.backbone or str(Path(folder) / "vit")
        if not options.backbone:
            torch.manual_seed(0)
            ViTForImageClassification(ViTConfig(num_hidden_layers=1)).save_pretrained(backbone)
            ViTImageProcessorPil().save_pretrained(backbone)
        config = load_recipe("linear-probe", backbone=backbone)
        fold = make_splits(slices, config).folds[0]
        open_frozen(slices, fold, config)
        start = time.perf_counter()
        found = sweep(slices, config, FACTORS, out=folder)
        seconds = time.perf_counter() - start
        print(
            f"{len(found.trials)} trials of {config.epochs} epochs on {len(fold.train):,} training slices, "
            f"judged on {found.judged} validation slices: {seconds:.1f} s"
        )
        start, largest = time.perf_counter(), 0.0
        for trial in found.trials:
            changes = {factor.field: trial[factor.field] for factor in FACTORS}
            run = train(slices, config.replace(**changes), out=folder)
            history = read_json_lines(run.history)
            kept = max(history, key=lambda line: line["validation_accuracy"])
            largest = max(largest, *(abs(trial[name] - kept[f"validation_{name}"]) for name in FIGURES))
        seconds = time.perf_counter() - start
        print(f"each alone by train: {seconds:.1f} s, largest difference of a figure {largest:.1e}")


if __name__ == "__main__":
    main()
