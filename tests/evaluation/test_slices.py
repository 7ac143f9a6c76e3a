import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import ConfigError, DataError, LeakageError
from brainstage.core.schema import with_metadata
from brainstage.evaluation.slices import evaluate
from brainstage.report.results import write_evaluation
from brainstage.report.terminal.evaluations import show_evaluation


def table(**changes):
    columns = {
        "slice_id": ["1", "2", "3", "4"],
        "patient_id": pa.array([None] * 4, pa.string()),
        "split": ["test"] * 4,
        "fold": [0] * 4,
        "label": ["CN", "CN", "AD", "AD"],
        "prob_CN": [0.9, 0.8, 0.3, 0.6],
        "prob_AD": [0.1, 0.2, 0.7, 0.4],
        "model": ["m"] * 4,
    }
    return pa.table({name: values for name, values in {**columns, **changes}.items() if values is not None})


def write(tmp_path, content, **metadata):
    pq.write_table(with_metadata(content, metadata), tmp_path / "predictions.parquet")
    return tmp_path / "predictions.parquet"


def test_a_table_of_any_tool_is_judged_once_its_protocol_is_named(tmp_path):
    file = write(tmp_path, table())
    with pytest.raises(ConfigError, match="name it with --protocol"):
        evaluate(file)
    evaluation = evaluate(file, protocol="official")
    assert evaluation.scores.overall["accuracy"].value == 0.75
    assert list(evaluation.baselines) == ["majority"]  # the table comes without pixels
    assert evaluation.baselines["majority"].name == "always CN"
    assert evaluation.baselines["majority"].accuracy.value == 0.5
    assert "protocol official · leakage unknown" in evaluation.title


def test_slices_without_a_label_are_left_out_and_counted(tmp_path, capsys):
    file = write(tmp_path, table(label=["CN", None, "AD", "AD"]), protocol="official")
    evaluation = evaluate(file)
    assert (evaluation.slices, evaluation.unlabelled) == (3, 1)
    assert evaluation.to_dict()["unlabelled"] == 1
    show_evaluation(evaluation)
    assert "1 slices without a label were left out" in capsys.readouterr().out
    nothing = write(tmp_path, table(label=pa.array([None] * 4, pa.string())), protocol="official")
    with pytest.raises(DataError, match="no labelled slice of the test side"):
        evaluate(nothing)


def test_a_patient_figure_without_patients_is_refused(tmp_path):
    with pytest.raises(LeakageError, match="needs the patient of every slice"):
        evaluate(write(tmp_path, table()), protocol="patient")


def test_metrics_name_protocol_verdict_and_notice(tmp_path):
    file = write(tmp_path, table(), protocol="official", leakage={"status": "leaky", "sentence": "leaky: 4 of 4"})
    files = write_evaluation(evaluate(file), tmp_path)
    assert [path.name for path in files] == ["metrics.json", "confusion_matrix.png"]
    metrics = json.loads(files[0].read_text())
    assert metrics["protocol"] == "official"
    assert metrics["leakage"] == {"status": "leaky", "sentence": "leaky: 4 of 4"}
    assert "never a diagnosis" in metrics["notice"]
    assert metrics["confusion_matrix"] == [[2, 0], [1, 1]]
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (table(label=None), "column label not found; it has slice_id"),
        (table(label=["CN", "CN", "AD", "MCI"]), "label 'MCI' is not one of the classes CN, AD"),
        (table(prob_AD=None), "found 1"),
        (table(prob_AD=[0.1, 0.2, 0.7, 0.9]), "row 3 has probabilities"),
        (table(prob_AD=[0.1, 0.2, 0.7, float("nan")]), "row 3 has probabilities"),
        (table(prob_AD=["a"] * 4), "does not hold numbers"),
        (table(fold=["fold-1"] * 4), "column fold holds other than whole numbers"),
        (table(fold=[0, 0, None, 0]), "column fold has empty rows"),
        (table(split=["dev"] * 4), "split 'dev' is not one of"),
        (table(split=["train"] * 4), "no labelled slice of the test side; it has train"),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        evaluate(write(tmp_path, content), protocol="official")
