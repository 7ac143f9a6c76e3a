"""A model's card: what it is, its performance on people not in the training set, what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage.core.errors import ConfigError
from brainstage.report.pages import write_page

SCORES = ("accuracy", "balanced_accuracy", "auroc_ovr", "quadratic_kappa", "log_loss", "calibration_error")


@dataclass(frozen=True)
class Card:
    """The text of a card.

    Attributes:
        name: Name of the model.
        what: What it is, in a few sentences.
        fitted_on: The data that the weights were fitted on.
        judged: How the figures were computed.
        limits: Its known limits.
    """

    name: str
    what: str
    fitted_on: str
    judged: str
    limits: Sequence[str]


def write_card(folder: Path, card: Card, about: Mapping[str, Any]) -> Path:
    """Write ``README.md`` beside a model, from the figures of its manifest.

    Args:
        folder: The model's folder.
        card: The text of the card.
        about: ``protocol``, ``leakage``, ``figures`` (scores of each row), ``performance`` and ``hash``.

    Raises:
        ConfigError: The protocol or the verdict is missing: no figure stands without them.
    """
    if not (about.get("protocol") and about.get("leakage")):
        raise ConfigError(f"{folder}: a card needs the protocol and the leakage verdict of its figures")
    figures = [(row, [_shown(scores.get(name)) for name in SCORES]) for row, scores in about["figures"].items()]
    content = {**vars(card), **about, "leakage": about["leakage"]["sentence"], "figures": figures}
    return write_page(folder / "README.md", "card.md", content)


def _shown(score: Mapping[str, float | None] | None) -> str:
    if not score or score["value"] is None:
        return ""
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"
