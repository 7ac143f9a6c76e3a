"""From a configuration to a network and its optimiser, stock ``transformers``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut

from brainstage.core.config import TrainConfig
from brainstage.models.folder import WEIGHTS
from brainstage.models.muon import Muon

STEM = "resnet.embedder.embedder.convolution"


def build_model(config: TrainConfig, classes: tuple[str, ...]) -> Any:
    """Return a ``ResNetForImageClassification`` with random weights, for input of shape (N, 1, H, W).

    One channel is enough for grey slices and costs less than three equal ones; :func:`to_rgb` makes the
    network that is saved.
    """
    torch.manual_seed(config.seed)
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=config.stem_channels,
            hidden_sizes=list(config.stage_channels),
            depths=list(config.stage_blocks),
            layer_type="basic",
            downsample_in_first_stage=config.downsample_first,
            id2label=dict(enumerate(classes)),
            label2id={name: number for number, name in enumerate(classes)},
        )
    ).to(memory_format=torch.channels_last)


def build_optimizer(model: Any, config: TrainConfig) -> Muon:
    """Return the optimiser: Muon for the 3×3 filters, AdamW for the rest."""
    filters: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for parameter in model.parameters():
        (filters if parameter.shape[2:] == (3, 3) else others).append(parameter)
    return Muon(
        filters,
        others,
        filter_lr=config.filter_learning_rate,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )


def to_rgb(model: Any) -> Any:
    """Return the same network for input of shape (N, 3, H, W) with three equal channels.

    ``pipeline("image-classification")`` and the processors turn every picture into RGB. Each channel gets a
    third of the stem's weights, so the logits of grey pictures are the same.
    """
    config = copy.deepcopy(model.config)
    config.num_channels = 3
    changed = ResNetForImageClassification(config)
    stem = model.get_submodule(STEM).weight.detach()
    changed.load_state_dict({**model.state_dict(), f"{STEM}.weight": stem.repeat(1, 3, 1, 1) / 3})
    return changed.eval()


def open_grey(folder: Path) -> Any:
    """Return the ResNet of a model folder, for input of shape (N, 1, H, W): :func:`to_rgb` undone.

    Raises:
        OSError, ValueError, RuntimeError, SafetensorError: A file is missing, damaged or does not fit.
    """
    config = ResNetConfig.from_pretrained(folder, local_files_only=True)
    weights = load_file(folder / WEIGHTS)
    stem = f"{STEM}.weight"
    weights[stem] = weights[stem].sum(1, keepdim=True)
    config.num_channels = 1
    model = ResNetForImageClassification(config)
    model.load_state_dict(weights)
    return model.eval()


def folded(model: Any) -> Any:
    """Return a copy whose batch normalisations are folded into the convolutions before them.

    Its logits are the same but for rounding, and take less time; it cannot be trained.
    """
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, (ResNetConvLayer, ResNetShortCut)):
            layer.convolution = fuse_conv_bn_eval(layer.convolution, layer.normalization)
            layer.normalization = torch.nn.Identity()
    return model
