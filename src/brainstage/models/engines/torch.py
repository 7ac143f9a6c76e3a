"""PyTorch as the engine of a network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from brainstage.core.arrays import Float32Array
from brainstage.core.parallel import worker_pool
from brainstage.models.backbones import load
from brainstage.models.device import best_device
from brainstage.models.network import folded, open_grey


class PlainLogits(torch.nn.Module):
    """A network that takes and returns plain tensors, as converters expect it."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes)."""
        logits: torch.Tensor = self.network(pixel_values).logits
        return logits


class TorchEngine:
    """A network of ``transformers``, in fp32.

    Args:
        network: The network.
        device: Where it runs.
    """

    name = "torch"

    def __init__(self, network: Any, device: torch.device | None = None):
        self._device = device or torch.device("cpu")
        self.network: Any = network.to(self._device, memory_format=torch.channels_last)
        self.classes: tuple[str, ...] = tuple(network.config.id2label[i] for i in range(network.config.num_labels))

    @classmethod
    def open(cls, folder: Path, *, grey: bool) -> TorchEngine:
        """Open the network of a model folder: for three channels, or a ResNet for one (``grey``).

        The latter is small, and done on the processor before a GPU has started.

        Raises:
            DataError, OSError, ValueError, RuntimeError, SafetensorError: A file is missing or does not fit.
        """
        return cls(folded(open_grey(folder))) if grey else cls(load(folder), best_device())

    @torch.inference_mode()
    def logits(self, pixels: Float32Array) -> Float32Array:
        """Return logits (N, classes) for normalised pixels (N, C, H, W)."""
        logits: Float32Array = self.network(torch.from_numpy(pixels).to(self._device)).logits.cpu().numpy()
        return logits

    def randomised(self, seed: int) -> TorchEngine:
        """Return the same network with the values of each weight tensor shuffled."""
        network = copy.deepcopy(self.network)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in network.parameters():
                weights.copy_(
                    weights.flatten()[torch.randperm(weights.numel(), generator=generator)].view_as(weights)
                )
        return TorchEngine(network, self._device)

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """Yield one thread a core, each on one core: torch's own would wait for one another at every layer."""
        threads = torch.get_num_threads()
        try:
            with worker_pool(threads, partial(torch.set_num_threads, 1)) as pool:
                yield pool
        finally:
            torch.set_num_threads(threads)
