"""A model's card: what it is, its performance on people not in the training set, what it must not be used for.

The card is a ``README.md`` as the Hugging Face hub reads it: metadata first, with every figure of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from brainstage.core.errors import ConfigError
from brainstage.core.files import write_text
from brainstage.datasets.public import DATASET
from brainstage.report.pages import render_page

SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc_ovr": "AUROC",
    "quadratic_kappa": "quadratic kappa",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
"""Scores of a card's table, and of the tables of other pages, with their names in words."""
OPTIMISTIC = "optimistic"
NEW_PEOPLE = "people not in the training set"
"""Words in the name of a row of protocol ``patient`` in the card of a model whose other rows are of another one."""
BASELINES = ("linear baseline", "nearest training slice", "age and sex", "always ", "shuffled labels")
"""Words in the names of rows that are not the model's: they stand in the table, and not among its results."""
_HUB_METRICS = {"auroc_ovr": "roc_auc"}
"""Names that the hub has for scores of ours."""
_HUB_SPLITS = {"official": "test", "patient": "train+test"}
"""Sides of the hub's dataset that each protocol judges; out of fold that is everyone."""

ELSEWHERE = "data-not-on-the-hub"
"""Dataset of the figures of a model whose data are not on the hub, which wants a name."""

Row = Mapping[str, Mapping[str, float | None]]
"""Scores by name, each with ``value``, ``low`` and ``high``."""


@dataclass(frozen=True)
class Card:
    """The text of a card.

    Attributes:
        name: Name of the model.
        what: What it is, in a few sentences.
        fitted_on: The data that the weights were fitted on.
        judged: How the figures were computed.
        limits: Its known limits.
        license: Its licence, by the name that the hub has for it; None says nothing.
        dataset: Id of the dataset on the hub that it was fitted on; None where it is not there.
    """

    name: str
    what: str
    fitted_on: str
    judged: str
    limits: Sequence[str]
    license: str | None = "apache-2.0"
    dataset: str | None = DATASET


def write_card(folder: Path, card: Card, about: Mapping[str, Any]) -> Path:
    """Write ``README.md`` beside a model that comes with the package, from the figures of its manifest.

    Args:
        folder: The model's folder.
        card: The text of the card.
        about: As for :func:`card_text`.

    Raises:
        ConfigError: As :func:`card_text`.
    """
    write_text(folder / "README.md", card_text(card, about))
    return folder / "README.md"


def card_text(card: Card, about: Mapping[str, Any], template: str = "card.md") -> str:
    """Return a card: metadata for the hub, then the text.

    Args:
        card: The text of the card.
        about: ``protocol``, ``leakage``, ``figures`` (scores of each row), ``performance`` and ``hash``. There may
            be ``nested``, rows whose every choice was made inside the folds: they stand first. There may be
            ``optimistic``, which says why ``figures`` are too good.
        template: Name of a file in ``templates``.

    Raises:
        ConfigError: The protocol or the verdict is missing: no figure stands without them.
    """
    if not (about.get("protocol") and about.get("leakage")):
        raise ConfigError(
            f"{card.name}: a card needs the protocol and the leakage verdict of its figures; train the run again"
        )
    figures = [
        (row, protocol, [shown_score(scores.get(name)) for name in SCORES])
        for row, protocol, scores in _rows(about)
    ]
    content = {
        **vars(card),
        **about,
        "leakage": about["leakage"]["sentence"],
        "figures": figures,
        "metadata": _metadata(card, about).to_yaml(),
    }
    return render_page(template, content)


def shown_score(score: Mapping[str, float | None] | None) -> str:
    """Return a score with its interval, as tables show it; nothing where it is not known."""
    if not score or score["value"] is None:
        return ""
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"


def _rows(about: Mapping[str, Any]) -> Iterator[tuple[str, str, Row]]:
    """Yield name, protocol and scores of each row; those whose every choice was made inside the folds first."""
    for row, scores in about.get("nested", {}).items():
        yield row, "patient", scores
    for row, scores in about["figures"].items():
        lacks_the_word = about.get("optimistic") and not row.startswith(OPTIMISTIC) and not _is_baseline(row)
        protocol = "patient" if NEW_PEOPLE in row else about["protocol"]
        yield f"{OPTIMISTIC}: {row}" if lacks_the_word else row, protocol, scores


def _is_baseline(row: str) -> bool:
    return any(words in row for words in BASELINES)


def _metadata(card: Card, about: Mapping[str, Any]) -> ModelCardData:
    """Return what the hub reads of a card."""
    results = [
        _result(card, f"{row}: {words}", name, scores[name], protocol, about)
        for row, protocol, scores in _rows(about)
        if not _is_baseline(row) and not about.get("synthetic")
        for name, words in SCORES.items()
        if scores.get(name, {}).get("value") is not None
    ]
    return ModelCardData(
        license=card.license,
        library_name="brainstage",
        pipeline_tag="image-classification",
        tags=["MRI", "dementia", "research-only", "not-a-medical-device"],
        datasets=[card.dataset] if card.dataset else None,
        model_name=card.name,
        eval_results=results or None,
    )


def _result(
    card: Card,
    shown_name: str,
    name: str,
    score: Mapping[str, float | None],
    protocol: str,
    about: Mapping[str, Any],
) -> EvalResult:
    """Return one score as the hub lists it: its dataset names the protocol, its own name has the interval."""
    kept_apart = "no person on both sides" if protocol == "patient" else about["leakage"]["sentence"]
    low, high = score["low"], score["high"]
    interval = "" if low is None else f", 95 % interval {low:.3f} to {high:.3f}"
    dataset = card.dataset or ELSEWHERE
    return EvalResult(
        task_type="image-classification",
        task_name="stage of dementia from brain MRI slices",
        dataset_type=dataset,
        dataset_name=f"{dataset}, protocol {protocol} ({kept_apart})",
        dataset_config="default",
        dataset_split=_HUB_SPLITS[protocol],
        metric_type=_HUB_METRICS.get(name, name),
        metric_value=score["value"],
        metric_name=shown_name + interval,
    )
