import csv
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from brainstage.inference.predictions import Predictions
from brainstage.report.predictions import write_predictions
from helpers import encode, run_cli

CASES = json.loads((Path(__file__).parents[1] / "support" / "csv_cases.json").read_text())
"""The form of a cell, for files of ``predict`` and of the web page alike."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["value"]))
def test_a_cell_of_a_csv_file_is_no_formula(case, tmp_path):
    row = {"person": 1, "source": case["value"], "level": None, "slice_id": None, "reason": None}
    predictions = Predictions([row], ("A", "B"), {}, "0" * 64, calibrated=True, refuses=True)
    write_predictions(predictions, tmp_path / "a.csv")
    header, text = (tmp_path / "a.csv").read_bytes().decode().split("\r\n", 1)
    assert header == "person,source,level,slice_id,reason,model,protocol,leakage,calibrated,notice"
    assert text.startswith(f"1,{case['cell']},,,,")


@pytest.mark.skipif(not shutil.which("node"), reason="no node on the PATH; tests/serve/test_page.py has a browser")
def test_the_web_pages_cells_have_the_same_form():
    script = (files("brainstage.serve") / "static" / "csv.js").read_text()
    imported = 'import { answerOf } from "./people.js";'
    assert imported in script  # a module in an address cannot import others
    script = script.replace(imported, "const answerOf = ({ prediction }) => prediction;")
    code = f"""
        const {{ csvOf }} = await import("data:text/javascript," + encodeURIComponent({json.dumps(script)}));
        const reply = {{ classes: [], model: {{}}, calibrated: true, notice: "" }};
        const csv = (name) => csvOf([{{ name, reply, prediction: {{}} }}], true);
        const rows = {json.dumps(CASES)}.map((one) => csv(one.value));
        console.log(JSON.stringify(rows));
    """
    done = subprocess.run(["node", "--input-type=module", "-e", code], capture_output=True, text=True, check=True)
    for case, text in zip(CASES, json.loads(done.stdout), strict=True):
        assert text.split("\r\n", 1)[1].startswith(f"1,{case['cell']},,,")


def test_a_csv_file_says_of_the_model_what_the_web_pages_does(tmp_path):
    about = {"protocol": "patient", "leakage": {"sentence": "no leakage"}}
    predictions = Predictions([{"level": None, "slice_id": None}], ("A",), about, "0" * 64, True, refuses=True)
    write_predictions(predictions, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    script = (files("brainstage.serve") / "static" / "csv.js").read_text()
    of_the_page = re.findall(r'^ {4}\["(\w+)", \(\{ reply', script, re.M)
    assert list(row)[-len(of_the_page) :] == of_the_page
    expected = ["0" * 64, "patient", "no leakage", "True", predictions.notice]
    assert [row[name] for name in of_the_page] == expected


def test_a_file_named_like_a_formula_gets_an_apostrophe_in_csv_alone(tmp_path, monkeypatch, trained, phantom):
    monkeypatch.chdir(tmp_path)
    Path("=1+1.png").write_bytes(encode(phantom.images[0]))
    for name in ("out.csv", "out.json"):
        assert run_cli("predict", trained.path, "=1+1.png", "--out", name).code == 0
    with Path("out.csv").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    [expected] = json.loads(Path("out.json").read_text())["predictions"]
    assert (row["source"], expected["source"]) == ("'=1+1.png", "=1+1.png")
    assert float(row["prob_Non_Demented"]) == expected["prob_Non_Demented"]
