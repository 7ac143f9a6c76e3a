"""The package is laid out as docs/reference/architecture.md says, and its public functions are documented."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import brainstage

ROOT = Path(brainstage.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "architecture.md"
FUNCTIONS = [
    (file, node)
    for file in sorted(ROOT.rglob("*.py"))
    if file.parent.name != "cli"  # parameters of commands are documented by their help
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
]


def test_the_root_holds_nothing_but_rooms():
    assert sorted(file.name for file in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]


def test_a_public_function_is_never_hidden_by_a_room():
    """``import brainstage.training`` sets the attribute ``training``: no function may have such a name."""
    rooms = {module.name for module in pkgutil.iter_modules([str(ROOT)])}
    assert not rooms & set(brainstage.__all__)
    importlib.import_module("brainstage.evaluation.comparison")
    from brainstage import compare

    assert callable(compare)


def test_each_question_of_the_page_is_answered_by_a_file():
    files = re.findall(r"\| `([\w/]+\.py)` \|", PAGE.read_text(encoding="utf-8"))
    assert len(files) >= 20
    assert [file for file in files if not (ROOT / file).is_file()] == []


def _parameters(node):
    names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("file", sorted({file for file, _ in FUNCTIONS}), ids=lambda file: file.stem)
def test_parameters_of_public_functions_are_documented(file):
    lacking = [
        f"{file.name}:{node.lineno} {node.name}"
        for where, node in FUNCTIONS
        if where == file
        and len(_parameters(node)) >= 3
        and not node.name.startswith("on_")  # callbacks of Trainer, documented by transformers
        and "Args:" not in (ast.get_docstring(node) or "")
    ]
    assert lacking == []
