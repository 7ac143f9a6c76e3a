"""From scans on disk to pictures of what moved their scores, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from brainstage.core.errors import ConfigError, DataError, RefusalError
from brainstage.core.files import atomic, make_folder, write_json
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.datasets.preprocessing import Pixels
from brainstage.inference.attribution import (
    Map,
    attribute,
    check_method,
    default_method,
    likeness_to_random,
    outside,
)
from brainstage.inference.predictions import ANSWERED, FAILED, FEWEST, REFUSED
from brainstage.inference.predictor import Predictor
from brainstage.scans.discover import Scan

NOTICE = "Shows the pixels that moved the score; not a lesion map."
CHANGED = 0.3
"""Most likeness to the maps of a model that knows nothing: more, and maps show the picture and not the model."""
STRONGEST = 0.7
"""Share of the colour in the strongest pixels; a pixel without attribution stays grey."""
FULL = 0.99
"""Share of a person's coloured pixels that are weaker than the strongest."""
COLUMNS = 8
"""Slices in a row of a person's sheet."""


@dataclass(frozen=True)
class Explanations:
    """What moved the scores of some scans.

    Attributes:
        rows: One mapping a slice, or a scan that got no map: ``person`` (number, from 1), ``source``, ``level``,
            ``status`` (``answered``, ``refused``, ``failed``), ``stage`` (the one explained), ``outside`` (share of
            the attribution outside of the head), ``likeness_to_random`` (where it was asked for), ``file``,
            ``reason``.
        method: ``grad-cam``, ``integrated-gradients`` or ``occlusion``.
        model: SHA-256 of the weights.
        about: The run's manifest.
    """

    rows: list[dict[str, Any]]
    method: str
    model: str
    about: dict[str, Any]

    @property
    def notice(self) -> str:
        """What stands beside every map."""
        return f"{NOTICE} {RESEARCH_NOTICE}"

    @property
    def title(self) -> str:
        """Which model is explained, and how."""
        return f"model {self.model[:12]} · protocol {self.about.get('protocol', 'unknown')} · {self.method}"

    @property
    def reasons(self) -> list[str]:
        """Why scans have no map, a sentence each."""
        return [row["reason"] for row in self.rows if row["reason"]]

    @property
    def sanity(self) -> str | None:
        """What the check against models that know nothing says; None where it was not asked for."""
        of_people = {row["person"]: row["likeness_to_random"] for row in self.rows if row["file"]}
        alike = [one for one in of_people.values() if one is not None]
        if not alike:
            return None
        mean = float(np.mean(alike))
        if mean > CHANGED:
            verdict = "THEY DO NOT CHANGE ENOUGH, so they show the picture and not the model"
        else:
            verdict = "they change, so they show the model"
        return (
            f"Maps of the same model knowing nothing are alike by {mean:.2f}, in the mean of {len(alike)} "
            f"({CHANGED} allowed): {verdict}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything for ``explanations.json``."""
        about = {key: self.about.get(key) for key in ("recipe", "protocol", "leakage", "synthetic")}
        return {
            "notice": self.notice,
            "model": self.model,
            **about,
            "method": self.method,
            "sanity": self.sanity,
            "maps": self.rows,
        }


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
    """Draw what moved the score of each scan into a new folder.

    Args:
        predictor: The model.
        scans: Each is a person of its own.
        out: Folder for the pictures (``001-05.png``: first scan, fifth slice; ``001.png``: all of them) and
            ``explanations.json``.
        method: One of :data:`brainstage.inference.attribution.METHODS`; None takes the one that suits the model.
        stage: Stage whose score is explained; None takes the answered one.
        sanity: Compare each map with those of the same model knowing nothing (Adebayo et al. 2018, NeurIPS).
        progress: How to show progress.

    Raises:
        ConfigError: The method or the check does not suit the model, there is no such stage, or the folder is not
            empty.
        RunError: The disk is full or the folder is not writable.
    """
    method = check_request(predictor, method, stage)
    if sanity:
        predictor.randomised(0)  # one that cannot is told before any work
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: holds files already; give a new folder")
    make_folder(out)
    rows: list[dict[str, Any]] = []
    with progress("Explaining", len(scans)) as advance:
        for number, scan in enumerate(scans, 1):
            maps = explain_scan(predictor, scan, method, stage, sanity=sanity)
            rows += [{"person": number, **one.row, "file": _save(one, number, out)} for one in maps]
            if maps[0].number is not None:
                _write(out / f"{number:03}.png", _sheet([one.picture for one in maps if one.picture is not None]))
            advance(1)
    found = Explanations(rows, method, predictor.hash, predictor.about)
    write_json(out / "explanations.json", found.to_dict())
    return found


def overlay(image: Pixels, map_: Map, strongest: float) -> NDArray[np.uint8]:
    """Return a slice with its map in colour: red where a pixel speaks for the stage, blue where against.

    Args:
        image: Grey slice, uint8 of shape (H, W).
        map_: float32 of shape (H, W).
        strongest: Strength that gets the full colour.

    Returns:
        uint8 of shape (H, W, 3).
    """
    scaled = np.clip(map_ / max(strongest, 1e-12), -1, 1)
    colour = colormaps["RdBu_r"](0.5 + scaled / 2)[..., :3]
    share = STRONGEST * np.abs(scaled)[..., None]
    mixed = (1 - share) * image[..., None] / 255 + share * colour
    return (255 * mixed).round().astype(np.uint8)


class Mapped(NamedTuple):
    """What moved the score of a slice, or why there is no map of a scan."""

    row: dict[str, Any]
    """As in :class:`Explanations`, without ``person`` and ``file``."""
    number: int | None = None
    """Of the slice among its scan's, from 1; None where it is the only one."""
    image: Pixels | None = None
    """The slice, uint8 of shape (H, W)."""
    picture: NDArray[np.uint8] | None = None
    """The slice with its map in colour, (H, W, 3)."""


def check_request(predictor: Predictor, method: str | None, stage: str | None) -> str:
    """Return the method that will be used.

    Raises:
        ConfigError: The method does not suit the model, or there is no such stage.
    """
    method = method or default_method(predictor)
    check_method(predictor, method)
    if stage is not None and stage not in predictor.classes:
        raise ConfigError(f"{stage}: no such stage; the model has {', '.join(predictor.classes)}")
    return method


def explain_scan(
    predictor: Predictor, scan: Scan, method: str, stage: str | None = None, *, sanity: bool = False
) -> list[Mapped]:
    """Explain a scan, a person of its own: each slice that is not refused, or why there is no map.

    Arguments as for :func:`explain`; :func:`check_request` has checked them.
    """
    try:
        images, levels = scan.read()
    except RefusalError as error:
        return [Mapped(_row(scan.name, REFUSED, reason=str(error)))]
    except DataError as error:
        return [Mapped(_row(scan.name, FAILED, reason=str(error)))]
    refusals = predictor.refusals(images)
    kept = [index for index, reason in enumerate(refusals) if reason is None]
    if len(kept) < FEWEST * len(images):
        reason = next(reason for reason in refusals if reason)
        return [Mapped(_row(scan.name, REFUSED, reason=f"{scan.name}: {reason}"))]
    shown, places = [images[index] for index in kept], [levels[index] for index in kept]
    answered = predictor.predict(shown, ["one"] * len(shown), places)[0]
    target = predictor.classes.index(stage) if stage else int(answered.argmax())
    maps = attribute(predictor, shown, places, target, method)
    alike = likeness_to_random(predictor, shown, places, target, method) if sanity else None
    strongest = _strongest(maps)
    found = []
    for index, map_ in zip(kept, maps, strict=True):
        share = round(outside(map_, images[index]), 4)
        row = _row(scan.name, ANSWERED, levels[index], predictor.classes[target], share, alike)
        number = None if len(images) == 1 else index + 1
        found.append(Mapped(row, number, images[index], overlay(images[index], map_, strongest)))
    return found


def _strongest(maps: Sequence[Map]) -> float:
    """Return the strength that gets the full colour in all slices of a person."""
    strengths = np.concatenate([np.abs(map_[map_ != 0]) for map_ in maps])
    return float(np.quantile(strengths, FULL)) if len(strengths) else 1.0


def _save(found: Mapped, number: int, out: Path) -> str | None:
    """Write the picture of a slice of the scan of that number; return its name."""
    if found.picture is None:
        return None
    file = f"{number:03}.png" if found.number is None else f"{number:03}-{found.number:02}.png"
    _write(out / file, found.picture)
    return file


def _row(
    source: str,
    status: str,
    level: int | None = None,
    stage: str | None = None,
    share: float | None = None,
    alike: float | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "source": source,
        "level": level,
        "status": status,
        "stage": stage,
        "outside": share,
        "likeness_to_random": None if alike is None else round(alike, 4),
        "reason": reason,
    }


def _sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay pictures of one size out in rows."""
    empty = [np.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)
    cells = [*pictures, *empty]
    rows = [np.concatenate(cells[start : start + COLUMNS], axis=1) for start in range(0, len(cells), COLUMNS)]
    return np.concatenate(rows)


def _write(file: Path, picture: NDArray[np.uint8]) -> None:
    with atomic(file) as part:
        Image.fromarray(picture).save(part, format="PNG")
