"""Models that come with the package, each in a folder like a run's, with a card (``README.md``).

``tools/make_models.py`` remakes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainstage.core.parallel import Workers

DEFAULT = "patient"
"""The model that answers where none is named."""
BUNDLED = ("patient", "compact")


def place_of_model(model: str, workers: Workers) -> str:
    """Return what workers open a model by: the name of a bundled one, or a path that they can reach.

    Args:
        model: Run folder, or a bundled model.
        workers: Who opens it.
    """
    return model if model in BUNDLED else str(workers.path(Path(model)))


def bundled_folder(name: str) -> Path:
    """Return the folder of one of :data:`BUNDLED`."""
    return Path(__file__).parent / name
