"""The report's final training, its plain way against ours, with a ViT-base of random weights at 224 pixels.

    python benchmarks/study.py [--data FOLDER] [--rows 96] [--engines torch:auto openvino:int8]

The plain way is the report's: every image through the image processor and the frozen network in fp32, batches of
four, at every step and every evaluation. It is measured on ``--rows`` training and as many test rows and
extrapolated to five epochs of all rows with an evaluation after each and one at the end. Ours is
``brainstage train --recipe report`` from the data in memory to the finished run, with an empty cache.

The feature pass is set against the largest matrix products of the same machine, measured in the same run: in bf16
where its processor has instructions for that, which ``auto`` takes too, else in fp32.
Accuracy and F1 are of the public test slices, protocol official; the nearest training slice has 0.9984 there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)
from transformers.utils import logging as transformers_logging

from brainstage.core.config import TrainConfig
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.slices import evaluate
from brainstage.models.backbones import open_backbone, split_head
from brainstage.models.recipes import load_recipe
from brainstage.training.train import train
from brainstage.training.trainer import uses_bf16

SHAPES = ((4096, 4096, 4096), (3152, 768, 3072), (3152, 3072, 768))
"""Matrix products: a large one, and a ViT-base's for a batch of 16."""


def save_backbone(folder: Path) -> None:
    """Write a ViT-base with random weights as the hub would give it."""
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(num_labels=1000)).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)


def seconds_of(work: Callable[[], Any], times: int = 5) -> float:
    """Return the shortest of several times, after one that warms up."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def matrix_peak(dtype: torch.dtype) -> float:
    """Return the most GFLOP/s of a matrix product."""
    found = []
    for rows, inner, columns in SHAPES:
        left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
        found.append(2 * rows * inner * columns / seconds_of(partial(torch.matmul, left, right)) / 1e9)
    return max(found)


class Pictures(Dataset[Any]):
    """The report's data set: each picture through the image processor whenever it is asked for."""

    def __init__(self, slices: SliceTable, slice_ids: tuple[str, ...], processor: Any):
        self.rows = [slices.row_of[slice_id] for slice_id in slice_ids]
        self.images, self.targets = slices.images, slices.targets(self.rows)
        self.processor = processor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        picture = Image.fromarray(self.images[self.rows[number]]).convert("RGB")
        pixels = self.processor(picture, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": int(self.targets[number])}


def the_reports_way(slices: SliceTable, config: TrainConfig, folder: Path, rows: int) -> tuple[float, float]:
    """Return the seconds an image in training and in evaluation."""
    fold = make_splits(slices, config).folds[0]
    processor = ViTImageProcessorPil.from_pretrained(folder)
    model = open_backbone(folder, slices.classes, config.seed)
    for parameter in model.vit.parameters():
        parameter.requires_grad = False
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=out,
                max_steps=rows // config.batch_size,
                per_device_train_batch_size=config.batch_size,
                per_device_eval_batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                save_strategy="no",
                remove_unused_columns=False,
                use_cpu=True,
                disable_tqdm=True,
                seed=config.seed,
            ),
            train_dataset=Pictures(slices, fold.train, processor),
            eval_dataset=Pictures(slices, fold.test[:rows], processor),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.evaluate(Pictures(slices, fold.test[:8], processor))  # warms up
        start = time.perf_counter()
        trainer.train()
        trained = time.perf_counter()
        trainer.evaluate()
        return (trained - start) / rows, (time.perf_counter() - trained) / rows


def our_way(slices: SliceTable, config: TrainConfig) -> tuple[float, dict[str, Any], Any]:
    """Return the seconds from slices in memory to the finished run, its manifest and its evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BRAINSTAGE_CACHE"] = folder
        start = time.perf_counter()
        run = train(slices, config, name="ours", out=folder)
        seconds = time.perf_counter() - start
        return seconds, json.loads(run.manifest.read_text(encoding="utf-8")), evaluate(run)


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=96, help="rows that the plain way is measured on")
    parser.add_argument("--engines", nargs="+", default=["torch:auto", "openvino:int8"], metavar="ENGINE:PRECISION")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    slices = load_slices(options.data)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_backbone(folder)
        report = load_recipe("report", backbone=str(folder))
        fold = make_splits(slices, report).folds[0]
        body, _ = split_head(open_backbone(folder, slices.classes, report.seed))
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            body(torch.zeros(1, 3, 224, 224))
        gflop = counter.get_total_flops() / 1e9
        peaks = {"fp32": matrix_peak(torch.float32)}
        if uses_bf16(report):
            peaks["bf16"] = matrix_peak(torch.bfloat16)
        print(f"protocol official · {len(fold.train):,} training and {len(fold.test):,} test rows")
        found = ", ".join(f"{peak:.0f} GFLOP/s in {kind}" for kind, peak in peaks.items())
        print(f"matrix peak {found}; {gflop:.1f} GFLOP a slice")

        training, evaluating = the_reports_way(slices, report, folder, options.rows)
        trained, evaluated = report.epochs * len(fold.train), (report.epochs + 1) * len(fold.test)
        plain = trained * training + evaluated * evaluating
        print(
            f"plain way, measured on {options.rows} rows each: {1 / training:.2f} images/s in training, "
            f"{1 / evaluating:.2f} in evaluation\n"
            f"  extrapolated: {trained:,} × {training:.4f} s + {evaluated:,} × {evaluating:.4f} s = {plain:,.0f} s"
        )
        for engine, _, precision in (name.partition(":") for name in options.engines):
            seconds, about, judged = our_way(slices, report.replace(engine=engine, precision=precision))
            rate = (len(fold.train) + len(fold.test)) / about["feature_seconds"]
            kind = "bf16" if "bf16" in peaks and precision != "fp32" else "fp32"
            accuracy, f1 = (judged.scores.overall[name].value for name in ("accuracy", "weighted_f1"))
            print(
                f"ours, {about['features']:<14} {seconds:6.0f} s: {plain / seconds:5.1f} times the plain way; "
                f"features {rate:5.2f} slices/s, {rate * gflop / peaks[kind]:.0%} of the {kind} peak; "
                f"head {about['training_seconds']:.0f} s; accuracy {accuracy:.4f}, weighted F1 {f1:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
