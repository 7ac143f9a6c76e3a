"""How a model is made, in the sentences of a checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage.core.config import TrainConfig
from brainstage.core.levels import BRAIN
from brainstage.evaluation.patients import MEAN_OF_SLICES
from brainstage.report.pages import plain

_OF_ALL_NETWORKS = (
    *("epochs", "batch_size", "gradient_accumulation", "optimizer", "schedule", "warmup_share", "learning_rate"),
    *("weight_decay", "label_smoothing", "max_shift", "mirror", "augment", "precision"),
)
OF_NEW_NETWORKS = (
    *("image_size", "crop_share", "stem_channels", "stage_channels", "stage_blocks", "downsample_first"),
    "filter_learning_rate",
)
"""Settings of a network that is trained from scratch alone, beside those of all."""
_FOCAL = (
    "Inside each fold its training people alone choose, by inner cross-validation, whether half of the weight goes "
    "to the features that are correlated with the stage."
)


@dataclass(frozen=True)
class Method:
    """How a model is made, in sentences.

    Attributes:
        kind: What kind of model it is.
        input: What is done to a slice before the model sees it.
        start: What training starts from.
        settings: The settings.
        selection: What was chosen, and on whom.
        output: From the slices of a person to an answer.
    """

    kind: str
    input: str
    start: str
    settings: str
    selection: str
    output: str


def describe_method(config: TrainConfig, manifest: Mapping[str, Any], aggregation: str) -> Method:
    """Return how the model of a run is made.

    Args:
        config: The run's settings.
        manifest: The run's manifest.
        aggregation: How a network's predictions of slices become one of a person.
    """
    tuned = _tuned(config, manifest)
    if config.model == "patient":
        chosen = _FOCAL if manifest.get("levels") == BRAIN.name else "Nothing is chosen inside a fold."
        return Method(
            kind=(
                "A linear model of a person's slices: histograms of edge directions by place and level and of "
                "grey values by level, ridge regression, proportional odds"
            ),
            input=(
                "Pictures become grey, 8 bits a pixel, and are scaled to 128×128 pixels. The model sees the square "
                "roots of histograms of eight edge directions in cells of 16×16 pixels, edges measured in the grey "
                "value of the white matter, and of 24 grey values in the whole slice. A few missing levels between "
                "given ones are filled from their neighbours; any other that a training person lacks gets the mean "
                "of the others."
            ),
            start="There are no initial weights: each part is the solution of a convex problem.",
            settings=(
                "It is fitted to several simulated acquisitions of each person. Its settings, and the seeds of the "
                "acquisitions, are fixed by the version of brainstage."
            ),
            selection=f"{chosen} {tuned}".strip(),
            output=(
                "A person's slices are predicted together, in several simulated acquisitions whose mean counts: a "
                f"probability of each stage. {_ANSWER}"
            ),
        )
    return Method(
        kind=_kind_of_network(config),
        input=f"Pictures become grey, 8 bits a pixel. {_input_of_network(config)}",
        start=_start_of_network(config, manifest),
        settings=_listed(config, _OF_ALL_NETWORKS if config.backbone else OF_NEW_NETWORKS + _OF_ALL_NETWORKS),
        selection=f"{_selection(config)} {tuned}".strip(),
        output=f"The probability of each stage is, of a person, the {aggregation}. {_ANSWER}",
    )


def unknown_method(recipe: str) -> Method:
    """Return what can be said of a model whose settings are not at hand, as of one that was exported."""
    author = "**for the author:** the run that it was exported from says it."
    return Method(
        kind=f"A network (deep learning) of recipe {plain(recipe)}",
        input="Pictures become grey, 8 bits a pixel; `model/preprocessor_config.json` says what follows.",
        start=author,
        settings=author,
        selection=author,
        output=f"The probability of each stage is, of a person, the {MEAN_OF_SLICES}. {_ANSWER}",
    )


_ANSWER = "The 90 % set holds the stages that are not ruled out; the answer in one word is the most probable stage."


def _tuned(config: TrainConfig, manifest: Mapping[str, Any]) -> str:
    """Return what the recipe's settings were chosen on, and what that does to the figures."""
    if config.tuned_on is None:
        return ""
    same = config.tuned_on == manifest.get("data_hash")
    on = "the very data that it is fitted to" if same else f"other data (hash {config.tuned_on[:12]}…)"
    optimistic = f" The figures are optimistic: {manifest['optimistic']}." if manifest.get("optimistic") else ""
    return f"The recipe's settings were chosen on {on}.{optimistic}"


def _selection(config: TrainConfig) -> str:
    """Return how the epoch is picked."""
    if config.selection == "test":
        return "The epoch was picked on the model's own test people, so their figures are optimistic."
    if not config.validation_share:
        return "Nothing is chosen inside a fold: the last epoch is kept."
    return "Of each fold the epoch with the highest accuracy on its tuning people is kept, the first of equals."


def backbone_name(name: str) -> str:
    """Return a backbone's name; of a folder its last part, since a path tells of its owner."""
    is_path = Path(name).is_absolute() or Path(name).is_dir() or name.startswith((".", "~"))
    return Path(name).name if is_path else name


def _backbone(config: TrainConfig) -> str:
    return f"`{plain(backbone_name(str(config.backbone)))}`"


def _kind_of_network(config: TrainConfig) -> str:
    if not config.backbone:
        return "A small residual convolutional network (deep learning), trained from scratch on single slices"
    trained = "a new head is trained" if config.frozen else "all weights are trained further"
    return f"The pretrained network {_backbone(config)} (deep learning), of which {trained} on single slices"


def _input_of_network(config: TrainConfig) -> str:
    if config.backbone:
        return f"What follows is the image processor of {_backbone(config)}."
    return (
        f"The middle square, {config.crop_share:g} of the shorter side, is scaled to {config.image_size}×"
        f"{config.image_size} pixels; mean and standard deviation of the fold's training slices become 0 and 1."
    )


def _start_of_network(config: TrainConfig, manifest: Mapping[str, Any]) -> str:
    if not config.backbone:
        return f"Random weights, as transformers draws them (seed {config.seed})."
    weights = manifest.get("backbone", {}).get("weights")
    named = f" (SHA-256 {weights})" if weights else ""
    return (
        f"The weights of {_backbone(config)}{named}; a head for other classes is drawn anew (seed {config.seed})."
    )


def _listed(config: TrainConfig, names: Sequence[str]) -> str:
    """Return settings with their values."""
    values = {name: getattr(config, name) for name in names}
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return ", ".join(f"`{name}` {value}" for name, value in shown.items()) + "; all are in `train_config.json`."
