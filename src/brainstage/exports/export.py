"""A run's network as an ONNX file, checked against the network itself, with all that an answer needs beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.files import make_folder, sha256
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import SYNTHETIC_NOTICE, figure_title
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.preprocessing import Pixels
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Splits
from brainstage.datasets.table import SliceTable
from brainstage.exports.onnx import OPSET, to_int8, to_onnx
from brainstage.inference import out_of_distribution
from brainstage.inference.predictor import BATCH, SliceClassifier, open_model, softmax
from brainstage.models.engines.onnx import INPUT, OUTPUT
from brainstage.models.folder import CONFIG, ONNX, PROCESSOR, WEIGHTS
from brainstage.models.weights import BUNDLED, bundled_folder
from brainstage.report.pages import write_page
from brainstage.stats import calibration

SLICES = 256
"""Slices that both networks are compared on, and that the ranges of 8-bit activations are taken from."""
ALONE = 32
"""How many of them are also given one by one."""
TOLERANCE = 1e-4
"""Most that a probability may differ from PyTorch's."""
MOVED = 0.002
"""Accuracy that 8-bit integers must stay within."""


@dataclass(frozen=True)
class Parity:
    """How far the exported network is from PyTorch's.

    Attributes:
        slices: How many were compared.
        source: What they are.
        probabilities: Largest difference of a probability.
        logits: Largest difference of a logit.
    """

    slices: int
    source: str
    probabilities: float
    logits: float


@dataclass(frozen=True)
class Int8:
    """What 8-bit integers change.

    Attributes:
        slices: How many were judged.
        source: What they are.
        accuracy_fp32: Share right before.
        accuracy_int8: Share right after.
        same_stage: Share that gets the same stage.
    """

    slices: int
    source: str
    accuracy_fp32: float
    accuracy_int8: float
    same_stage: float

    @property
    def moved(self) -> float:
        """How far accuracy moved."""
        return abs(self.accuracy_int8 - self.accuracy_fp32)


@dataclass(frozen=True)
class Export:
    """A network that was exported.

    Attributes:
        folder: Opens with :meth:`brainstage.Predictor.open`; ``model/`` holds ``model.onnx`` and a ``README.md``
            for those who use it from elsewhere.
        about: The run's manifest.
        parity: How far it is from PyTorch's, in fp32.
        int8: What 8-bit integers change, where they were asked for.
        megabytes: Size of ``model.onnx``.
    """

    folder: Path
    about: dict[str, Any]
    parity: Parity
    int8: Int8 | None
    megabytes: float

    @property
    def title(self) -> str:
        """What was exported, and under which protocol its figures hold."""
        what = f"{self.about.get('recipe', 'network')} as ONNX, {'int8' if self.int8 else 'fp32'}"
        synthetic = bool(self.about.get("synthetic"))
        return figure_title(what, self.about["protocol"], self.about["leakage"]["sentence"], synthetic)

    @property
    def facts(self) -> dict[str, str]:
        """What a user is told: where it is, its size, and how far its predictions are from the run's."""
        parity, int8 = self.parity, self.int8
        facts = {
            "folder": str(self.folder),
            "model.onnx": f"{self.megabytes:g} MB",
            "same predictions": (
                f"largest difference of a probability {parity.probabilities:.1e}, "
                f"on {parity.slices} {parity.source}" + (", before quantisation" if int8 else "")
            ),
        }
        if int8:
            facts["int8"] = (
                f"accuracy {int8.accuracy_int8:.4f}, in fp32 {int8.accuracy_fp32:.4f}, "
                f"on {int8.slices:,} {int8.source}"
            )
        return facts

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's entry ``export``."""
        return {
            "format": "onnx",
            "opset": OPSET,
            "precision": "int8" if self.int8 else "fp32",
            "parity": asdict(self.parity),
            "int8": asdict(self.int8) if self.int8 else None,
            "megabytes": self.megabytes,
        }


def export(
    run: StrPath,
    out: Path | None = None,
    *,
    int8: bool = False,
    slices: SliceTable | None = None,
    progress: Progress = silent,
) -> Export:
    """Write a run's network as ONNX into a new folder, which appears whole or not at all.

    Args:
        run: A finished run or its folder, or ``compact``, which comes with the package.
        out: The new folder; None takes ``onnx`` in the run's.
        int8: Quantise to 8-bit integers. Their ranges come from training slices.
        slices: What both networks are compared on: its test slices, else any. None draws phantoms, which will not
            do for ``int8``.
        progress: How to show progress.

    Raises:
        ConfigError: The run is not one to be exported, the folder is there already, or the extra is not installed.
        DataError: ``int8`` lacks slices to learn ranges from or to be judged on.
        RunError: A probability moves by more than :data:`TOLERANCE`, with ``int8`` the accuracy by
            :data:`MOVED` or more, or the folder is not writable. Nothing is written.
    """
    source, target = _places(run, out)
    about = _about(source)
    network = _network(source, os.fspath(run))
    if int8 and slices is None:
        raise ConfigError(
            "int8 needs the data that the run was trained on, for ranges and to be judged; give --data"
        )
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            part = RunFolder(Path(temporary) / "export")
            _copy(source.model, make_folder(part.model))
            images, what = _compared(slices, Path(temporary))
            with progress("Exporting", 2) as advance:
                parity = _converted(network, part, images, what)
                advance(1)
                changed = _quantised(source, network.classes, part, slices) if int8 and slices else None
                advance(1)
            size = round((part.model / ONNX).stat().st_size / 1e6, 2)
            found = Export(target, about, parity, changed, size)
            _describe(source, part, network, found)
            part.path.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{target}: not written ({reason}); free some space or give another --out") from error
    return found


def _places(run: StrPath, out: Path | None) -> tuple[RunFolder, Path]:
    """Return the run and the new folder."""
    named = os.fspath(run) in BUNDLED
    if named and out is None:
        raise ConfigError(f"{run}: comes with the package; say with --out where the export goes")
    source = RunFolder.open(bundled_folder(str(run)) if named else run)
    target = out or source.path / "onnx"
    if target.exists():
        raise ConfigError(f"{target}: is there already; give another --out, or take it away")
    return source, target


def _about(source: RunFolder) -> dict[str, Any]:
    """Return the run's manifest, without the files: an export is known by its protocol as the run is."""
    about = json.loads(source.manifest.read_text(encoding="utf-8"))
    if not (about.get("protocol") and about.get("leakage")):
        raise RunError(f"{source.path}: its manifest names no protocol and no leakage verdict; train it again")
    return {key: value for key, value in about.items() if key != "files"}


def _network(source: RunFolder, name: str) -> SliceClassifier:
    model = open_model(source.model)
    if not isinstance(model, SliceClassifier):
        raise ConfigError(
            f"{name}: the patient model is no network, so there is nothing to export; it needs no torch"
        )
    if model.network is None:
        raise ConfigError(f"{name}: was exported already; give the run that it was exported from")
    return model


def _exported(part: RunFolder) -> SliceClassifier:
    model = open_model(part.model)
    assert isinstance(model, SliceClassifier)  # noqa: S101 - it was written as one
    return model


def _copy(model: Path, part: Path) -> None:
    for name in (CONFIG, PROCESSOR, out_of_distribution.FILE, calibration.FILE):
        if (model / name).is_file():
            shutil.copyfile(model / name, part / name)


# --- the same answers --------------------------------------------------------------------------------------------


def _compared(slices: SliceTable | None, temporary: Path) -> tuple[list[Pixels], str]:
    """Return the slices that both networks are compared on, and what they are."""
    if slices is None:
        slices = load_slices(write_phantom(temporary / "phantom", patients=SLICES // 32))
        rows, what = list(range(len(slices))), "slices"
    else:
        rows, what = _side(slices, "test"), "test slices"
        if len(rows) < SLICES:
            rows, what = list(range(len(slices))), "slices"
    rows = _spread(rows)
    stamp = f" of the phantom cohort ({SYNTHETIC_NOTICE})" if slices.synthetic else ""
    return [slices.images[row] for row in rows], f"{what}{stamp}"


def _side(slices: SliceTable, name: str) -> list[int]:
    return [row for row, side in enumerate(slices.rows["split"].to_pylist()) if side == name]


def _spread(rows: Sequence[int]) -> list[int]:
    """Return so many rows as are compared, spread over all."""
    return [rows[number] for number in np.linspace(0, len(rows) - 1, min(SLICES, len(rows))).astype(int)]


def _converted(network: SliceClassifier, part: RunFolder, images: list[Pixels], what: str) -> Parity:
    """Write ``model.onnx`` and compare it with PyTorch's network, in batches and slice by slice.

    Raises:
        RunError: They differ.
    """
    to_onnx(network.network, network.pixels([np.zeros((2, 2), np.uint8)] * 2), part.model / ONNX)
    exported, alone = _exported(part), images[:ALONE]
    ours = _logits(network, [*images, *alone], BATCH)
    theirs = np.concatenate([_logits(exported, images, BATCH), _logits(exported, alone, 1)])
    found = Parity(
        len(images),
        what,
        probabilities=float(np.abs(softmax(ours) - softmax(theirs)).max()),
        logits=float(np.abs(ours - theirs).max()),
    )
    if not found.probabilities <= TOLERANCE:
        raise RunError(
            f"the exported network's probabilities differ from PyTorch's by up to {found.probabilities:.1e} on "
            f"{found.slices} {what}, more than {TOLERANCE:.0e}; nothing was written, keep using the run"
        )
    return found


def _logits(model: SliceClassifier, images: Sequence[Pixels], batch: int) -> Any:
    return np.concatenate([model.logits(images[start : start + batch]) for start in range(0, len(images), batch)])


# --- 8-bit integers -----------------------------------------------------------------------------------------------


def _quantised(source: RunFolder, classes: tuple[str, ...], part: RunFolder, slices: SliceTable) -> Int8:
    """Put a network of 8-bit integers in the place of the exported one.

    Raises:
        DataError: There are no slices to learn ranges from, or none to be judged on.
        RunError: Accuracy moves too far.
    """
    if slices.classes != classes:
        raise DataError(f"the data has the classes {', '.join(slices.classes)}, the network {', '.join(classes)}")
    training, judged = _sides(source, slices)
    images, stages = [slices.images[row] for row in judged], slices.targets(judged)
    file, model = part.model / ONNX, _exported(part)
    before = _logits(model, images, BATCH).argmax(axis=1)
    quantised = part.model / f"int8-{ONNX}"
    to_int8(file, model.pixels([slices.images[row] for row in _spread(training)]), quantised)
    quantised.replace(file)
    after = _logits(_exported(part), images, BATCH).argmax(axis=1)
    found = Int8(
        len(judged),
        "test slices" + (", of people whom this model was fitted on" if source.baseline.is_file() else ""),
        accuracy_fp32=float((before == stages).mean()),
        accuracy_int8=float((after == stages).mean()),
        same_stage=float((before == after).mean()),
    )
    if found.moved >= MOVED:
        raise RunError(
            f"8-bit integers move the accuracy on {found.slices:,} {found.source} from "
            f"{found.accuracy_fp32:.4f} to {found.accuracy_int8:.4f}, by {MOVED} or more; nothing was "
            "written, export without --int8"
        )
    return found


def _sides(source: RunFolder, slices: SliceTable) -> tuple[list[int], list[int]]:
    """Return the rows of training and test slices: the run's own, else the data's."""
    if source.splits.is_file():
        fold = Splits.load(source.splits, slices).chosen(TrainConfig.from_json(source.config))
        training, judged = ([slices.row_of[one] for one in ids] for ids in (fold.train, fold.test))
    else:
        training, judged = _side(slices, "train"), _side(slices, "test")
    if not (training and judged):
        raise DataError(
            "int8 needs training slices for its ranges and test slices to be judged on; the data has none"
        )
    return training, judged


# --- the description ----------------------------------------------------------------------------------------------


def _describe(source: RunFolder, part: RunFolder, network: SliceClassifier, found: Export) -> None:
    """Write ``README.md``, for those who use the file without brainstage, and the manifest."""
    steps = network.preprocessing
    fits = calibration.Calibration.open(part.model)
    content = {
        "found": found,
        "about": found.about,
        "hash": sha256(part.model / ONNX),
        "input": INPUT,
        "output": OUTPUT,
        "opset": OPSET,
        "steps": steps,
        "channels": [steps.mean] if isinstance(steps.mean, float) else list(steps.mean),
        "interpolation": {2: "bilinear", 3: "bicubic"}.get(steps.resample, f"Pillow's number {steps.resample}"),
        "classes": network.classes,
        "fits": fits,
    }
    write_page(part.model / "README.md", "export.md", content)
    extra = {**found.to_dict(), "weights": sha256(source.model / WEIGHTS)}
    part.write_manifest({**found.about, "export": extra})
