"""A run's network as an ONNX file, compared with the network itself, in a folder that ``predict`` opens."""

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

from brainstage.core.arrays import Pixels
from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.files import make_folder, sha256
from brainstage.core.levels import check_levels
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder, StrPath
from brainstage.core.schema import SYNTHETIC_NOTICE, figure_title
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Splits
from brainstage.datasets.table import SliceTable
from brainstage.exports.onnx import OPSET, to_int8, to_onnx
from brainstage.inference import out_of_distribution
from brainstage.inference.classifiers import SliceClassifier, open_model, softmax
from brainstage.inference.predictor import BATCH
from brainstage.models.engines.onnx import INPUT, OUTPUT
from brainstage.models.find import find_folder, hub_id_of
from brainstage.models.folder import CONFIG, ONNX, PROCESSOR, WEIGHTS
from brainstage.models.weights import BUNDLED
from brainstage.report.pages import write_page
from brainstage.stats import calibration

PARITY_SLICES = 256
"""Slices that both networks predict, to be compared."""
PARITY_SINGLE_SLICES = 32
"""How many of them are predicted one by one as well."""
MAX_PROBABILITY_DIFFERENCE = 1e-4
"""Largest accepted difference of a probability from PyTorch's."""
INT8_RANGE_SLICES = 256
"""Training slices that the ranges of 8-bit activations are taken from."""
INT8_HELD_BACK_SHARE = 0.2
"""Share of the training slices that are held back from the ranges where there are no validation slices."""
MAX_INT8_ACCURACY_CHANGE = 0.002
"""8-bit integers must change the accuracy by less than this."""
MIN_INT8_AGREEMENT = 0.99
"""Smallest accepted share of slices that get the same stage in 8-bit integers."""


@dataclass(frozen=True)
class Parity:
    """How far the exported network's predictions are from PyTorch's, in fp32.

    Attributes:
        slices: Number of slices compared.
        source: Where they come from.
        max_probability_difference: Largest difference of a probability.
        max_logit_difference: Largest difference of a logit.
    """

    slices: int
    source: str
    max_probability_difference: float
    max_logit_difference: float


@dataclass(frozen=True)
class Int8:
    """What 8-bit integers change.

    Attributes:
        slices: Number of slices evaluated; none is a test slice.
        source: Where they come from.
        accuracy_fp32: Accuracy before.
        accuracy_int8: Accuracy after.
        agreement: Share of slices that get the same stage before and after.
    """

    slices: int
    source: str
    accuracy_fp32: float
    accuracy_int8: float
    agreement: float

    @property
    def accuracy_change(self) -> float:
        """Absolute difference of the two accuracies."""
        return abs(self.accuracy_int8 - self.accuracy_fp32)

    @property
    def accepted(self) -> bool:
        """Whether accuracy and stages stay as they must."""
        return self.accuracy_change < MAX_INT8_ACCURACY_CHANGE and self.agreement >= MIN_INT8_AGREEMENT


@dataclass(frozen=True)
class Export:
    """An exported network.

    Attributes:
        folder: Opens with :meth:`brainstage.Predictor.open`; ``model/`` holds ``model.onnx`` and a ``README.md``
            for use without brainstage.
        about: The run's manifest.
        parity: How far its predictions are from PyTorch's, in fp32.
        int8: What 8-bit integers change; None for fp32.
        megabytes: Size of ``model.onnx``.
    """

    folder: Path
    about: dict[str, Any]
    parity: Parity
    int8: Int8 | None
    megabytes: float

    @property
    def title(self) -> str:
        """What was exported, and under which protocol the run was evaluated."""
        what = f"{self.about.get('recipe', 'network')} as ONNX, {'int8' if self.int8 else 'fp32'}"
        synthetic = bool(self.about.get("synthetic"))
        return figure_title(
            what,
            self.about["protocol"],
            self.about["leakage"]["sentence"],
            synthetic,
            fold=self.about.get("fold"),
            optimistic=self.about.get("optimistic"),
        )

    @property
    def facts(self) -> dict[str, str]:
        """What a user needs to know, by name: folder, size, and how far predictions are from the run's."""
        parity, int8 = self.parity, self.int8
        facts = {
            "folder": str(self.folder),
            "model.onnx": f"{self.megabytes:g} MB",
            "same predictions": (
                f"largest difference of a probability {parity.max_probability_difference:.1e}, "
                f"on {parity.slices} {parity.source}" + (", before quantisation" if int8 else "")
            ),
        }
        if int8:
            facts["int8"] = (
                f"accuracy {int8.accuracy_int8:.4f}, in fp32 {int8.accuracy_fp32:.4f}; the same stage for "
                f"{int8.agreement:.2%} of {int8.slices:,} {int8.source}"
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
    out: StrPath | None = None,
    *,
    int8: bool = False,
    slices: SliceTable | None = None,
    progress: Progress = silent,
) -> Export:
    """Write a run's network as ONNX into a new folder, which appears whole or not at all.

    Args:
        run: A finished run; ``compact``, which is bundled; or a network on the hub, ``ORG/NAME``.
        out: The new folder; None takes ``onnx`` in the run's folder.
        int8: Quantise to 8-bit integers. Their ranges come from training slices; they are accepted by accuracy and
            agreement on validation slices (:attr:`Int8.accepted`). No test slice is used for that.
        slices: The data, for ``int8`` that of the run. Both networks predict slices of it, whatever their side and
            without their labels. None makes phantoms, which ``int8`` does not accept.
        progress: How to show progress.

    Returns:
        What was written, and how far its predictions are from the run's.

    Raises:
        ConfigError: The run cannot be exported, the folder exists, ``int8`` has no data, or ONNX is not installed.
        DataError: ``int8`` has too few training slices, or they have other classes than the network; the slices
            show other levels than the run's.
        RunError: A probability differs by more than :data:`MAX_PROBABILITY_DIFFERENCE`, the 8-bit integers are not
            accepted, or the folder is not writable. Nothing is written.
    """
    name = os.fspath(run)
    source, target = _places(name, out)
    about = _about(source)
    network = _network(source, name)
    if int8 and slices is None:
        raise ConfigError("int8 needs the data that the run was trained on; name it with --data")
    if slices is not None:
        check_levels(network.level_set, slices.level_set, "the data")
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            part = RunFolder(Path(temporary) / "export")
            _copy(source.model, make_folder(part.model))
            images, images_source = _parity_images(slices, Path(temporary))
            with progress("Exporting", 2) as advance:
                parity = _convert(network, part, images, images_source)
                advance(1)
                quantised = _quantise(source, network.classes, part, slices) if int8 and slices else None
                advance(1)
            megabytes = round((part.model / ONNX).stat().st_size / 1e6, 2)
            result = Export(target, about, parity, quantised, megabytes)
            _describe(source, part, network, result)
            part.path.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{target}: not written ({reason}); free some space or choose another --out") from error
    return result


def _places(name: str, out: StrPath | None) -> tuple[RunFolder, Path]:
    """Return the run and the new folder."""
    if out is None and (name in BUNDLED or hub_id_of(name)):
        raise ConfigError(f"{name}: is no run folder of yours; choose a folder for the export with --out")
    source = RunFolder.open(find_folder(name))
    target = Path(out) if out is not None else source.path / "onnx"
    if target.exists():
        raise ConfigError(f"{target}: already exists; choose another --out or delete it")
    return source, target


def _about(source: RunFolder) -> dict[str, Any]:
    """Return the run's manifest without its list of files."""
    about = json.loads(source.manifest.read_text(encoding="utf-8"))
    if not (about.get("protocol") and about.get("leakage")):
        raise RunError(f"{source.path}: its manifest names no protocol and no leakage verdict; train it again")
    return {key: value for key, value in about.items() if key != "files"}


def _network(source: RunFolder, name: str) -> SliceClassifier:
    model = open_model(source.model)
    if not isinstance(model, SliceClassifier):
        raise ConfigError(
            f"{name}: the patient model is not a network and cannot be exported; it runs without PyTorch as it is"
        )
    if model.network is None:
        raise ConfigError(f"{name}: is an exported network; name the run that it was exported from")
    return model


def _exported(part: RunFolder) -> SliceClassifier:
    model = open_model(part.model)
    assert isinstance(model, SliceClassifier)  # noqa: S101 - the export wrote it as a network
    return model


def _copy(model: Path, part: Path) -> None:
    for name in (CONFIG, PROCESSOR, out_of_distribution.FILE, calibration.FILE):
        if (model / name).is_file():
            shutil.copyfile(model / name, part / name)


# --- parity -------------------------------------------------------------------------------------------------------


def _parity_images(slices: SliceTable | None, temporary: Path) -> tuple[list[Pixels], str]:
    """Return the slices that both networks predict, spread over the data, and where they come from."""
    if slices is None:
        slices = load_slices(write_phantom(temporary / "phantom", patients=PARITY_SLICES // 32))
    stamp = f"the phantom cohort ({SYNTHETIC_NOTICE})" if slices.synthetic else "the data"
    return [slices.images[row] for row in _spread(range(len(slices)), PARITY_SLICES)], f"slices of {stamp}"


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` rows, spread evenly over all."""
    return [rows[number] for number in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def _convert(network: SliceClassifier, part: RunFolder, images: list[Pixels], source: str) -> Parity:
    """Write ``model.onnx`` and compare its predictions with PyTorch's, in batches and slice by slice.

    Raises:
        RunError: They differ.
    """
    to_onnx(network.network, network.pixels([np.zeros((2, 2), np.uint8)] * 2), part.model / ONNX)
    exported, single = _exported(part), images[:PARITY_SINGLE_SLICES]
    expected = _logits(network, [*images, *single], BATCH)
    logits = np.concatenate([_logits(exported, images, BATCH), _logits(exported, single, 1)])
    parity = Parity(
        len(images),
        source,
        max_probability_difference=float(np.abs(softmax(expected) - softmax(logits)).max()),
        max_logit_difference=float(np.abs(expected - logits).max()),
    )
    if not parity.max_probability_difference <= MAX_PROBABILITY_DIFFERENCE:
        raise RunError(
            "the exported network's probabilities differ from PyTorch's by up to "
            f"{parity.max_probability_difference:.1e} on {parity.slices} {source}, more than "
            f"{MAX_PROBABILITY_DIFFERENCE:.0e}; nothing was written, keep using the run"
        )
    return parity


def _logits(model: SliceClassifier, images: Sequence[Pixels], batch: int) -> Any:
    return np.concatenate([model.logits(images[start : start + batch]) for start in range(0, len(images), batch)])


# --- 8-bit integers -----------------------------------------------------------------------------------------------


def _quantise(source: RunFolder, classes: tuple[str, ...], part: RunFolder, slices: SliceTable) -> Int8:
    """Replace the exported network by one of 8-bit integers, and evaluate both on validation slices.

    Raises:
        DataError: There are too few training slices, or their classes are not the network's.
        RunError: The 8-bit network is not accepted.
    """
    if slices.classes != classes:
        raise DataError(
            f"the data has the classes {', '.join(slices.classes)}, the network {', '.join(classes)}"
            "; name the data of its training with --data"
        )
    training, validation, validation_source = _int8_rows(source, slices)
    images, labels = [slices.images[row] for row in validation], slices.targets(validation)
    file, model = part.model / ONNX, _exported(part)
    before = _logits(model, images, BATCH).argmax(axis=1)
    quantised = part.model / f"int8-{ONNX}"
    to_int8(file, model.pixels([slices.images[row] for row in _spread(training, INT8_RANGE_SLICES)]), quantised)
    quantised.replace(file)
    after = _logits(_exported(part), images, BATCH).argmax(axis=1)
    int8 = Int8(
        len(validation),
        validation_source,
        accuracy_fp32=float((before == labels).mean()),
        accuracy_int8=float((after == labels).mean()),
        agreement=float((before == after).mean()),
    )
    if not int8.accepted:
        raise RunError(
            f"8-bit integers change the accuracy on {int8.slices:,} {int8.source} from {int8.accuracy_fp32:.4f} to "
            f"{int8.accuracy_int8:.4f}, and {int8.agreement:.2%} of them get the same stage; expected a change "
            f"below {MAX_INT8_ACCURACY_CHANGE} and at least {MIN_INT8_AGREEMENT:.0%}. Nothing was written; export "
            "without --int8"
        )
    return int8


def _int8_rows(source: RunFolder, slices: SliceTable) -> tuple[list[int], list[int], str]:
    """Return the rows for the ranges, those to evaluate on, and where the latter come from; none is a test slice.

    They are the training and validation slices of the run's own splits, else of the data. Without validation
    slices a share of the training slices is held back, which the ranges then do not see.
    """
    everyone = RunFolder(source.path / "folds" / "everyone")  # a cross-validated run's model was fitted there
    fitted = everyone if everyone.splits.is_file() else source
    if fitted.splits.is_file():
        fold = Splits.load(fitted.splits, slices).chosen(TrainConfig.from_json(fitted.config))
        training, validation = ([slices.row_of[name] for name in ids] for ids in (fold.train, fold.validation))
    else:
        training, validation = _labelled(slices, "train"), _labelled(slices, "validation")
    if validation:
        return training, validation, "validation slices"
    by_hash = sorted(training, key=slices.slice_ids.__getitem__)  # an order that has nothing to do with the data's
    count = round(INT8_HELD_BACK_SHARE * len(by_hash))
    if not count:
        raise DataError(
            "int8 needs training slices for its ranges and its evaluation; the data has too few"
            "; name more with --data, or leave --int8 away"
        )
    return by_hash[count:], by_hash[:count], "training slices held back from the ranges"


def _labelled(slices: SliceTable, side: str) -> list[int]:
    """Return the rows of a side of the data, without those that have no label."""
    sides = slices.rows["split"].to_pylist()
    return [row for row, name in enumerate(sides) if name == side and slices.labels[row] is not None]


# --- the description ----------------------------------------------------------------------------------------------


def _describe(source: RunFolder, part: RunFolder, network: SliceClassifier, result: Export) -> None:
    """Write ``README.md``, for use of the file without brainstage, and the manifest."""
    steps = network.preprocessing
    fitted = calibration.Calibration.open(part.model)
    content = {
        "export": result,
        "about": result.about,
        "hash": sha256(part.model / ONNX),
        "input": INPUT,
        "output": OUTPUT,
        "opset": OPSET,
        "steps": steps,
        "channels": [steps.mean] if isinstance(steps.mean, float) else list(steps.mean),
        "interpolation": {2: "bilinear", 3: "bicubic"}.get(steps.resample, f"Pillow's filter {steps.resample}"),
        "classes": network.classes,
        "calibration": fitted,
    }
    write_page(part.model / "README.md", "export.md", content)
    entry = {**result.to_dict(), "weights": sha256(source.model / WEIGHTS)}
    part.write_manifest({**result.about, "export": entry})
