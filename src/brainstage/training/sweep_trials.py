"""The trials of a sweep: run one after the other, or by several processes or machines that share the database."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from brainstage.core.config import TrainConfig, parse_value
from brainstage.core.errors import ConfigError
from brainstage.core.parallel import THIS_PROCESS, TOO_LITTLE_MEMORY, Workers, run_all
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.datasets.splits import Fold, make_splits
from brainstage.datasets.stored import open_slices, store_slices, when_stored
from brainstage.datasets.table import SliceTable
from brainstage.training.feature_tasks import compute_features
from brainstage.training.inputs import build_whole, open_frozen, prepare_head
from brainstage.training.probe import FrozenBackbone
from brainstage.training.sweep_storage import (
    SURPLUS,
    await_heartbeats,
    load_study,
    retry_stale_trials,
    retry_stopped_trials,
)
from brainstage.training.trainer import FIGURES, epochs, fit_network

WAIT_SECONDS = 5.0
"""How often to look whether trials of other machines have ended."""
_STARTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@dataclass(frozen=True)
class Factor:
    """A field that is varied.

    Attributes:
        field: Name of a field of ``TrainConfig``.
        values: The values to try; for a range the lowest and the highest.
        is_range: Whether everything between two values may be tried.
    """

    field: str
    values: tuple[Any, ...]
    is_range: bool = False

    @classmethod
    def parse(cls, text: str) -> Factor:
        """Read ``FIELD=VALUE,VALUE`` or ``FIELD=LOW..HIGH``.

        Raises:
            ConfigError: The text is neither.
        """
        field, equals, right = text.partition("=")
        is_range = ".." in right
        values = tuple(parse_value(part) for part in right.split(".." if is_range else ",") if part)
        if not (field and equals and len(values) > 1) or (is_range and len(values) != 2):
            raise ConfigError(
                f"--vary {text!r}: expected FIELD=VALUE,VALUE or FIELD=LOW..HIGH, e.g. learning_rate=1e-4,1e-5"
            )
        return cls(field, values, is_range)

    def including(self, value: Any) -> Factor:
        """Return this factor with one more value, unless it has it."""
        return self if value in self.values else Factor(self.field, (*self.values, value), self.is_range)

    def suggest(self, trial: optuna.Trial) -> Any:
        """Return a value for a trial."""
        if not self.is_range:
            return trial.suggest_categorical(self.field, self.values)
        low, high = self.values
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(self.field, low, high, log=self.is_logarithmic)
        return trial.suggest_float(self.field, low, high, log=self.is_logarithmic)

    @property
    def is_logarithmic(self) -> bool:
        """Whether a range is searched and shown on a logarithmic scale."""
        low, high = self.values[0], self.values[-1]
        return bool(self.is_range and low > 0 and high / low >= 10)


class _SurplusError(Exception):
    """A trial was started that another process has, or although there are as many as asked for."""


class TrialRunner:
    """Fits settings on one fold; a frozen backbone and its features are opened once.

    Args:
        slices: The data.
        fold: Who trains, and who picks the epoch.
        config: Settings that are not varied.
        factors: What is varied.
        progress: How to show progress.
    """

    def __init__(
        self, slices: SliceTable, fold: Fold, config: TrainConfig, factors: tuple[Factor, ...], progress: Progress
    ):
        self.slices, self.config, self.factors = slices, config, factors
        self.progress = progress
        self.fold = fold
        self._frozen: dict[tuple[Any, ...], FrozenBackbone] = {}

    def run(self, study: optuna.Study, total: int) -> None:
        """Run one trial of a study that is to have ``total``."""
        study.optimize(partial(self._objective, total=total), n_trials=1, catch=(_SurplusError,))

    def _objective(self, trial: optuna.Trial, total: int) -> float:
        _refuse_surplus(trial, total)
        values = {factor.field: factor.suggest(trial) for factor in self.factors}
        started, config = time.monotonic(), self.config

        def on_epoch(line: dict[str, Any]) -> None:
            trial.report(line[f"{config.selection}_loss"], line["epoch"])
            if trial.should_prune():
                _note(trial, [line], config, started)
                raise optuna.TrialPruned

        return _note(trial, self._fit(config.replace(**values), on_epoch), config, started)

    def _fit(self, config: TrainConfig, on_epoch: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Fit and return the history, one mapping an epoch."""
        fit = partial(fit_network, config=config, on_epoch=on_epoch)
        if config.frozen:
            trainer = fit(*prepare_head(self._open(config), self.slices, self.fold, config))
        else:
            model, _, training, selecting = build_whole(self.slices, self.fold, config)
            trainer = fit(model, training, selecting)
        return epochs(trainer.state.log_history, config)

    def _open(self, config: TrainConfig) -> FrozenBackbone:
        key = config.backbone, config.seed, config.engine, config.precision
        if key not in self._frozen:
            self._frozen[key] = open_frozen(self.slices, self.fold, config, self.progress)
        return self._frozen[key]


@dataclass(frozen=True)
class _TrialTask:
    """A trial to run in another process.

    Attributes:
        slices: Folder of the slices.
        run: The sweep's folder.
        storage: Address of the database; None takes SQLite in the folder.
        config: Settings that are not varied.
        factors: What is varied.
        total: How many trials the study is to have.
    """

    slices: Path
    run: Path
    storage: str | None
    config: TrainConfig
    factors: tuple[Factor, ...]
    total: int


def run_trials(
    study: optuna.Study, runner: TrialRunner, total: int, run: RunFolder, storage: str | None, workers: Workers
) -> None:
    """Run trials until as many as asked for have ended, here, by workers or on other machines.

    Trials that a kill or an error cut short are run again.

    Args:
        study: The study.
        runner: Runs a trial in this process.
        total: How many trials are asked for.
        run: The sweep's folder, locked by this process.
        storage: Address of the database that other machines share; None takes SQLite, which nobody else uses.
        workers: Where trials are run.

    Raises:
        RunError: The process of a trial was killed twice.
    """
    retry_stopped_trials(study, alone=storage is None)
    if workers != THIS_PROCESS:
        stored = store_slices(runner.slices, run.stored_slices)
        compute_features(runner.slices, stored, runner.config, [runner.fold], workers, runner.progress)
    with runner.progress("Trials", total) as advance:
        advance(len(study.get_trials(deepcopy=False, states=_STARTED)))
        if workers == THIS_PROCESS:
            _run_here(study, runner, total, advance)
        else:
            _run_elsewhere(study, runner, total, run, storage, workers, advance)


def _run_here(study: optuna.Study, runner: TrialRunner, total: int, advance: Callable[[int], None]) -> None:
    while not _has_all(study, total):
        runner.run(study, total)
        advance(1)


def _has_all(study: optuna.Study, total: int) -> bool:
    """Return whether as many trials as asked for have ended; wait where the last ones run on other machines."""
    awaited: set[int] = set()
    while retry_stale_trials(study, _STARTED) >= total:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not running:
            return True
        await_heartbeats(study, [trial for trial in running if trial.number not in awaited])
        awaited |= {trial.number for trial in running}
        time.sleep(WAIT_SECONDS)
    return False


def _run_elsewhere(
    study: optuna.Study,
    runner: TrialRunner,
    total: int,
    run: RunFolder,
    storage: str | None,
    workers: Workers,
    advance: Callable[[int], None],
) -> None:
    stored = workers.path(run.stored_slices)
    task = _TrialTask(stored, workers.path(run.path), storage, runner.config, runner.factors, total)
    lost = f"{run.path}: the process of a trial was killed twice; {TOO_LITTLE_MEMORY}; --resume goes on"
    while not _has_all(study, total):
        missing = total - len(study.get_trials(deepcopy=False, states=_STARTED))
        for _ in run_all(_run_trial, [task] * missing, workers, lambda _task: lost):
            advance(1)
        if storage is None:  # all processes have ended: what still runs was killed
            retry_stopped_trials(study, alone=True)
    shutil.rmtree(run.stored_slices)


def _run_trial(task: _TrialTask) -> bool:
    """Run one trial in a process of its own."""
    runner, study = _open_sweep(task, when_stored(task.slices))
    runner.run(study, task.total)
    return True


@lru_cache(1)  # a database has few connections, and each study that is opened takes some
def _open_sweep(task: _TrialTask, _stored: tuple[int, ...]) -> tuple[TrialRunner, optuna.Study]:
    slices = open_slices(task.slices)
    fold = make_splits(slices, task.config).chosen(task.config)
    study = load_study(RunFolder(task.run), task.storage)
    return TrialRunner(slices, fold, task.config, task.factors, silent), study


def _refuse_surplus(trial: optuna.Trial, total: int) -> None:
    """Refuse a trial whose values another one has, or that is one more than asked for.

    Several processes that start at once may queue the same values, and start two trials where one is missing.
    Trials are numbered in the order in which they were queued or started, so all processes agree which go on: the
    first.
    """
    everyone = trial.study.get_trials(deepcopy=False)
    before = {_values(other) for other in everyone[: trial.number] if other.state != TrialState.FAIL}
    if len(before) >= total or _values(everyone[trial.number]) in before:
        trial.set_user_attr(SURPLUS, True)
        raise _SurplusError


def _values(trial: optuna.trial.FrozenTrial) -> str | int:
    """Return the values that a trial was queued with; the trial's number where the sampler chooses them."""
    queued = trial.system_attrs.get("fixed_params")
    return json.dumps(queued, sort_keys=True) if queued else trial.number


def _note(trial: optuna.Trial, history: list[dict[str, Any]], config: TrainConfig, started: float) -> float:
    """Record the scores of the epoch that a run would keep and return its loss."""
    kept = max(history, key=lambda line: line[f"{config.selection}_accuracy"])  # the first of equals
    trial.set_user_attr("epoch", kept["epoch"])
    for figure in FIGURES:
        trial.set_user_attr(figure, kept[f"{config.selection}_{figure}"])
    trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
    loss = float(kept[f"{config.selection}_loss"])
    return loss if math.isfinite(loss) else math.inf
