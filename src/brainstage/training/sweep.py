"""Sweeps: Optuna over the fields of ``TrainConfig``, judged on the slices that pick the epoch, never on others."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState
from scipy.stats import binomtest

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError
from brainstage.core.files import write_json, write_text
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.parallel import THIS_PROCESS, Processes, Workers
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import RESEARCH_NOTICE, choice_caution, figure_title
from brainstage.datasets.splits import Fold, Splits, make_splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.slices import Baseline, make_baselines
from brainstage.training.baselines import nearest_stages
from brainstage.training.provenance import tuned_on
from brainstage.training.sweep_storage import has_trials, open_study
from brainstage.training.sweep_trials import Factor, TrialRunner, run_trials
from brainstage.training.trainer import FIGURES

Method = Literal["one-factor", "grid", "tpe"]
_FIXED = (
    *("recipe", "protocol", "validation_share", "selection", "train_rows", "test_rows", "folds", "repeats", "fold"),
    *("tuned_on", "tuned_without"),
)
"""Fields that decide which slices are judged, or say so: they stay the same in a whole sweep."""


@dataclass(frozen=True)
class Sweep(Displayed, Plotted, Tabular):
    """The trials of a sweep, the lowest loss first.

    Attributes:
        config: The settings that were varied.
        factors: The fields that were varied.
        method: ``one-factor``, ``grid`` or ``tpe``.
        trials: One mapping a trial: ``trial`` (number), ``state`` (``complete`` or ``pruned``), the value of each
            factor, ``epoch`` (that of the highest accuracy), ``loss`` (cross-entropy, never smoothed),
            ``accuracy``, ``weighted_f1``, ``macro_f1`` and ``seconds``.
        importance: Share of the loss's variance that each factor explains, where that can be said.
        judged: Number of slices that every trial is judged on.
        baselines: What needs no learning, on the same slices, as in :class:`brainstage.Evaluation`.
        provenance: The fields of ``TrainConfig`` that say on which slices the settings were chosen.
        caution: What must be said of the choice; None where nothing.
        title: Protocol, verdict and which slices were judged.
        folder: The sweep's folder.
    """

    config: TrainConfig
    factors: tuple[Factor, ...]
    method: Method
    trials: tuple[dict[str, Any], ...]
    importance: dict[str, float]
    judged: int
    baselines: dict[str, Baseline]
    provenance: dict[str, str | None]
    caution: str | None
    title: str
    folder: Path

    def interval(self, trial: dict[str, Any]) -> tuple[float, float]:
        """Return the 95 % Wilson interval of a trial's accuracy, as if every slice were another person."""
        right = round(trial["accuracy"] * self.judged)
        low, high = binomtest(right, self.judged).proportion_ci(method="wilson")
        return float(low), float(high)

    def of(self, factor: Factor) -> list[dict[str, Any]]:
        """Return the trials that show what a factor does: with one factor at a time, those of that factor."""
        if self.method != "one-factor":
            return list(self.trials)
        others = [other.field for other in self.factors if other != factor]
        return [trial for trial in self.trials if all(trial[name] == getattr(self.config, name) for name in others)]

    @property
    def chosen(self) -> dict[str, Any]:
        """The values of the lowest loss; with one factor at a time, of each factor on its own."""
        return {factor.field: self.of(factor)[0][factor.field] for factor in self.factors}

    @property
    def choice(self) -> str:
        """What was chosen, in words: whether one trial had all of it, and which values would do as well."""
        values = ", ".join(f"{name}={value}" for name, value in self.chosen.items())
        if any(self.chosen.items() <= trial.items() for trial in self.trials):
            sentences = [f"lowest loss: {values}"]
        else:
            sentences = [f"lowest loss of each setting by itself: {values}", "no trial had them all together"]
        for factor in self.factors:
            name, (best, *others) = factor.field, self.of(factor)
            alike = sorted({trial[name] for trial in others if trial["loss"] == best["loss"]} - {best[name]})
            if alike:
                sentences.append(f"{name} {', '.join(map(str, alike))} has the same loss")
        return "; ".join(sentences)

    @property
    def best(self) -> TrainConfig:
        """The settings with the chosen values, and on which slices they were chosen."""
        return self.config.replace(**self.chosen, **self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a JSON file."""
        return {
            "notice": RESEARCH_NOTICE,
            "title": self.title,
            "method": self.method,
            "chosen": self.chosen,
            "caution": self.caution,
            "provenance": self.provenance,
            "judged_slices": self.judged,
            "baselines": {name: baseline.to_dict() for name, baseline in self.baselines.items()},
            "importance": self.importance,
            "trials": list(self.trials),
            "config": json.loads(self.config.to_json()),
        }


def sweep(
    slices: SliceTable,
    config: TrainConfig,
    factors: Sequence[Factor],
    *,
    method: Method = "one-factor",
    trials: int = 50,
    name: str | None = None,
    out: StrPath = "runs",
    storage: str | None = None,
    resume: bool = False,
    workers: Workers = THIS_PROCESS,
    progress: Progress = silent,
) -> Sweep:
    """Try settings, each from the same start, and judge them on the slices that pick the epoch.

    Under the patient protocol these are the validation people of the fold ``config.fold``, who are test people of
    other folds. So what was chosen (:attr:`Sweep.best`) carries with it on which slices it was chosen: that fold's
    test people played no part, and every figure of other people is stamped optimistic.

    Args:
        slices: The data.
        config: Settings that are not varied.
        factors: What is varied.
        method: ``one-factor`` varies one at a time, the others as in ``config``; ``grid`` tries every combination;
            ``tpe`` (Bergstra et al. 2011, NeurIPS) chooses, and stops trials that fall behind the median.
        trials: Number of trials of ``tpe``.
        name: Name of the sweep; None takes ``sweep-001``, ``sweep-002``, …
        out: Folder of the runs; the sweep's own holds ``sweep.db``, ``sweep.json`` and ``best.toml``, a recipe of
            the settings that were chosen.
        storage: Address of a database that several machines share, ``postgresql://…``; None takes SQLite.
        resume: Go on with a sweep that was stopped: no trial is lost or run twice.
        workers: Where trials are run, each by one process; those of a cluster share a ``storage`` that all reach.
            Without it one after the other in this process. The trials of ``one-factor`` and ``grid`` are the same
            either way; TPE chooses by what it knows when a trial starts, which is less with several at once.
        progress: How to show progress.

    Returns:
        The finished sweep. One that fails before a trial has ended leaves no folder behind.

    Raises:
        ConfigError: A field cannot be varied, or the sweep that is resumed was started with different settings,
            data or splits.
        DataError, LeakageError: As :func:`brainstage.train`.
        RunError: The sweep exists, is in use, or cannot be written, or the process of a trial was killed twice.
    """
    planned = plan(config, factors, method)
    if method == "one-factor":  # the trials of the other factors have the value of the settings
        factors = [factor.including(getattr(config, factor.field)) for factor in factors]
    splits = make_splits(slices, config)
    fold = splits.chosen(config)
    judged = fold.selecting(config)
    if not judged:
        raise ConfigError("a sweep is judged on validation slices; set --validation-share above 0")
    if storage is None and not isinstance(workers, Processes):
        raise ConfigError(
            "workers on several machines cannot share a file of SQLite; name a database with --storage postgresql://…"
        )
    run = RunFolder.new(name, "sweep", out)
    study: optuna.Study | None = None
    with run.kept_if_used(lambda: has_trials(study)), run.lock():
        study = open_study(run, storage, _identity(slices, fold, config, factors, method), resume)
        for values in planned:
            study.enqueue_trial(values, skip_if_exists=True)
        runner = TrialRunner(slices, fold, config, tuple(factors), progress)
        run_trials(study, runner, len(planned) or trials, run, storage, workers)
        result = _result(study, slices, splits, config, factors, method, run.path)
        write_json(run.path / "sweep.json", result.to_dict())
        # rows are drawn so that trials are quick; what is trained with the recipe takes all rows
        write_text(run.path / "best.toml", result.best.replace(train_rows=0, test_rows=0).to_toml())
    return result


def plan(config: TrainConfig, factors: Sequence[Factor], method: Method) -> list[dict[str, Any]]:
    """Return the settings of each trial, none where TPE is to choose them.

    Args:
        config, factors, method: As for :func:`sweep`.

    Raises:
        ConfigError: A value is not valid, or a setting cannot be varied so.
    """
    if config.model == "patient" or any(factor.field == "model" for factor in factors):
        raise ConfigError(
            "a sweep varies settings of networks, and the patient model has none; compare runs instead"
        )
    for factor in factors:
        if factor.field in _FIXED:
            raise ConfigError(
                f"{factor.field} decides which slices are judged and cannot be varied; set it with --set"
            )
        if factor.is_range and method != "tpe":
            raise ConfigError(f"{factor.field}: a range needs --trials; give single values, e.g. 1e-4,1e-5")
        for value in factor.values:
            config.replace(**{factor.field: value})
    if method == "tpe":
        return []
    names = [factor.field for factor in factors]
    if method == "grid":
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*(f.values for f in factors))]
    base = {name: getattr(config, name) for name in names}
    plan = [base | {factor.field: value} for factor in factors for value in factor.values]
    return [values for number, values in enumerate(plan) if values not in plan[:number]]


def _identity(
    slices: SliceTable, fold: Fold, config: TrainConfig, factors: Sequence[Factor], method: Method
) -> dict[str, Any]:
    """Return what makes two sweeps the same."""
    varied = [[factor.field, list(factor.values), factor.is_range] for factor in factors]
    settings = json.loads(config.to_json())
    return {
        "config": settings,
        "data_hash": slices.data_hash,
        "splits": fold.hash,  # other people make other folds of the same slices
        "vary": varied,
        "method": method,
    }


def _result(
    study: optuna.Study,
    slices: SliceTable,
    splits: Splits,
    config: TrainConfig,
    factors: Sequence[Factor],
    method: Method,
    folder: Path,
) -> Sweep:
    fold = splits.chosen(config)
    judged = fold.selecting(config)
    finished = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    rows = [
        {"trial": trial.number, "state": trial.state.name.lower()}
        | {factor.field: trial.params[factor.field] for factor in factors}
        | {name: trial.user_attrs[name] for name in ("epoch", *FIGURES, "seconds")}
        for trial in finished
    ]
    labels = slices.targets([slices.row_of[slice_id] for slice_id in judged])
    what = f"sweep · {config.selection} · {len(judged):,} slices"
    number = splits.named(config.fold)
    title = figure_title(what, splits.protocol, str(splits.verdict), slices.synthetic, fold=number)
    caution = choice_caution(number) if number and config.selection != "test" else None
    stamps = (caution, "judged on the test slices" if config.selection == "test" else None)
    return Sweep(
        config,
        tuple(factors),
        method,
        tuple(sorted(rows, key=lambda row: (row["state"] == "pruned", row["loss"]))),
        _importance(study),
        len(judged),
        make_baselines(labels, {"nearest_training_slice": nearest_stages(slices, judged, fold)}, slices.classes),
        tuned_on(config, slices, fold),
        caution,
        " · ".join([title, *filter(None, stamps)]),
        folder,
    )


def _importance(study: optuna.Study) -> dict[str, float]:
    """Return each factor's share of the loss's variance; nothing where the trials are too few or too alike."""
    try:
        shares = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}
    return {name: round(float(share), 4) for name, share in shares.items() if math.isfinite(share)}
