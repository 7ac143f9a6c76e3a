"""Reporting checklists of a study: what a program can know is filled in, the rest is marked for the author.

CLAIM 2024 (Tejani et al. 2024, Radiology: Artificial Intelligence 6, e240300) and TRIPOD+AI (Collins et al. 2024,
BMJ 385, e078378). Their items stand under their own numbers, in our words: what each asks for in full, the
checklists say. No model is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.errors import LeakageError, RunError
from brainstage.core.levels import BRAIN
from brainstage.core.run import RunFolder
from brainstage.core.schema import SPLIT_NAMES, STAGES_DEFINED, SYNTHETIC_NOTICE
from brainstage.datasets.public import DATA_HASH, DATASET
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.patients import PatientEvaluation
from brainstage.evaluation.slices import Evaluation
from brainstage.report.cards import SCORES, shown_score
from brainstage.report.pages import write_page
from brainstage.stats import metrics

PAGES = ("claim.md", "tripod.md")
BY_STAGE = ("precision", "recall", "f1", "auroc")
_OF_ALL_NETWORKS = (
    *("epochs", "batch_size", "gradient_accumulation", "optimizer", "schedule", "warmup_share", "learning_rate"),
    *("weight_decay", "label_smoothing", "max_shift", "mirror", "augment", "precision"),
)
_OF_NEW_NETWORKS = (
    *("image_size", "crop_share", "stem_channels", "stage_channels", "stage_blocks", "downsample_first"),
    "filter_learning_rate",
)
"""Settings that matter for a network trained from scratch, beside those that matter for all."""
_PICKED_ON_TEST = "The epoch was picked on the test people, so the figures are optimistic."


@dataclass(frozen=True)
class Origin:
    """Where data come from. What is None is for the author to say.

    Attributes:
        source: The data, and where they can be had.
        reference: How the stages were found.
        acquisition: How the scans were made.
        characteristics: Age, sex and the like of the people.
    """

    source: str | None = None
    reference: str | None = None
    acquisition: str | None = None
    characteristics: str | None = None


PUBLIC = Origin(
    source=(
        f"*{DATASET}* on the Hugging Face hub (https://huggingface.co/datasets/{DATASET}): slices of 200 of the "
        "416 people of OASIS-1 (Marcus et al. 2007, J Cogn Neurosci 19, 1498)."
    ),
    reference=f"{STAGES_DEFINED} (Morris 1993, Neurology 43, 2412.) The labels are those of OASIS-1.",
    acquisition="T1-weighted scans, parameters in Marcus et al. 2007. The public slices are skull-stripped.",
    characteristics=(
        "The people of OASIS-1 are 18 to 96 years old; those with a rating are mostly 60 and older. The public "
        "slices do not tell anyone's age or sex."
    ),
)
PHANTOM = Origin(
    source="The phantom cohort of brainstage: drawn heads of nobody.",
    reference="None: the stage is what the head was drawn for.",
    acquisition="None: the pictures are drawn.",
    characteristics="None: there are no people.",
)


@dataclass(frozen=True)
class Method:
    """How a model is made, in sentences.

    Attributes:
        kind: What kind of model it is.
        input: What is done to a slice before the model sees it.
        start: What training starts from.
        settings: The settings.
        selection: What was chosen, and on whom.
        output: From the slices of a person to an answer.
    """

    kind: str
    input: str
    start: str
    settings: str
    selection: str
    output: str


@dataclass(frozen=True)
class ReportFacts:
    """What is known of a study without asking its author; everything but names and numbers is in sentences.

    Attributes:
        recipe: Name of the recipe.
        design: Whether it looks back, and how the model is tested.
        origin: Where the data come from.
        data_hash: SHA-256 over every slice and label.
        method: How the model is made.
        partitions: Who trains and who is tested.
        disjoint: At which level they are kept apart, with the leakage verdict.
        subsets: Which part of the data is used, where it is not all of them.
        exclusions: What was left out.
        slices_of: Number of slices of each stage; None where it is not known.
        people_inferred: Whether people were recovered from the pictures.
        external: How people of another source were tested; None where none were.
        versions: Of the libraries.
        seed: Of everything that is drawn.
        parameters: Number of weights; None where the model has none.
        evaluation: The figures by slice.
        people: The figures by person.
        nested: Of a bundled model, the figures of the procedure that chose its recipe inside the folds, by view.
    """

    recipe: str
    design: str
    origin: Origin
    data_hash: str
    method: Method
    partitions: str
    disjoint: str
    subsets: str | None
    exclusions: str
    slices_of: Mapping[str, int] | None
    people_inferred: bool
    external: str | None
    versions: Mapping[str, str]
    seed: int
    parameters: int | None
    evaluation: Evaluation
    people: PatientEvaluation
    nested: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def stages(self) -> str:
        """Number of people, and of slices where it is known, of each stage."""
        slices = self.slices_of or {}
        return ", ".join(
            f"{plain(name)} {count} people" + (f" ({slices[name]:,} slices)" if name in slices else "")
            for name, count in self.people.people.items()
        )

    @property
    def title(self) -> str:
        """Protocol, leakage verdict and every caution: what stands before figures of people."""
        picked = " · optimistic: the epoch was picked on the test people"
        return self.people.title + (picked if self.evaluation.selection == "test" else "")

    @property
    def headline(self) -> str:
        """The figures that stand for the others, after the title; those chosen inside the folds come first."""
        first, last = self.people.views[0], self.people.views[-1]
        model, always = first.rows["model"], first.rows["always the largest"]
        nested = [
            f"{name}, protocol patient (no person on both sides): accuracy {shown_score(scores['accuracy'])}, "
            f"AUROC {shown_score(scores['auroc_ovr'])}"
            for name, scores in self.nested.items()
        ]
        return (
            "; ".join(nested)
            + "; then " * bool(nested)
            + (
                f"{self.title}: accuracy of {first.name} {_shown(model['accuracy'])}, where always the largest "
                f"has {_shown(always['accuracy'])}; AUROC of {last.name} {_shown(last.rows['model']['auroc_ovr'])}"
            )
        )

    @property
    def calibration(self) -> str:
        """How well the probabilities of people are calibrated."""
        error = self.people.views[0].rows["model"]["calibration_error"]
        perfect = self.people.calibration_error_if_perfect
        found = (
            f"Expected calibration error of people {_shown(error)}, in {metrics.CALIBRATION_BINS} bins; perfectly "
            f"calibrated probabilities of so few people would show {_shown(perfect)}."
        )
        if self.people.calibrated_on:
            values = self.people.temperatures.values()
            found += (
                f" Temperatures, fitted on {self.people.calibrated_on}: {min(values):.2f} to {max(values):.2f}."
            )
        if self.people.sets:
            sets = self.people.sets
            by_stage = ", ".join(f"{plain(name)} {_shown(score)}" for name, score in sets.by_stage.items())
            found += (
                f" The 90 % sets hold the stage of {_shown(sets.coverage)} of people ({by_stage}), with "
                f"{_shown(sets.size)} stages on average."
            )
        return found

    @property
    def limits(self) -> list[str]:
        """Limits that follow from the facts."""
        found = [
            (self.people.synthetic, f"{SYNTHETIC_NOTICE}."),
            (self.people.optimistic, f"The figures are optimistic: {self.people.optimistic}."),
            (self.evaluation.selection == "test", _PICKED_ON_TEST),
            (self.people.caution, self.people.caution),
            (self.people_inferred, "Who is who was recovered from the pictures: a strong guess, not a record."),
            (not self.people.ordinal, "The order of the stages is not known: nothing that depends on it is given."),
            (
                not self.external,
                "Nobody outside of these data was tested, so how it does on other scanners is not known.",
            ),
            (True, "Age and sex are not read, so how much of the figures is age or sex is not known."),
            (True, "The intervals say how much the figures hang on who was tested, not on who trained the model."),
        ]
        return [str(sentence) for holds, sentence in found if holds]


def write_checklists(facts: ReportFacts, folder: Path) -> list[Path]:
    """Write ``claim.md`` and ``tripod.md`` into a folder and return them."""
    people, scores = facts.people, facts.evaluation.scores
    content = {
        "facts": facts,
        "evaluation": facts.evaluation,
        "people": people,
        "draws": metrics.DRAWS,
        "scores": [name.replace("_", " ").replace("auroc ovr", "AUROC") for name in SCORES],
        "baselines": [plain(row) for row in people.views[0].rows if row != "model"],
        "views": [
            (one.name, [plain(name) for name in one.classes], _table(one.rows, SCORES)) for one in people.views
        ],
        "nested": [
            (plain(name), [shown_score(figures[score]) for score in SCORES])
            for name, figures in facts.nested.items()
        ],
        "by_stage": _table(scores.by_class, BY_STAGE),
        "classes": [plain(name) for name in facts.evaluation.classes],
        "confusion": scores.confusion.tolist(),
    }
    return [write_page(folder / page, page, content) for page in PAGES]


def facts_of_run(
    run: RunFolder, evaluation: Evaluation, people: PatientEvaluation, slices: SliceTable | None = None
) -> ReportFacts:
    """Return what the files of a cross-validated run and its figures tell.

    Args:
        run: The run.
        evaluation: Its figures by slice.
        people: Its figures by person.
        slices: The data, where they are at hand: they tell how many slices were left out, and why.

    Raises:
        RunError: A file of the run is not readable.
        LeakageError: A name stands on two sides of a fold.
    """
    manifest, splits = run.read_manifest(), _read(run.splits)
    config = TrainConfig.from_json(run.config)
    drawn = {"training": config.train_rows, "test": config.test_rows}
    slices_of = _slices_of(evaluation, people)
    return ReportFacts(
        recipe=plain(str(manifest["recipe"])),
        design=(
            "Retrospective: slices that were stored with their stages. The model is made and tested by "
            "cross-validation over people: nobody is predicted by a model that was fitted to them."
        ),
        origin=_origin(manifest),
        data_hash=str(manifest["data_hash"]),
        method=describe_method(config, manifest, people),
        partitions=_partitions(splits, config),
        disjoint=_disjoint(splits),
        subsets=" ".join(
            f"Of each {side} side {rows:,} slices were drawn." for side, rows in drawn.items() if rows
        ),
        exclusions=_exclusions(evaluation, slices, slices_of),
        slices_of=slices_of,
        people_inferred=manifest["leakage"].get("patient_id_source") == "inferred",
        external=None,
        versions=manifest["versions"],
        seed=config.seed,
        parameters=manifest.get("parameters"),
        evaluation=evaluation,
        people=people,
    )


_FOCAL = (
    "Inside each fold its training people alone choose, by inner cross-validation, whether half of the weight goes "
    "to the features that are correlated with the stage."
)


def describe_method(config: TrainConfig, manifest: Mapping[str, Any], people: PatientEvaluation) -> Method:
    """Return how the model of a run is made.

    Args:
        config: The run's settings.
        manifest: The run's manifest.
        people: The run's figures by person.
    """
    tuned = _tuned(config, manifest)
    if config.model == "patient":
        chosen = _FOCAL if manifest.get("levels") == BRAIN.name else "Nothing is chosen inside a fold."
        return Method(
            kind=(
                "A linear model of a person's slices: histograms of edge directions by place and level and of "
                "grey values by level, ridge regression, proportional odds"
            ),
            input=(
                "Pictures become grey, 8 bits a pixel, and are scaled to 128×128 pixels. The model sees the square "
                "roots of histograms of eight edge directions in cells of 16×16 pixels, edges measured in the grey "
                "value of the white matter, and of 24 grey values in the whole slice. A few missing levels between "
                "given ones are filled from their neighbours; any other that a training person lacks gets the mean "
                "of the others."
            ),
            start="There are no initial weights: each part is the solution of a convex problem.",
            settings=(
                "It is fitted to several simulated acquisitions of each person. Its settings, and the seeds of the "
                "acquisitions, are fixed by the version of brainstage."
            ),
            selection=f"{chosen} {tuned}".strip(),
            output=(
                "A person's slices are predicted together, in several simulated acquisitions whose mean counts: a "
                f"probability of each stage. {_ANSWER}"
            ),
        )
    return Method(
        kind=_kind_of_network(config),
        input=f"Pictures become grey, 8 bits a pixel. {_input_of_network(config)}",
        start=_start_of_network(config, manifest),
        settings=_listed(config, _OF_ALL_NETWORKS if config.backbone else _OF_NEW_NETWORKS + _OF_ALL_NETWORKS),
        selection=f"{_selection(config)} {tuned}".strip(),
        output=f"The probability of each stage is, of a person, the {people.aggregation}. {_ANSWER}",
    )


_ANSWER = "The 90 % set holds the stages that are not ruled out; the answer in one word is the most probable stage."


def plain(text: str) -> str:
    """Return a name without what Markdown or HTML would read as more than a name."""
    return re.sub(r"[\s|<>`\[\]]+", " ", text).strip()


def _shown(score: metrics.Score) -> str:
    return shown_score(score.to_dict()) or "not defined"


def _table(rows: Mapping[str, Mapping[str, metrics.Score]], names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the cells of each row."""
    return [(plain(row), [shown_score(scores[name].to_dict()) for name in names]) for row, scores in rows.items()]


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: not readable as JSON ({error}); train the run again") from error
    return content


def _origin(manifest: Mapping[str, Any]) -> Origin:
    if manifest.get("synthetic"):
        return PHANTOM
    return PUBLIC if manifest["data_hash"] == DATA_HASH else Origin()


def _slices_of(evaluation: Evaluation, people: PatientEvaluation) -> dict[str, int] | None:
    """Return the number of slices of each stage; None where some were predicted more often than others."""
    if people.repeats != people.fewest_repeats:
        return None
    return {name: count // people.repeats for name, count in evaluation.scores.support.items()}


def _partitions(splits: Mapping[str, Any], config: TrainConfig) -> str:
    """Return who trains and who is tested."""
    folds, what = splits["folds"], _named(splits)
    train, validation, test = (_range(len(fold[side]) for fold in folds) for side in SPLIT_NAMES)
    drawn = f"{config.folds} folds, drawn {config.repeats} times" if config.repeats > 1 else f"{len(folds)} folds"
    return (
        f"{drawn} (seed {splits['seed']}). Each trains on {train} {what}, tunes on {validation} (called validation "
        f"in the files) and tests {test}. brainstage deals whole people out to folds, stratified by stage; "
        "`splits.json` says who is in which, and can also be written by hand."
    )


def _disjoint(splits: Mapping[str, Any]) -> str:
    """Return at which level the sides of each fold are kept apart.

    Raises:
        LeakageError: A name stands on two sides of a fold.
    """
    for number, fold in enumerate(splits["folds"]):
        names = [name for side in SPLIT_NAMES for name in set(fold[side])]
        if len(set(names)) < len(names):
            raise LeakageError(f"fold {number} has a name on two sides: no page is written of such folds")
    level = "person" if _named(splits) == "people" else "slice"
    return f"{level.capitalize()}: no {level} is on two sides of a fold. Verdict: {splits['leakage']['sentence']}."


def _named(splits: Mapping[str, Any]) -> str:
    return "people" if splits["names"] == "patient_id" else "slices"


def _range(counts: Iterable[int]) -> str:
    found = sorted(counts)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def _exclusions(evaluation: Evaluation, slices: SliceTable | None, slices_of: Mapping[str, int] | None) -> str:
    """Return what was left out."""
    if slices is None:
        return (
            f"{evaluation.unlabelled:,} test slices had no label and were left out. What was left out before that "
            "is not known here."
        )
    labelled = [row for row in slices.row_of.values() if slices.labels[row] is not None]
    known = sum(slices.patients[row] is not None for row in labelled)
    counts = {
        "could not be read": len(slices.unreadable),
        "were exact copies of another": len(slices) - len(slices.row_of),
        "had no label": len(slices.row_of) - len(labelled),
        "could not be given to a person": len(labelled) - known,
    }
    if slices_of is not None:
        counts["stood in no fold"] = known - sum(slices_of.values())
    left_out = ", ".join(f"{count:,} {why}" for why, count in counts.items())
    return f"{len(slices) + len(slices.unreadable):,} slices were found; of these {left_out}."


def _tuned(config: TrainConfig, manifest: Mapping[str, Any]) -> str:
    """Return what the recipe's settings were chosen on, and what that does to the figures."""
    if config.tuned_on is None:
        return ""
    same = config.tuned_on == manifest["data_hash"]
    on = "these same data" if same else f"other data (hash {config.tuned_on[:12]}…)"
    optimistic = f" The figures are optimistic: {manifest['optimistic']}." if manifest.get("optimistic") else ""
    return f"The recipe's settings were chosen on {on}.{optimistic}"


def _selection(config: TrainConfig) -> str:
    """Return how the epoch is picked."""
    if config.selection == "test":
        return _PICKED_ON_TEST
    if not config.validation_share:
        return "Nothing is chosen inside a fold: the last epoch is kept."
    return "Of each fold the epoch with the highest accuracy on its tuning people is kept, the first of equals."


def _backbone(config: TrainConfig) -> str:
    """Return a backbone's name; of a folder its last part, since a path tells of its owner."""
    name = str(config.backbone)
    is_path = Path(name).is_absolute() or Path(name).is_dir() or name.startswith((".", "~"))
    return f"`{plain(Path(name).name if is_path else name)}`"


def _kind_of_network(config: TrainConfig) -> str:
    if not config.backbone:
        return "A small residual convolutional network (deep learning), trained from scratch on single slices"
    trained = "a new head is trained" if config.frozen else "all weights are trained further"
    return f"The pretrained network {_backbone(config)} (deep learning), of which {trained} on single slices"


def _input_of_network(config: TrainConfig) -> str:
    if config.backbone:
        return f"What follows is the image processor of {_backbone(config)}."
    return (
        f"The middle square, {config.crop_share:g} of the shorter side, is scaled to {config.image_size}×"
        f"{config.image_size} pixels; mean and standard deviation of the fold's training slices become 0 and 1."
    )


def _start_of_network(config: TrainConfig, manifest: Mapping[str, Any]) -> str:
    if not config.backbone:
        return f"Random weights, as transformers draws them (seed {config.seed})."
    weights = manifest.get("backbone", {}).get("weights")
    named = f" (SHA-256 {weights})" if weights else ""
    return (
        f"The weights of {_backbone(config)}{named}; a head for other classes is drawn anew (seed {config.seed})."
    )


def _listed(config: TrainConfig, names: Sequence[str]) -> str:
    """Return settings with their values."""
    values = {name: getattr(config, name) for name in names}
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return ", ".join(f"`{name}` {value}" for name, value in shown.items()) + "; all are in `train_config.json`."
