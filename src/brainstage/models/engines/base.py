"""The interface of an engine: computes a network's logits, whichever library does the arithmetic."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any, Protocol

from brainstage.core.arrays import Float32Array


class Engine(Protocol):
    """A network that is ready to run."""

    @property
    def name(self) -> str:
        """``torch`` or ``onnx``."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        ...

    @property
    def network(self) -> Any | None:
        """The network as a ``torch.nn.Module``; None where the engine has no such thing."""
        ...

    def logits(self, pixels: Float32Array) -> Float32Array:
        """Return logits (N, classes) for normalised pixels (N, C, H, W). Several threads may call at once."""
        ...

    def randomised(self, seed: int) -> Engine:
        """Return the same network with the values of each weight tensor shuffled.

        Raises:
            ConfigError: The engine cannot.
        """
        ...

    def pool(self) -> AbstractContextManager[Executor]:
        """Return threads to call :meth:`logits` from, one for each core; each call then uses one core."""
        ...
