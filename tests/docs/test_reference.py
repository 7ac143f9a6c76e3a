"""Nothing public is undocumented."""

import ast
import re

import pytest

import brainstage
from documentation import DOCS, ROOT

PAGE_NAME = r"[\"']((?:start|how-to|explanation|reference|benchmarks)/[\w/-]+)[\"']"
"""What ``docs_page`` is given in the sources."""
SOURCES = sorted((ROOT / "src" / "brainstage").rglob("*.py"))


def test_every_command_has_a_page_with_every_argument_and_option(site):
    from command_pages import FOLDER, GROUPS, READ_ON, commands, slug

    named = commands()
    assert {"train", "data fetch", "models fetch"} <= named.keys()
    index = (site / FOLDER / "index.md").read_text()
    for name, command in named.items():
        text = (site / FOLDER / f"{slug(name)}.md").read_text()
        assert text.startswith(f"# brainstage {name}\n")
        assert f"`{name}`" in index
        for parameter in command.params:
            for word in parameter.opts if parameter.param_type_name == "option" else ():
                assert word in text, f"{slug(name)}.md: {word} is missing"
    assert {name for names in GROUPS.values() for name in names} | set(READ_ON) <= set(named)


def test_every_public_name_has_its_entry():
    pages = "\n".join(path.read_text() for path in (DOCS / "reference" / "api").glob("*.md"))
    documented = re.findall(r"^\.\. auto(?:class|function|exception):: brainstage\.(\w+)$", pages, re.MULTILINE)
    assert sorted(documented) == sorted(brainstage.__all__)


def test_entries_of_other_types_exist():
    from importlib import import_module

    page = (DOCS / "reference" / "api" / "types.md").read_text()
    names = re.findall(r"^\.\. auto\w+:: (brainstage\.[\w.]+)\.(\w+)$", page, re.MULTILINE)
    assert len(names) > 10
    for module, name in names:
        assert hasattr(import_module(module), name)


def test_every_setting_says_what_it_does(site):
    from dataclasses import fields

    from brainstage import TrainConfig
    from brainstage.models.recipes import recipe_names
    from setting_pages import documented

    texts = documented()
    assert list(texts) == [field.name for field in fields(TrainConfig)]
    assert [name for name, (_, text) in texts.items() if not text] == []
    page = (site / "reference" / "settings.md").read_text()
    for name in (*texts, *recipe_names()):
        assert name in page


def test_every_environment_variable_is_documented():
    code = "".join(file.read_text(encoding="utf-8") for file in SOURCES)
    read = set(re.findall(r"BRAINSTAGE_[A-Z_]+", code))
    page = (DOCS / "reference" / "environment.md").read_text()
    assert {"BRAINSTAGE_DATA", "BRAINSTAGE_CACHE"} <= read
    assert {name for name in read if f"`{name}`" not in page} == set()


def test_every_exit_code_is_documented():
    from brainstage.cli.bids import BidsExitCode
    from brainstage.cli.shared import ExitCode

    page = (DOCS / "reference" / "exit-codes.md").read_text()
    for code in (*ExitCode, *BidsExitCode):
        assert f"| {int(code)} |" in page


def test_every_address_and_problem_of_the_api_is_documented(site):
    from brainstage.serve.problems import TITLES
    from http_pages import schema

    page = (site / "reference" / "http-api.md").read_text()
    for path, methods in schema()["paths"].items():
        for method in methods:
            assert f"## {method.upper()} {path}\n" in page
    assert [code for code in TITLES if f"`{code}`" not in page] == []


def test_every_public_error_is_explained():
    page = (DOCS / "reference" / "errors.md").read_text()
    for name in brainstage.__all__:
        if name.endswith("Error"):
            assert f"brainstage.{name}`" in page


def test_every_bundled_model_has_its_card(site):
    from brainstage.models.weights import BUNDLED

    for name in BUNDLED:
        assert "never a diagnosis" in (site / "reference" / "model-cards" / f"{name}.md").read_text()


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_pages_that_the_program_names_exist(file):
    for name in re.findall(PAGE_NAME, file.read_text(encoding="utf-8")):
        assert (DOCS / f"{name}.md").is_file(), f"{file.name}: {name}"


def test_tutorials_are_listed_and_use_what_there_is():
    from importlib import import_module

    from reference_pages import TUTORIALS

    files = sorted((DOCS / "examples").glob("*.py"))
    assert {file.name for file in files} == set(TUTORIALS)
    for file in files:
        tree = ast.parse(file.read_text())
        assert (ast.get_docstring(tree) or "").count("\n=====") == 1
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("brainstage"):
                for alias in node.names:
                    assert hasattr(import_module(node.module), alias.name), f"{file.name}: {alias.name}"
