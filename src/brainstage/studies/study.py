"""The report's whole study on any data: compare candidates, vary settings of the best, train it, judge it once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, RunError
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.comparison import Comparison, compare
from brainstage.evaluation.slices import Evaluation, evaluate
from brainstage.models.recipes import load_recipe, recipe_names
from brainstage.training.sweep import Factor, Sweep, sweep
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
class Study:
    """What a study found.

    Attributes:
        folder: Where everything lies.
        as_reported: Whether it kept to the report's protocol.
        comparison: The candidates.
        sweep: Settings of the best candidate.
        final: The run with the chosen settings.
        evaluation: What it is worth on the test slices.
    """

    folder: Path
    as_reported: bool
    comparison: Comparison
    sweep: Sweep
    final: RunFolder
    evaluation: Evaluation


def candidate(name: str, recipe: str, **changes: Any) -> TrainConfig:
    """Return the settings of a candidate: a recipe by its name, or a backbone with ``recipe``.

    Raises:
        ConfigError: A setting is not valid.
    """
    if name in recipe_names():
        return load_recipe(name, **changes)
    return load_recipe(recipe, **{"backbone": name, **changes})


def begin(kind: str, name: str | None, out: Path | str, resume: bool) -> RunFolder:
    """Make the folder of a comparison or a study.

    Raises:
        ConfigError: The name is not usable.
        RunError: It exists and is not to be resumed, or cannot be made.
    """
    run = RunFolder.new(name, kind, out)
    if run.path.exists() and not resume:
        raise RunError(f"{run.path}: exists; go on with --resume or take another --name")
    run.create()
    return run


def compare_candidates(
    slices: SliceTable,
    names: Sequence[str],
    folder: Path,
    *,
    recipe: str = "linear-probe",
    split: str | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _text: None,
    **changes: Any,
) -> Comparison:
    """Train candidates on the same slices with the same seed, those that are finished excepted, and compare them.

    Args:
        slices: The data.
        names: Hub ids, folders of backbones, or names of recipes.
        folder: Where each candidate's run goes.
        recipe: Recipe of the backbones.
        split: The side they are compared on; None as for :func:`brainstage.compare`.
        progress: How to show progress.
        say: Told what is done.
        changes: Settings that differ from the recipes'.

    Raises:
        ConfigError: There are not two candidates, two of the same name, or a setting is not valid.
        BrainstageError: As :func:`brainstage.train`.
    """
    configs = {_slug(name): candidate(name, recipe, **changes) for name in names}
    if len(configs) < 2 or len(configs) < len(names):
        raise ConfigError("a comparison needs two candidates or more, of different names")
    runs = []
    for number, (name, config) in enumerate(configs.items(), 1):
        say(f"Candidate {number} of {len(configs)}: {name}")
        runs.append(train(slices, config, name=name, out=folder, resume=True, progress=progress))
    return compare(runs, split=split)


def _slug(name: str) -> str:
    """Return a plain name for a candidate's folder: the last part of a path or of a hub id."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name.replace("@", "-")).name).strip(".-_")[:80] or "candidate"


def run_study(
    slices: SliceTable,
    names: Sequence[str] = (),
    *,
    as_reported: bool = False,
    name: str | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _text: None,
    **changes: Any,
) -> Study:
    """Compare candidates, vary three settings of the best, train it with what was chosen, judge it once on test.

    Args:
        slices: The data.
        names: Candidates; none takes the report's four backbones, and ``compact`` where not as reported.
        as_reported: Keep to the report's protocol: its numbers of rows, one epoch, and every choice made on the
            test slices, which is stamped on every figure. Else all rows, and every choice on validation slices.
        name: Name of the study; None takes ``study-001``, ``study-002``, …
        out: Folder of the runs.
        resume: Go on with a study that was stopped.
        progress: How to show progress.
        say: Told what is done.
        changes: Settings that differ from the recipes'.

    Raises:
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
    found = sweep(
        slices,
        best.replace(**REPORT_SWEEP) if as_reported else best,
        REPORT_FACTORS if as_reported else _factors(best),
        name="sweep",
        out=folder,
        resume=(folder / "sweep").exists(),
        progress=progress,
    )
    say(f"Final training of {comparison.leader.name}")
    settings = load_recipe("report", **{"backbone": best.backbone} | changes) if as_reported else best
    final = train(
        slices, settings.replace(**found.chosen), name="final", out=folder, resume=True, progress=progress
    )
    return Study(folder, as_reported, comparison, found, final, evaluate(final))


def _factors(config: TrainConfig) -> tuple[Factor, ...]:
    """Return the report's three questions, around the settings that the candidate has."""
    rate = config.learning_rate
    return (
        Factor("learning_rate", (float(f"{rate * 3:.3g}"), rate, float(f"{rate / 3:.3g}"))),
        *REPORT_FACTORS[1:],
    )
