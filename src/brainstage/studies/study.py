"""The report's whole study on any data: compare candidates, vary settings of the best, train it, test it once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError
from brainstage.core.notebooks import Displayed
from brainstage.core.parallel import THIS_PROCESS, Workers
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.datasets.stored import store_slices
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.comparison import Comparison, compare
from brainstage.evaluation.slices import Evaluation, evaluate
from brainstage.models.recipes import is_recipe, load_recipe
from brainstage.studies.folder import begin, started_with
from brainstage.training.side_by_side import TrainTask, train_side_by_side
from brainstage.training.sweep import Sweep, sweep
from brainstage.training.sweep_trials import Factor
from brainstage.training.train import train

BACKBONES = (
    "microsoft/swin-tiny-patch4-window7-224",
    "facebook/dino-vitb8",
    "Falah/Alzheimer_classification_model",
    "google/vit-base-patch16-224",
)
"""The four that the report compared."""

REPORTED = {
    "swin-tiny-patch4-window7-224": (0.54, 0.438, 1.329),
    "dino-vitb8": (0.52, 0.443, 1.244),
    "Alzheimer_classification_model": (0.96, 0.960, 0.187),
    "vit-base-patch16-224": (0.60, 0.45, 1.134),
}
"""Accuracy, weighted F1 and loss on 50 test rows that the report gives for each."""

FINE_TUNED = "Falah/Alzheimer_classification_model"
"""The backbone that the report chose; its author had fine-tuned it on this very dataset."""

REPORT_COMPARISON: dict[str, Any] = {
    "train_rows": 200,
    "test_rows": 50,
    "epochs": 1,
    "gradient_accumulation": 2,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
}
REPORT_SWEEP: dict[str, Any] = {"train_rows": 250, "test_rows": 100}
REPORT_FACTORS = (
    Factor("learning_rate", (1e-4, 5e-5, 1e-5)),
    Factor("gradient_accumulation", (1, 2, 4)),
    Factor("weight_decay", (0.005, 0.01, 0.05, 0.1)),
)


@dataclass(frozen=True)
class Study(Displayed):
    """The results of a study.

    Attributes:
        folder: Folder of its runs.
        as_reported: Whether it kept to the report's protocol.
        comparison: The candidates.
        sweep: The settings of the best candidate that were varied.
        final: The run with the chosen settings.
        evaluation: Its performance on the test slices.
    """

    folder: Path
    as_reported: bool
    comparison: Comparison
    sweep: Sweep
    final: RunFolder
    evaluation: Evaluation

    @property
    def caution(self) -> str | None:
        """What must be said of the candidates; None where nothing is known against them."""
        names = [candidate.name for candidate in self.comparison.candidates]
        if _slug(FINE_TUNED) not in names:
            return None
        return (
            f"{FINE_TUNED} had been fine-tuned on this very dataset by its author, and nothing says that the test "
            "slices were left out. Its lead over backbones that never saw a brain is no finding."
        )


def candidate(name: str, recipe: str, **changes: Any) -> TrainConfig:
    """Return the settings of a candidate: a recipe by its name or file, or a backbone with ``recipe``.

    Args:
        name: Name of a recipe, a TOML file, or a backbone's hub id or folder.
        recipe: Recipe of a backbone.
        changes: Settings that differ from the recipe's.

    Raises:
        ConfigError: A setting is not valid.
    """
    if is_recipe(name):
        return load_recipe(name, **changes)
    return load_recipe(recipe, **{"backbone": name, **changes})


def candidates(names: Sequence[str], recipe: str, **changes: Any) -> dict[str, TrainConfig]:
    """Return the settings of each candidate, by the name of its run.

    Args:
        names, recipe, changes: As for :func:`compare_candidates`.

    Raises:
        ConfigError: There are not two candidates, two have the same name, or a setting is not valid.
    """
    configs = {_slug(name): candidate(name, recipe, **changes) for name in names}
    if len(configs) < 2 or len(configs) < len(names):
        raise ConfigError("a comparison needs two candidates or more, of different names")
    return configs


def compare_candidates(
    slices: SliceTable,
    names: Sequence[str],
    folder: Path,
    *,
    recipe: str = "linear-probe",
    split: str | None = None,
    workers: Workers = THIS_PROCESS,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _text: None,
    **changes: Any,
) -> Comparison:
    """Train candidates on the same slices with the same seed, except those that are finished, and compare them.

    Under the patient protocol they are compared on one fold's validation people, who are test people of other
    folds; the comparison's title says so.

    Args:
        slices: The data.
        names: Hub ids, folders of backbones, or recipes by name or file.
        folder: Folder of the candidates' runs; it is made, or holds those of a comparison that was stopped.
        recipe: Recipe of the backbones.
        split: The side they are compared on; None as for :func:`brainstage.compare`.
        workers: Where they are trained, each by one process. Without it one after the other in this process.
        progress: How to show progress.
        say: Called with a sentence before each training.
        changes: Settings that differ from the recipes'.

    Raises:
        ConfigError: There are not two candidates, two have the same name, a setting is not valid, or the folder was
            started with different candidates or settings.
        DataError: The folder was started with different data.
        BrainstageError: As :func:`brainstage.train`.
    """
    configs = candidates(names, recipe, **changes)
    if split == "validation" and (without := [name for name, one in configs.items() if not one.validation_share]):
        raise ConfigError(
            f"{', '.join(without)}: nothing is held out for validation to compare on; hold out a tenth with "
            "--validation-share 0.1, or compare on --split test once every choice is made"
        )
    with started_with(folder, slices, configs):
        if workers != THIS_PROCESS:
            stored = store_slices(slices, folder / ".slices")
            tasks = [TrainTask(name, config) for name, config in configs.items()]
            return compare(train_side_by_side(stored, tasks, folder, workers, progress), split=split)
        runs = []
        for number, (name, config) in enumerate(configs.items(), 1):
            say(f"Candidate {number} of {len(configs)}: {name}")
            runs.append(train(slices, config, name=name, out=folder, resume=True, progress=progress))
    return compare(runs, split=split)


def _slug(name: str) -> str:
    """Return a plain name for a candidate's folder: the last part of a path or of a hub id."""
    last = Path(name.replace("@", "-")).name.removesuffix(".toml")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-_")[:80] or "candidate"


def run_study(
    slices: SliceTable,
    names: Sequence[str] = (),
    *,
    as_reported: bool = False,
    name: str | None = None,
    out: StrPath = "runs",
    resume: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _text: None,
    **changes: Any,
) -> Study:
    """Compare candidates, vary three settings of the best, train it with those chosen, test it once.

    Under the patient protocol everything stays within one fold: its validation people choose, and its test people,
    who played no part in any choice, are predicted once. The title says which fold.

    Args:
        slices: The data.
        names: Candidates; none takes the report's four backbones, and ``compact`` where not as reported.
        as_reported: Keep to the report's protocol: its numbers of rows, one epoch, and every choice made on the
            test slices, which is stamped on every figure. Else all rows, and every choice on validation slices.
        name: Name of the study; None takes ``study-001``, ``study-002``, …
        out: Folder of the runs.
        resume: Go on with a study that was stopped.
        progress: How to show progress.
        say: Called with a sentence before each step.
        changes: Settings that differ from the recipes'.

    Raises:
        ConfigError, DataError: As :func:`compare_candidates`.
        BrainstageError: As :func:`brainstage.train`. What was finished stays.
    """
    folder = begin("study", name, out, resume).path
    names = names or (BACKBONES if as_reported else (*BACKBONES, "compact"))
    comparison = compare_candidates(
        slices,
        names,
        folder,
        recipe="report" if as_reported else "linear-probe",
        split="test" if as_reported else "validation",
        progress=progress,
        say=say,
        **(REPORT_COMPARISON | changes if as_reported else changes),
    )
    best = TrainConfig.from_json(RunFolder(folder / comparison.leader.name).config)
    say(f"Varying settings of {comparison.leader.name}")
    trials = sweep(
        slices,
        best.replace(**REPORT_SWEEP) if as_reported else best,
        REPORT_FACTORS if as_reported else _factors(best),
        name="sweep",
        out=folder,
        resume=(folder / "sweep").exists(),
        progress=progress,
    )
    say(f"Final training of {comparison.leader.name}")
    chosen = trials.best
    if as_reported:  # the settings of the report's final training, which differ from those of its sweep
        settings = load_recipe("report", **{"backbone": best.backbone} | changes)
        chosen = settings.replace(**trials.chosen, **trials.provenance)
    final = train(slices, chosen, name="final", out=folder, resume=True, progress=progress)
    return Study(folder, as_reported, comparison, trials, final, evaluate(final))


def _factors(config: TrainConfig) -> tuple[Factor, ...]:
    """Return the report's three questions, around the settings that the candidate has."""
    rate = config.learning_rate
    return (
        Factor("learning_rate", (float(f"{rate * 3:.3g}"), rate, float(f"{rate / 3:.3g}"))),
        *REPORT_FACTORS[1:],
    )
