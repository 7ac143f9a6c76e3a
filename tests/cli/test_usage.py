"""What the command line says to a mistyped command and to input that cannot be used, and with which exit code."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.cli.shared import ExitCode, typed_command, warn
from brainstage.core.progress import silent
from brainstage.datasets.sources import load_slices
from brainstage.evaluation.slices import evaluate
from brainstage.training.tracking import TRACKERS
from brainstage.training.train import train
from helpers import encode, picture, run_cli


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--no-such-option"], "No such option"),
        (["train", "--seed", "many"], "Invalid value for '--seed'"),
        (["train", "--set", "epochs"], "Invalid value for '--set': 'epochs': expected FIELD=VALUE"),
        (["train", "--class-name", "0"], "Invalid value for '--class-name': '0': expected LABEL=NAME"),
        (["train", "--splits", "none.json"], "Invalid value for '--splits': file 'none.json' does not exist"),
        (["train", "--fold", "1"], "Invalid value for '--fold': the official protocol has one fold"),
        (["cross-validate", "--set", "fold=1"], "cross-validate trains all folds of the patient protocol"),
        (["cross-validate", "--set", "protocol=official"], "cross-validate trains all folds"),
        (["sweep", "--vary", "epochs=1,2", "--grid", "--trials", "3"], "only one of --one-factor, --grid"),
        (["explain", "a.png"], "--out"),
        (["compare", "--backbones", "a", "b"], "No such option"),
        (["wisdom"], "No such command"),
    ],
)
def test_a_usage_error_is_one_sentence_and_exit_code_2(arguments, says):
    code, out, err = run_cli(*arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert says in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "value", "allowed", "nearest"),
    [
        (["train", "--protocol"], "patent", "official, patient", "patient"),
        (["evaluate", "run", "--protocol"], "offical", "official, patient", "official"),
        (["evaluate", "run", "--split"], "tset", "train, validation, test", "test"),
        (["evaluate", "run", "--level"], "person", "slice, patient", None),
        (["compare", "a", "b", "--split"], "valid", "train, validation, test", "validation"),
        (["compare-backbones", "a", "b", "--split"], "train", "validation, test", None),
        (["export", "compact", "--to"], "onx", "onnx", "onnx"),
        (
            ["explain", "a.png", "--out", "b", "--method"],
            "gradcam",
            "contributions, grad-cam, integrated-gradients, occlusion",
            "grad-cam",
        ),
        (["train", "--track"], "tensorbord", ", ".join(TRACKERS), "tensorboard"),
        (
            ["train", "--recipe"],
            "compct",
            "compact, compact-best, compact-fast, fine-tune, linear-probe, patient, report or a .toml file",
            "compact",
        ),
        (["compare-protocols", "--recipe"], "best", "compact, compact-best", "report"),
    ],
)
def test_every_closed_set_of_values_is_checked_alike(arguments, value, allowed, nearest):
    code, _, err = run_cli(*arguments, value)
    said = " ".join(err.split())
    assert code == ExitCode.USAGE
    assert f"Invalid value for '{arguments[-1]}': '{value}' is not one of {allowed}" in said
    if nearest is None:
        assert "did you mean" not in said
    elif value != "best":
        assert said.endswith(f"; did you mean '{nearest}'?")


def test_the_methods_are_those_of_explain():
    from brainstage.inference.attribution import METHODS

    assert f"--method <{'|'.join(METHODS)}>" in run_cli("explain", "--help").out


def empty_folder(root):
    (root / "empty").mkdir()
    return root / "empty"


def bad_csv(root):
    (root / "0.png").write_bytes(encode(picture()))
    (root / "a.csv").write_text("path,label\n0.png,Mild_Demented\n0.png,Mild_Demted\n")
    return root / "a.csv"


def bad_parquet(root):
    pq.write_table(pa.table({"a": [1]}), root / "a.parquet")
    return root / "a.parquet"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--epochs", "0"], "epochs: 0 is out of range"),
        (["train", "--recipe", "{none}.toml"], "none.toml"),
        (["train", "--set", "epoch=3"], "did you mean 'epochs'"),
        (["train", "--data", "{none}"], "no such file or folder"),
        (["train", "--data", empty_folder], "no slices found"),
        (["train", "--data", bad_csv], "did you mean 'Mild_Demented'"),
        (["train", "--data", bad_parquet], "column image, label not found; it has a"),
        (["train", "--data", "{phantom}", "--name", "../up"], "not usable"),
        (["train", "--data", "{phantom}", "--out", "/dev/null/runs"], "cannot make this folder"),
        (["train", "--backbone", "none/none"], "a backbone brings its own; take recipe linear-probe"),
        (
            ["train", "--recipe", "report", "--data", "{phantom}", "--backbone", "no"],
            "not a hub id like google/vit",
        ),
        (
            ["train", "--recipe", "report", "--set", "mirror=true"],
            "so set max_shift=0, mirror=false and augment=none",
        ),
        (["train", "--protocol", "patient", "--fold", "5"], "there are 5 folds, from 0"),
        (["train"], "run `brainstage data fetch`"),
        (["compare", "{none}", "{none}"], "no such run"),
        (["compare-backbones", "a/b", "compact", "--set", "epoch=1"], "did you mean 'epochs'"),
        (["compare-backbones", "a/b", "--data", "{phantom}"], "two candidates or more"),
        (["sweep", "--vary", "epochs"], "expected FIELD=VALUE,VALUE"),
        (["sweep", "--vary", "epochs=1,0", "--data", "{phantom}"], "epochs: 0 is out of range"),
        (["models", "fetch", "../up"], "not a hub id like google/vit"),
        (["evaluate", "{none}"], "no such run"),
        (["evaluate", "{none}", "--level", "patient"], "no such run"),
        (["audit", "--data", "{phantom}", "--out", "/dev/null/a"], "cannot make this folder"),
        (["audit", "--data", "{phantom}", "--patients", "{none}"], "not a readable parquet"),
        (["predict", "{none}", "{none}.png"], "no such run"),
        (["predict", "{none}", "{none}", "--out", "a.txt"], ".csv, .json or .parquet"),
        (["export", "patient", "--out", "{none}", "--data", "{phantom}"], "the patient model is not a network"),
        (["data", "phantom", "--out", "/dev/null/a"], "/dev/null/a"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(arguments, says, tmp_path, phantom_folder):
    places = {"none": tmp_path / "none", "phantom": phantom_folder}
    filled = [a(tmp_path) if callable(a) else a.format(**places) for a in arguments]
    code, _, err = run_cli(*filled, BRAINSTAGE_DATA="", BRAINSTAGE_CACHE=str(tmp_path / "cache"))
    assert code == ExitCode.FAILED
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_name_cannot_command_the_terminal(tmp_path, capsys):
    (tmp_path / "\x1b[31ma.png").write_text("no picture")
    code, _, err = run_cli("predict", tmp_path)
    assert code == ExitCode.NOTHING_USABLE
    assert f"{tmp_path}/\\x1b[31ma.png: not a JPEG" in err
    assert "\x1b" not in err
    warn("é ×\n\u202eb\x9b")
    assert capsys.readouterr().err == "é ×\n\\u202eb\\x9b\n"


def test_nor_does_it_on_the_screen(tmp_path):
    (tmp_path / "\x1b[31ma.png").write_bytes(encode(picture(size=(128, 128))))
    said = run_cli("predict", tmp_path)
    assert "\\x1b[31ma.png" in said.out
    assert "\x1b" not in said.out + said.err


def test_the_command_is_kept_without_the_folders_of_its_paths(monkeypatch):
    typed = ["prepare", "/home/Jane_Doe/bids", "--out=/home/Jane_Doe/cohort", "--jobs=2", "--skull", "auto", "-q"]
    monkeypatch.setattr(sys, "argv", ["brainstage", *typed])
    assert typed_command() == ["brainstage", "prepare", "bids", "--out=cohort", "--jobs=2", "--skull", "auto", "-q"]


def test_ctrl_c_ends_with_a_sentence_and_exit_code_130(tmp_path):
    (tmp_path / "watched.py").write_text(
        "from pathlib import Path\n"
        "from brainstage.cli import main\n"
        "from brainstage.datasets import phantom\n"
        "draw = phantom.draw_head\n"
        "phantom.draw_head = lambda *person, seed: Path('drawing').touch() or draw(*person, seed=seed)\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "watched", "data", "phantom", "--out", "new", "--patients", "999"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores Ctrl-C
    ) as process:
        while not (tmp_path / "drawing").exists():  # where Python still imports, it can lose Ctrl-C
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    assert err.startswith("Stopped. Finished work is kept")
    assert len(err.splitlines()) == 1


def test_ctrl_c_while_python_runs_code_from_text_has_the_same_exit_code(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "from brainstage.cli import app, main\n"
        "@app.command()\n"
        "def make_class():\n"
        "    exec('raise KeyboardInterrupt')\n"
        "main()\n"
    )
    command = [sys.executable, "-m", "interrupted", "make-class"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == ExitCode.INTERRUPTED
    assert ended.stderr.startswith("Stopped.")


def test_the_exit_codes_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md").read_text()
    epilog = run_cli("--help").out
    for code in ExitCode:
        assert f"| {code.value} |" in text
        assert str(code.value) in epilog.rpartition("Exit codes:")[2]


def test_without_a_hub_the_quickstart_goes_on_with_phantoms(monkeypatch, tmp_path):
    from brainstage.cli import quickstart
    from brainstage.core.errors import DataError

    def no_network(**_):
        raise DataError("the hub cannot be reached")

    monkeypatch.delenv("BRAINSTAGE_DATA", raising=False)
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))
    monkeypatch.setattr(quickstart, "fetch", no_network)
    monkeypatch.setattr(quickstart, "write_phantom", lambda folder, progress: (folder / "data").mkdir(parents=True))
    source, sentence = quickstart.find_data()
    assert source == tmp_path / "phantom"
    assert "the hub cannot be reached" in sentence
    assert "synthetic: says nothing about real brains" in sentence


def test_the_quickstart_says_what_its_accuracy_is_worth(few, tiny, tmp_path, monkeypatch):
    from brainstage.cli import quickstart

    monkeypatch.setattr(quickstart, "load_recipe", lambda _name, **changes: tiny.replace(folds=2, **changes))
    run = train(few, tiny.replace(epochs=1), name="first", out=tmp_path)
    evaluation = evaluate(run)
    (network, accuracy), (_, nearest), (_, others), (always, _) = quickstart.lesson(
        few, run, evaluation, silent
    ).items()
    assert "people in the training set" in network
    assert accuracy == f"{evaluation.scores.overall['accuracy'].value:.3f}"
    assert nearest == f"{evaluation.baselines['nearest_training_slice'].accuracy.value:.3f}"
    on_people = evaluate(tmp_path / "first-people")
    assert on_people.leakage_status == "clean"
    assert f"{on_people.scores.overall['accuracy'].value:.3f} (5 epochs, one fold of people)" in others
    assert always.startswith("always ")


def test_on_the_public_data_the_quickstart_quotes_the_bundled_network(real_folder):
    from brainstage.cli import quickstart

    figure = quickstart._on_new_people(load_slices(real_folder), None, silent)
    assert 0.4 < float(figure.split()[0]) < 0.65
    assert "optimistic" in figure
