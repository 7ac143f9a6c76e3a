"""Models that come with the package, each in a folder like a run's, with a card (``README.md``).

``tools/make_models.py`` remakes them.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT = "patient"
"""The model that answers where none is named."""
BUNDLED = ("patient", "compact")


def bundled_folder(name: str) -> Path:
    """Return the folder of one of :data:`BUNDLED`."""
    return Path(__file__).parent / name
