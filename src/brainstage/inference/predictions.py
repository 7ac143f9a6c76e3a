"""Predictions for scans, with the sentences that accompany them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from brainstage.core.levels import check_levels
from brainstage.core.notebooks import Displayed, Tabular
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import RESEARCH_NOTICE, define_stages, with_metadata
from brainstage.datasets.patient_map import is_public
from brainstage.inference.people import PersonPrediction, batch_people, predict_rows
from brainstage.inference.performance import describe_performance
from brainstage.inference.predictor import Predictor
from brainstage.scans.discover import Scan
from brainstage.scans.skull_strip import OUTLINE_CHECK

CALIBRATED = (
    "The stages that are not ruled out hold the true one for nine of ten people like those of its data, and for "
    "fewer of those with a rare stage."
)
SKULLS_REMOVED = f"The skull was taken off {{}}: in its picture {OUTLINE_CHECK}, else do not use the prediction."


@dataclass(frozen=True)
class Predictions(Displayed, Tabular):
    """The predictions for some scans.

    Attributes:
        rows: One mapping for each prediction: ``person`` (number, from 1), ``source``, ``slices`` (number of slices
            that it is made from), ``level``, ``slice_id``, ``status`` (``predicted``, ``refused``, ``failed``),
            ``stage``, ``prob_<class>`` …, ``in_set_<class>`` … (whether the stage cannot be ruled out at 90 %) and
            ``words`` (what that means, and whether it hangs on how the scan was acquired), the last two None where
            the model is not calibrated; ``stability`` (share of the acquisitions looked at whose most probable
            stage is ``stage``) and ``spread`` (standard deviation of its probability over them), None where the
            model looks at the scan as it is alone; ``reason`` (of a refusal or a failure). A person of several
            slices has a row for all of them, then one for each.
        classes: Class names, in clinical order.
        about: The run's manifest.
        model: SHA-256 of the weights.
        calibrated: Whether probabilities were calibrated on people outside the training set; else they are raw
            scores.
        refuses: Whether out-of-distribution slices were refused.
        skulls_removed: The sources whose skull was taken off first.
    """

    rows: list[dict[str, Any]]
    classes: tuple[str, ...]
    about: dict[str, Any]
    model: str
    calibrated: bool
    refuses: bool
    skulls_removed: tuple[str, ...] = ()

    @classmethod
    def collect(cls, predictor: Predictor, people: Iterable[PersonPrediction]) -> Predictions:
        """Join the predictions for several people, numbered in their order."""
        rows = [{"person": number, **row} for number, person in enumerate(people, 1) for row in person.rows]
        return cls(
            rows, predictor.classes, predictor.about, predictor.hash, predictor.calibrated, predictor.refuses
        )

    @property
    def table(self) -> pa.Table:
        """The rows as an Arrow table; what stands beside them in :meth:`to_dict` is in its metadata.

        :func:`brainstage.core.schema.read_metadata` reads it: the notice, the model's hash, protocol and leakage.
        """
        beside = {key: value for key, value in self.to_dict().items() if key != "predictions"}
        return with_metadata(pa.Table.from_pylist(self.rows), beside)

    @cached_property
    def people(self) -> list[list[dict[str, Any]]]:
        """The rows of each person; the first is the person's prediction."""
        return [list(rows) for _, rows in groupby(self.rows, key=itemgetter("person"))]

    @property
    def reasons(self) -> list[str]:
        """Why scans have no prediction, a sentence each; single slices of a volume are not listed."""
        return [row["reason"] for row in self.rows if row["reason"] and row["level"] is None]

    @property
    def notice(self) -> str:
        """What accompanies every prediction: research use, what it is worth, and whose skull was taken off."""
        skulls = SKULLS_REMOVED.format(", ".join(self.skulls_removed)) if self.skulls_removed else ""
        return f"{RESEARCH_NOTICE} {self.performance} {skulls}".strip()

    @property
    def performance(self) -> str:
        """What the predictions are worth: the model's performance, and for whom it is not known."""
        shown = [row["slice_id"] for row in self.rows if row["slice_id"]]
        known = sum(map(is_public, shown))
        return describe_performance(
            self.about,
            calibrated=self.calibrated,
            refuses=self.refuses,
            volumes=self._has_volumes,
            slices=(known, len(shown)),
        )

    @property
    def details(self) -> list[str]:
        """What else there is to know, a sentence or a few each: the stages, the people, the figures."""
        registered = "Volumes were resampled to the training data's levels and size by registration to MNI152."
        found = [
            define_stages(self.classes),
            *self.about.get("details", []),
            CALIBRATED if self.calibrated else None,
            registered if self._has_volumes else None,
        ]
        return [sentence for sentence in found if sentence]

    @property
    def _has_volumes(self) -> bool:
        return any(row["level"] is not None for row in self.rows)

    @property
    def title(self) -> str:
        """Which model predicts, and under which protocol it was evaluated."""
        return title_of(self.model, self.about)

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions for a JSON file."""
        about = {
            key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic", "nested", "figures")
        }
        return {
            "notice": self.notice,
            "details": self.details,
            "model": self.model,
            "calibrated": self.calibrated,
            **about,
            "skulls_removed": list(self.skulls_removed),
            "predictions": self.rows,
        }


def title_of(model: str, about: Mapping[str, Any]) -> str:
    """Return which model predicts, and under which protocol it was evaluated.

    Args:
        model: SHA-256 of its weights.
        about: The run's manifest.
    """
    leakage = about.get("leakage", {}).get("sentence", "leakage unknown")
    return f"model {model[:12]} · protocol {about.get('protocol', 'unknown')} · {leakage}"


def predict_scans(
    predictor: Predictor, scans: Sequence[Scan], *, one_person: bool = False, progress: Progress = silent
) -> Predictions:
    """Predict every scan that can be read: each as one person, or all as one person's.

    Each thread takes some people from file to prediction, so that few scans are in memory at a time.

    Args:
        predictor: The model.
        scans: As :func:`brainstage.find_scans` returns them.
        one_person: All scans show one person: one prediction from all of them, then one for each slice.
        progress: How to show progress.

    Returns:
        The predictions, in the order of the scans; ``.table`` has them as an Arrow table.

    Raises:
        DataError: A file states other levels than the model's.
    """
    check_scans(predictor, scans)
    batches = batch_people(scans, one_person)
    predictions: list[PersonPrediction] = []
    with predictor.pool() as pool, progress("Predicting", sum(map(len, batches))) as advance:
        for part in pool.map(partial(predict_rows, predictor), batches):
            predictions += part
            advance(len(part))
    return Predictions.collect(predictor, predictions)


def check_scans(predictor: Predictor, scans: Iterable[Scan]) -> None:
    """Refuse slices whose file states that they show other levels than those that the model was trained on.

    Raises:
        DataError: There is one.
    """
    for scan in scans:
        if scan.level_set:
            check_levels(predictor.level_set, scan.level_set, scan.name)
