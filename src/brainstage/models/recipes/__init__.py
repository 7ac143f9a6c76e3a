"""Recipes: a TOML file each, with the settings that differ from the defaults of ``TrainConfig``."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from brainstage.core.config import TrainConfig, did_you_mean
from brainstage.core.errors import ConfigError
from brainstage.core.run import StrPath, check_name

_SUFFIX = ".toml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(_SUFFIX) for entry in files(__package__).iterdir() if entry.name.endswith(_SUFFIX)
    )


def is_recipe(name: StrPath) -> bool:
    """Return whether a name is that of a bundled recipe or of a recipe file."""
    return os.fspath(name).endswith(_SUFFIX) or name in recipe_names()


def load_recipe(name: StrPath, **changes: Any) -> TrainConfig:
    """Return the settings of a recipe, with some fields changed.

    Args:
        name: Name of a bundled recipe, or a TOML file, ``my.toml``, whose name without the ending becomes the
            recipe's.
        changes: Values by field name.

    Raises:
        ConfigError: There is no such recipe (the nearest name is suggested), the file is not readable, or a setting
            is not valid; the message names the file and the field.
    """
    names = recipe_names()
    path = Path(name)
    if path.suffix == _SUFFIX:
        recipe, where = check_name(path.stem, f"{path}: recipe name"), str(path)
        settings = _read(path)
    elif name in names:
        recipe, where = str(name), f"recipe {name}"
        settings = tomllib.loads((files(__package__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))
    else:
        raise ConfigError(
            f"unknown recipe {os.fspath(name)!r}{did_you_mean(os.fspath(name), names)}; or name a file, my.toml"
        )
    if "recipe" in settings:
        raise ConfigError(f"{where}: recipe is the file's name; remove this setting")
    return TrainConfig.from_dict({"recipe": recipe, **settings}, where=where).replace(**changes)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe file; check the path") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as TOML ({error}); correct it") from error
