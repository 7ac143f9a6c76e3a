"""The page of settings, from :class:`brainstage.TrainConfig` and the recipes that come with the package."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from typing import Any, get_args, get_origin


def pages() -> dict[str, str]:
    """Return the page of settings: path below ``docs/``, Markdown."""
    return {"reference/settings.md": "\n".join([*_introduction(), *_settings(), *_recipes()]) + "\n"}


def documented() -> dict[str, tuple[str, str]]:
    """Return of each setting the section that it stands in and what its docstring says."""
    from brainstage.core.config import TrainConfig

    source = inspect.getsource(TrainConfig)
    lines = source.splitlines()
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    texts: dict[str, tuple[str, str]] = {}
    section, last_line, name = "Recipe", 0, ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comments = [line.strip()[2:] for line in lines[last_line : node.lineno - 1] if line.strip()[:2] == "# "]
            section = comments[0] if comments else section
            name, texts[node.target.id] = node.target.id, (section, "")
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            texts[name] = (section, " ".join(str(node.value.value).split()))
        last_line = node.end_lineno or 0
    return texts


def _introduction() -> list[str]:
    return [
        "# Settings",
        "",
        "Every setting of a training: what a [recipe](#recipes) file may hold, what `--set FIELD=VALUE` takes, and",
        "what a run keeps in `train_config.json`. In Python they are the fields of",
        "{py:class}`brainstage.TrainConfig`.",
        "",
        "```bash",
        "brainstage train --recipe compact --set epochs=20 --set mirror=true",
        "```",
        "",
        "A wrong name or value ends the command before anything is read, and the sentence names the field and its",
        "range.",
        "",
    ]


def _settings() -> list[str]:
    from brainstage.core.config import _RANGES, TrainConfig

    hints = inspect.get_annotations(TrainConfig, eval_str=True)
    ranges = {name: f"{low:g} to {high:g}" for name, low, high in _RANGES}
    lines, shown = [], None
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name, (section, text) in documented().items():
        if section != shown:
            lines += [f"## {section}", ""]
            shown = section
        default = defaults[name]
        facts = [_kind(hints[name]), ranges.get(name, "")]
        facts.append("no default" if default in (dataclasses.MISSING, None) else f"default `{json.dumps(default)}`")
        lines += [f"`{name}`", f": {_markdown(text)} *{', '.join(fact for fact in facts if fact)}.*", ""]
    return lines


def _kind(hint: Any) -> str:
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return f"list of {'texts' if arguments[0] is str else 'whole numbers'}"
    if type(None) in arguments:
        return f"{_kind(arguments[0])} or none"
    if arguments:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[hint]


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace(":mod:", "").replace(":class:", "")


def _recipes() -> list[str]:
    from brainstage.models.recipes import load_recipe, recipe_names

    introduction = "A recipe is a TOML file with the settings that differ from the defaults. The package has these:"
    lines = ["## Recipes", "", introduction, ""]
    for name in recipe_names():
        lines += [f"### {name}", "", "```toml", load_recipe(name).to_toml().strip(), "```", ""]
    own = "Your own goes into a file: [write your own recipe](../tutorials/your_own_recipe.rst)."
    return [*lines, own, ""]
