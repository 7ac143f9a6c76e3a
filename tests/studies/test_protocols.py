"""One recipe under both protocols: by how much shared people inflate scores, with Yagis's control."""

import json

import pytest

from brainstage.core.errors import ConfigError, DataError, LeakageError
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SLICE_SCHEMA, SliceTable
from brainstage.report.results import write_protocols
from brainstage.report.terminal.comparisons import show_protocols
from brainstage.studies.protocols import compare_protocols, shuffle_people


@pytest.fixture(scope="module")
def config(tiny):
    return tiny.replace(folds=2, epochs=1, validation_share=0.0)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, few, config):
    comparison = compare_protocols(few, config, name="p", out=tmp_path_factory.mktemp("runs"))
    write_protocols(comparison)
    return comparison


def test_both_protocols_are_named_with_their_verdicts(comparison, capsys):
    assert comparison.official.leakage_status == "leaky"
    assert comparison.patient.leakage_status == "clean"
    names = [row.name for row in comparison.rows]
    assert names == ["compact", "nearest training slice", "linear baseline", "stages shuffled"]
    show_protocols(comparison)
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 80
    words = " ".join(shown.split())
    assert "protocol official · leaky" in words
    assert "protocol patient · clean" in words
    assert "synthetic: says nothing about real brains" in words
    content = json.loads((comparison.folder / "protocols.json").read_text())
    assert content["leakage"]["patient"] == "clean: no patient on both sides"
    assert content["rows"][0]["patient_people"]["accuracy"]["value"] == comparison.rows[0].people["accuracy"].value
    assert (comparison.folder / "protocols.png").read_bytes().startswith(b"\x89PNG")


def test_one_that_was_started_with_something_else_is_not_gone_on_with(comparison, few, config):
    options = {"name": "p", "out": comparison.folder.parent, "resume": True}
    with pytest.raises(ConfigError, match="started with different settings: epochs 1, not 2"):
        compare_protocols(few, config.replace(epochs=2), **options)
    with pytest.raises(DataError, match="started with different data"):
        compare_protocols(shuffle_people(few, 1), config, **options)


def test_a_linear_model_recognises_shuffled_phantoms_only_in_its_training_set(comparison):
    # what the baseline gains from people of the training set does not come from the stages
    baseline = comparison.rows[2]
    assert baseline.official["accuracy"].value > baseline.patient["accuracy"].value


def test_the_nearest_training_slice_beats_the_network_where_people_are_on_both_sides(comparison):
    row = comparison.rows[1]
    assert row.official["accuracy"].value > max(0.9, comparison.rows[0].official["accuracy"].value)
    assert row.patient["accuracy"].value < row.official["accuracy"].value - 0.3
    assert f"without any training, on {row.official['accuracy'].value:.1%}" in comparison.sentence


def test_shuffled_stages_stay_with_the_person(phantom):
    shuffled = shuffle_people(phantom, 3)
    stage_of = {}
    for patient, label in zip(shuffled.patients, shuffled.labels, strict=True):
        assert stage_of.setdefault(patient, label) == label
    assert sorted(shuffled.labels) == sorted(phantom.labels)  # everyone has 32 slices here
    assert shuffled.labels != phantom.labels
    assert shuffled.slice_ids == phantom.slice_ids
    assert shuffled.data_hash != phantom.data_hash


def test_without_patients_there_is_no_comparison(phantom, tmp_path):
    rows = phantom.rows.to_pylist()
    bare = [{**row, "patient_id": None, "patient_id_source": "unknown"} for row in rows]
    table = SliceTable(phantom.rows.from_pylist(bare, schema=SLICE_SCHEMA), phantom.images, phantom.classes)
    with pytest.raises(LeakageError, match="brainstage audit"):
        compare_protocols(table, "compact", out=tmp_path)


def test_the_public_data_can_be_compared(real_folder):
    assert len(set(shuffle_people(load_slices(real_folder), 0).labels)) == 4
