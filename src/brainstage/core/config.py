"""The settings of one training run: one frozen, validated dataclass, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from brainstage.core.errors import ConfigError

Protocol = Literal["official", "patient"]
Precision = Literal["auto", "bf16", "fp32", "int8"]
Engine = Literal["torch", "openvino"]
Table = TypeVar("Table")


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training. Two runs with equal configurations and data are equal.

    The network is a stock ``transformers`` ResNet, trained from scratch, or a pretrained backbone with a new head.
    Lengths are in pixels, shares between 0 and 1.

    Raises:
        ConfigError: A value is of the wrong type or out of its range.
    """

    recipe: str
    """Name of the recipe these settings started from."""
    model: Literal["network", "patient"] = "network"
    """``network`` stages each slice; ``patient`` stages a person from all slices together."""

    # Pretrained backbone
    backbone: str | None = None
    """Hub id, with ``@REVISION`` where it is not the newest, or folder; None trains a ResNet from scratch."""
    frozen: bool = False
    """Whether the backbone's weights are frozen: features are computed once and the head alone is trained."""

    # Input of the network from scratch; a backbone has its own
    image_size: int = 96
    """Side of the network's square input."""
    crop_share: float = 0.875
    """Share of the slice's side that is kept, around its centre."""

    # Network from scratch (ResNetConfig)
    stem_channels: int = 16
    """Channels of the first convolution."""
    stage_channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each stage, 8 or more."""
    stage_blocks: tuple[int, ...] = (1, 1, 1)
    """Residual blocks of each stage."""
    downsample_first: bool = True
    """Whether the first stage halves the resolution too, as the later ones do."""

    # Schedule: linear warm-up, then down to zero
    epochs: int = 14
    """How often all training slices are shown."""
    batch_size: int = 128
    """Slices a batch, of all processes together."""
    gradient_accumulation: int = 1
    """Batches a step of the optimiser."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Shape of the way down to zero."""
    warmup_share: float = 0.2
    """Share of the steps in which the learning rate rises."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """``muon``: Muon for the convolution filters and AdamW for the rest; ``adamw``: that of ``Trainer``."""
    filter_learning_rate: float = 0.1
    """Learning rate of Muon."""
    learning_rate: float = 0.003
    """Learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay: of the filters with ``muon``, of all weight matrices with ``adamw``."""
    label_smoothing: float = 0.1
    """Probability that the target gives to all classes alike."""

    # Augmentation
    max_shift: int = 1
    """Largest shift in each direction, in pixels of the network's input."""
    mirror: bool = False
    """Whether half of the slices, drawn anew each epoch, are mirrored left to right."""
    augment: Literal["none", "acquisitions"] = "none"
    """``acquisitions``: each epoch shows every training slice as it is, or as one of four random acquisitions shows
    it (:mod:`brainstage.models.acquisitions`)."""

    # Protocol
    protocol: Protocol = "official"
    """``official``: the source's own test side; ``patient``: folds of whole people."""
    validation_share: float = 0.1
    """Share of the training rows held out to pick the epoch; 0 trains on all of them, to the last epoch."""
    selection: Literal["validation", "test"] = "validation"
    """Slices that pick the epoch. ``test`` is the practice of the report that this project follows: its figures
    are optimistic, and each is stamped with it."""
    train_rows: int = 0
    """Number of training slices drawn at random; 0 takes all. With ``seed`` 42 the report's own rows."""
    test_rows: int = 0
    """Number of test slices drawn at random; 0 takes all."""
    folds: int = 5
    """Number of folds of the patient protocol."""
    repeats: int = 1
    """How often the patient protocol draws its folds anew, so that figures hang less on one draw."""
    fold: int = 0
    """Fold of the patient protocol that is the test set, counted over all repeats."""
    group_by: str | None = None
    """Covariate, such as ``site``, of which the patient protocol keeps each value on one side of a fold, test or
    training; None keeps people apart alone."""

    # Provenance of the settings
    tuned_on: str | None = None
    """Data hash of the slices that these settings were chosen on, by a sweep or by hand; None where on none."""
    tuned_without: str | None = None
    """SHA-256 of the test slices that played no part in that choice (``Fold.tested``); None where all slices did. A
    figure of other slices of the same data is stamped optimistic."""

    # Machine
    seed: int = 0
    """Seed of weights, batches and splits."""
    precision: Precision = "auto"
    """``auto``: bf16 where the processor computes in it, else fp32; ``bf16``: also where it takes the processor
    several times as long; ``int8``: features of a frozen backbone in 8-bit integers, by engine ``openvino``."""
    engine: Engine = "torch"
    """Library that computes the features of a frozen backbone; ``openvino`` is an extra, faster on most laptops."""

    def __post_init__(self) -> None:
        for field, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, field, _coerce(field, kind, getattr(self, field)))
        _check_ranges(self)
        _check_provenance(self)
        _check_patient_model(self)
        _check_backbone(self)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed.

        Raises:
            ConfigError: A name is not a field, or a value is out of its range.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}{did_you_mean(name, known)}")
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Return the settings as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def to_toml(self) -> str:
        """Return the settings that differ from the defaults as TOML: a recipe for ``--recipe FILE``."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        values.pop("recipe")
        changed = {name: value for name, (value, default) in values.items() if value != default}
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in changed.items())

    @classmethod
    def from_dict(cls, settings: dict[str, Any], where: str = "settings") -> Self:
        """Build from a mapping of field names to values.

        Args:
            settings: Values by field name, ``recipe`` among them; fields that are missing have their defaults.
            where: What errors name as the source: a file or a recipe.

        Raises:
            ConfigError: A name is not a field, ``recipe`` is missing, or a value is out of its range.
        """
        if not isinstance(settings, dict) or "recipe" not in settings:
            raise ConfigError(f"{where}: expected settings with a recipe name")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise ConfigError(f"{where}: unknown setting {name!r}{did_you_mean(name, known)}")
        try:
            return cls(**settings)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Read the settings that :meth:`to_json` wrote.

        Raises:
            ConfigError: The file is missing or does not hold valid settings.
        """
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; a run's settings are expected there") from None
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: not readable as JSON ({error}); correct it, or train the run again"
            ) from error
        return cls.from_dict(settings, where=str(path))


def read_table(kind: type[Table], table: Any, where: str) -> Table:
    """Build a dataclass from a mapping of field names to values, such as a table of a TOML file.

    Args:
        kind: The dataclass.
        table: The values.
        where: What errors name as the source.

    Raises:
        ConfigError: A name is not a field, one without a default is missing, or a value is of the wrong type.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected settings, NAME = VALUE")
    fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            raise ConfigError(f"{where}: unknown setting {name!r}{did_you_mean(name, list(fields))}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in table]
    if missing:
        raise ConfigError(f"{where}: {' and '.join(missing)} missing; add what is missing")
    types = get_type_hints(kind)
    try:
        return kind(**{name: _coerce(name, types[name], value) for name, value in table.items()})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def parse_value(text: str) -> Any:
    """Return a setting's value as a user types it: JSON, and what is not JSON is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ``; did you mean …`` with the nearest known name, else the list of known names."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _coerce(field: str, kind: Any, value: Any) -> Any:
    """Return ``value`` as ``kind``, taking an int for a float and a list for a tuple."""
    origin = get_origin(kind)
    if origin is UnionType:
        return None if value is None else _coerce(field, get_args(kind)[0], value)
    if origin is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{field}: {value!r} is not one of {', '.join(get_args(kind))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or not value:
            of = "texts" if get_args(kind)[0] is str else "numbers"
            raise ConfigError(f"{field}: expected a list of {of}, not {value!r}")
        return tuple(_coerce(field, get_args(kind)[0], item) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise ConfigError(f"{field}: expected {kind.__name__}, not {value!r}")
    return value


MIN_CHANNELS = 8
"""Fewest channels of a convolution; torch's convolutions of fewer overwrite memory, which aborts the process."""
# name, lowest, highest; both ends are allowed
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("image_size", 32, 383),
    ("crop_share", 0.25, 1.0),
    ("stem_channels", MIN_CHANNELS, 1024),
    ("epochs", 1, 10_000),
    ("batch_size", 2, 4096),
    ("gradient_accumulation", 1, 1024),
    ("warmup_share", 0.0, 0.9),
    ("filter_learning_rate", 0.0, 10.0),
    ("learning_rate", 0.0, 10.0),
    ("weight_decay", 0.0, 10.0),
    ("label_smoothing", 0.0, 0.9),
    ("max_shift", 0, 64),
    ("validation_share", 0.0, 0.5),
    ("train_rows", 0, 10**9),
    ("test_rows", 0, 10**9),
    ("folds", 2, 100),
    ("repeats", 1, 100),
    ("fold", 0, 9999),
    ("seed", 0, 2**31 - 1),
)


def _check_ranges(config: TrainConfig) -> None:
    for name, low, high in _RANGES:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name}: {value} is out of range; give a number from {low:g} to {high:g}")
    if len(config.stage_channels) != len(config.stage_blocks):
        raise ConfigError(
            f"stage_channels has {len(config.stage_channels)} stages and stage_blocks has "
            f"{len(config.stage_blocks)}; give one number a stage in both"
        )
    for name, low in (("stage_channels", MIN_CHANNELS), ("stage_blocks", 1)):
        if min(getattr(config, name)) < low:
            raise ConfigError(f"{name}: {getattr(config, name)} has a number below {low}; give {low} or more")
    if config.fold >= config.folds * config.repeats:
        raise ConfigError(
            f"fold: {config.fold} is out of range; there are {config.folds * config.repeats} folds, from 0"
        )
    if config.group_by and config.protocol != "patient":
        raise ConfigError(f"group_by: {config.group_by} groups the folds of protocol patient; set protocol=patient")


_HASH = re.compile(r"[0-9a-f]{64}")


def _check_provenance(config: TrainConfig) -> None:
    for name in ("tuned_on", "tuned_without"):
        value = getattr(config, name)
        if value is not None and not _HASH.fullmatch(value):
            raise ConfigError(f"{name}: {value!r} is not a SHA-256 of 64 hexadecimal digits")
    if config.tuned_without and not config.tuned_on:
        raise ConfigError("tuned_without: needs tuned_on, the hash of the data that the settings were chosen on")


_OF_ANY_MODEL = (
    *("recipe", "model", "protocol", "validation_share", "train_rows", "test_rows"),
    *("folds", "repeats", "fold", "group_by", "tuned_on", "tuned_without", "seed"),
)


def _check_patient_model(config: TrainConfig) -> None:
    """Refuse settings of networks that the patient model does not use."""
    for field in dataclasses.fields(config) if config.model == "patient" else ():
        if field.name not in _OF_ANY_MODEL and getattr(config, field.name) != field.default:
            raise ConfigError(
                f"{field.name}: a setting of networks; the patient model has {', '.join(_OF_ANY_MODEL)}"
                "; leave it away"
            )


_FROM_SCRATCH = ("image_size", "crop_share", "stem_channels", "stage_channels", "stage_blocks", "downsample_first")


def _check_backbone(config: TrainConfig) -> None:
    """Refuse settings that a backbone, or a network without one, does not use."""
    if config.engine == "openvino" and not config.frozen:
        raise ConfigError(
            "engine: openvino computes the features of a frozen backbone only; take linear-probe or report"
        )
    if config.precision == "int8" and config.engine != "openvino":
        raise ConfigError("precision: int8 needs engine=openvino")
    if config.backbone is None:
        if config.frozen:
            raise ConfigError("frozen: there is no backbone to freeze; name one with backbone (--backbone)")
        return
    for field in dataclasses.fields(config):
        if field.name in _FROM_SCRATCH and getattr(config, field.name) != field.default:
            raise ConfigError(
                f"{field.name}: a backbone brings its own; take recipe linear-probe, fine-tune or report with it"
            )
    if config.frozen and (config.max_shift or config.mirror or config.augment != "none"):
        raise ConfigError("frozen: features are computed once, so set max_shift=0, mirror=false and augment=none")
