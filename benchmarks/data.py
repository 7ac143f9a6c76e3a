"""From the training parquet file to the network's input: brainstage beside the report's way, in one run.

    python benchmarks/data.py [--data FOLDER] [--rows 5120]

The report's way is a torch dataset over a pandas frame: ``iloc``, PIL, one image-processor call an image, every
epoch anew. It is timed with the same processor that brainstage saves (equal pixels come out), and with the
report's own (ViT, 224 px). Ours is timed cold (file to input, with the SHA-256 of every slice) and warm (what
an epoch costs after that).
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
from transformers import ViTImageProcessorPil

from brainstage.data.sources import default_source, hub_files, load_slices
from brainstage.data.transforms import Preprocessing, draw_shifts, shift
from brainstage.models.build import build_processor
from brainstage.models.recipes import load_recipe


def reports_way(frame: pd.DataFrame, processor: Any) -> tuple[list[Any], float]:
    """Return each row's input and the seconds taken."""
    start = time.perf_counter()
    inputs = []
    for number in range(len(frame)):
        row = frame.iloc[number]
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        inputs.append(processor(image, return_tensors="pt")["pixel_values"][0])
    return inputs, time.perf_counter() - start


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=5120)
    options = parser.parse_args()
    config = load_recipe("compact")
    ours = Preprocessing(config.image_size, config.crop_share, 0.28, 0.33)
    file = hub_files(Path(options.data) if options.data else default_source())["train"][0]

    start = time.perf_counter()
    slices = load_slices(file)
    pixels = ours.resize(slices.images, margin=config.max_shift)
    cold_inputs = ours.normalise(pixels[:, 1:-1, 1:-1])
    cold = time.perf_counter() - start
    start = time.perf_counter()
    starts = draw_shifts(len(pixels), config.max_shift, 0, 1)
    for first in range(0, len(pixels), config.batch_size):
        batch = slice(first, first + config.batch_size)
        ours.normalise(shift(pixels[batch], starts[batch], config.image_size))
    warm = time.perf_counter() - start

    frame = pd.read_parquet(file).iloc[: options.rows]
    same, same_seconds = reports_way(frame, build_processor(config.image_size, config.crop_share, 0.28, 0.33))
    np.testing.assert_allclose(cold_inputs[7, 0], same[7][0].numpy(), atol=1e-5)
    _, vit_seconds = reports_way(frame, ViTImageProcessorPil())
    scale = len(slices) / len(frame)
    epochs = config.epochs
    print(f"{len(slices)} training rows, {config.image_size} px; the report's way on {len(frame)} of them")
    print(f"ours, cold (file to input, hashed)             {cold:8.2f} s")
    print(f"ours, each epoch after that                    {warm:8.2f} s")
    for name, seconds in (("the same processor", same_seconds), ("its own processor, ViT 224 px", vit_seconds)):
        seconds *= scale
        print(
            f"the report's way, {name:<29}{seconds:8.2f} s an epoch: {seconds / cold:6.1f} times ours cold, "
            f"{seconds / warm:7.1f} times ours warm, {epochs * seconds / (cold + (epochs - 1) * warm):6.1f} times "
            f"over the recipe's {epochs} epochs"
        )


if __name__ == "__main__":
    main()
