"""A page for each command, from the parser itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

FOLDER = "reference/commands"
GROUPS = {
    "Start": ("quickstart",),
    "Data": ("data example", "data fetch", "data describe", "data phantom", "data clear-slices", "audit"),
    "Scans and cohorts": ("scans", "extract", "prepare", "bids"),
    "Training": ("train", "cross-validate", "sweep", "compare-backbones", "compare-protocols", "study"),
    "Evaluation": ("evaluate", "compare", "validate"),
    "Use a model": ("predict", "explain", "export", "push", "serve"),
    "Pretrained backbones": ("models fetch", "models clear-features"),
}
"""What the index shows together; a command that no group names stands under "More"."""
READ_ON = {
    "audit": ("explanation/leakage", "explanation/patient-recovery"),
    "bids": ("how-to/bids-app", "how-to/clusters"),
    "compare-protocols": ("explanation/protocols", "explanation/leakage"),
    "cross-validate": ("explanation/protocols", "explanation/calibration", "how-to/covariates"),
    "evaluate": ("explanation/protocols", "reference/formats"),
    "explain": ("explanation/explanations",),
    "export": ("how-to/export",),
    "extract": ("how-to/heads", "explanation/skull-stripping"),
    "predict": ("start/first-answer", "explanation/calibration", "explanation/refusal"),
    "prepare": ("how-to/cohorts", "explanation/registration"),
    "push": ("how-to/publish", "explanation/data-statement"),
    "serve": ("how-to/serve",),
    "study": ("how-to/reproduce-the-report",),
    "sweep": ("how-to/sweeps",),
    "train": ("how-to/own-splits", "how-to/gpu", "reference/settings"),
    "validate": ("how-to/external-validation",),
}
"""Pages that say more about a command."""


def commands() -> dict[str, Any]:
    """Return every command by its full name, such as ``data fetch``."""
    from typer.main import get_command

    from brainstage.cli import app

    named: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        named |= {f"{name} {part}": sub for part, sub in inner.items()} if inner else {name: command}
    return named


def slug(name: str) -> str:
    """Return the name of a command's page."""
    return name.replace(" ", "-")


def pages() -> dict[str, str]:
    """Return the index of commands and a page for each: path below ``docs/``, Markdown."""
    named = commands()
    written = {f"{FOLDER}/{slug(name)}.md": _page(name, command) for name, command in named.items()}
    return {f"{FOLDER}/index.md": _index(named), **written}


def _index(named: dict[str, Any]) -> str:
    from brainstage.cli.shared import EXIT_CODES

    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "More": tuple(name for name in named if name not in grouped)}
    lines = ["# Commands", ""]
    lines += [
        "`brainstage --help` lists the commands; `brainstage COMMAND --help` shows what is here.",
        "",
    ]
    for title, names in groups.items():
        shown = [name for name in names if name in named]
        if shown:
            lines += [f"## {title}", "", "| command | what it does |", "| --- | --- |"]
            lines += [f"| [`{name}`]({slug(name)}.md) | {_sentence(named[name])} |" for name in shown]
            lines.append("")
    lines += [f"{EXIT_CODES} More: [exit codes](../exit-codes.md).", ""]
    lines += ["```{toctree}", ":hidden:", "", *(f"{name} <{slug(name)}>" for name in named), "```", ""]
    return "\n".join(lines)


def _sentence(command: Any) -> str:
    return _paragraphs(command.help)[0]


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in (text or "").split("\n\n")]


def _page(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"brainstage {name}")
    first, *more = _paragraphs(command.help)
    lines = [f"# brainstage {name}", "", first, ""]
    for paragraph in more:
        lines += [_text(paragraph), ""]
    usage = " ".join(["brainstage", name, *command.collect_usage_pieces(context)])
    lines += ["```text", re.sub("[{}]", "", usage), "```", ""]
    for paragraph in _paragraphs(command.epilog):
        lines += [*_epilog(paragraph), ""]
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    options = [part for part in command.params if part.param_type_name == "option"]
    for title, parts in (("Arguments", arguments), ("Options", options)):
        if parts:
            lines += [f"## {title}", "", *(line for part in parts for line in _parameter(part, context))]
    if name in READ_ON:
        # an empty text lets Sphinx write the title of the page
        lines += ["## Read on", "", *(f"- [](../../{page}.md)" for page in READ_ON[name]), ""]
    return "\n".join(lines)


def _epilog(paragraph: str) -> list[str]:
    title, _, rest = paragraph.partition(": ")
    if title != "Example":
        return [_text(paragraph)]
    example, comma, then = rest.partition(", then ")
    shown = ["```bash", example, "```"]
    return ["For example:", "", *shown, *(["", f"Then {_text(then)}."] if comma else [])]


def _parameter(parameter: Any, context: Any) -> Iterator[str]:
    record = parameter.get_help_record(context)
    if record:
        names, text = record
        text, _, facts = (text or "").partition("  [")
        yield f"`{names.strip()}`"
        yield f": {_text(text)}" + (f" *{facts.rstrip(']').replace('x>=', 'at least ')}.*" if facts else "")
        yield ""


def _text(text: str) -> str:
    """Return help as Markdown: what stands in backquotes stays code, all else is plain text."""
    parts = re.split(r"(`[^`]*`|https?://\S+)", " ".join(text.split()))
    return "".join(
        part if index % 2 else re.sub(r"([*_<>\[\]|])", r"\\\1", part) for index, part in enumerate(parts)
    )
