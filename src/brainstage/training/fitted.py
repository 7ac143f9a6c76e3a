"""What a fit gives a run: a model to save, and what the manifest says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage.datasets.preprocessing import Preprocessing
from brainstage.inference.classifiers import Prediction


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes:
        save: Writes it into a folder.
        preprocessing: What slices go through before it.
        about: Entries of the manifest.
        prediction: For the validation and test slices, where fitting computed it; None has the saved model predict.
    """

    save: Callable[[Path], object]
    preprocessing: Preprocessing
    about: dict[str, Any]
    prediction: Prediction | None = None


def seconds_since(started: float) -> dict[str, float]:
    """Return the time of fitting in this process; a resumed run's earlier part is not in it.

    Args:
        started: Its start, as :func:`time.monotonic` gives it.
    """
    return {"training_seconds": round(time.monotonic() - started, 1)}
