"""Explanations drawn as pictures and written as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyarrow.csv import write_csv

from brainstage.core.arrays import Pixels
from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, make_folder, write_json
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.inference.attribution import CONTRIBUTIONS, OCCLUSION
from brainstage.inference.contributions import CELLS, ExplainedSeverity, spoken
from brainstage.inference.explanations import (
    NOTICE,
    Explanations,
    PersonExplanation,
    SliceExplanation,
    check_request,
    explain_person,
    model_title,
)
from brainstage.inference.people import group_people
from brainstage.inference.predictions import check_scans
from brainstage.inference.predictor import Predictor
from brainstage.report.montage import Legend, Outline, Panel, draw_montage, overlay
from brainstage.scans.discover import Scan

UNITS = {
    CONTRIBUTIONS: "what a cell adds to the log-odds of a later stage; +0.69 doubles the odds",
    OCCLUSION: "change of the probability that a window makes",
    "grad-cam": "strength in the network's last fine layer, on a scale of its own",
    "integrated-gradients": "what a patch adds to the logit",
}
"""By the method: what its colours are of."""


def explain(
    predictor: Predictor,
    scans: Sequence[Scan],
    out: Path,
    *,
    one_person: bool = False,
    method: str | None = None,
    stage: str | None = None,
    sanity: bool = False,
    progress: Progress = silent,
) -> Explanations:
    """Explain the predictions for scans, in one picture for each person, in a new folder.

    Args:
        predictor: The model.
        scans: One person each.
        out: Folder for the pictures (``001.png`` of the first person), for every contribution in a table
            (``001.csv``, where the model is the patient model) and for ``explanations.json``.
        one_person: All scans show one person.
        method: One of :data:`brainstage.inference.attribution.METHODS`; None takes the one that suits the model.
        stage: Stage whose score is explained; None takes the predicted one. Contributions are to the score that
            the probabilities of all stages come from, and take none.
        sanity: Compare the maps with those of the same model with its weights randomised (Adebayo et al. 2018,
            NeurIPS).
        progress: How to show progress.

    Raises:
        ConfigError: The method or the check does not suit the model, there is no such stage, or the folder is not
            empty.
        DataError: A file states other levels than the model's.
        RunError: The disk is full or the folder is not writable.
    """
    method = check_request(predictor, method, stage)
    check_scans(predictor, scans)
    if sanity:
        predictor.randomised(0)  # an exported model is refused before any work is done
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: not empty; give a new folder")
    make_folder(out)
    people = group_people(scans, one_person)
    explained: list[PersonExplanation] = []
    with progress("Explaining", len(people)) as advance:
        for number, person in enumerate(people, 1):
            explanation = explain_person(predictor, person, method, stage, sanity=sanity)
            files = _write(predictor, explanation, method, out, f"{number:03}")
            explained.append(explanation._replace(summary=explanation.summary | files))
            advance(1)
    explanations = Explanations.collect(predictor, method, explained)
    write_json(out / "explanations.json", explanations.to_dict())
    return explanations


def draw(explanation: SliceExplanation) -> Pixels | None:
    """Return a slice with its map in colour, uint8 of shape (H, W, 3); None where there is no map."""
    if explanation.image is None or explanation.map is None:
        return None
    return overlay(explanation.image, explanation.map, explanation.full_colour)


def _write(predictor: Predictor, person: PersonExplanation, method: str, out: Path, name: str) -> dict[str, str]:
    """Write the picture and the table of a person with a prediction; return the names of the files."""
    drawn = [(item, picture) for item in person.slices if (picture := draw(item)) is not None]
    if not drawn:
        return {}
    panels = [
        _panel(picture, _label(person, item, number), person.severity, number)
        for number, (item, picture) in enumerate(drawn)
    ]
    draw_montage(out / f"{name}.png", panels, _legend(predictor, person, method, drawn[0][0].full_colour))
    if person.severity is None:
        return {"picture": f"{name}.png"}
    with atomic(out / f"{name}.csv") as part:
        write_csv(person.severity.table(), part)
    return {"picture": f"{name}.png", "table": f"{name}.csv"}


def _label(person: PersonExplanation, item: SliceExplanation, number: int) -> str:
    """Return what stands above a slice: its level, or its number where that is not known."""
    if item.row["level"] is not None:
        return f"level {item.row['level']}"
    estimate = f", level {person.severity.contributions.levels[number]} (estimated)" if person.severity else ""
    return f"slice {number + 1}{estimate}"


def _panel(picture: Pixels, label: str, severity: ExplainedSeverity | None, number: int) -> Panel:
    """Return a slice with, for contributions, its strip and the outlines of what is among the largest in it."""
    if severity is None:
        return Panel(picture, label)
    shown = {mark: part for mark, part in severity.largest.items() if number in part.slices}
    cells = {mark: part.cell for mark, part in shown.items() if part.cell}
    outlines = [
        Outline(mark, (column / CELLS, row / CELLS, 1 / CELLS, 1 / CELLS)) for mark, (row, column) in cells.items()
    ]
    mark = next((mark for mark in shown if mark not in cells), "")
    return Panel(picture, label, float(severity.grey_values[number]), mark, outlines)


def _legend(predictor: Predictor, person: PersonExplanation, method: str, full_colour: float) -> Legend:
    severity = person.severity
    stage = spoken(person.summary["stage"])
    ends = (f"towards {end}" for end in severity.ends) if severity else (f"against {stage}", f"for {stage}")
    slices = "1 slice" if person.summary["slices"] == 1 else f"{person.summary['slices']:,} slices"
    against, for_ = ends
    model = model_title(predictor.hash, predictor.about, method)
    return Legend(
        title=f"What moved the score: {stage}, from {slices} · {model}",
        text=severity.summary if severity else (),
        full_colour=full_colour,
        unit=UNITS[method],
        ends=(against, for_),
        largest=[f"{mark}   {severity.words(part)}" for mark, part in severity.largest.items()] if severity else (),
        notice=f"The nose points down. {NOTICE} {RESEARCH_NOTICE}",
        sides=person.registered,
    )
