"""The screens: what a reader sees of predictions and evaluations, in 80 columns and without colour."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout

import pytest

from brainstage.cli.shared import ExitCode
from brainstage.core.run import RunFolder
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictions import Predictions
from brainstage.inference.predictor import Predictor
from brainstage.report.terminal.predictions import show_predictions
from brainstage.report.terminal.screen import draw_bar, open_console, shorten
from helpers import brainstage, encode, picture, run_cli
from volumes import brain, with_skull, write_nifti

CLASSES = ("Non_Demented", "Very_Mild_Demented", "Mild_Demented", "Moderate_Demented")
LONG = "a-folder-with-the-long-name-of-a-study/sub-0001/ses-baseline/anat"


@pytest.fixture
def copied(trained, tmp_path):
    """``evaluate`` writes into the run: other tests share the one that it would change."""
    return RunFolder(shutil.copytree(trained.path, tmp_path / "run"))


def row(person, source, *, level=None, slices=1, shares=(0.6, 0.25, 0.1, 0.05), kept=2, status="predicted"):
    """Return a row of predictions; one that was refused has neither stage nor probabilities."""
    known = status == "predicted"
    stage = CLASSES[max(range(4), key=lambda number: shares[number])]
    return {
        "person": person,
        "source": source,
        "slices": slices if known else 0,
        "level": level,
        "slice_id": None,
        "status": status,
        "stage": stage if known else None,
        **{f"prob_{name}": share if known else None for name, share in zip(CLASSES, shares, strict=True)},
        **{f"in_set_{name}": number < kept if known else None for number, name in enumerate(CLASSES)},
        "words": "Among people like those of a study, not ruled out: Non, Very Mild" if known else None,
        "reason": None if known else f"{source}: is no brain",
    }


def screen(rows, **options):
    """Return what is printed of predictions where the output is no terminal."""
    predictions = Predictions(rows, CLASSES, {"protocol": "patient"}, "0" * 64, calibrated=True, refuses=True)
    out = io.StringIO()
    with redirect_stdout(out):
        show_predictions(predictions, **options)
    return out.getvalue()


def is_plain(text):
    """Return whether a text fits 80 columns and has no escape codes; where a file was saved is not shortened."""
    return "\x1b" not in text and all(len(line) <= 80 or line.startswith("Saved ") for line in text.splitlines())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a folder of a deep path with the volume of a brain and that of a head."""
    folder = tmp_path_factory.mktemp("study") / LONG
    folder.mkdir(parents=True)
    volume = brain((3, 3, 3))
    write_nifti(folder / "sub-0001_ses-baseline_T1w_brain.nii.gz", volume)
    write_nifti(folder / "head.nii.gz", with_skull(volume))
    return folder


def test_a_volume_is_one_block_of_80_columns_and_a_refused_one_is_named(study):
    code, out, err = run_cli("predict", study, COLUMNS="200")
    assert code == ExitCode.DONE
    assert is_plain(out)
    assert out.startswith("2 scans: 1 Non, 1 refused\n")
    assert re.search(r"…\S*sub-0001_ses-baseline_T1w_brain.nii.gz\n  Stage Non · 32 levels of a volume\n", out)
    bars = re.findall(r"^  (Non|Very Mild|Mild|Moderate) +([█▏▎▍▌▋▊▉]*) +(\d\.\d\d)", out, re.M)
    assert [name for name, *_ in bars] == ["Non", "Very Mild", "Mild", "Moderate"]
    assert sum(float(share) for *_, share in bars) == pytest.approx(1, abs=0.02)
    assert len(bars[0][1]) > len(bars[1][1])
    assert re.search(r"head.nii.gz +refused", out)
    assert "Among people like the 200 of the OASIS-1 study, not ruled out: " in " ".join(out.split())
    assert "--slices shows each slice, --out FILE writes everything" in out
    assert out.count(RESEARCH_NOTICE) == 1
    assert re.search(r"never a diagnosis\.\nhttps://\S+/explanation/calibration\.html\n$", out)
    assert f"{study / 'head.nii.gz'}: shows a head with its skull" in err


def test_slices_adds_a_row_for_each_level_and_json_says_the_same_without_notices(study):
    file = study / "sub-0001_ses-baseline_T1w_brain.nii.gz"
    listed = run_cli("predict", file, "--slices").out
    rows = re.findall(r"^ (\d+) +(Non|Very Mild|Mild|Moderate) +(\d\.\d\d)", listed, re.M)
    whole, *levels = json.loads(run_cli("predict", file, "--json").out)["predictions"]
    assert [int(level) for level, *_ in rows] == [level["level"] for level in levels] == list(range(32))
    assert [f"{level['prob_' + level['stage']]:.2f}" for level in levels] == [share for *_, share in rows]
    assert f"{whole['prob_Non_Demented']:.2f}" in listed
    assert is_plain(listed)


def test_predictions_in_a_file_are_counted_on_the_screen(study, tmp_path):
    out = run_cli("predict", study, "--out", tmp_path / "out.csv").out
    assert out.startswith(f"Saved {tmp_path / 'out.csv'} (34 rows)\n")
    assert "1 refused, 1 predicted" in out
    model = Predictor.open()
    title = f"model {model.hash[:12]} · protocol patient · {model.about['leakage']['sentence']}"
    assert title in " ".join(out.split())
    assert is_plain(out)
    assert out.count("never a diagnosis") == 1
    assert run_cli("predict", study, "--out", tmp_path / "out.csv", "--quiet").out == ""


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (5, 5), (1280, 20)])
def test_slices_of_no_person_are_rows_and_those_not_shown_are_counted(count, shown):
    refused = {3, 1000}
    rows = [
        row(number + 1, f"slices/{number}.png", status="refused" if number in refused else "predicted")
        for number in range(count)
    ]
    out = screen(rows)
    assert is_plain(out)
    assert len(re.findall(r"slices/\d+\.png", out)) == shown
    if count == 1280:
        assert out.startswith("1,280 scans: 1,278 Non, 2 refused\n")
        assert "1,260 more: 1,259 Non, 1 refused; --slices prints all" in out
        assert len(re.findall(r"slices/\d+\.png", screen(rows, slices=True))) == count


def test_levels_that_were_passed_over_are_counted():
    levels = [row(1, "a.nii.gz", level=n, status="refused" if n < 2 else "predicted") for n in range(32)]
    out = screen([row(1, "a.nii.gz", slices=30), *levels])
    assert "Stage Non · 30 of 32 levels of a volume, 2 passed over" in out
    refused = screen([row(1, "a.nii.gz", status="refused"), *levels])
    assert "Refused · 0 of 32 levels of a volume, 32 passed over" in refused


def test_names_of_stages_that_are_long_do_not_wrap_a_bar():
    names = tuple(f"stage_{letter}_{'with_a_name_' * 4}{letter}" for letter in "abcd")
    renamed = {
        f"{kind}_{new}": value
        for kind in ("prob", "in_set")
        for new, value in zip(names, (1, 0, 0, 0), strict=True)
    }
    rows = [{**row(1, "a.png"), **renamed, "stage": names[0]}]
    out = io.StringIO()
    with redirect_stdout(out):
        show_predictions(Predictions(rows, names, {}, "0" * 64, calibrated=True, refuses=True))
    assert is_plain(out.getvalue())
    assert len(re.findall(r" \d\.\d\d", out.getvalue())) == 4


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_styles_unless_no_color_is_set(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for value, styled in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", value)
        with redirect_stdout(Terminal()) as out:
            open_console().print("scan[1] :smile:", style="bold")
        assert ("\x1b" in out.getvalue()) is styled
        assert "scan[1] :smile:" in out.getvalue()


def test_a_long_path_loses_its_middle():
    path = f"{LONG}/sub-0001_ses-baseline_T1w.nii.gz"
    short = shorten(path, 40)
    assert (len(short), short.count("…")) == (40, 1)
    assert path.startswith(short.split("…")[0])
    assert path.endswith(short.split("…")[1])
    assert shorten(path, len(path)) == path


def test_a_bar_fills_its_share():
    assert [draw_bar(share, 8) for share in (0, 0.5, 0.5625, 1)] == ["", "████", "████▌", "████████"]
    assert draw_bar(0.5, 8, ascii_only=True) == "####"


def test_an_evaluation_leads_with_one_line_and_ends_with_one_notice(copied):
    evaluation, people = evaluate(copied), evaluate_patients(copied)
    by_slice = run_cli("evaluate", copied.path).out
    accuracy = evaluation.scores.overall["accuracy"].value
    nearest = evaluation.baselines["nearest_training_slice"].accuracy.value
    head = " ".join(by_slice.split())
    assert head.startswith(f"synthetic, official protocol: accuracy {accuracy:.2f}; always Very Mild ")
    assert f"nearest training slice {nearest:.2f} synthetic: says nothing" in head
    by_person = run_cli("evaluate", copied.path, "--level", "patient").out
    four, two = (view.rows["model"] for view in (people.views[0], people.views[-1]))
    first = by_person.splitlines()[0]
    assert first.startswith(f"synthetic, four stages {four['accuracy'].value:.2f}, always the largest 0.")
    assert first.endswith(f"; any dementia AUROC {two['auroc_ovr'].value:.2f}")
    for out in (by_slice, by_person):
        assert is_plain(out)
        assert out.count(RESEARCH_NOTICE) == 1
        assert out.splitlines()[-1].startswith("https://")


def test_json_of_an_evaluation_has_nothing_beside_it(copied):
    for level in ("slice", "patient"):
        assert (
            json.loads(run_cli("evaluate", copied.path, "--level", level, "--json").out)["protocol"] == "official"
        )


@pytest.mark.parametrize("command", [("audit", "--data"), ("data", "describe", "--data"), ("compare",), ("scans",)])
def test_other_screens_fit_80_columns_too(command, trained, phantom_folder, study):
    inputs = {"compare": (trained.path, trained.path), "scans": (study,)}.get(command[0], (phantom_folder,))
    code, out, err = run_cli(*command, *inputs, COLUMNS="200")
    assert code == ExitCode.DONE, err
    assert is_plain(out)
    assert out.count(RESEARCH_NOTICE) == (command[0] != "scans")


def test_a_pipe_in_an_old_encoding_is_no_failure(phantom_folder):
    done = brainstage("data", "describe", "--data", phantom_folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
    assert "128?128" in done.stdout


def test_many_reasons_are_counted_not_printed(tmp_path):
    for number in range(25):
        (tmp_path / f"{number:02}.png").write_bytes(encode(picture(number, (128, 128))))
    code, out, err = run_cli("predict", tmp_path)
    assert code == ExitCode.NOTHING_USABLE
    assert out.startswith("25 scans: 25 refused\n")
    assert len(err.splitlines()) == 21
    assert "5 more reasons are in column reason" in err
