"""Trackers that ``Trainer`` knows: one gets the figures of each epoch too, beside ``history.jsonl``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from copy import copy
from pathlib import Path
from textwrap import shorten
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from brainstage.core.config import did_you_mean
from brainstage.core.errors import ConfigError
from brainstage.core.run import RunFolder

TRACKERS = tuple(sorted(set(INTEGRATION_TO_CALLBACK) - {"flyte"}))  # flyte keeps checkpoints, not figures
"""Their names, as ``transformers`` has them. ``tensorboard`` writes into the run's folder; where the others write,
and whether that is on this machine, their own settings say."""
MISSING = {
    "azure_ml": "install it with: pip install azureml-sdk",
    "comet_ml": "install it with: pip install comet-ml",
    "dagshub": "install it with: pip install dagshub mlflow",
    "kubeflow": "start the training as a TrainJob of Kubeflow",
    "tensorboard": 'install it with: pip install "brainstage[tensorboard]"',
}
"""What to do where a tracker is not there, other than to install a package of its name."""
PROJECT = "brainstage"


def check_installed(name: str) -> None:
    """Refuse a tracker that is unknown or not installed.

    Raises:
        ConfigError: It is such a one.
    """
    _callback(name)


def open_tracker(name: str, run: RunFolder) -> TrainerCallback:
    """Return a callback for ``Trainer`` that hands the figures of a run to a tracker.

    Raises:
        ConfigError: The tracker is unknown or not installed.
    """
    callback = _callback(name)
    if isinstance(callback, TensorBoardCallback):
        from torch.utils.tensorboard import SummaryWriter

        callback.tb_writer = SummaryWriter(log_dir=str(run.tensorboard))
    return _Figures(name, callback, _run_name(run))


def _callback(name: str) -> Any:
    """Return the callback of ``transformers`` for a tracker."""
    if name not in TRACKERS:
        raise ConfigError(f"no tracker is called {name!r}{did_you_mean(name, list(TRACKERS))}")
    with _aside():
        if name not in get_available_reporting_integrations():
            how = MISSING.get(name, f"install it with: pip install {name}")
            raise ConfigError(f"tracker {name} is not available; {how}")
        return INTEGRATION_TO_CALLBACK[name]()


def _run_name(run: RunFolder) -> str:
    """Return what a run is called in a tracker; a fold by the name of its run too."""
    folder = run.path.resolve()
    return f"{folder.parents[1].name}-{folder.name}" if folder.parent.name == run.folds.name else folder.name


class _Figures(TrainerCallback):
    """Hands settings and figures to a tracker: no weights, no checkpoint, and the run's name in place of its path.

    Args:
        name: Name of the tracker.
        callback: What ``transformers`` has for it.
        run_name: What the run is called there.
    """

    def __init__(self, name: str, callback: TrainerCallback, run_name: str):
        self.name, self.callback, self.run_name = name, callback, run_name
        self.lost = False

    def on_init_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._start("on_init_end", args, state, control)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._start("on_train_begin", args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._go_on("on_step_end", args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self._go_on("on_log", args, state, control, logs=logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        self._go_on("on_evaluate", args, state, control, metrics=metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._go_on("on_train_end", args, state, control)

    def _start(self, event: str, *arguments: Any) -> None:
        try:
            self._hand_over(event, *arguments)
        except Exception as error:  # each library has its own
            raise ConfigError(
                f"tracker {self.name} did not start ({_reason(error)}); set it up as its documentation says, or "
                "leave --track away"
            ) from error

    def _go_on(self, event: str, *arguments: Any, **figures: Any) -> None:
        """Hand figures over; a tracker that fails, as without a network, does not end the training."""
        if self.lost:
            return
        try:
            self._hand_over(event, *arguments, **figures)
        except Exception as error:  # each library has its own
            self.lost = True
            warnings.warn(
                f"tracker {self.name} failed and gets no more figures ({_reason(error)}); training goes on, and "
                "history.jsonl has them all",
                stacklevel=2,
            )

    def _hand_over(self, event: str, args: Any, state: Any, control: Any, **figures: Any) -> None:
        shown = copy(args)
        shown.output_dir = shown.run_name = self.run_name
        shown.project = PROJECT
        with _aside():
            getattr(self.callback, event)(shown, state, control, model=None, **figures)


@contextmanager
def _aside() -> Iterator[None]:
    """Keep what a tracker prints off the standard output, and give it nobody to ask for an account."""
    asked = sys.stdin
    with redirect_stdout(sys.stderr), Path(os.devnull).open() as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = asked


def _reason(error: Exception) -> str:
    return shorten(str(error), 200) or type(error).__name__
