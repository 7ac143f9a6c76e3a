"""The audit as one page: the verdict, look-alikes across the split, every person as a strip of slices."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainstage.audits.audit import Audit
from brainstage.core.files import write_json, write_table
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.datasets.signatures import square
from brainstage.report.pages import data_uri, write_page

SAMPLE = 12
"""Test slices shown beside their most similar training slice."""
MOST_PEOPLE = 400
_THUMB = 40
_COLOURS = {"train": (120, 120, 120), "test": (213, 94, 0), None: (120, 120, 120)}


def write_audit(found: Audit, folder: Path, command: list[str]) -> list[Path]:
    """Write ``patients.parquet``, ``audit.json`` and ``audit.html``.

    Args:
        found: What was found.
        folder: Where to.
        command: The command that made it.

    Returns:
        The files.

    Raises:
        RunError: The folder cannot be written to.
    """
    files = [folder / name for name in ("patients.parquet", "audit.json", "audit.html")]
    write_table(files[0], found.table)
    write_json(files[1], found.to_dict())
    write_page(files[2], "audit.html", _content(found, command))
    return files


def _content(found: Audit, command: list[str]) -> dict[str, Any]:
    people = list(found.members.items())
    return {
        "audit": found.to_dict(),
        "synthetic": SYNTHETIC_NOTICE if found.slices.synthetic else None,
        "pairs": [_pair(found, row) for row in _sample(found)],
        "strips": [_person(found, patient, rows) for patient, rows in people[:MOST_PEOPLE]],
        "left_out": max(0, len(people) - MOST_PEOPLE),
        "copies": _copies(found),
        "command": shlex.join(command),
    }


def _sample(found: Audit) -> list[int]:
    rows = np.random.default_rng(0).permutation(sorted(found.closest))[:SAMPLE]
    return [int(row) for row in rows]


def _pair(found: Audit, row: int) -> dict[str, Any]:
    """Return a test slice, the training slice most like it, and whether they are one person."""
    other, similarity = found.closest[row]
    patients = found.slices.patients
    same = None if None in (patients[row], patients[other]) else patients[row] == patients[other]
    both = np.concatenate(list(_thumbs(found, [row, other], 128)), axis=1)
    return {"picture": _jpeg(both), "similarity": similarity, "same": same}


def _copies(found: Audit) -> list[dict[str, Any]]:
    """Return a sample of copies beside the picture that they repeat."""
    repeats = np.flatnonzero(found.copy_of != np.arange(len(found.copy_of)))
    rows = np.random.default_rng(0).permutation(repeats)[:SAMPLE].tolist()
    sources = found.slices.rows["source"].to_pylist()
    return [
        {
            "picture": _jpeg(np.concatenate(list(_thumbs(found, [found.copy_of[row], row], 128)), axis=1)),
            "names": f"{sources[found.copy_of[row]]} · {sources[row]}",
        }
        for row in rows
    ]


def _person(found: Audit, patient: str, rows: list[int]) -> dict[str, Any]:
    labels = sorted({found.slices.labels[row] or "no label" for row in rows})
    sides = [found.slices.rows["split"][row].as_py() for row in rows]
    strip = [_marked(thumb, side) for thumb, side in zip(_thumbs(found, rows, _THUMB), sides, strict=True)]
    levels = found.people.level[rows]
    return {
        "patient": patient,
        "labels": ", ".join(labels),
        "slices": len(rows),
        "test": sides.count("test"),
        "levels": f"{np.nanmin(levels):.0f} to {np.nanmax(levels):.0f}" if not np.isnan(levels).all() else "",
        "confidence": float(found.people.confidence[rows].min()),
        "picture": _jpeg(np.concatenate(strip, axis=1)),
        "width": len(strip) * _THUMB,
    }


def _marked(thumb: NDArray[np.uint8], side: str | None) -> NDArray[np.uint8]:
    """Put a line in the colour of the side below a thumbnail."""
    marked = np.repeat(thumb[:, :, None], 3, axis=2)
    line = np.broadcast_to(np.array(_COLOURS[side], dtype=np.uint8), (4, thumb.shape[1], 3))
    return np.concatenate([marked, line], axis=0)


def _thumbs(found: Audit, rows: list[int], side: int) -> list[NDArray[np.uint8]]:
    """Return slices as squares of so many pixels, equally bright."""
    pictures = square([found.slices.images[row] for row in rows])
    grey = (pictures * 75).clip(0, 255).astype(np.uint8)
    return [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BOX)) for one in grey]


def _jpeg(picture: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=80)
    return data_uri(stream.getvalue(), "jpeg")
