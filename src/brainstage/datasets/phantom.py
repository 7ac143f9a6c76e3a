"""The phantom cohort: synthetic heads whose patients are known. For tests, documentation and work offline.

It says nothing about real brains: the shapes are drawn, and the sizes of ventricles and sulci only follow the
direction in which they change with dementia, with as much overlap between the stages as makes staging hard.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy.ndimage import gaussian_filter

from brainstage.core.arrays import Float64Array, Pixels
from brainstage.core.errors import ConfigError
from brainstage.core.files import make_folder, write_table
from brainstage.core.parallel import parallel_map
from brainstage.core.progress import Progress, silent
from brainstage.core.run import StrPath
from brainstage.core.schema import SLICE_SIDE, STACK_LEVELS, STACK_SHAPE, STAGES

STAGE_SHARES = (0.50, 0.35, 0.14, 0.01)
"""The public dataset's shares: 100, 70, 28 and 2 of 200 people."""
TEST_SHARE = 0.2


@dataclass(frozen=True)
class _Head:
    """What makes one person's head their own; lengths in half widths of the picture."""

    width: float
    height: float
    contour: Float64Array  # Fourier coefficients of the outline, (harmonic, cos and sin)
    folds: Float64Array  # smooth noise of STACK_SHAPE, unit variance; its zero lines are the sulci
    texture: Float64Array  # smooth noise of the tissue, same shape
    sulcus_width: float
    ventricle: float
    asymmetry: float
    grey: float
    white: float
    noise: float


def write_phantom(folder: StrPath, *, patients: int = 200, seed: int = 0, progress: Progress = silent) -> Path:
    """Write a phantom cohort in the layout and schema of the public dataset.

    Each person has 32 axial slices of 128×128 pixels (JPEG). As in the public dataset the slices are shuffled one
    by one into ``data/train-….parquet`` (80 %) and ``data/test-….parquet`` (20 %), so that every person is on both
    sides. Beside the public columns stand the true ``patient_id`` and ``slice_index``. Equal arguments write equal
    files.

    Args:
        folder: Folder to write to.
        patients: Number of people.
        seed: Seed of the cohort.
        progress: How to show progress.

    Returns:
        ``folder``.

    Raises:
        ConfigError: Fewer than 8 patients, which is too few for four stages on two sides.
        RunError: The folder is not writable.
    """
    if patients < 8:
        raise ConfigError(f"patients: {patients} is too few for four stages; give 8 or more")
    folder = Path(folder)
    make_folder(folder / "data")  # before minutes are spent on drawing
    stages = np.repeat(np.arange(len(STAGES)), stage_counts(patients)).tolist()
    with progress("Drawing the phantom cohort", patients) as advance:
        heads = parallel_map(partial(_encoded_head, seed=seed), enumerate(stages), done=lambda _: advance(1))
    images = list(chain.from_iterable(heads))
    labels = np.repeat(stages, STACK_LEVELS).tolist()
    ids = [f"phantom-{patient:03d}" for patient in range(patients) for _ in range(STACK_LEVELS)]
    levels = [*range(STACK_LEVELS)] * patients
    order = np.random.default_rng([seed, patients]).permutation(len(images))
    table = _hub_table(images, labels, ids, levels).take(pa.array(order))
    test = round(TEST_SHARE * len(table))
    for name, part in (("train", table.slice(test)), ("test", table.slice(0, test))):
        write_table(folder / "data" / f"{name}-00000-of-00001.parquet", part)
    return folder


def stage_counts(patients: int) -> list[int]:
    """Return how many people have each stage: the public dataset's shares, at least two people a stage."""
    counts = [max(2, round(share * patients)) for share in STAGE_SHARES]
    counts[0] += patients - sum(counts)
    return counts


def draw_head(stage: int, patient: int, *, seed: int) -> Pixels:
    """Draw one person's slices from the thalamus up, uint8 of shape (32, 128, 128).

    Args:
        stage: 0 (none) to 3 (moderate).
        patient: Number of the person; of equal numbers the heads are equal.
        seed: Seed of the cohort.
    """
    rng = np.random.default_rng([seed, patient, 77])
    head = _person(stage, rng)
    brightness = rng.uniform(0.85, 1.1, STACK_LEVELS)  # each slice of the public dataset has a scaling of its own
    volume = np.stack([_slice(head, level) for level in range(STACK_LEVELS)])
    volume += head.noise * rng.standard_normal(volume.shape) * (volume > 5)
    volume *= brightness[:, None, None]
    return volume.clip(0, 255).astype(np.uint8)


def _person(stage: int, rng: np.random.Generator) -> _Head:
    atrophy = 0.55 * stage + rng.normal(0, 0.55)
    return _Head(
        width=0.73 + rng.normal(0, 0.02),
        height=0.83 + rng.normal(0, 0.02),
        contour=rng.normal(0, 0.012, (5, 2)) / np.arange(1, 6)[:, None] ** 0.5,
        folds=_smooth_noise(rng, (5.0, 2.5, 2.5)),
        texture=_smooth_noise(rng, (3.0, 2.0, 2.0)),
        sulcus_width=max(0.05, 0.16 + 0.055 * atrophy + rng.normal(0, 0.03)),
        ventricle=float(np.exp(0.22 * atrophy + rng.normal(0, 0.14))),
        asymmetry=rng.normal(0, 0.06),
        grey=rng.uniform(105, 130),
        white=rng.uniform(190, 220),
        noise=rng.uniform(3, 7),
    )


def _smooth_noise(rng: np.random.Generator, sigma: tuple[float, float, float]) -> Float64Array:
    noise = gaussian_filter(rng.standard_normal(STACK_SHAPE), sigma, mode="wrap", truncate=3.0)
    return noise / noise.std()


def _slice(head: _Head, level: int) -> Float64Array:
    """Draw one level: grey values from 0 to 255, float64 of shape (128, 128)."""
    z = level / (STACK_LEVELS - 1)
    y, x = np.mgrid[-1 : 1 : SLICE_SIDE * 1j, -1 : 1 : SLICE_SIDE * 1j]
    depth = _depth(head, x, y, z)
    folds = np.abs(head.folds[level]) + 0.05 * head.texture[level]
    band = np.clip(1.25 - depth / 0.34, 0, 1)  # sulci open outwards and end in the white matter
    sulcus = _edge(head.sulcus_width * band - folds * 0.55, 0.04)
    cortex = _edge((0.36 + 0.9 * head.sulcus_width) * band - folds * 0.55, 0.16)
    picture = head.white - 5 * head.texture[level]
    picture += (head.grey - picture) * np.maximum(cortex, _edge(0.05 - depth, 0.02))
    picture += (head.grey + 12 - picture) * _deep_grey(x, y, z)
    fluid = np.maximum.reduce([sulcus, _ventricles(head, x, y, z), _fissure(head, x, y, level)])
    picture += (28 - picture) * fluid
    return gaussian_filter(picture * _edge(depth, 0.012), 0.6)


def _depth(head: _Head, x: Float64Array, y: Float64Array, z: float) -> Float64Array:
    """Distance inwards from the outline, negative outside."""
    angle = np.arctan2(y, x)
    outline = np.ones_like(x)
    for harmonic, (cosine, sine) in enumerate(head.contour, start=2):
        outline += cosine * np.cos(harmonic * angle + z) + sine * np.sin(harmonic * angle - z)
    outline -= 0.035 * np.clip(-np.sin(angle), 0, 1) ** 8  # the notch between the frontal lobes
    size = 1.0 - 0.10 * z**2
    return size * outline - np.hypot(x / head.width, y / head.height)


def _edge(signed: Float64Array, softness: float) -> Float64Array:
    """Return 1 where ``signed`` is positive and 0 where it is negative, with a soft step between."""
    result: Float64Array = np.clip(0.5 + signed / (2 * softness), 0, 1)
    return result


def _ellipse(
    x: Float64Array, y: Float64Array, at: tuple[float, float], radii: tuple[float, float], tilt: float
) -> Float64Array:
    dx, dy = x - at[0], y - at[1]
    u, v = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    return _edge(1 - np.hypot(u / radii[0], v / radii[1]), 0.12)


def _ventricles(head: _Head, x: Float64Array, y: Float64Array, z: float) -> Float64Array:
    """Frontal horns, and behind them the third ventricle (low) or the bodies of the lateral ones (high)."""
    parts = []
    for side in (-1, 1):
        size = head.ventricle * (1 + side * head.asymmetry)
        horn = 0.075 * size * (1 - 0.3 * z)
        parts.append(_ellipse(x, y, (side * (0.05 + 0.9 * horn), -0.26 + 0.10 * z), (horn, 0.17), side * 0.42))
        body = 0.085 * size * np.clip((z - 0.25) / 0.35, 0.01, 1)
        parts.append(_ellipse(x, y, (side * (0.03 + body), 0.04), (body, 0.30), -side * 0.12))
        trigone = 0.07 * size * np.clip(1.2 - z, 0.05, 1)
        parts.append(_ellipse(x, y, (side * 0.22, 0.34 - 0.1 * z), (trigone, 0.12), side * -0.6))
    third = 0.018 * head.ventricle * np.clip(1 - 2 * z, 0.05, 1)
    parts.append(_ellipse(x, y, (0, 0.02), (third, 0.14), 0.0))
    combined: Float64Array = np.maximum.reduce(parts)
    return combined


def _deep_grey(x: Float64Array, y: Float64Array, z: float) -> Float64Array:
    """Thalamus and basal ganglia, which fade upwards."""
    fade = np.clip(1.1 - 1.6 * z, 0, 1)
    parts = []
    for side in (-1, 1):
        parts.append(_ellipse(x, y, (side * 0.13, 0.08), (0.10, 0.14), side * -0.3))
        parts.append(_ellipse(x, y, (side * 0.30, -0.06), (0.08, 0.20), side * -0.25))
    combined: Float64Array = 0.8 * fade * np.maximum.reduce(parts)
    return combined


def _fissure(head: _Head, x: Float64Array, y: Float64Array, level: int) -> Float64Array:
    """The dark line between the hemispheres, in front and behind."""
    wobble = 0.006 * head.folds[level][:, SLICE_SIDE // 2][:, None]
    reach = np.clip((np.abs(y - 0.02) - 0.36) / 0.08, 0, 1)
    return reach * _edge(0.008 + 0.03 * head.sulcus_width - np.abs(x + wobble), 0.012)


def _encoded_head(person: tuple[int, int], seed: int) -> list[bytes]:
    """Return the JPEG files of a person's slices; the person is a number and a stage."""
    patient, stage = person
    return [_jpeg(picture) for picture in draw_head(stage, patient, seed=seed)]


def _jpeg(picture: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=92)
    return stream.getvalue()


def _hub_table(images: list[bytes], stages: list[int], ids: list[str], levels: list[int]) -> pa.Table:
    names = sorted(STAGES)  # the public dataset numbers its classes by the alphabet
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([{"bytes": image, "path": None} for image in images], image_type),
            "label": pa.array([names.index(STAGES[stage]) for stage in stages], pa.int64()),
            "patient_id": ids,
            "slice_index": pa.array(levels, pa.int32()),
        }
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "brainstage_synthetic": "true"}
    return table.replace_schema_metadata(metadata)
