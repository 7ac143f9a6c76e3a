"""People who were scanned several times: folds by person, a prediction and a label for each scan."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from brainstage.core.errors import DataError
from brainstage.core.schema import with_metadata
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Splits
from brainstage.datasets.table import slice_id
from brainstage.evaluation.patients import evaluate_patients
from brainstage.evaluation.slices import evaluate
from brainstage.models.patient_model import PatientModel
from brainstage.models.recipes import load_recipe
from brainstage.report.run_facts import facts_of_run
from brainstage.stats import metrics
from brainstage.training.cross_validation import cross_validate


def twice(slices, worse):
    """Return slices of which each person has two scans, a little brighter in the second; some get another label.

    Args:
        slices: Of people with one scan.
        worse: People whose second scan is Mild, whatever the first.
    """
    later = [(image * 0.9 + 20).astype(np.uint8) for image in slices.images]
    first, second = slices.rows.to_pylist(), slices.rows.to_pylist()
    for number, rows in (("1", first), ("2", second)):
        for row in rows:
            row.update(session_id=number, scan_id=f"{row['patient_id']} {number}")
    for row, image in zip(second, later, strict=True):
        row.update(slice_id=slice_id(image))
        if row["patient_id"] in worse:
            row.update(label="Mild_Demented")
    rows = pa.Table.from_pylist([*first, *second], schema=slices.rows.schema)
    return replace(slices, rows=rows, images=[*slices.images, *later])


@pytest.fixture(scope="module")
def people(phantom):
    healthy = sorted(
        {p for p, stage in zip(phantom.patients, phantom.labels, strict=True) if stage == "Non_Demented"}
    )
    return twice(phantom, worse=set(healthy[:3]))


@pytest.fixture(scope="module")
def run(people, tmp_path_factory):
    return cross_validate(people, load_recipe("patient", folds=2, repeats=1), out=tmp_path_factory.mktemp("runs"))


def test_folds_are_by_person_and_everyone_counts_once_for_each_label(run, people):
    splits = Splits.load(run.splits, people)
    for fold in splits.folds:
        assert {splits.patient_of[one] for one in fold.train}.isdisjoint(
            splits.patient_of[one] for one in fold.test
        )
    evaluation = evaluate_patients(run)
    assert "test · 16 people, 32 scans · protocol patient" in evaluation.title
    alone = {name: sum(stage == name for stage in stages_of(people, "1").values()) for name in people.classes}
    expected = alone | {"Mild_Demented": alone["Mild_Demented"] + 3}
    assert evaluation.people == expected


def stages_of(people, session):
    rows = people.rows.to_pylist()
    return {row["patient_id"]: row["label"] for row in rows if row["session_id"] == session}


def test_folds_are_joined_where_few_people_have_a_second_scan(people, phantom, tmp_path):
    one = sorted(set(phantom.patients))[0]
    rows = [row for row in range(len(people)) if row < len(phantom) or people.patients[row] == one]
    records = people.rows.take(rows).to_pylist()
    for record in records:
        if record["patient_id"] != one:
            record.update(session_id=None, scan_id=None)
    table = pa.Table.from_pylist(records, schema=people.rows.schema)
    some = replace(people, rows=table, images=[people.images[row] for row in rows])
    run = cross_validate(some, load_recipe("patient", folds=2, repeats=1), out=tmp_path)
    assert len(evaluate_patients(run).people) == 4


def test_each_scan_has_a_prediction_of_its_own(run, people):
    table = pq.read_table(run.predictions).filter(pa.compute.equal(pq.read_table(run.predictions)["split"], "test"))
    rows = table.to_pylist()
    of_scan = {}
    for row in rows:
        of_scan.setdefault(row["scan_id"], set()).add(row["prob_Non_Demented"])
    assert len(of_scan) == 32 and all(len(found) == 1 for found in of_scan.values())
    pairs = [(of_scan[f"{person} 1"], of_scan[f"{person} 2"]) for person in set(people.patients)]
    assert sum(one != other for one, other in pairs) > 12


def test_the_model_keeps_who_is_who_and_its_inner_folds_part_nobody(run, tmp_path):
    tensors = load_file(run.model / "model.safetensors")
    assert len(tensors["stacks"]) == len(tensors["people"]) == 32 and len(set(tensors["people"].tolist())) == 16
    model = PatientModel.open(run.model)
    assert len(model) == 16
    for rest, held in model._folds():
        assert set(tensors["people"][rest]).isdisjoint(tensors["people"][held])
    model.save(tmp_path)
    save_file({**tensors, "people": tensors["people"][:3].copy()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="people do not fit the stacks"):
        PatientModel.open(tmp_path)


def test_intervals_draw_people_with_all_their_scans():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    probabilities = rng.dirichlet([1, 1], 40)
    once = metrics.score_repeats(labels, [probabilities])["accuracy"]
    doubled = np.repeat(labels, 2), [np.repeat(probabilities, 2, axis=0)]
    groups = [f"{person:02d}" for person in range(40) for _ in range(2)]
    by_person = metrics.score_repeats(*doubled, groups=groups)["accuracy"]
    by_scan = metrics.score_repeats(*doubled)["accuracy"]
    assert by_person == once
    assert by_scan.high - by_scan.low < 0.8 * (once.high - once.low)
    mean = metrics.mean_over_people(np.repeat(labels, 2).astype(float), groups=groups)
    assert mean == metrics.mean_over_people(labels.astype(float))


def test_a_table_that_calls_one_scan_two_stages_is_refused(run, tmp_path):
    table = pq.read_table(run.predictions)
    labels = table["label"].to_pylist()
    row = next(row for row, split in enumerate(table["split"].to_pylist()) if split == "test")
    labels[row] = next(name for name in ("Non_Demented", "Mild_Demented") if name != labels[row])
    changed = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    file = tmp_path / "predictions.parquet"
    pq.write_table(with_metadata(changed, {"protocol": "patient"}), file)
    with pytest.raises(DataError, match="scan .* has slices of more than one stage"):
        evaluate_patients(file)


def test_sessions_of_a_csv_file_are_scans(tmp_path, phantom):
    from PIL import Image

    lines = ["path,label,patient_id,session_id"]
    for number in range(4):
        Image.fromarray(phantom.images[number]).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{('CN', 'AD')[number % 2]},a,{number % 2}")
    (tmp_path / "slices.csv").write_text("\n".join(lines))
    slices = load_slices(tmp_path / "slices.csv")
    assert slices.stacks == ["a 0", "a 1", "a 0", "a 1"] and slices.patients == ["a"] * 4


def test_checklists_count_people(run, people):
    facts = facts_of_run(run, evaluate(run), evaluate_patients(run), people)
    assert "Mild_Demented" in facts.people
