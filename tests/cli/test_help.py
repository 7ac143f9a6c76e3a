import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from helpers import run_cli

GOLDEN = Path(__file__).parents[1] / "golden"
GROUPS = [[], ["data"], ["models"]]
COMMANDS = [
    *GROUPS,
    *(["data", name] for name in ("fetch", "describe", "phantom", "example", "clear-slices")),
    *(["models", name] for name in ("fetch", "clear-features")),
    *([name] for name in ("quickstart", "train", "cross-validate", "evaluate")),
    *([name] for name in ("compare", "compare-backbones", "compare-protocols", "sweep", "study")),
    *([name] for name in ("scans", "prepare", "validate", "bids", "audit")),
    *([name] for name in ("predict", "explain", "export", "extract", "serve", "push")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "brainstage")
def test_help_is_golden_and_has_an_example(command):
    """Remake with BRAINSTAGE_GOLDEN=1."""
    code, out, err = run_cli(*command, "--help")
    golden = GOLDEN / f"help-{'-'.join(command) or 'brainstage'}.txt"
    if os.environ.get("BRAINSTAGE_GOLDEN"):
        golden.write_text(out)
    assert (code, err) == (0, "")
    assert out == golden.read_text()
    assert "Example: brainstage" in out or command in GROUPS


def test_every_command_has_its_golden_help():
    from typer.main import get_command

    from brainstage.cli import app

    names = set()
    for name, command in get_command(app).commands.items():
        names |= {f"{name}-{inner}" for inner in getattr(command, "commands", ())} | {name}
    assert {file.stem.removeprefix("help-") for file in GOLDEN.glob("help-*.txt")} == names | {"brainstage"}


def test_the_list_of_commands_says_in_a_whole_sentence_what_each_does():
    for group in GROUPS:
        _, out, _ = run_cli(*group, "--help")
        commands = out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
        assert commands and all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_help_and_version_do_without_torch():
    """In a process of its own: this one has imported it."""
    code = (
        "import sys\nfrom brainstage.cli import main\n"
        "for words in (['--version'], ['train', '--help'], ['train', '--protocol', 'patent']):\n"
        "    sys.argv = ['brainstage', *words]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        print('code', end.code)\n"
        "print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )
    lines = subprocess.check_output([sys.executable, "-c", code], text=True, stderr=subprocess.DEVNULL).splitlines()
    assert [line for line in lines if line.startswith("code")] == ["code 0", "code 0", "code 2"]
    assert lines[0] == "0.1.0"
    assert lines[-1] == "[]"


def test_the_python_api_is_whole():
    import brainstage
    from brainstage.studies.study import run_study  # imports the modules train, sweep, compare and evaluate

    for name in brainstage.__all__:
        assert not isinstance(getattr(brainstage, name), types.ModuleType)
    assert brainstage.run_study is run_study
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        brainstage.nothing  # noqa: B018
