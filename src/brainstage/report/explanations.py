"""Explanations drawn as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from brainstage.core.arrays import Float32Array, Pixels
from brainstage.core.errors import ConfigError
from brainstage.core.files import atomic, make_folder, write_json
from brainstage.core.progress import Progress, silent
from brainstage.inference.explanations import Explanations, SliceExplanation, check_request, explain_scan
from brainstage.inference.predictions import check_scans
from brainstage.inference.predictor import Predictor
from brainstage.scans.discover import Scan

MAX_OPACITY = 0.7
"""Opacity of the colour in the strongest pixels; a pixel without attribution stays grey."""
SHEET_COLUMNS = 8
"""Slices in a row of a person's sheet."""


def explain(
    predictor: Predictor,
    scans: Sequence[Scan],
    out: Path,
    *,
    method: str | None = None,
    stage: str | None = None,
    sanity: bool = False,
    progress: Progress = silent,
) -> Explanations:
    """Explain scans, and draw each map over its slice into a new folder.

    Args:
        predictor: The model.
        scans: One person each.
        out: Folder for the pictures (``001-05.png``: first scan, fifth slice; ``001.png``: all of them) and
            ``explanations.json``.
        method: One of :data:`brainstage.inference.attribution.METHODS`; None takes the one that suits the model.
        stage: Stage whose score is explained; None takes the predicted one.
        sanity: Compare each map with those of the same model with its weights randomised (Adebayo et al. 2018,
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
    rows: list[dict[str, Any]] = []
    with progress("Explaining", len(scans)) as advance:
        for number, scan in enumerate(scans, 1):
            slices = explain_scan(predictor, scan, method, stage, sanity=sanity)
            rows += [{"person": number, **item.row, "file": _save(item, number, out)} for item in slices]
            if slices[0].number is not None:
                _write(
                    out / f"{number:03}.png",
                    _sheet([picture for picture in map(draw, slices) if picture is not None]),
                )
            advance(1)
    explanations = Explanations(rows, method, predictor.hash, predictor.about)
    write_json(out / "explanations.json", explanations.to_dict())
    return explanations


def draw(explanation: SliceExplanation) -> Pixels | None:
    """Return a slice with its map in colour, uint8 of shape (H, W, 3); None where there is no map."""
    if explanation.image is None or explanation.map is None:
        return None
    return overlay(explanation.image, explanation.map, explanation.full_colour)


def overlay(image: Pixels, map_: Float32Array, full_colour: float) -> Pixels:
    """Blend a map over its slice: red where a pixel raised the score of the stage, blue where it lowered it.

    Args:
        image: Grey slice, uint8 of shape (H, W).
        map_: float32 of shape (H, W).
        full_colour: Strength that is shown in full colour.

    Returns:
        uint8 of shape (H, W, 3).
    """
    scaled = np.clip(map_ / max(full_colour, 1e-12), -1, 1)
    colour = colormaps["RdBu_r"](0.5 + scaled / 2)[..., :3]
    share = MAX_OPACITY * np.abs(scaled)[..., None]
    mixed = (1 - share) * image[..., None] / 255 + share * colour
    return (255 * mixed).round().astype(np.uint8)


def _save(explanation: SliceExplanation, number: int, out: Path) -> str | None:
    """Write the picture of a slice of the scan of that number; return its file name."""
    picture = draw(explanation)
    if picture is None:
        return None
    index = explanation.number
    file = f"{number:03}.png" if index is None else f"{number:03}-{index:02}.png"
    _write(out / file, picture)
    return file


def _sheet(pictures: Sequence[Pixels]) -> Pixels:
    """Lay pictures of one size out in rows."""
    empty = [np.zeros_like(pictures[0])] * (-len(pictures) % SHEET_COLUMNS)
    cells = [*pictures, *empty]
    rows = [
        np.concatenate(cells[start : start + SHEET_COLUMNS], axis=1)
        for start in range(0, len(cells), SHEET_COLUMNS)
    ]
    return np.concatenate(rows)


def _write(file: Path, picture: Pixels) -> None:
    with atomic(file) as part:
        Image.fromarray(picture).save(part, format="PNG")
