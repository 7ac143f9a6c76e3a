"""What rounding the features of a frozen backbone changes: features, predictions and figures against fp32.

    python benchmarks/precision.py [--data FOLDER] [--rows 400 200] [--backbone FOLDER]

Without a backbone a ViT-base of random weights at 224 pixels is taken. The head is the report's final training,
on ``--rows`` training and test rows. Features: mean difference, as a share of a feature's standard deviation over
the test rows. Probabilities: largest difference. bf16 is left out where the processor has no instructions for it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from brainstage.core.config import TrainConfig
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.slices import judge, read_side
from brainstage.models.recipes import load_recipe
from brainstage.training.inputs import open_frozen
from brainstage.training.train import train
from brainstage.training.trainer import uses_bf16
from study import save_backbone

ENGINES = ("torch:fp32", "torch:bf16", "openvino:bf16", "openvino:int8")


def outcome(slices: SliceTable, config: TrainConfig, folder: str) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Return features and probabilities of the test rows, and accuracy, weighted F1 and loss."""
    run = train(slices, config, name=f"{config.engine}-{config.precision}", out=folder)
    fold = make_splits(slices, config).folds[0]
    side = read_side(run)
    overall = judge(side).scores.overall
    features = open_frozen(slices, fold, config).of(fold.test)
    return features, side.probabilities, [overall[name].value for name in ("accuracy", "weighted_f1", "log_loss")]


def main() -> None:
    """Print one line an engine."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, nargs=2, default=(400, 200), metavar=("TRAIN", "TEST"))
    parser.add_argument("--backbone")
    options = parser.parse_args()
    slices = load_slices(options.data)
    train, test = options.rows
    print(f"protocol official · {train} training and {test} test rows, {torch.get_num_threads()} threads")
    print("engine            features off  probabilities off  same stage  accuracy  weighted F1    loss")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BRAINSTAGE_CACHE"] = folder
        if not options.backbone:
            save_backbone(Path(folder) / "vit")
        backbone = options.backbone or str(Path(folder) / "vit")
        report = load_recipe("report", backbone=backbone, train_rows=train, test_rows=test)
        exact = None
        for name in ENGINES:
            engine, _, precision = name.partition(":")
            if precision == "bf16" and not uses_bf16(report):
                print(f"{name:<16}left out: this processor has no instructions for bf16")
                continue
            config = report.replace(engine=engine, precision=precision)
            features, probabilities, figures = outcome(slices, config, folder)
            exact = exact or (features, probabilities)
            off = np.abs(features - exact[0]).mean() / exact[0].std(axis=0).mean()
            same = (probabilities.argmax(1) == exact[1].argmax(1)).mean()
            print(
                f"{name:<16}{off:7.1%} of std{np.abs(probabilities - exact[1]).max():16.4f}{same:13.1%}"
                f"{figures[0]:10.4f}{figures[1]:13.4f}{figures[2]:8.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
