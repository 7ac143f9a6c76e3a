"""External validations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from brainstage.report.terminal.screen import in_one_line, open_console

if TYPE_CHECKING:
    from brainstage.studies.external_validation import ExternalValidation


def show_validation(result: ExternalValidation) -> None:
    """Print the figures of an external validation."""
    console = open_console()
    console.print(result.title, style="bold")
    for status, reason, count in result.flow:
        console.print(f"{count:>5,} {status}{f': {reason}' if reason else ''}")
    table = Table(box=SIMPLE_HEAD)
    table.add_column(f"{result.first} against any other")
    table.add_column("value [95 % interval]", justify="right")
    shown = result.figures
    covariates = result.with_covariates
    if covariates and covariates.auroc:
        shown["AUROC of age and sex alone"] = covariates.auroc["covariates"]
        shown["AUROC of age, sex and the model"] = covariates.auroc["both"]
    for name, score in shown.items():
        table.add_row(name, in_one_line(score))
    console.print(table)
    if result.shared_ids:
        console.print(
            f"{result.shared_ids} people have ids that occur in the model's own data too: the same people?",
            highlight=False,
        )
