"""Trackers that need no account and keep everything on this machine. ``history.jsonl`` is always written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from brainstage.core.errors import ConfigError

Tracker = Literal["tensorboard"]


def tensorboard(folder: Path) -> Any:
    """Return a callback for ``Trainer`` that writes TensorBoard's event files into ``folder``.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            'tracker tensorboard is not installed; install it with: pip install "brainstage[tensorboard]"'
        ) from error
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))
