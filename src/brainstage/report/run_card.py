"""The card of a run that is published: what it is, its figures, whom its files tell of, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.links import docs_page
from brainstage.core.run import RunFolder
from brainstage.core.schema import SYNTHETIC_NOTICE, define_stages, why_optimistic
from brainstage.datasets.public import DATA_HASH, DATASET
from brainstage.evaluation.patients import MEAN_OF_SLICES, PatientEvaluation, evaluate_patients
from brainstage.evaluation.slices import Evaluation, evaluate, labelled_sides
from brainstage.report.cards import Card, card_text
from brainstage.report.checklists import find_origin
from brainstage.report.methods import describe_method, unknown_method
from brainstage.report.pages import plain
from brainstage.report.run_facts import limits_of
from brainstage.stats.metrics import Score

NO_FIGURES = "No predictions came with this model, so its figures are not known here. Ask its author for them."


@dataclass(frozen=True)
class RunCard(Card):
    """The text of a run's card.

    Attributes:
        repo: Id on the hub.
        data: Where the data come from, as far as the run tells.
        stages: What the stages are, or their names.
        stamp: What must be said of phantoms; None where people were scanned.
        inside: What the files tell of the training people, a sentence each.
        about_people: Address of the page that says more of it.
    """

    repo: str = ""
    data: str = ""
    stages: str = ""
    stamp: str | None = None
    inside: Sequence[str] = ()
    about_people: str = docs_page("explanation/data-statement")


def run_card(
    run: RunFolder,
    repo: str,
    about: Mapping[str, Any],
    *,
    classes: Sequence[str],
    weights: str,
    inside: Sequence[str],
    license: str | None = None,
) -> str:
    """Return the card of a run, with the figures of its predictions where it has them.

    Args:
        run: A finished run.
        repo: Id on the hub.
        about: Its manifest.
        classes: Class names.
        weights: SHA-256 of its weights.
        inside: What its files tell of the training people, a sentence each.
        license: Name that the hub has for its licence; None says nothing.

    Raises:
        ConfigError: The manifest has no protocol or no leakage verdict.
        DataError, LeakageError: The predictions are not as they must be.
    """
    synthetic, data_hash = bool(about.get("synthetic")), str(about.get("data_hash", ""))
    evaluation, people = _figures(run)
    inferred = about.get("leakage", {}).get("patient_id_source") == "inferred"
    config = TrainConfig.from_json(run.config) if run.config.is_file() else None
    recipe = str(about.get("recipe", "not known"))
    method = describe_method(config, about, people.aggregation if people else MEAN_OF_SLICES) if config else None
    method = method or unknown_method(recipe)
    names = ", ".join(map(plain, classes))
    card = RunCard(
        name=repo.partition("/")[2],
        what=(
            f"{method.kind}. It gives a brain MRI slice, or all slices of a person, a probability of each stage. "
            f"Recipe `{plain(recipe)}`."
        ),
        fitted_on=plain(str(about.get("fitted_on", "not known"))),
        judged=f"{evaluation.title}." if evaluation else NO_FIGURES,
        limits=_limits(people, inferred=inferred),
        license=license,
        dataset=DATASET if data_hash == DATA_HASH else None,
        repo=repo,
        data=find_origin(data_hash, synthetic=synthetic).source or "Not public; its author can say more.",
        stages=define_stages(classes) or names,
        stamp=f"Trained on phantoms, {SYNTHETIC_NOTICE}." if synthetic else None,
        inside=inside,
    )
    optimistic = why_optimistic(about.get("optimistic"), about.get("selection"))
    content = {
        **about,
        "optimistic": optimistic,
        "figures": _rows(evaluation, people),
        "nested": {},
        "hash": weights,
    }
    return card_text(card, content, "run_card.md")


def _figures(run: RunFolder) -> tuple[Evaluation | None, PatientEvaluation | None]:
    """Return the figures by slice, and by person where persons are known; None where there are none."""
    if not run.predictions.is_file() or "test" not in labelled_sides(run):
        return None, None
    evaluation = evaluate(run)
    return evaluation, evaluate_patients(run) if evaluation.resampled == "patients" else None


def _rows(evaluation: Evaluation | None, people: PatientEvaluation | None) -> dict[str, Any]:
    """Return the rows of the card's table: people first, where none stands on both sides."""
    rows: dict[str, Mapping[str, Score]] = {}
    for view in people.views if people and people.protocol == "patient" else ():
        rows |= {
            f"{'all slices of a person' if name == 'model' else plain(name)}, {view.name}": scores
            for name, scores in view.rows.items()
        }
    if evaluation:
        rows["slices"] = evaluation.scores.overall
        rows |= {
            f"slices, {plain(baseline.name)}": {"accuracy": baseline.accuracy}
            for baseline in evaluation.baselines.values()
        }
    return {row: {name: score.to_dict() for name, score in scores.items()} for row, scores in rows.items()}


def _limits(people: PatientEvaluation | None, *, inferred: bool) -> list[str]:
    if people:
        return limits_of(people, inferred=inferred)
    return [
        "Who is who among its people is not known here, so nothing is known of how it does on other people.",
        "Age and sex are not read, so how much of any figure is age or sex is not known.",
    ]
