"""What surrounds the package says the same everywhere: addresses, versions, extras, commands that install it."""

import importlib.util
import re
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import brainstage
from brainstage.core.links import DOCS_URL, PROJECT_URL, docs_page

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def _text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def _instructions():
    """Yield each file that tells people what to type."""
    for folder, pattern in (("src", "*.py"), ("docs", "*.md"), (".github", "*.yml"), ("tools", "*.py")):
        yield from (ROOT / folder).rglob(pattern)
    yield ROOT / "README.md"


@pytest.fixture(scope="module")
def smoke_test():
    specification = importlib.util.spec_from_file_location("smoke_test", ROOT / "tools" / "smoke_test.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_addresses_of_the_package_are_those_that_the_program_names():
    urls = PROJECT["urls"]
    assert urls["Homepage"] == urls["Source"] == PROJECT_URL
    assert urls["Issues"] == f"{PROJECT_URL}/issues"
    assert urls["Documentation"] == DOCS_URL
    assert urls["Changelog"] == docs_page("changelog")
    configuration = yaml.safe_load(_text(".github/ISSUE_TEMPLATE/config.yml"))
    assert all(link["url"].startswith(PROJECT_URL) for link in configuration["contact_links"])
    assert DOCS_URL in _text(".github/ISSUE_TEMPLATE/question.yml")


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(_text("CITATION.cff"))
    assert citation["version"] == PROJECT["version"] == brainstage.__version__
    assert (citation["repository-code"], citation["url"]) == (PROJECT_URL, DOCS_URL)
    assert (citation["abstract"], citation["keywords"]) == (PROJECT["description"], PROJECT["keywords"])
    assert [author["name"] for author in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]


def test_public_ci_tries_each_python_that_the_package_names():
    minors = [name.rsplit(" ", 1)[1] for name in PROJECT["classifiers"] if "Python :: 3." in name]
    jobs = yaml.safe_load(_text(".github/workflows/ci.yml"))["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == minors
    assert jobs["others"]["strategy"]["matrix"]["python"] == [minors[0], minors[-1]]
    assert PROJECT["requires-python"] == f">={minors[0]}"


def test_actions_of_public_ci_are_pinned_and_may_only_read():
    workflow = yaml.safe_load(_text(".github/workflows/ci.yml"))
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(
    "file", ["README.md", "Makefile", "Dockerfile", "brainstage.def", ".readthedocs.yaml", "tools/smoke_test.py"]
)
def test_the_same_torch_is_installed_everywhere(file):
    [version] = re.findall(r"^TORCH_VERSION \?= (\S+)$", _text("Makefile"), re.MULTILINE)
    found = re.findall(r'(?:torch==|TORCH_VERSION \?= |cpu |cpu", ")(\d+\.\d+\.\d+)', _text(file))
    assert found and set(found) == {version}


def test_both_images_run_the_same_commands_and_start_brainstage():
    install = r"python -m pip install .*?(?= \\|$)"
    commands = re.findall(install, _text("Dockerfile"), re.MULTILINE)
    assert commands == re.findall(install, _text("brainstage.def"), re.MULTILINE)
    assert [command.split()[-1] for command in commands][-1] == '"/opt/brainstage[all]"'
    assert re.findall(r"^FROM (\S+)$", _text("Dockerfile"), re.MULTILINE) == re.findall(
        r"^From: (\S+)$", _text("brainstage.def"), re.MULTILINE
    )
    assert 'ENTRYPOINT ["brainstage"]' in _text("Dockerfile")
    assert 'exec brainstage "$@"' in _text("brainstage.def")


def test_extras_are_quoted_as_every_shell_takes_it_and_exist():
    named = set()
    for file in _instructions():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"pip install\s+'|'brainstage\[", text), f"{file}: cmd does not know single quotes"
        named |= {
            extra for group in re.findall(r'"(?:brainstage|\.)\[([\w,]+)\]"', text) for extra in group.split(",")
        }
    assert {"heads", "serve", "all"} <= named <= set(EXTRAS)


def test_all_holds_what_users_need():
    [requirement] = EXTRAS["all"]
    members = set(re.fullmatch(r"brainstage\[([\w,]+)\]", requirement)[1].split(","))
    assert set(EXTRAS) - members == {"all", "postgres", "tensorboard", "openvino", "docs", "dev", "bench"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda names: names | {"tests/conftest.py"}, "tests/conftest.py .* should not be shipped"),
        (lambda names: names | {"brainstage/scan.jpg"}, "brainstage/scan.jpg .* should not be shipped"),
        (lambda names: names - {"brainstage/py.typed"}, "lacks brainstage/py.typed"),
        (lambda names: names, None),
    ],
)
def test_a_wheel_that_holds_too_much_or_too_little_is_found(tmp_path, smoke_test, change, says):
    names = smoke_test.package_files() | {f"brainstage-1.dist-info/{name}" for name in smoke_test.METADATA}
    wheel = tmp_path / "brainstage-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in change(names):
            archive.writestr(name, b"")
    if says is None:
        smoke_test.check_wheel(wheel)
        return
    with pytest.raises(SystemExit, match=says):
        smoke_test.check_wheel(wheel)


def test_a_wheel_that_grew_too_large_is_found(tmp_path, smoke_test, monkeypatch):
    (tmp_path / "brainstage-1-py3-none-any.whl").write_bytes(bytes(100))
    monkeypatch.setattr(smoke_test, "MAX_WHEEL_BYTES", 100)
    with pytest.raises(SystemExit, match="100 bytes, expected less than 100"):
        smoke_test.check_wheel(tmp_path / "brainstage-1-py3-none-any.whl")
