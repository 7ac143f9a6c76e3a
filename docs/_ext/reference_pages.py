"""The pages of the reference that the code itself writes: commands, settings, HTTP API, model cards.

They are written below ``docs/reference`` before Sphinx reads its sources, and git ignores them: nothing of the kind
is copied by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import card_pages
import command_pages
import http_pages
import setting_pages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

TUTORIALS = (
    "reproduce_the_report.py",
    "cohort_from_bids.py",
    "one_dicom_export.py",
    "audit_a_dataset.py",
    "your_own_recipe.py",
)
"""In the order in which they are read."""


def tutorial_order(name: str) -> int:
    """Return where a tutorial stands in the gallery; one that is not listed comes last."""
    return TUTORIALS.index(name) if name in TUTORIALS else len(TUTORIALS)


def reference_pages() -> dict[str, str]:
    """Return every written page: its path below ``docs/`` and its Markdown."""
    return {
        **command_pages.pages(),
        **setting_pages.pages(),
        **http_pages.pages(),
        **card_pages.pages(),
    }


def write_reference(docs: Path) -> None:
    """Write the pages below ``docs``; one that has not changed stays as it is, so that Sphinx need not read it."""
    for name, text in reference_pages().items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _resolve(app: Sphinx, env: Any, node: Any, target: Any) -> Any:
    """Lead a reference to a public name's own module, ``brainstage.core.run.RunFolder``, to its public entry."""
    import brainstage

    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in brainstage.__all__:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node.get("refdoc"), app.builder, "obj", f"brainstage.{name}", node, target)


def _keep_whole(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep an attribute's sentence whole: Napoleon takes what stands before a colon for a type."""
    if what in ("attribute", "property", "data"):
        lines[:0] = ["..", ""]  # an empty comment


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    write_reference(Path(app.srcdir))
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _keep_whole, priority=400)  # Napoleon's has 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
