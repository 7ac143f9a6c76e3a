"""An external validation as files: JSON for programs, charts and one page for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainstage.core.files import write_json
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.datasets.table import SliceTable
from brainstage.report.charts import draw_calibration, draw_decisions
from brainstage.report.pages import data_uri, jpeg_uri, write_page
from brainstage.studies.external_validation import ExternalValidation

BINARY_SCORES = {
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "brier": "Brier score",
    "log_loss": "log loss",
}
OF_SUBGROUPS = ("auroc", "sensitivity", "specificity")
COMPARED = {
    "covariates": "age and sex alone",
    "model": "the model alone",
    "both": "both",
    "both - covariates": "what the model adds to age and sex",
    "model - covariates": "the model less age and sex",
}


def write_validation(result: ExternalValidation, slices: SliceTable, folder: Path, command: Sequence[str]) -> Path:
    """Write ``validation.json``, ``calibration.png``, ``decision_curve.png`` and ``validation.html``.

    Args:
        result: The validation.
        slices: The cohort, of which the page shows the worst misses.
        folder: Where to.
        command: The command, shown on the page.

    Returns:
        The page.

    Raises:
        RunError: The folder is not writable.
    """
    write_json(folder / "validation.json", result.to_dict())
    charts = {"calibration": folder / "calibration.png", "decisions": folder / "decision_curve.png"}
    draw_calibration(result).save(charts["calibration"])
    draw_decisions(result).save(charts["decisions"])
    content: dict[str, Any] = {
        "result": result,
        "synthetic": SYNTHETIC_NOTICE if result.synthetic else None,
        "names": BINARY_SCORES,
        "of_subgroups": OF_SUBGROUPS,
        "compared": COMPARED,
        "charts": {name: data_uri(file.read_bytes(), "png") for name, file in charts.items()},
        "misses": [(one, jpeg_uri(slices.images[one.row])) for one in result.misses],
        "command": " ".join(command),
    }
    return write_page(folder / "validation.html", "validation.html", content)
