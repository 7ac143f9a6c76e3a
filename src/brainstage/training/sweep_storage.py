"""The database of a sweep: an Optuna study that survives kills and that several machines may share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import TrialState

from brainstage.core.errors import ConfigError, RunError
from brainstage.core.run import RunFolder

HEARTBEAT_SECONDS = 30
"""How often a trial on a shared database says that it runs; after three silent beats others take it up."""
SURPLUS = "surplus"
"""Attribute of a trial that failed since it was one too many."""
_IDENTITY = {
    "config": "settings",
    "data_hash": "data",
    "splits": "splits",
    "vary": "--vary values",
    "method": "method",
}
"""What makes two sweeps the same, in words."""


def open_study(run: RunFolder, storage: str | None, identity: dict[str, Any], resume: bool) -> optuna.Study:
    """Return a sweep's study: a new one, or the one that is resumed.

    Args:
        run: The sweep's folder, locked by this process.
        storage: Address of a database; None takes SQLite in the folder.
        identity: Settings, hashes of the data and the splits, varied values and method, as JSON types: those of one
            sweep stay the same.
        resume: Whether the study may exist.

    Raises:
        ConfigError: It was started with a different identity, or the database's driver is not installed.
        RunError: It exists and is not to be resumed, or the database cannot be opened.
    """
    try:
        study = optuna.create_study(
            storage=_open_storage(run, storage),
            study_name=run.path.name,
            pruner=_pruner(identity),
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise RunError(f"{run.path}: this sweep was started; go on with --resume or take another --name") from None
    # a resumed sweep must not draw again what it has drawn, and processes must not all draw the same
    seed = None if storage else identity["config"]["seed"] + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    saved = study.user_attrs.get("identity")
    if saved not in (None, identity):
        changed = [words for key, words in _IDENTITY.items() if saved.get(key) != identity[key]]
        raise ConfigError(
            f"{run.path}: this sweep was started with different {' and '.join(changed)}; take another --name"
        )
    study.set_user_attr("identity", identity)
    return study


def _pruner(identity: dict[str, Any]) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner() if identity["method"] == "tpe" else optuna.pruners.NopPruner()


def load_study(run: RunFolder, storage: str | None) -> optuna.Study:
    """Return the study of a sweep that another process has opened, to run a trial of it.

    Args:
        run: The sweep's folder.
        storage: As for :func:`open_study`.

    Raises:
        ConfigError, RunError: As :func:`open_study`.
    """
    study = optuna.load_study(study_name=run.path.name, storage=_open_storage(run, storage))
    study.pruner = _pruner(study.user_attrs["identity"])
    return study


def _open_storage(run: RunFolder, storage: str | None) -> optuna.storages.RDBStorage:
    """Open the database. On a shared one, trials of a machine that has died are taken up by the others."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    address = storage or f"sqlite:///{(run.path / 'sweep.db').resolve()}"
    beat = (
        {
            "heartbeat_interval": HEARTBEAT_SECONDS,
            "grace_period": 3 * HEARTBEAT_SECONDS,
            "heartbeat_stale_trial_callback": optuna.storages.RetryHeartbeatStaleTrialCallback(),
        }
        if storage
        else {}
    )
    if address.startswith("postgresql://"):
        address = address.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        return optuna.storages.RDBStorage(address, **beat)
    except ImportError as error:
        raise ConfigError(
            'the driver of this database is not installed; for PostgreSQL: pip install "brainstage[postgres]"'
        ) from error
    except Exception as error:  # whatever SQLAlchemy or the database's driver raises
        place = address.rpartition("@")[2]  # never the password
        raise RunError(f"storage {place}: cannot be opened ({type(error).__name__}); check the address") from error


def fail_running_trials(study: optuna.Study) -> None:
    """Mark the trials that run as failed: those of a study that no process works on were killed."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def retry_stopped_trials(study: optuna.Study, alone: bool) -> None:
    """Queue the trials that a kill or an error cut short, once each.

    Args:
        study: The study.
        alone: Whether no other process works on it, so that trials that run were killed.
    """
    if alone:
        fail_running_trials(study)
    again = {trial.user_attrs.get("again", trial.system_attrs.get("failed_trial")) for trial in study.trials}
    for trial in study.get_trials(states=(TrialState.FAIL,)):
        # a queued trial has its values before it starts
        values = trial.system_attrs.get("fixed_params", trial.params)
        if trial.number not in again and values and SURPLUS not in trial.user_attrs:
            study.enqueue_trial(values, user_attrs={"again": trial.number})


def retry_stale_trials(study: optuna.Study, states: tuple[TrialState, ...]) -> int:
    """Queue the trials of machines that have died; return how many trials were started and did not fail."""
    optuna.storages.fail_stale_trials(study)  # does nothing where no other machine shares the sweep
    return len(study.get_trials(deepcopy=False, states=states))


def await_heartbeats(study: optuna.Study, trials: Iterable[optuna.trial.FrozenTrial]) -> None:
    """Have trials that run elsewhere taken up in the end, though their machine died before their first heartbeat.

    Optuna passes over trials without any. So this process gives each one; their own machines, if they live, others.
    """
    storage: Any = study._storage
    if storage.get_heartbeat_interval() is not None:
        for trial in trials:
            storage.record_heartbeat(trial._trial_id)


def has_trials(study: optuna.Study | None) -> bool:
    """Return whether any trial has ended with a result."""
    return study is not None and bool(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
