"""Write stand-ins of the report's four backbones: their architectures and processors, random weights.

    python tools/standins.py FOLDER [--full]

For machines that do not reach the hub: ``brainstage study FOLDER/* --as-reported`` then runs from start to end, and
with the hub at hand only the names change. ``--full`` writes them in their full depth, for a GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import SwinConfig, SwinForImageClassification, ViTConfig, ViTForImageClassification, ViTModel

from brainstage.core.schema import STAGES
from brainstage.datasets.preprocessing import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def stand_ins(full: bool) -> dict[str, tuple[Any, Preprocessing]]:
    """Return each stand-in and its preprocessing, by name."""
    layers = 12 if full else 4
    swin = SwinConfig(num_labels=1000, drop_path_rate=0.1, depths=[2, 2, 6 if full else 2, 2])
    dino = ViTConfig(patch_size=8, num_hidden_layers=12 if full else 1)
    alphabet = dict(enumerate(sorted(STAGES)))
    numbers = {name: number for number, name in alphabet.items()}
    own = ViTConfig(num_hidden_layers=layers, id2label=alphabet, label2id=numbers)
    google = ViTConfig(num_hidden_layers=layers, num_labels=1000)
    half = Preprocessing(224, None, (0.5,) * 3, (0.5,) * 3, resample=2)
    imagenet = Preprocessing(224, None, **IMAGENET)
    return {
        "swin-tiny-patch4-window7-224": (SwinForImageClassification(swin), imagenet),
        "dino-vitb8": (ViTModel(dino), imagenet),
        "Alzheimer_classification_model": (ViTForImageClassification(own), half),
        "vit-base-patch16-224": (ViTForImageClassification(google), half),
    }


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    for name, (model, preprocessing) in stand_ins(options.full).items():
        model.save_pretrained(options.folder / name)
        preprocessing.save(options.folder / name)
        print(options.folder / name)


if __name__ == "__main__":
    main()
