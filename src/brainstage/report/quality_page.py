"""The page by which a person checks a cohort's scans in minutes: the worst first, with the template's outline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainstage.cohorts.assemble import Cohort
from brainstage.cohorts.checks import template_outline
from brainstage.cohorts.folder import CohortFolder
from brainstage.cohorts.scan import read_cuts
from brainstage.report.pages import jpeg_uri, write_page

MAX_PICTURES = 3000
"""Scans shown with their cuts; the page then has about 50 MB."""
OUTLINE_COLOUR = (230, 159, 0)
_ORDER = ("refused", "prepared", "failed")


def write_quality_page(cohort: Cohort) -> Path:
    """Write ``qc.html`` into a cohort's folder and return it.

    Raises:
        RunError: The folder is not writable.
    """
    folder = CohortFolder(cohort.folder)
    rows = sorted(
        cohort.ledger.to_pylist(), key=lambda row: (_ORDER.index(row["status"]), row["similarity"] or 0.0)
    )
    shown = [{**row, "picture": cuts_picture(folder.part(row["scan_id"]))} for row in rows[:MAX_PICTURES]]
    content: dict[str, Any] = {"rows": shown, "left_out": len(rows) - len(shown), "about": cohort.about}
    return write_page(folder.quality, "quality.html", content)


def cuts_picture(part: Path) -> str | None:
    """Return the cuts of a scan with the outline that its brain must fill, as a ``data:`` address.

    None where it was not registered.
    """
    cuts = read_cuts(part)
    if cuts is None:
        return None
    return jpeg_uri(np.where(template_outline()[..., None], OUTLINE_COLOUR, cuts[..., None]).astype(np.uint8))
