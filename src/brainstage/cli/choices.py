"""Options with a closed set of values: one check, one form of message, exit code 2."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, get_args

import typer

from brainstage.core.config import Protocol
from brainstage.core.schema import SPLIT_NAMES

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
RECIPES = (
    "Named settings, or a TOML file with your own. From scratch: compact, compact-fast, compact-best; patient: a "
    "person's slices together. With a pretrained backbone: linear-probe, fine-tune, report."
)


def choice(flag: str, allowed: Sequence[str], text: str) -> Any:
    """Return an option that takes one of some values.

    Args:
        flag: The option as it is typed.
        allowed: The values.
        text: Its help.
    """
    return typer.Option(
        flag,
        parser=partial(_check, allowed=allowed),
        metavar=f"<{'|'.join(allowed)}>",
        autocompletion=lambda: list(allowed),
        help=text,
    )


def _check(value: str, allowed: Sequence[str], also: str = "") -> str:
    """Return a value that is one of those allowed; ``also`` names in the message what else is accepted."""
    if value in allowed:
        return value
    nearest = get_close_matches(value, allowed, n=1)
    suggestion = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}{also}{suggestion}")


def _check_recipe(value: str) -> str:
    """Return the name of a recipe, or that of a TOML file, which is checked when it is read."""
    from brainstage.models.recipes import recipe_names

    return value if value.endswith(".toml") else _check(value, recipe_names(), " or a .toml file")


def _check_tracker(value: str) -> str:
    """Return the name of a tracker that is installed; the names are those of ``transformers``."""
    from brainstage.training.tracking import TRACKERS, check_installed

    check_installed(_check(value, TRACKERS))
    return value


def recipe_option(text: str = RECIPES) -> Any:
    """Return the option ``--recipe``: a recipe's name, or a TOML file."""
    return typer.Option("--recipe", parser=_check_recipe, metavar="<name|file.toml>", help=text)


Recipe = Annotated[str, recipe_option()]
ProtocolOption = Annotated[
    str | None, choice("--protocol", PROTOCOLS, "patient keeps each person's slices on one side.")
]
TableProtocol = Annotated[
    str | None, choice("--protocol", PROTOCOLS, "Protocol of a table that does not name its own.")
]
Split = Annotated[str, choice("--split", SPLIT_NAMES, "Side to evaluate.")]
SharedSplit = Annotated[
    str | None,
    choice("--split", SPLIT_NAMES, "Side to compare on; without it validation where all runs have one, else test."),
]
Level = Annotated[str, choice("--level", ("slice", "patient"), "Score each slice, or each person.")]
Tracker = Annotated[
    str | None,
    typer.Option(
        "--track",
        parser=_check_tracker,
        metavar="<tracker>",
        help="Tracker that you have installed and that gets the figures of each epoch too: tensorboard writes into "
        "the run's folder; mlflow, trackio, wandb and others go by their own settings, and may send the figures to "
        "another machine.",
    ),
]
Method = Annotated[
    str | None,
    choice(
        "--method",
        ("contributions", "grad-cam", "integrated-gradients", "occlusion"),
        "How pixels are attributed; without it the method that suits the model.",
    ),
]
Format = Annotated[str, choice("--to", ("onnx",), "Format of the export.")]

Skull = Annotated[
    Any,
    choice("--skull", ("auto", "strip", "stripped"), "auto looks whether a skull is there; stripped says none is."),
]
