"""The picture of an extracted brain, for a person to check: cuts of the head with the brain's outline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ImageColor
from scipy.ndimage import binary_erosion, zoom

from brainstage.core.arrays import Pixels
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.report.charts import ORANGE, Cut, draw_cuts
from brainstage.scans.planes import AXES, plane_points
from brainstage.scans.registration import mapped, sample
from brainstage.scans.skull_strip import OUTLINE_CHECK, Extraction, brain_mask
from brainstage.scans.volume import Volume

PLACES = {
    "axial": (2, 8, 14, 21, 27, 33),  # the levels of the training data
    "coronal": (-80, -55, -30, -5, 20, 45),
    "sagittal": (-50, -30, -10, 10, 30, 50),
}
"""Millimetres of MNI152 at which a head is shown, so that everyone's picture shows the same parts."""
SHOWN = {"axial": (14,), "coronal": (-20,), "sagittal": (10,)}
"""Where there is one cut of each plane: through thalamus and ventricles, and beside the midline."""
ENLARGED, LINE_WIDTH = 2, 3
"""Pixels to a millimetre of these cuts, and of the line."""
TITLE = (
    f"{OUTLINE_CHECK.capitalize()}; it may run a few millimetres outside. In axial and "
    f"coronal cuts the person's right is on the left. {RESEARCH_NOTICE}"
)


def draw_extraction(target: Path, extraction: Extraction) -> None:
    """Draw axial, coronal and sagittal cuts of a head with the outline of its brain to a PNG file."""
    draw_cuts(list(_cuts(extraction)), TITLE).save(target)


def outline_pictures(extraction: Extraction) -> dict[str, Pixels]:
    """Return one cut of a head for each plane with the outline of its brain, uint8 of shape (H, W, 3)."""
    rows = dict(zip(PLACES, _cuts(extraction, SHOWN), strict=True))
    return {plane: _outlined(cut) for plane, (cut,) in rows.items()}


def _outlined(cut: Cut) -> Pixels:
    head, inside = (zoom(image, ENLARGED, order=1) for image in (cut.head, cut.inside))
    grey = (head / cut.white * 255).clip(0, 255)
    picture = np.repeat(grey[..., None], 3, axis=2).round().astype(np.uint8)
    brain = inside > 0.5
    picture[brain & ~binary_erosion(brain, iterations=LINE_WIDTH)] = ImageColor.getrgb(ORANGE)
    return picture


def _cuts(extraction: Extraction, cuts: Mapping[str, Sequence[int]] = PLACES) -> Iterator[list[Cut]]:
    """Yield a row of cuts for each plane."""
    head, affine = extraction.head, extraction.registration.affine
    mask = brain_mask(head, affine)
    inside = Volume(mask.astype(np.float32), head.affine)
    white = float(np.percentile(head.voxels[mask], 99.5))
    for plane, places in cuts.items():
        row = []
        for place in places:
            points, shape = plane_points(plane, place)
            shown, within = (sample(volume, mapped(affine, points)).reshape(shape) for volume in (head, inside))
            row.append(Cut(f"{plane}, {'xyz'[AXES[plane]]} = {place} mm", shown, within, white))
        yield row
