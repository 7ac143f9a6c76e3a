"""From scans to explanations: maps of what moved their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.errors import ConfigError, DataError, RefusalError
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.inference.attribution import (
    attribute,
    check_method,
    default_method,
    outside,
    similarity_to_randomised,
)
from brainstage.inference.predictions import FAILED, MIN_ACCEPTED_SHARE, PREDICTED, REFUSED
from brainstage.inference.predictor import Predictor
from brainstage.scans.discover import Scan

NOTICE = "Shows the pixels that moved the score; not a lesion map."
MAX_RANDOMISED_SIMILARITY = 0.3
"""Largest similarity to the maps of a randomised model: above it maps show the picture and not the model."""
FULL_COLOUR_QUANTILE = 0.99
"""Quantile of a person's attribution strengths that is shown in full colour."""


@dataclass(frozen=True)
class Explanations:
    """The explanations of some scans.

    Attributes:
        rows: One mapping for each slice, or for a scan without a map: ``person`` (number, from 1), ``source``,
            ``level``, ``status`` (``predicted``, ``refused``, ``failed``), ``stage`` (the one explained),
            ``outside`` (share of the attribution outside of the head), ``similarity_to_randomised`` (where it was
            asked for), ``file``, ``reason``.
        method: ``grad-cam``, ``integrated-gradients`` or ``occlusion``.
        model: SHA-256 of the weights.
        about: The run's manifest.
    """

    rows: list[dict[str, Any]]
    method: str
    model: str
    about: dict[str, Any]

    @property
    def notice(self) -> str:
        """What stands beside every map."""
        return f"{NOTICE} {RESEARCH_NOTICE}"

    @property
    def title(self) -> str:
        """Which model is explained, and how."""
        return f"model {self.model[:12]} · protocol {self.about.get('protocol', 'unknown')} · {self.method}"

    @property
    def reasons(self) -> list[str]:
        """Why scans have no map, a sentence each."""
        return [row["reason"] for row in self.rows if row["reason"]]

    @property
    def sanity(self) -> str | None:
        """Result of the comparison with randomised models; None where it was not asked for."""
        by_person = {row["person"]: row["similarity_to_randomised"] for row in self.rows if row["file"]}
        similarities = [similarity for similarity in by_person.values() if similarity is not None]
        if not similarities:
            return None
        mean = float(np.mean(similarities))
        if mean > MAX_RANDOMISED_SIMILARITY:
            verdict = "THEY DO NOT CHANGE ENOUGH, so they show the picture and not the model"
        else:
            verdict = "they change, so they show the model"
        return (
            f"Similarity to the maps of the same model with its weights randomised: {mean:.2f}, the mean of "
            f"{len(similarities)} ({MAX_RANDOMISED_SIMILARITY} allowed): {verdict}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``explanations.json``."""
        about = {key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic")}
        return {
            "notice": self.notice,
            "model": self.model,
            **about,
            "method": self.method,
            "sanity": self.sanity,
            "maps": self.rows,
        }


class SliceExplanation(NamedTuple):
    """The map of one slice, or why a scan has none."""

    row: dict[str, Any]
    """As in :class:`Explanations`, without ``person`` and ``file``."""
    number: int | None = None
    """Number of the slice in its scan, from 1; None where it is the only one."""
    image: Pixels | None = None
    """The slice, uint8 of shape (H, W)."""
    map: Float32Array | None = None
    """The attribution, float32 of shape (H, W)."""
    full_colour: float = 1.0
    """Strength that is shown in full colour, the same for all slices of a person."""


def check_request(predictor: Predictor, method: str | None, stage: str | None) -> str:
    """Return the method that will be used.

    Args:
        predictor: The model.
        method: One of :data:`brainstage.inference.attribution.METHODS`; None takes the one that suits the model.
        stage: The stage to explain; None for the predicted one.

    Raises:
        ConfigError: The method does not suit the model, or there is no such stage.
    """
    method = method or default_method(predictor)
    check_method(predictor, method)
    if stage is not None and stage not in predictor.classes:
        raise ConfigError(f"{stage}: no such stage; the model has {', '.join(predictor.classes)}")
    return method


def explain_scan(
    predictor: Predictor, scan: Scan, method: str, stage: str | None = None, *, sanity: bool = False
) -> list[SliceExplanation]:
    """Explain a scan of one person: a map for each slice that is not refused, or the reason why there is none.

    Args:
        predictor: The model.
        scan: The scan.
        method: As :func:`check_request` returned it.
        stage: The stage to explain; None for the predicted one.
        sanity: Compare each map with those of the same model with its weights randomised.
    """
    try:
        images, levels = scan.read(predictor.level_set)
    except RefusalError as error:
        return [SliceExplanation(_row(scan.name, REFUSED, reason=str(error)))]
    except DataError as error:
        return [SliceExplanation(_row(scan.name, FAILED, reason=str(error)))]
    refusals = predictor.refusals(images)
    kept = [index for index, reason in enumerate(refusals) if reason is None]
    if len(kept) < MIN_ACCEPTED_SHARE * len(images):
        reason = next(reason for reason in refusals if reason)
        return [SliceExplanation(_row(scan.name, REFUSED, reason=f"{scan.name}: {reason}"))]
    shown, places = [images[index] for index in kept], [levels[index] for index in kept]
    probabilities = predictor.predict_proba(shown, ["one person"] * len(shown), places)[0]
    target = predictor.classes.index(stage) if stage else int(probabilities.argmax())
    maps = attribute(predictor, shown, places, target, method)
    similarity = similarity_to_randomised(predictor, shown, places, target, method) if sanity else None
    full_colour = _full_colour(maps)
    explanations = []
    for index, map_ in zip(kept, maps, strict=True):
        share = round(outside(map_, images[index]), 4)
        row = _row(scan.name, PREDICTED, levels[index], predictor.classes[target], share, similarity)
        number = None if len(images) == 1 else index + 1
        explanations.append(SliceExplanation(row, number, images[index], map_, full_colour))
    return explanations


def _full_colour(maps: Sequence[Float32Array]) -> float:
    """Return the strength that is shown in full colour in all slices of a person."""
    strengths = np.concatenate([np.abs(map_[map_ != 0]) for map_ in maps])
    return float(np.quantile(strengths, FULL_COLOUR_QUANTILE)) if len(strengths) else 1.0


def _row(
    source: str,
    status: str,
    level: int | None = None,
    stage: str | None = None,
    share: float | None = None,
    similarity: float | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "source": source,
        "level": level,
        "status": status,
        "stage": stage,
        "outside": share,
        "similarity_to_randomised": None if similarity is None else round(similarity, 4),
        "reason": reason,
    }
