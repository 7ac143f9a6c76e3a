"""One recipe under both protocols, side by side: by how much people on both sides of a split inflate the scores.

The control is that of Yagis et al. 2021 (Scientific Reports 11, 22544): stages are assigned to people at random, so
that there is nothing to learn but who a person is. A split by slice rewards that, a split by person does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from brainstage.core.config import TrainConfig
from brainstage.core.errors import LeakageError
from brainstage.core.files import write_table
from brainstage.core.notebooks import Displayed, Plotted, Tabular
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import RESEARCH_NOTICE, SYNTHETIC_NOTICE, read_metadata
from brainstage.datasets.splits import Splits
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import PatientEvaluation, evaluate_patients
from brainstage.evaluation.slices import Evaluation, evaluate
from brainstage.models.recipes import load_recipe
from brainstage.stats.metrics import Score
from brainstage.studies.folder import begin, started_with
from brainstage.training.baselines import linear_baseline
from brainstage.training.cross_validation import cross_validate
from brainstage.training.train import train

_SIDES = ("official_slices", "patient_slices", "patient_people")


@dataclass(frozen=True)
class Row:
    """Scores of one model under both protocols.

    Attributes:
        name: The model.
        official: Overall scores on the test slices of the official split.
        patient: Overall scores on all slices, each predicted by a model that was trained on other people.
        people: The same predictions joined to people.
    """

    name: str
    official: dict[str, Score]
    patient: dict[str, Score]
    people: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        """Return the row for a JSON file."""
        sides = zip(_SIDES, (self.official, self.patient, self.people), strict=True)
        return {
            "name": self.name,
            **{side: {name: score.to_dict() for name, score in scores.items()} for side, scores in sides},
        }


@dataclass(frozen=True)
class ProtocolComparison(Displayed, Plotted, Tabular):
    """A recipe under both protocols.

    Attributes:
        folder: Folder of the runs.
        rows: The recipe, the nearest training slice, the linear baseline, and the recipe on stages assigned to
            people at random.
        official: The recipe under the official protocol.
        patient: The recipe under the patient protocol, by slice.
        people: The recipe under the patient protocol, by person.
    """

    folder: Path
    rows: tuple[Row, ...]
    official: Evaluation
    patient: Evaluation
    people: PatientEvaluation

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        row, nearest = self.rows[:2]
        known, new, people = (scores["accuracy"] for scores in (row.official, row.patient, row.people))
        return (
            f"{row.name} is right on {known.value:.1%} of slices of people in the training set, and the nearest "
            f"training slice, without any training, on {nearest.official['accuracy'].value:.1%}. On slices of "
            f"people not in the training set {row.name} is right on {new.value:.1%}; of those people it stages "
            f"{people.value:.1%} rightly ({people.low:.1%} to {people.high:.1%}), and {self.always_name} "
            f"{self.always[2].value:.1%}."
        )

    @property
    def always_name(self) -> str:
        """The largest class, as a row of the table."""
        return self.patient.baselines["majority"].name

    @property
    def always(self) -> tuple[Score, Score, Score]:
        """Accuracy of always predicting it: official slices, patient slices, people."""
        return (
            self.official.baselines["majority"].accuracy,
            self.patient.baselines["majority"].accuracy,
            self.people.views[0].rows["always the largest"]["accuracy"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``protocols.json``."""
        return {
            "notice": RESEARCH_NOTICE,
            "synthetic": SYNTHETIC_NOTICE if self.official.synthetic else None,
            "sentence": self.sentence,
            "titles": [self.official.title, self.patient.title, self.people.title],
            "leakage": {"official": self.official.leakage, "patient": self.patient.leakage},
            "always": {
                "name": self.always_name,
                **{side: score.to_dict() for side, score in zip(_SIDES, self.always, strict=True)},
            },
            "rows": [row.to_dict() for row in self.rows],
        }


def compare_protocols(
    slices: SliceTable,
    config: TrainConfig | StrPath = "compact",
    *,
    name: str | None = None,
    out: StrPath = "runs",
    resume: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _text: None,
) -> ProtocolComparison:
    """Train one recipe under both protocols, and again on stages assigned to people at random; compare.

    Args:
        slices: The data, with train and test sides and with patients, given or inferred.
        config: Settings, or a recipe: its name or a TOML file.
        name: Name of the folder; None takes ``protocols-001``, ``protocols-002``, …
        out: Folder of the runs; the comparison's own folder in it holds its four runs.
        resume: Go on with one that was stopped.
        progress: How to show progress.
        say: Called with a sentence before each step.

    Raises:
        ConfigError: One that is resumed was started with different settings.
        DataError: One that is resumed was started with different data.
        LeakageError: The data has no patients, so there is no patient protocol.
        BrainstageError: As :func:`brainstage.train`.
    """
    if slices.patient_source == "unknown":
        raise LeakageError(
            "both protocols need the patient of each slice; recover them with `brainstage audit` and give its "
            "table with --patients"
        )
    config = config if isinstance(config, TrainConfig) else load_recipe(config)
    folder = begin("protocols", name, out, resume).path
    with started_with(folder, slices, {config.recipe: config}):
        say(f"{config.recipe} under both protocols")
        official, patient = _both(slices, config, folder, "", progress)
        say("the same on stages assigned to people at random")
        control = _both(shuffle_people(slices, config.seed), config, folder, "shuffled-", progress)
    baseline = _official_baseline(slices, official, progress)
    return ProtocolComparison(
        folder,
        (
            _row(config.recipe, official, patient),
            _row("nearest training slice", official.nearest_slice, patient.nearest_slice),
            _row("linear baseline", baseline, patient.baseline),
            _row("stages shuffled", *control),
        ),
        evaluate(official),
        evaluate(patient),
        evaluate_patients(patient),
    )


def _both(
    slices: SliceTable, config: TrainConfig, folder: Path, prefix: str, progress: Progress
) -> tuple[RunFolder, RunFolder]:
    by_slice = config.replace(protocol="official", fold=0, group_by=None)
    return (
        train(slices, by_slice, name=f"{prefix}official", out=folder, resume=True, progress=progress),
        cross_validate(slices, config, name=f"{prefix}patient", out=folder, resume=True, progress=progress),
    )


def _official_baseline(slices: SliceTable, official: RunFolder, progress: Progress) -> Path:
    """Fit the linear baseline on the official split, beside the run."""
    about = read_metadata(pq.read_table(official.predictions))
    target = official.path.parent / "official-baseline.parquet"
    write_table(target, linear_baseline(slices, Splits.load(official.splits, slices), about, progress=progress))
    return target


def _row(name: str, official: RunFolder | Path, patient: RunFolder | Path) -> Row:
    return Row(
        name,
        evaluate(official).scores.overall,
        evaluate(patient).scores.overall,
        evaluate_patients(patient).views[0].rows["model"],
    )


def shuffle_people(slices: SliceTable, seed: int) -> SliceTable:
    """Assign the people's stages to people at random; all slices of a person get one stage.

    A person's stage is that of the first labelled slice; slices without a patient or a stage get none.
    """
    stage_of: dict[str, str] = {}
    for patient, label in zip(slices.patients, slices.labels, strict=True):
        if patient is not None and label is not None:
            stage_of.setdefault(patient, label)
    people = sorted(stage_of)
    shuffled = np.random.default_rng(seed).permutation([stage_of[patient] for patient in people]).tolist()
    new = dict(zip(people, shuffled, strict=True))
    labels = [
        None if label is None or patient is None else new[patient]
        for patient, label in zip(slices.patients, slices.labels, strict=True)
    ]
    return slices.with_labels(labels)
