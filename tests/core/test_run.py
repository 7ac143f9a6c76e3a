import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainstage.core.errors import ConfigError, RunError
from brainstage.core.files import atomic, sha256, write_json
from brainstage.core.run import RunFolder


@pytest.mark.parametrize(
    "name", ["", "..", "../evil", "/tmp/evil", "a/b", "a\\b", ".hidden", "x" * 101, "a b", "a\0b"]
)
def test_a_run_name_never_becomes_a_path(name):
    with pytest.raises(ConfigError, match="not usable"):
        RunFolder.named(name)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "metrics.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic(target) as part:
        part.write_text("half")
        raise RuntimeError("killed")
    assert json.loads(target.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path):
    pytest.importorskip("resource")
    target = tmp_path / "metrics.json"
    write_json(target, {"a": 1})
    code = (
        "import resource, sys, signal\n"
        "from pathlib import Path\n"
        "from brainstage.core.errors import RunError\n"
        "from brainstage.core.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 100_000)\n"
        "except RunError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert "not written" in done.stdout
    assert "free some space" in done.stdout
    assert json.loads(target.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_second_process_is_turned_away(tmp_path):
    run = RunFolder(tmp_path)
    code = (
        "from brainstage.core.run import RunFolder, RunError\n"
        "def enter():\n"
        f"    try:\n        with RunFolder({str(tmp_path)!r}).lock(): return 'in'\n"
        "    except RunError as error: return error\n"
        "print(enter(), flush=True)\n"
        "input()\n"
        "print(enter(), flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
        with run.lock():
            assert "another process is training this run" in second.stdout.readline()
        print(file=second.stdin, flush=True)
        assert second.stdout.readline() == "in\n"


def test_a_run_folder_is_a_path(tmp_path):
    run = RunFolder(tmp_path / "a")
    assert os.fspath(run) == str(tmp_path / "a")
    assert RunFolder(run).path == Path(run) == run.path


def test_hidden_folders_are_not_in_the_manifest(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("model/a.json", ".model.x/model/a.json", "folds/00/manifest.json", "folds/00/model/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    run.write_manifest({"protocol": "official"})
    assert set(run.read_manifest()["files"]) == {"model/a.json", "folds/00/manifest.json"}
    run.manifest.write_text("[")
    with pytest.raises(RunError, match=r"manifest.json: not readable as JSON"):
        RunFolder.open(run)


def test_a_run_that_is_missing_or_unfinished_is_told(tmp_path):
    with pytest.raises(RunError, match="no such run"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunError, match="not finished; repeat the command that began it with --resume"):
        RunFolder.open(tmp_path)


def test_a_run_cannot_be_made_where_a_file_is(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="cannot make this folder"):
        RunFolder.named("a", tmp_path / "runs").create()


def test_the_manifest_holds_the_hash_of_every_file(trained):
    files = json.loads(trained.manifest.read_text())["files"]
    assert {"train_config.json", "splits.json", "history.jsonl", "predictions.parquet"} <= set(files)
    assert "model/model.safetensors" in files
    for name, expected in files.items():
        assert sha256(trained.path / name) == expected
