"""What results show in a notebook: protocol, verdict and notice, nothing of the data as HTML, one picture each."""

import builtins
import shutil
from html import unescape

import numpy as np
import pytest
from PIL import Image

from brainstage.audits.audit import audit
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.run import RunFolder
from brainstage.core.schema import RESEARCH_NOTICE
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import make_splits
from brainstage.evaluation.comparison import compare
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.inference.predictions import predict_scans
from brainstage.inference.predictor import Predictor
from brainstage.report import frames, notebook, pictures
from brainstage.scans.discover import find_scans
from brainstage.studies.external_validation import validate
from brainstage.studies.protocols import ProtocolComparison, Row
from brainstage.studies.study import Study
from brainstage.training.sweep import Sweep
from brainstage.training.sweep_trials import Factor

NASTY = "<img src=x onerror=alert(1)>"
NAMES = sorted(notebook.PAGES)


@pytest.fixture(scope="module")
def results(trained, few, tiny, tmp_path_factory):
    """Return one result of each class, by its name."""
    folder = tmp_path_factory.mktemp("results")
    table = folder / f"{NASTY}.parquet"
    shutil.copy(trained.predictions, table)
    evaluation, people = evaluate(trained), evaluate_patients(trained)
    overall, of_people = evaluation.scores.overall, people.views[0].rows["model"]
    names = ("compact", "nearest training slice", NASTY)
    trial = {"trial": 0, "state": "complete", "epochs": 1, "epoch": 1, "seconds": 1.0}
    trial |= {"loss": 1.2, "accuracy": 0.5, "weighted_f1": 0.4, "macro_f1": 0.3}
    baselines, title = evaluation.baselines, f"{evaluation.title} · {NASTY}"
    sweep = Sweep(tiny, (Factor("epochs", (1,)),), "grid", (trial,), {}, 40, baselines, {}, None, title, folder)
    Image.fromarray(few.images[0]).save(folder / f"{NASTY}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)).save(folder / "noise.png")
    comparison = compare([trained, table])
    found = [
        few,
        make_splits(few, tiny),
        audit(few),
        trained,
        evaluation,
        people,
        comparison,
        sweep,
        ProtocolComparison(
            folder, tuple(Row(name, overall, overall, of_people) for name in names), *[evaluation] * 2, people
        ),
        Study(folder, False, comparison, sweep, trained, evaluation),
        validate(trained, load_slices(write_phantom(folder / "others", patients=8, seed=9)), folder / "validation"),
        predict_scans(
            Predictor.open(trained), find_scans([str(folder / f"{NASTY}.png"), str(folder / "noise.png")])
        ),
    ]
    return {type(result).__name__: result for result in found}


@pytest.mark.parametrize("name", NAMES)
def test_a_result_says_its_protocol_its_verdict_and_that_it_is_no_diagnosis(results, name):
    html = results[name]._repr_html_()
    text = unescape(html)
    assert "protocol" in text
    assert any(word in text for word in ("leaky: ", "clean: ", "leakage unknown"))
    assert RESEARCH_NOTICE in text


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_data_is_html_and_nothing_comes_from_elsewhere(results, name):
    html = results[name]._repr_html_()
    assert NASTY not in html
    assert not any(word in html for word in ("<script", "http", "@import", "url("))


@pytest.mark.parametrize("name", ["Comparison", "Predictions", "ProtocolComparison", "Sweep"])
def test_names_from_data_are_shown_as_they_are(results, name):
    assert NASTY in unescape(results[name]._repr_html_())


def test_figures_are_those_of_the_result(results):
    evaluation = results["Evaluation"]
    accuracy = evaluation.scores.overall["accuracy"]
    html = evaluation._repr_html_()
    assert f"{accuracy.value:.3f} [{accuracy.low:.2f}, {accuracy.high:.2f}]" in html
    assert evaluation.title in unescape(html)
    assert "nearest training slice" in html


def test_a_prediction_is_a_row_with_a_bar_for_each_stage_and_a_refusal_says_why(results):
    predictions = results["Predictions"]
    stated, refused = (rows[0] for rows in predictions.people)
    html = predictions._repr_html_()
    for name in predictions.classes:
        share = stated[f"prob_{name}"]
        assert f'style="--share:{100 * share:.1f}%">{share:.3f}</td>' in html
    assert html.count('class="bar"') == len(predictions.classes)
    assert refused["reason"] in unescape(html)
    assert predictions.notice in unescape(html)


def test_many_rows_are_cut_short_and_the_page_says_so(results, monkeypatch):
    monkeypatch.setattr(notebook, "SHOWN_ROWS", 1)
    html = results["Predictions"]._repr_html_()
    assert html.count('scope="row"') == 1
    assert "1 of 2 rows are shown; to_pandas() has all." in html


@pytest.mark.parametrize("name", NAMES)
def test_the_text_beside_the_page_is_a_few_lines_not_all_that_the_result_holds(results, name):
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(results[name])
    assert shown["text/html"] == results[name]._repr_html_()
    text = shown["text/plain"]
    assert "protocol" in text
    assert text.endswith(results[name].notice if name == "Predictions" else RESEARCH_NOTICE)
    assert len(text) < 3000
    assert results["SliceTable"].slice_ids[0] not in text


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_a_picture_is_shown_once_and_says_what_holds_of_it(results, name):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_backend(), pyplot.get_fignums()
    chart = results[name].plot()
    html = chart._repr_html_()
    assert (pyplot.get_backend(), pyplot.get_fignums()) == before
    assert chart._repr_png_().startswith(b"\x89PNG")
    assert html.count("<img") == 1
    assert NASTY not in html
    assert any(word in unescape(html) for word in ("leaky: ", "clean: ", "leakage unknown"))
    assert RESEARCH_NOTICE in html


@pytest.mark.parametrize("name", sorted(frames.FRAMES))
def test_a_table_of_pandas_has_the_figures(results, name):
    pytest.importorskip("pandas")
    frame = results[name].to_pandas()
    assert len(frame) > 0
    assert not frame.columns.duplicated().any()


def test_tables_hold_each_score_with_its_interval(results):
    pytest.importorskip("pandas")
    evaluation = results["Evaluation"]
    frame = evaluation.to_pandas()
    row = frame[(frame.row == "model") & frame.stage.isna() & (frame.score == "accuracy")].iloc[0]
    assert (row.value, row.low, row.high) == tuple(vars(evaluation.scores.overall["accuracy"]).values())
    folds = results["Splits"].to_pandas()
    assert len(folds) == sum(len(side) for fold in results["Splits"].folds for side in vars(fold).values())


def test_without_pandas_the_message_is_its_install_command(results, monkeypatch):
    def no_pandas(name, *arguments):
        if name == "pandas":
            raise ImportError(name)
        return original(name, *arguments)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_pandas)
    with pytest.raises(ConfigError, match=r"pip install pandas$"):
        results["Evaluation"].to_pandas()


def test_what_cannot_be_drawn_says_why(results, tmp_path):
    with pytest.raises(RunError, match=r"none: has no history of epochs to draw"):
        RunFolder(tmp_path / "none").plot()
    few = results["SliceTable"]
    sides = few.rows.set_column(few.rows.column_names.index("split"), "split", [["train"] * len(few)])
    from dataclasses import replace

    with pytest.raises(DataError, match="no train and test side"):
        replace(results["Audit"], slices=replace(few, rows=sides), closest={}).plot()


def test_a_run_that_is_not_finished_shows_that_it_is_not(tmp_path):
    html = RunFolder(tmp_path / "begun")._repr_html_()
    assert "not finished" in html
    assert RESEARCH_NOTICE in html
