"""From scans to explanations: maps of what moved their scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.errors import ConfigError
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.inference.attribution import (
    CONTRIBUTIONS,
    attribute,
    cell_maps,
    check_method,
    methods_for,
    outside,
    similarity_to_randomised,
)
from brainstage.inference.contributions import ExplainedSeverity, rim_cells
from brainstage.inference.people import MIN_ACCEPTED_SHARE, Person
from brainstage.inference.predictor import Predictor
from brainstage.inference.scan_slices import PREDICTED, ScanSlice, images_of, mark_refused, read_scan

NOTICE = "Shows what moved the score; it is not a lesion map."
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
            ``outside`` (share of the attribution outside of the head; None for contributions, which are of whole
            cells), ``similarity_to_randomised`` (where it was asked for), ``reason``; for contributions
            ``grey_values`` (what those of the slice add), ``cells`` (what edges add, row by row), ``rim_cells``
            (which of them lie at the rim of the brain) and ``rim`` (their share).
        method: One of :data:`brainstage.inference.attribution.METHODS`.
        model: SHA-256 of the weights.
        about: The run's manifest.
        people: One mapping for each person with a prediction: ``person``, ``source``, ``stage``, ``slices``
            (number) and, for contributions, ``registered`` (whether the slices were cut out of a
            registered volume), ``severity`` (log-odds), ``mean_severity``, ``thresholds``, sums of
            ``grey_values`` and ``edges``, ``rim``, ``summary`` (sentences) and ``largest``
            (:class:`brainstage.inference.contributions.Part`).
    """

    rows: list[dict[str, Any]]
    method: str
    model: str
    about: dict[str, Any]
    people: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def collect(cls, predictor: Predictor, method: str, people: Iterable[PersonExplanation]) -> Explanations:
        """Join the explanations of several people.

        Args:
            predictor: The model.
            method: One of :data:`brainstage.inference.attribution.METHODS`.
            people: The explanations, which are numbered in their order.
        """
        numbered = list(enumerate(people, 1))
        rows = [{"person": number, **item.row} for number, person in numbered for item in person.slices]
        summaries = [{"person": number, **person.summary} for number, person in numbered if person.summary]
        return cls(rows, method, predictor.hash, predictor.about, summaries)

    @property
    def notice(self) -> str:
        """What stands beside every map."""
        return f"{NOTICE} {RESEARCH_NOTICE}"

    @property
    def title(self) -> str:
        """Which model is explained, and how."""
        return model_title(self.model, self.about, self.method)

    @property
    def reasons(self) -> list[str]:
        """Why scans have no map, a sentence each; single slices of a volume are not listed."""
        return [row["reason"] for row in self.rows if row["reason"] and row["level"] is None]

    @property
    def sanity(self) -> str | None:
        """Result of the comparison with randomised models; None where it was not asked for."""
        by_person = {row["person"]: row["similarity_to_randomised"] for row in self.rows}
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
            "people": self.people,
            "maps": self.rows,
        }


class SliceExplanation(NamedTuple):
    """The map of one slice, or why a scan has none."""

    row: dict[str, Any]
    """As in :class:`Explanations`, without ``person``."""
    image: Pixels | None = None
    """The slice, uint8 of shape (H, W)."""
    map: Float32Array | None = None
    """The attribution, float32 of shape (H, W)."""
    full_colour: float = 1.0
    """Strength that is shown in full colour, the same for all slices of a person."""


class PersonExplanation(NamedTuple):
    """The explanation of one person."""

    slices: list[SliceExplanation]
    """Those with a map in the order of the scans, and why others have none."""
    summary: dict[str, Any]
    """As in :attr:`Explanations.people`, without ``person``; empty where nothing was predicted."""
    severity: ExplainedSeverity | None = None
    """The contributions, of the slices that have a map; None for other methods."""
    registered: bool = False
    """Whether the slices were cut out of a registered volume, so that left and right are known."""


def model_title(model: str, about: Mapping[str, Any], method: str) -> str:
    """Return which model is explained, and how.

    Args:
        model: SHA-256 of the weights.
        about: The run's manifest.
        method: One of :data:`brainstage.inference.attribution.METHODS`.
    """
    named = f"exact {method}" if method == CONTRIBUTIONS else method
    return f"model {model[:12]} · protocol {about.get('protocol', 'unknown')} · {named}"


def check_request(predictor: Predictor, method: str | None, stage: str | None) -> str:
    """Return the method that will be used.

    Args:
        predictor: The model.
        method: One of :data:`brainstage.inference.attribution.METHODS`; None takes the one that suits the model,
            and a stage if one is given.
        stage: The stage to explain; None for the predicted one.

    Raises:
        ConfigError: The method does not suit the model or a stage, or there is no such stage.
    """
    if stage is not None and stage not in predictor.classes:
        raise ConfigError(f"{stage}: no such stage; the model has {', '.join(predictor.classes)}")
    of_stage = [suitable for suitable in methods_for(predictor) if stage is None or suitable != CONTRIBUTIONS]
    method = method or of_stage[0]
    check_method(predictor, method)
    if method not in of_stage:
        raise ConfigError(
            f"{method} are to the score that the probabilities of all stages come from; leave out the stage, or "
            f"take {' or '.join(of_stage)}"
        )
    return method


def explain_person(
    predictor: Predictor, person: Person, method: str, stage: str | None = None, *, sanity: bool = False
) -> PersonExplanation:
    """Explain the prediction for one person: a map for each slice, or the reason why there is none.

    Args:
        predictor: The model.
        person: The person's name and scans.
        method: As :func:`check_request` returned it.
        stage: The stage to explain; None for the predicted one.
        sanity: Compare the maps with those of the same model with its weights randomised.
    """
    name, scans = person
    slices = [item for scan in scans for item in read_scan(ScanSlice, scan, predictor.level_set)]
    readable = [item for item in slices if item.image is not None]
    mark_refused(predictor, readable)
    kept = [item for item in readable if item.status == PREDICTED]
    if not kept or len(kept) < MIN_ACCEPTED_SHARE * len(readable):
        return _unexplained(name, slices)
    images, levels = images_of(kept), [item.level for item in kept]
    features = predictor.extract_features(images)
    probabilities = predictor.predict_features(features, ["one person"] * len(kept), levels).probabilities[0]
    target = predictor.classes.index(stage) if stage else int(probabilities.argmax())
    similarity = similarity_to_randomised(predictor, images, levels, target, method) if sanity else None
    registered = all(scan.volume for scan in scans) and None not in levels
    severity = None
    if method == CONTRIBUTIONS and (contributions := predictor.contributions(features, levels)):
        rim = rim_cells(list(predictor.preprocessing.resize(images)))
        severity = ExplainedSeverity(contributions, rim, predictor.classes, predictor.level_set, registered)
        maps = cell_maps(contributions, images)
        shares = [severity.slice_to_dict(number) for number in range(len(kept))]
    else:
        maps = attribute(predictor, images, levels, target, method)
        shares = [{"outside": round(outside(*pair), 4)} for pair in zip(maps, images, strict=True)]
    full_colour = _full_colour(maps)
    maps_and_shares = iter(zip(maps, shares, strict=True))
    explanations = []
    for item in slices:
        if item.status != PREDICTED:
            explanations.append(SliceExplanation(_row(item)))
            continue
        map_, share = next(maps_and_shares)
        row = _row(item, predictor.classes[target], similarity) | share
        explanations.append(SliceExplanation(row, item.image, map_, full_colour))
    summary = {"source": name, "stage": predictor.classes[target], "slices": len(kept)}
    if severity:
        summary |= severity.to_dict()
    return PersonExplanation(explanations, summary, severity, registered)


def _unexplained(name: str, slices: Sequence[ScanSlice]) -> PersonExplanation:
    """Return why a person is not explained: one reason for all slices that were refused, and each unread scan's."""
    refused = [
        replace(item, source=name, level=None, reason=f"{name}: {item.reason.removeprefix(f'{item.source}: ')}")
        for item in slices
        if item.image is not None and item.reason
    ]
    unread = [item for item in slices if item.image is None]
    return PersonExplanation([SliceExplanation(_row(item)) for item in (*refused[:1], *unread)], {})


def _full_colour(maps: Sequence[Float32Array]) -> float:
    """Return the strength that is shown in full colour in all slices of a person."""
    strengths = np.concatenate([np.abs(map_[map_ != 0]) for map_ in maps])
    return float(np.quantile(strengths, FULL_COLOUR_QUANTILE)) if len(strengths) else 1.0


def _row(item: ScanSlice, stage: str | None = None, similarity: float | None = None) -> dict[str, Any]:
    return {
        "source": item.source,
        "level": item.level,
        "status": item.status,
        "stage": stage,
        "outside": None,
        "similarity_to_randomised": None if similarity is None else round(similarity, 4),
        "reason": item.reason,
    }
