import csv
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.scans.stack import training_stack
from helpers import TINY, brainstage, encode, picture
from volumes import PATIENT, brain, with_skull, write_nifti, write_series

GOLDEN = Path(__file__).parents[1] / "golden"
COMMANDS = [[], ["data"], ["data", "fetch"], ["data", "describe"], ["data", "phantom"], ["train"], ["evaluate"]]
COMMANDS += [["predict"], ["quickstart"], ["models"], ["models", "fetch"], ["models", "clear-features"]]
COMMANDS += [
    ["compare"],
    ["sweep"],
    ["study"],
    ["audit"],
    ["compare-protocols"],
    ["extract"],
    ["explain"],
    ["export"],
    ["serve"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "brainstage")
def test_help_is_golden_and_has_an_example(command):
    """Remake with BRAINSTAGE_GOLDEN=1."""
    done = brainstage(*command, "--help")
    golden = GOLDEN / f"help-{'-'.join(command) or 'brainstage'}.txt"
    if os.environ.get("BRAINSTAGE_GOLDEN"):
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()
    assert "Example: brainstage" in done.stdout or command in ([], ["data"], ["models"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--no-such-option"], "No such option"),
        (["train", "--seed", "many"], "Invalid value for '--seed'"),
        (["explain", "a.png"], "--out"),
        (["wisdom"], "No such command"),
    ],
)
def test_a_mistyped_command_is_told_in_a_line(arguments, says):
    done = brainstage(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert "Usage: brainstage" in done.stderr


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom brainstage.cli import app\n"
        "CliRunner().invoke(app, ['train', '--help'])\nprint('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip().endswith("False")


def test_train_evaluate_predict(tmp_path, phantom_folder, phantom):
    settings = [f"--set={name}={json.dumps(value)}" for name, value in TINY.items()]
    done = brainstage("train", "--data", phantom_folder, "--name", "a", "--out", tmp_path, "--json", *settings)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["protocol"] == "official"
    assert report["leakage"]["status"] == "leaky"
    assert report["synthetic"] == "synthetic: says nothing about real brains"
    run = tmp_path / "a"
    assert json.loads((run / "metrics.json").read_text())["overall"] == report["overall"]

    table = brainstage("evaluate", run)
    assert table.returncode == 0
    assert (
        "synthetic: says nothing about real brains · test · 102 slices · protocol official · leaky" in table.stdout
    )
    assert "never a diagnosis" in table.stdout

    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.png").write_bytes(encode(phantom.images[number]))
    (images / "broken.jpg").write_text("a text")
    for name in ("out.csv", "out.json", "out.parquet"):
        done = brainstage("predict", run, images, "--out", tmp_path / name)
        assert done.returncode == 1
        assert "1 of 4 scans could not be read" in done.stderr
        assert "Traceback" not in done.stderr
    answers = json.loads((tmp_path / "out.json").read_text())
    assert "never a diagnosis" in answers["notice"]
    assert [row["status"] for row in answers["predictions"]] == ["predicted"] * 3 + ["failed"]
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 4
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 5
    whole = brainstage("predict", run, next(phantom_folder.glob("data/test*")), images / "?.png", "--json")
    assert whole.returncode == 0
    assert len(json.loads(whole.stdout)["predictions"]) == 102 + 3


def test_predict_without_a_run_stages_one_person_from_all_slices(tmp_path):
    slices, _ = training_stack(brain(), "template")
    for level in range(6, 22, 4):
        (tmp_path / f"{level:02}.png").write_bytes(encode(slices[level]))
    (tmp_path / "notes.txt").write_text("not a scan")
    alone, together = (brainstage("predict", tmp_path, "--json", *more) for more in ([], ["--one-person"]))
    assert alone.returncode == together.returncode == 0, together.stderr
    first, joined = (json.loads(done.stdout) for done in (alone, together))
    assert "On people it has not seen (protocol patient" in first["notice"]
    assert "never a diagnosis" in first["notice"]
    column = "prob_Non_Demented"
    whole, *slices = joined["predictions"]
    assert (whole["source"], whole["slices"], whole["person"]) == ("one person", 4, 1)
    assert [row["person"] for row in first["predictions"]] == [1, 2, 3, 4]
    assert [row[column] for row in slices] == pytest.approx([row[column] for row in first["predictions"]], abs=1e-5)
    assert whole[column] not in [row[column] for row in slices]


def test_pictures_of_other_things_get_no_stage(tmp_path, phantom):
    (tmp_path / "noise.png").write_bytes(encode(picture(0, (128, 128))))
    (tmp_path / "drawn.png").write_bytes(encode(phantom.images[9]))
    done = brainstage("predict", tmp_path, "--json")
    assert done.returncode == 0
    for row in json.loads(done.stdout)["predictions"]:
        assert (row["status"], row["stage"], row["prob_Non_Demented"]) == ("refused", None, None)
        assert row["reason"] in done.stderr


def test_predict_stages_a_volume_whole_and_slice_by_slice_and_says_no_name(tmp_path):
    volume = brain((3, 3, 3))
    write_series(tmp_path / "study", volume)
    write_nifti(tmp_path / "head.nii.gz", with_skull(volume))
    done = brainstage("predict", tmp_path / "study", tmp_path / "head.nii.gz", "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert "head.nii.gz: shows a head with its skull" in done.stderr
    with (tmp_path / "out.csv").open() as stream:
        whole, *slices, refused = csv.DictReader(stream)
    assert (whole["source"], whole["slices"], whole["level"]) == (str(tmp_path / "study"), "32", "")
    assert [row["level"] for row in slices] == [str(level) for level in range(32)]
    assert float(whole["prob_Non_Demented"]) > 0.5  # a young adult's brain
    assert (refused["status"], refused["stage"]) == ("refused", "")
    assert "registration to MNI152" in whole["notice"]
    screen = brainstage("predict", tmp_path / "study")
    assert "level 31" in screen.stdout
    for text in ((tmp_path / "out.csv").read_text(), done.stderr, screen.stdout, screen.stderr):
        assert PATIENT not in text


def bad_folder(root):
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
        (["train", "--recipe", "compct"], "unknown recipe 'compct'; did you mean 'compact'?"),
        (["train", "--epochs", "0"], "epochs: 0 is out of range"),
        (["train", "--set", "epoch=3"], "did you mean 'epochs'"),
        (["train", "--data", "{none}"], "no such file or folder"),
        (["train", "--data", bad_folder], "no slices found"),
        (["train", "--data", bad_csv], "did you mean 'Mild_Demented'"),
        (["train", "--data", bad_parquet], "column image, label not found; it has a"),
        (["train", "--data", "{phantom}", "--name", "../up"], "not usable"),
        (["train", "--data", "{phantom}", "--out", "/dev/null/runs"], "cannot make this folder"),
        (["train", "--backbone", "none/none"], "a backbone brings its own; take recipe linear-probe"),
        (
            ["train", "--recipe", "report", "--data", "{phantom}", "--backbone", "no"],
            "not a hub id like google/vit",
        ),
        (["train", "--recipe", "report", "--set", "mirror=true"], "so set max_shift=0 and mirror=false"),
        (["compare", "{none}", "{none}"], "no such run"),
        (["compare", "--backbones", "a/b", "compact", "--set", "epoch=1"], "did you mean 'epochs'"),
        (["compare", "--backbones", "a/b", "--data", "{phantom}"], "two candidates or more"),
        (["sweep", "--vary", "epochs"], "expected FIELD=VALUE,VALUE"),
        (["sweep", "--vary", "epochs=1,0", "--data", "{phantom}"], "epochs: 0 is out of range"),
        (["models", "fetch", "../up"], "not a hub id like google/vit"),
        (["train"], "run `brainstage data fetch`"),
        (["evaluate", "{none}"], "no such run"),
        (["evaluate", "{none}", "--level", "patient"], "no such run"),
        (["audit", "--data", "{phantom}", "--out", "/dev/null/a"], "cannot make this folder"),
        (["audit", "--data", "{phantom}", "--patients", "{none}"], "not a readable parquet"),
        (["train", "--set", "protocol=patient", "--set", "fold=5"], "there are 5 folds, from 0"),
        (["predict", "{none}", "{none}.png"], "no such run"),
        (["predict", "{none}", "{none}", "--out", "a.txt"], ".csv, .json or .parquet"),
        (["data", "phantom", "--out", "/dev/null/a"], "/dev/null/a"),
    ],
)
def test_bad_input_is_one_sentence_and_a_failure(arguments, says, tmp_path, phantom_folder):
    places = {"none": tmp_path / "none", "phantom": phantom_folder}
    filled = [a(tmp_path) if callable(a) else a.format(**places) for a in arguments]
    done = brainstage(*filled, BRAINSTAGE_DATA="", BRAINSTAGE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


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


def test_the_python_api_is_whole():
    import brainstage
    from brainstage.studies.study import run_study  # imports the modules train, sweep, compare and evaluate

    for name in brainstage.__all__:
        assert not isinstance(getattr(brainstage, name), types.ModuleType)
    assert brainstage.run_study is run_study
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        brainstage.nothing  # noqa: B018
