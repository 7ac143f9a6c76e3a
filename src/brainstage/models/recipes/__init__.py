"""Named recipes: one TOML file each, with the settings that differ from the defaults of ``TrainConfig``."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from brainstage.core.config import TrainConfig, did_you_mean
from brainstage.core.errors import ConfigError


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files(__package__).iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name: str, **changes: Any) -> TrainConfig:
    """Return the settings of a recipe, with some fields changed.

    Raises:
        ConfigError: There is no such recipe (the nearest name is suggested), or a change is not valid.
    """
    names = recipe_names()
    if name not in names:
        raise ConfigError(f"unknown recipe {name!r}{did_you_mean(name, names)}")
    settings = tomllib.loads((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))
    return TrainConfig.from_dict({"recipe": name, **settings}, where=f"recipe {name}").replace(**changes)
