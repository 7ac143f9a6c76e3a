"""Where a network runs, and that fp32 is fp32 there."""

from __future__ import annotations

import torch

# cuDNN's default, TF32, has 10 bits in place of 23: it moves a ViT's logits by 2e-4, fp32 by 3e-6
torch.backends.cudnn.allow_tf32 = False


def best_device() -> torch.device:
    """Return the GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
