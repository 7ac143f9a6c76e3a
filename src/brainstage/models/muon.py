"""Muon for convolution filters, AdamW for everything else.

``torch.optim.Muon`` takes matrices only; here a filter bank of shape (out, in, kH, kW) is the matrix
(out, in·kH·kW), and banks of equal shape are orthogonalised together. Its gain over AdamW is measured by
``benchmarks/tune.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Newton-Schulz coefficients and number of steps: Keller Jordan, https://kellerjordan.github.io/posts/muon/
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 4
_MOMENTUM = 0.9


class Muon(torch.optim.AdamW):
    """AdamW whose first parameter group, the filters, is stepped by Muon with Nesterov momentum.

    Args:
        filters: Convolution filters, each of shape (out, in, kH, kW).
        others: All other parameters.
        filter_lr: Learning rate of the filters: their step has about unit spectral norm times this.
        lr: Learning rate of the others.
        weight_decay: Decoupled decay of the filters; the others have none.
    """

    def __init__(
        self,
        filters: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        filter_lr: float,
        lr: float,
        weight_decay: float,
    ):
        groups = [
            {"params": list(filters), "lr": filter_lr, "weight_decay": weight_decay},
            {"params": list(others), "lr": lr, "weight_decay": 0.0},
        ]
        super().__init__(groups, betas=(0.9, 0.99), fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the filters, then let AdamW step the rest: it passes over parameters without a gradient."""
        group = self.param_groups[0]
        same_shape = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                same_shape[parameter.shape].append(parameter)
        for parameters in same_shape.values():
            updates = orthogonal(self._momentum(parameters))
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"])
                parameter.grad = None
        return super().step(closure)

    def _momentum(self, parameters: list[Tensor]) -> Tensor:
        """Return the Nesterov momentum of filters of one shape, (number, out, in·kH·kW)."""
        looked_ahead = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None  # noqa: S101 - the caller chose those that have one
            if "momentum" not in state:
                # AdamW expects to find its step count in every state that it loads
                state |= {"momentum": torch.zeros_like(parameter), "step": torch.tensor(0.0)}
            state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
            looked_ahead.append(gradient.lerp(state["momentum"], _MOMENTUM).flatten(1))
        return torch.stack(looked_ahead)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return an approximation of each matrix's nearest semi-orthogonal one, by Newton-Schulz steps.

    The steps are taken on the Gram matrix, which is square in the shorter side, and applied to the matrix once:
    the same result with less than half of the arithmetic where one side is much longer.

    Args:
        matrices: float32 of shape (number, rows, columns).

    Returns:
        float32 of the same shape, singular values between about 0.7 and 1.2, times sqrt(rows / columns) where
        there are more rows than columns.
    """
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram, product = x @ x.mT, None
    identity = torch.eye(x.size(1), device=x.device)
    for _ in range(_STEPS):
        step = torch.baddbmm(_A * identity + _B * gram, gram, gram, alpha=_C)
        product = step if product is None else step @ product
        gram = step @ gram @ step
    scale = max(1.0, matrices.size(1) / matrices.size(2)) ** 0.5
    x = scale * (product @ x)
    return x.mT if tall else x
