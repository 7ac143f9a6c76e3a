"""The performance of a model, and what else is said beside its predictions, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstage.core.schema import SYNTHETIC_NOTICE

UNCALIBRATED = "Scores, not probabilities: the model was not calibrated on people outside its training set."
ELSEWHERE = "How often it is wrong on scans from elsewhere, as these volumes are, is not known."
UNKNOWN_PERFORMANCE = "How often it is wrong on people whom it has not seen is not known."
OWN_PERFORMANCE = "On people of its own cohort whom it had not seen: {}."
TRAINING_PEOPLE = (
    "{:,} of {:,} slices show people in the model's training set; predictions for them are no test of it."
)
REFUSES_NOTHING = (
    "This run cannot detect out-of-distribution images, so it predicts a stage for any image; train it again to "
    "have them refused."
)


def describe_performance(
    about: dict[str, Any], *, calibrated: bool, refuses: bool, volumes: bool, slices: tuple[int, int]
) -> str:
    """Say what predictions are worth.

    Args:
        about: The run's manifest.
        calibrated: As in :class:`~brainstage.inference.predictions.Predictions`.
        refuses: Likewise.
        volumes: Whether any was made from a volume.
        slices: How many slices are of the public dataset, and how many there are.
    """
    known, shown = slices
    sentences = [
        model_performance(about),
        f"Model trained on phantoms, {SYNTHETIC_NOTICE}." if about.get("synthetic") else None,
        None if calibrated else UNCALIBRATED,
        ELSEWHERE if volumes else None,
        # a bundled model, which has a performance, was trained on the public dataset's people
        TRAINING_PEOPLE.format(known, shown) if known and "performance" in about else None,
        None if refuses else REFUSES_NOTHING,
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def model_performance(about: Mapping[str, Any]) -> str:
    """Return what is known of a model's performance on people whom it has not seen.

    Args:
        about: As :attr:`brainstage.Predictor.about`.
    """
    if "performance" in about:
        return str(about["performance"])
    return OWN_PERFORMANCE.format(about["new_people"]) if "new_people" in about else UNKNOWN_PERFORMANCE
