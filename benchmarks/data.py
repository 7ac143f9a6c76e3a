"""From the training parquet file to the network's input: brainstage beside the report's way, in one run.

    python benchmarks/data.py [--data FOLDER] [--rows 5120]

The report's way is a torch dataset over a pandas frame: ``iloc``, PIL, one image-processor call an image, every
epoch anew. It is timed with the processor that brainstage saves (the same pixels come out),
and with the report's own (ViT, 224 px). Ours is timed cold (file to input batches, with the SHA-256 of every
slice) and warm (what an epoch costs after that). Neither keeps the inputs.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from transformers import ConvNextImageProcessorPil, ViTImageProcessorPil

from brainstage.core.config import TrainConfig
from brainstage.datasets.layouts import hub_files
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.datasets.sources import default_source, load_slices
from brainstage.models.recipes import load_recipe
from brainstage.training.trainer import SliceDataset

MEAN, STD = 0.28, 0.33  # about those of the training rows
FIRST = 16  # rows whose inputs are compared


def reports_way(frame: pd.DataFrame, processor: Any) -> tuple[list[Any], float]:
    """Return the first rows' inputs and the seconds that all rows take."""
    start = time.perf_counter()
    first = []
    for number in range(len(frame)):
        row = frame.iloc[number]
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        pixels = processor(image, return_tensors="pt")["pixel_values"][0]
        if number < FIRST:
            first.append(pixels)
    return first, time.perf_counter() - start


def our_way(file: Path, config: TrainConfig) -> tuple[list[Any], float, float]:
    """Return the first epoch's inputs, the seconds from file to inputs, and those of each epoch after it."""
    start = time.perf_counter()
    slices = load_slices(file)
    preprocessing = Preprocessing(config.image_size, config.crop_share, MEAN, STD)
    pixels = preprocessing.resize(slices.images, margin=config.max_shift)
    training = SliceDataset(pixels[None], slices.targets(range(len(slices))), preprocessing)
    inputs = one_epoch(training, config.batch_size)
    cold = time.perf_counter() - start
    start = time.perf_counter()
    training.seed = 0
    training.start_epoch(1)
    one_epoch(training, config.batch_size)
    return inputs, cold, time.perf_counter() - start


def one_epoch(training: SliceDataset, batch_size: int) -> list[Any]:
    """Make every batch of an epoch; the first is returned, the others are let go as in training."""
    rows = list(range(len(training)))
    batches = (training.__getitems__(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size))
    first = next(batches)["pixel_values"]
    for _ in batches:
        pass
    return list(first)


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=5120)
    options = parser.parse_args()
    config = load_recipe("compact")
    file = hub_files(Path(options.data) if options.data else default_source())["train"][0]
    frame = pd.read_parquet(file)
    inputs, cold, warm = our_way(file, config)

    print(f"{len(frame)} training rows, {config.image_size} px; the report's way on {options.rows} of them")
    print(f"ours, cold (file to input, hashed)                {cold:8.2f} s")
    print(f"ours, each epoch after that                       {warm:8.2f} s")
    settings = Preprocessing(config.image_size, config.crop_share, MEAN, STD).settings
    same = ConvNextImageProcessorPil.from_dict(settings)
    for name, processor in (("our processor", same), ("its own processor, ViT 224 px", ViTImageProcessorPil())):
        first, seconds = reports_way(frame.iloc[: options.rows], processor)
        if processor is same:
            np.testing.assert_allclose(inputs[7][0], first[7][0], atol=1e-5)
        seconds *= len(frame) / min(options.rows, len(frame))
        epochs = config.epochs
        print(
            f"the report's way, {name:<32}{seconds:8.2f} s an epoch: {seconds / cold:6.1f} times ours cold, "
            f"{seconds / warm:7.1f} times ours warm, {epochs * seconds / (cold + (epochs - 1) * warm):6.1f} times "
            f"over the recipe's {epochs} epochs"
        )


if __name__ == "__main__":
    main()
