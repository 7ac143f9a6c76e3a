"""Reporting checklists of a study: what a program can know is filled in, the rest is marked for the author.

CLAIM 2024 (Tejani et al. 2024, Radiology: Artificial Intelligence 6, e240300) and TRIPOD+AI (Collins et al. 2024,
BMJ 385, e078378). Their items stand under their own numbers, in our words: what each asks for in full, the
checklists say. There is one template for each, of cross-validated runs (:mod:`brainstage.report.run_facts`) and of
external validations (:mod:`brainstage.report.validation_facts`) alike; these gather the facts. No model is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainstage.core.schema import STAGES_DEFINED, Value
from brainstage.datasets.public import DATA_HASH, DATASET
from brainstage.evaluation.patients import PatientEvaluation
from brainstage.report.cards import shown_score
from brainstage.report.methods import Method
from brainstage.report.pages import plain, write_page
from brainstage.stats import metrics

PAGES = ("claim.md", "tripod.md")


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
class FigureTable:
    """A table of a checklist.

    Attributes:
        title: What it is of, with protocol and leakage verdict; empty where it belongs to the table before it.
        text: What is to be known of it.
        head: Headings, that of the rows' names first.
        rows: Name and cells of each row.
    """

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class ReportFacts:
    """What is known of a study without asking its author; everything but names and numbers is in sentences.

    Attributes:
        recipe: Name of the recipe.
        external: Whether a finished model was tested on people of another source; else it is cross-validated.
        design: Whether it looks back, and how the model is tested.
        goal: What is asked.
        origin: Where the data come from.
        data_hash: SHA-256 over every slice and label.
        labels: Which stages the data have, and what stands for which.
        method: How the model is made.
        weights: SHA-256 of the model's weights.
        partitions: Who trains and who is tested.
        disjoint: At which level they are kept apart, with the leakage verdict.
        subsets: Which part of the data is used, where it is not all of them.
        exclusions: What was left out.
        people: Number of people of each stage.
        participants: Their age and sex by stage; None where these are not known.
        people_inferred: Whether people were recovered from the pictures.
        clusters: What was done about sites or other groups of people; None where nothing was.
        versions: Of the libraries.
        seed: Of everything that is drawn; None where it is not known.
        parameters: Number of weights; None where the model has none.
        measures: The scores, and what stands beside them.
        tables: The figures.
        errors: Which stages are taken for which.
        title: What stands before figures: protocol or model, leakage verdict and every caution.
        headline: The figures that stand for the others, after the title.
        calibration: How well the probabilities are calibrated.
        inside: How the model does on people of the data that it was made with; None where it is not known.
        outside: How it does on people of another source; None where none were tested.
        repeats: How often people were predicted.
        limits: Limits that follow from the facts.
    """

    recipe: str
    external: bool
    design: str
    goal: str
    origin: Origin
    data_hash: str
    labels: str
    method: Method
    weights: str
    partitions: str
    disjoint: str
    subsets: str | None
    exclusions: str
    people: str
    participants: FigureTable | None
    people_inferred: bool
    clusters: str | None
    versions: Mapping[str, str]
    seed: int | None
    parameters: int | None
    measures: str
    tables: Sequence[FigureTable]
    errors: FigureTable
    title: str
    headline: str
    calibration: str
    inside: str | None
    outside: str | None
    repeats: int
    limits: Sequence[str]


def write_checklists(facts: ReportFacts, folder: Path) -> list[Path]:
    """Write ``claim.md`` and ``tripod.md`` into a folder and return them."""
    return [write_page(folder / page, page, {"facts": facts, "draws": metrics.DRAWS}) for page in PAGES]


def find_origin(data_hash: str, *, synthetic: bool) -> Origin:
    """Return what is known of where data come from."""
    if synthetic:
        return PHANTOM
    return PUBLIC if data_hash == DATA_HASH else Origin()


def shown(score: metrics.Score) -> str:
    """Return a score with its interval."""
    return shown_score(score.to_dict()) or "not defined"


def score_rows(
    rows: Mapping[str, Mapping[str, metrics.Score]], names: Iterable[str]
) -> list[tuple[str, list[str]]]:
    """Return the cells of each row of a table of scores."""
    return [(plain(row), [shown_score(scores[name].to_dict()) for name in names]) for row, scores in rows.items()]


def describe_sets(people: PatientEvaluation) -> str:
    """Return coverage and size of the 90 % sets in a sentence; nothing where there are none."""
    if not people.sets:
        return ""
    by_stage = ", ".join(f"{plain(name)} {shown(score)}" for name, score in people.sets.by_stage.items())
    return (
        f"The 90 % sets hold the stage of {shown(people.sets.coverage)} of people ({by_stage}), with "
        f"{shown(people.sets.size)} stages on average."
    )


def participants_table(
    labels: Sequence[str], patients: Sequence[str], covariates: Mapping[str, Sequence[Value]]
) -> FigureTable | None:
    """Return age and sex of the people of each stage; None where neither is a column.

    Args:
        labels: Stages of n slices or scans.
        patients: Person of each. Someone with several stages counts in each of them, as in its first row.
        covariates: Columns of n values; ``age`` is in years.
    """
    names = [name for name in ("age", "sex") if name in covariates]
    first: dict[tuple[str, str], dict[str, Value]] = {}
    for row, key in enumerate(zip(labels, patients, strict=True)):
        first.setdefault(key, {name: covariates[name][row] for name in names})
    if not names:
        return None
    rows = []
    for stage in dict.fromkeys(labels):
        of_stage = [about for (label, _), about in first.items() if label == stage]
        cells = [_summary([about[name] for about in of_stage]) for name in names]
        rows.append((plain(stage), [str(len(of_stage)), *cells]))
    text = "Participants. Age: median and range in years. Someone with several stages counts in each of them."
    return FigureTable("", text, ("participants", "people", *names), rows)


def _summary(values: Sequence[Value]) -> str:
    """Return median and range of numbers, or how often each text occurs; and how many are not known."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if not isinstance(value, str)]
    texts = [plain(value) for value in known if isinstance(value, str)]
    parts = [f"{np.median(numbers):.3g} ({min(numbers):.3g} to {max(numbers):.3g})"] if numbers else []
    parts += [f"{text} {texts.count(text)}" for text in sorted(set(texts))]
    parts += [f"not known {len(values) - len(known)}"] if len(known) < len(values) else []
    return ", ".join(parts)
