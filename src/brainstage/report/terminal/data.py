"""Data: descriptions, audits and cohorts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from brainstage.cohorts.ledger import count_reasons
from brainstage.core.levels import LEVEL_SETS
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.report.terminal.screen import facts_table, open_console

if TYPE_CHECKING:
    from brainstage.audits.audit import Audit
    from brainstage.cohorts.assemble import Cohort


def show_cohort(cohort: Cohort) -> None:
    """Print how many scans were prepared, of whom, and why the others were not."""
    console = open_console()
    about = cohort.about
    counts = ", ".join(f"{count:,} {status}" for status, count in about["scans"].items())
    stamp = f" · {about['synthetic']}" if about["synthetic"] else ""
    console.print(f"{counts} · {about['people']:,} people{stamp}", style="bold")
    console.print(f"levels {cohort.level_set}")
    table = Table()
    for name in ("class", "people", "scans"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for label, people, scans in cohort.counts:
        table.add_row(label or "no label", f"{people:,}", f"{scans:,}")
    console.print(table)
    if (several := sum(people for _, people, _ in cohort.counts) - about["people"]) > 0:
        whose = "person has scans" if several == 1 else "people have scans"
        console.print(f"{several} {whose} of more than one class, and count{'s' * (several == 1)} in each.")
    for status, reason, count in count_reasons(cohort.ledger):
        if reason:
            console.print(f"{count:>5,} {status}: {reason}")


def show_description(description: dict[str, Any]) -> None:
    """Print what :func:`brainstage.describe` found."""
    stamp = f" · {SYNTHETIC_NOTICE}" if description["synthetic"] else ""
    console = open_console()
    console.print(f"{description['rows']:,} slices{stamp}", style="bold")
    table = Table()
    sides = list(description["classes"])
    table.add_column("class")
    for side in sides:
        table.add_column(side, justify="right")
    for name in dict.fromkeys(name for side in sides for name in description["classes"][side]):
        table.add_row(name, *(f"{description['classes'][side].get(name, 0):,}" for side in sides))
    console.print(table)
    duplicates = description["duplicates"]
    covariates = ", ".join(f"{name} (of {people} people)" for name, people in description["covariates"].items())
    facts = {
        "sizes": ", ".join(f"{size} ({count:,})" for size, count in description["sizes"].items()),
        "modes": ", ".join(f"{mode} ({count:,})" for mode, count in description["modes"].items()),
        "patients": f"{description['patients']} ({description['patient_id_source']})"
        if description["patients"]
        else "not known",
        "duplicates": f"{duplicates['rows']} exact, {duplicates['on_both_sides']} across sides, "
        f"{duplicates['with_two_labels']} with two labels",
        "unlabelled": description["unlabelled"],
        "order": " < ".join(description["class_order"] or ["not known, so nothing ordinal; give --class-order"]),
        "levels": str(LEVEL_SETS[description["levels"]]),
        **({"covariates": covariates} if covariates else {}),
        "data hash": description["data_hash"],
        "unreadable": len(description["unreadable"]),
    }
    console.print(facts_table({name: str(fact) for name, fact in facts.items()}))
    for sentence in (*description["unreadable"], *description["skipped"]):
        console.print(f"not read: {sentence}")


def show_audit(audit: Audit) -> None:
    """Print the result of an audit, the leakage verdict first."""
    report = audit.to_dict()
    people, duplicates, checks = report["people"], report["duplicates"], report["checks"]
    stamp = f" · {SYNTHETIC_NOTICE}" if report["synthetic"] else ""
    console = open_console()
    verdict = (
        report["leakage"]["sentence"] if report["leakage"] else "no train and test side, so nothing is on both"
    )
    console.print(f"{report['slices']:,} slices · {verdict}{stamp}", style="bold")
    facts = {"people": f"{people['patients']} ({people['patient_id_source']})"}
    if people["slices_each"]:
        facts["slices each"] = "{minimum} to {maximum}, median {median}".format(**people["slices_each"])
    facts["uncertain"] = f"{people['unknown_slices']:,} slices"
    for name, count in people["by_class"].items():
        facts[name] = f"{count} people"
    if people["same_heads"]:
        facts["one head"] = ", ".join(f"{one} and {other}" for one, other in people["same_heads"].items())
    facts["duplicates"] = (
        f"{duplicates['exact']} exact, {duplicates['altered']} altered; {duplicates['on_both_sides']} pictures on "
        f"both sides, {duplicates['with_two_labels']} with two labels"
    )
    if report["closest"]:
        closest = report["closest"]
        facts["closest"] = (
            f"the most similar training slice is of the same person for {closest['same_person']:,} of "
            f"{closest['test_slices']:,} test slices"
        )
    facts["checks"] = (
        f"{checks['people_with_one_label']} of {people['patients']} people have a single label, not several or none"
    )
    if checks["grain_agrees"] is not None:
        facts["checks"] += (
            f"; a second feature, the grain of the pictures, agrees on {checks['grain_agrees']:.2%} of slices"
        )
    if checks["agreement_with_given"] is not None:
        facts["given ids"] = (
            f"adjusted Rand index {checks['agreement_with_given']:.4f} with the recovered people (1: the same)"
        )
        if checks["compared_people"]:
            facts["given ids"] += f", of {checks['compared_people']:,} people drawn at random"
    console.print(facts_table(facts))
    if people["patient_id_source"] == "inferred":
        console.print("Inferred from the pictures alone: a strong guess, not a record.", style="dim")
