"""Every command in the documentation is one that the program takes; those of the first pages are run."""

import ast
import re
import shlex
from dataclasses import fields
from importlib import import_module
from itertools import pairwise

import pytest

from documentation import DOCS, ROOT
from helpers import run_cli

BLOCK = re.compile(
    r"(?:<!-- skip: (?P<reason>[^>]+?) -->\s*\n)?"
    r"^(?P<fence>`{3,})(?P<language>[\w{} -]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("bash", "", "{code-block} bash", "powershell")
WRITTEN = [path for path in DOCS.rglob("*.md") if not {"_build", "commands", "benchmarks"} & set(path.parts)]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(WRITTEN)]
RUN = [ROOT / "README.md", *(DOCS / "start" / name for name in ("install.md", "first-answer.md"))]
"""Pages whose blocks are run, but for those that say why not: ``<!-- skip: reason -->`` above them."""


def blocks(page, *languages):
    """Return the blocks of a page: the reason why it is not run, if any, and its lines, continued ones joined."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["language"].strip() in languages:
            yield match["reason"], match["body"].replace("\\\n", " ").splitlines()


def words_of(line):
    """Return the words of a command that the program gets, or nothing where the line is none."""
    command = re.match(r"\s*brainstage ([\w-].*)", line)
    if command is None:
        return []
    simple = re.split(r"\s[|>&;]|\s#\s|;", command[1])[0]
    return [word for word in shlex.split(simple, comments=True) if word != "…"]


def wrong(words):
    """Return what the parser has against a command, or nothing."""
    from typer.main import get_command

    from brainstage.cli import app
    from brainstage.cli.shared import USAGE_ERROR
    from brainstage.core.config import TrainConfig

    command, name = get_command(app), "brainstage"
    while words and words[0] in getattr(command, "commands", {}):
        command, name, words = command.commands[words[0]], words[0], words[1:]
    if hasattr(command, "commands"):
        return "" if not words or words[0].startswith("-") else f"no command {words[0]}"
    if not {"--help", "-h"} & set(words):
        try:
            command.make_context(name, list(words))
        except USAGE_ERROR as error:
            if "does not exist" not in error.format_message():  # a file that the reader has
                return error.format_message()
    settings = {field.name for field in fields(TrainConfig)}
    for option, value in pairwise(words):
        if option in ("--set", "--vary") and value.split("=")[0] not in settings:
            return f"no setting {value}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_that_the_program_takes(page):
    lines = [line for _, body in blocks(page, *SHELL) for line in body]
    assert {line: wrong(words_of(line)) for line in lines if words_of(line) and wrong(words_of(line))} == {}


def test_a_wrong_command_is_noticed():
    assert wrong(words_of("brainstage train --recipe compact --data scans/   # trains")) == ""
    assert wrong(words_of("brainstage predict scan.nii.gz --splits none.json")) != ""
    assert wrong(words_of("brainstage train --splits none.json")) == ""
    assert "--recipes" in wrong(words_of("brainstage train --recipes compact"))
    assert wrong(words_of("brainstage data fetched")) == "no command fetched"
    assert wrong(words_of("brainstage train --recipe compacter")) != ""
    assert wrong(words_of("brainstage train --set epoch=2")) == "no setting epoch=2"
    assert "patent" in wrong(words_of("brainstage train --protocol patent"))


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_blocks_of_the_first_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAINSTAGE_DATA", raising=False)
    ran, printed = 0, ""
    for reason, lines in blocks(page, *SHELL):
        for line in () if reason else filter(str.strip, lines):
            words = words_of(line)
            assert words, f"{line!r}: no command of the program; say why it is not run: <!-- skip: reason -->"
            outcome = run_cli(*words)
            assert outcome.code == 0, f"{line}: {outcome.err}"
            ran, printed = ran + 1, printed + outcome.out
    printed = "\n".join(map(str.rstrip, printed.splitlines()))
    for _, lines in blocks(page, "text"):
        assert "\n".join(lines).strip() in printed
    for reason, lines in blocks(page, "python"):
        if not reason:
            exec(compile("\n".join(lines), page.name, "exec"), {"__name__": page.stem})  # noqa: S102
            ran += 1
    assert ran


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_import_what_there_is(page):
    for _, lines in blocks(page, "python"):
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("brainstage"):
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
