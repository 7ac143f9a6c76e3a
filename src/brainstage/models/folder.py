"""The model folder: its files, the architectures that are known, and what is refused before it is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brainstage.core.errors import DataError
from brainstage.core.levels import LEVELS_KEY, PUBLIC, LevelSet, named_levels
from brainstage.stats.calibration import FILE as CALIBRATION

MODEL_TYPES = ("convnext", "convnextv2", "regnet", "resnet", "swin", "swinv2", "vit")
"""Architectures of ``transformers`` whose head is ``model.classifier`` and whose processor we know."""

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
ONNX = "model.onnx"
"""Weights file of an exported network, in place of :data:`WEIGHTS`."""
DETECTOR = "out_of_distribution.safetensors"
MODEL_FILES = (CONFIG, PROCESSOR, WEIGHTS, ONNX, DETECTOR, CALIBRATION, "README.md")
"""Every file that a model folder may hold."""

_PICKLES = (".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth")
"""Suffixes of files that may be pickles."""
_PICKLE_STARTS = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
"""First bytes of the files of ``torch.save`` and of pickles."""


def refuse_pickles(folder: Path) -> None:
    """Refuse a model folder that holds a pickle, by suffix or by content: opening one can run code.

    Raises:
        DataError: It does.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if is_named_like_pickle(file.name) or _looks_pickled(file):
            raise DataError(
                f"{file}: a pickle, or named like one, which can run code when it is opened; a model folder may "
                "hold none, so take this file away or get the model from elsewhere"
            )


def is_named_like_pickle(name: str) -> bool:
    """Return whether a file has a suffix under which pickles are kept."""
    return Path(name).suffix.lower() in _PICKLES


def _looks_pickled(file: Path) -> bool:
    """Return whether a file starts like a pickle. A safetensors file may too, by the length of its header."""
    if file.name == WEIGHTS:
        return False
    with file.open("rb") as stream:
        return stream.read(4).startswith(_PICKLE_STARTS)


def weights_file(folder: Path) -> Path:
    """Return the file with a network's weights: :data:`ONNX` where there is no :data:`WEIGHTS`."""
    exported = (folder / ONNX).is_file() and not (folder / WEIGHTS).is_file()
    return folder / (ONNX if exported else WEIGHTS)


def class_names(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names of a network's configuration, in the order of its scores.

    Raises:
        KeyError, TypeError, ValueError: It names none.
    """
    names = config["id2label"]
    return tuple(str(names[key]) for key in sorted(names, key=int))


def trained_levels(config: dict[str, Any], where: str = CONFIG) -> LevelSet:
    """Return the levels that a model was trained on; where its configuration names none, the public dataset's.

    Args:
        config: The content of its ``config.json``.
        where: Its name in errors.

    Raises:
        DataError: They are not known.
    """
    return named_levels(str(config.get(LEVELS_KEY, PUBLIC.name)), where)


def read_config(folder: Path, name: str | None = None, weights: str = WEIGHTS) -> dict[str, Any]:
    """Return the content of a model folder's ``config.json``, which must name a known architecture.

    Args:
        folder: The folder.
        name: Name of the model in errors; None takes the folder.
        weights: Name of the file with its weights.

    Raises:
        DataError: A file is missing or not readable, the weights are pickled, or the architecture is another.
    """
    name = name or str(folder)
    for file in (CONFIG, PROCESSOR, weights):
        if not (folder / file).is_file():
            raise DataError(f"{name}: holds no {file}{_PICKLED if file == WEIGHTS else ''}")
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise DataError(f"{name}: its architecture is {kind}, expected one of {', '.join(MODEL_TYPES)}")
    return config


_PICKLED = (
    "; pickled weights (pytorch_model.bin) can run code and are not opened: name a revision that has "
    "safetensors (on the hub often @refs/pr/1), or convert them"
)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        DataError: It is missing or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable as JSON ({error}); get the model folder anew") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a JSON object; get the model folder anew")
    return content
