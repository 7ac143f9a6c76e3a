"""The audit as one page: the verdict, similar slices across the split, and a strip of slices for each person."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainstage.audits.audit import Audit
from brainstage.core.arrays import Pixels
from brainstage.core.files import write_json, write_table
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.datasets.signatures import square
from brainstage.report.pages import jpeg_uri, write_page

SHOWN_PAIRS = 12
"""Pairs of slices shown, drawn at random: test and training slices, and duplicates."""
MAX_STRIPS = 400
"""People shown as a strip; the rest are in the table only."""
MAX_STRIP_SLICES = 400
"""Slices shown of one person, evenly spaced over the levels; a JPEG is at most 65,535 pixels wide."""
_QUALITY = 80
_THUMBNAIL_SIDE = 40
_PAIR_SIDE = 128
_SIDE_COLOURS = {"train": (120, 120, 120), "test": (213, 94, 0), None: (120, 120, 120)}


def write_audit(result: Audit, folder: Path, command: list[str]) -> list[Path]:
    """Write ``patients.parquet``, ``audit.json`` and ``audit.html``.

    Args:
        result: The audit to write.
        folder: Folder to write to.
        command: The command that made the audit, shown on the page.

    Returns:
        The files written.

    Raises:
        RunError: The folder is not writable.
    """
    files = [folder / name for name in ("patients.parquet", "audit.json", "audit.html")]
    write_table(files[0], result.table)
    write_json(files[1], result.to_dict())
    write_page(files[2], "audit.html", _content(result, command))
    return files


def _content(result: Audit, command: list[str]) -> dict[str, Any]:
    people = list(result.members.items())
    return {
        "audit": result.to_dict(),
        "synthetic": SYNTHETIC_NOTICE if result.slices.synthetic else None,
        "pairs": [_pair(result, row) for row in _sample(result)],
        "strips": [_strip(result, patient, rows) for patient, rows in people[:MAX_STRIPS]],
        "left_out": max(0, len(people) - MAX_STRIPS),
        "duplicates": _duplicates(result),
        "command": shlex.join(command),
    }


def _sample(result: Audit) -> list[int]:
    rows = np.random.default_rng(0).permutation(sorted(result.closest))[:SHOWN_PAIRS]
    return [int(row) for row in rows]


def _pair(result: Audit, row: int) -> dict[str, Any]:
    """Return a test slice beside its most similar training slice, and whether they show one person."""
    other, similarity = result.closest[row]
    patients = result.slices.patients
    same = None if None in (patients[row], patients[other]) else patients[row] == patients[other]
    both = np.concatenate(list(_thumbnails(result, [row, other], _PAIR_SIDE)), axis=1)
    return {"picture": jpeg_uri(both, _QUALITY), "similarity": similarity, "same": same}


def _duplicates(result: Audit) -> list[dict[str, Any]]:
    """Return a sample of duplicates beside the picture that they repeat."""
    repeats = np.flatnonzero(result.duplicate_of != np.arange(len(result.duplicate_of)))
    rows = np.random.default_rng(0).permutation(repeats)[:SHOWN_PAIRS].tolist()
    return [
        {
            "picture": jpeg_uri(
                np.concatenate(list(_thumbnails(result, [result.duplicate_of[row], row], _PAIR_SIDE)), axis=1),
                _QUALITY,
            ),
            "names": f"{_name(result, int(result.duplicate_of[row]))} · {_name(result, row)}",
        }
        for row in rows
    ]


def _name(result: Audit, row: int) -> str:
    """Return what a slice is called: its scan and level in a cohort, else where it came from."""
    of_row = {name: result.slices.rows[name][row].as_py() for name in ("scan_id", "slice_index", "source")}
    in_cohort = None not in (of_row["scan_id"], of_row["slice_index"])
    return f"{of_row['scan_id']}, level {of_row['slice_index']}" if in_cohort else str(of_row["source"])


def _strip(result: Audit, patient: str, rows: list[int]) -> dict[str, Any]:
    """Return a person's slices by level as one picture, each duplicated picture once, and facts about them."""
    labels = sorted({result.slices.labels[row] or "no label" for row in rows})
    sides = {row: result.slices.rows["split"][row].as_py() for row in rows}
    shown = _spread([row for row in rows if result.duplicate_of[row] == row] or rows)
    thumbnails = _thumbnails(result, shown, _THUMBNAIL_SIDE)
    strip = [_marked(thumbnail, sides[row]) for thumbnail, row in zip(thumbnails, shown, strict=True)]
    levels = result.recovered.level[rows]
    return {
        "patient": patient,
        "labels": ", ".join(labels),
        "slices": len(rows),
        "test": list(sides.values()).count("test"),
        "levels": f"{np.nanmin(levels):.0f} to {np.nanmax(levels):.0f}" if not np.isnan(levels).all() else "",
        "confidence": float(result.recovered.confidence[rows].min()),
        "picture": jpeg_uri(np.concatenate(strip, axis=1), _QUALITY),
        "width": len(strip) * _THUMBNAIL_SIDE,
    }


def _spread(rows: list[int]) -> list[int]:
    """Return at most :data:`MAX_STRIP_SLICES` of some rows, evenly spaced."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), MAX_STRIP_SLICES)).round().astype(int)
    return [rows[place] for place in places]


def _marked(thumbnail: Pixels, side: str | None) -> Pixels:
    """Draw a line in the colour of the split's side below a thumbnail."""
    marked = np.repeat(thumbnail[:, :, None], 3, axis=2)
    line = np.broadcast_to(np.array(_SIDE_COLOURS[side], dtype=np.uint8), (4, thumbnail.shape[1], 3))
    return np.concatenate([marked, line], axis=0)


def _thumbnails(result: Audit, rows: list[int], side: int) -> list[Pixels]:
    """Return slices as squares with ``side`` pixels a side, equally bright."""
    pictures = square([result.slices.images[row] for row in rows])
    grey = (pictures * 75).clip(0, 255).astype(np.uint8)
    return [np.asarray(Image.fromarray(slice_).resize((side, side), Image.Resampling.BOX)) for slice_ in grey]
