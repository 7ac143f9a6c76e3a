"""Where the project and its documentation are found."""

from __future__ import annotations

PROJECT_URL = "https://github.com/brainstage/brainstage"
DOCS_URL = "https://brainstage.readthedocs.io/en/stable"


def docs_page(name: str) -> str:
    """Return the address of a page of the documentation, named by its source below ``docs/`` without the suffix."""
    return f"{DOCS_URL}/{name}.html"
