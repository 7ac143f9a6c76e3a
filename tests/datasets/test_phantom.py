import numpy as np
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import ConfigError
from brainstage.core.schema import SLICE_SIDE
from brainstage.datasets.phantom import draw_head, stage_counts, write_phantom


def test_same_seed_same_head_other_person_another():
    head = draw_head(0, seed=0, patient=1)
    assert head.shape == (32, SLICE_SIDE, SLICE_SIDE)
    assert (head == draw_head(0, seed=0, patient=1)).all()
    assert (head != draw_head(0, seed=0, patient=2)).mean() > 0.2


def test_ventricles_grow_with_the_stage_but_stages_overlap(phantom):
    fluid = {stage: [] for stage in phantom.classes}
    for image, label, level in zip(
        phantom.images, phantom.labels, phantom.rows["slice_index"].to_pylist(), strict=True
    ):
        if level == 20:
            fluid[label].append((image[40:90, 45:83] < 70).mean())
    healthy, very_mild, mild, moderate = fluid.values()
    assert np.mean(moderate) > 1.2 * np.mean(healthy)
    assert max(healthy) > min(very_mild) and max(healthy) > min(mild)


def test_files_have_the_schema_of_the_hub_and_every_person_on_both_sides(phantom_folder, real_folder):
    phantom = pq.read_schema(next(phantom_folder.glob("data/train*")))
    real = pq.read_schema(next(real_folder.rglob("train*")))
    assert [phantom.field(name) for name in real.names] == [real.field(name) for name in real.names]
    assert phantom.metadata[b"huggingface"] == real.metadata[b"huggingface"]


def test_shares_are_those_of_the_dataset():
    assert stage_counts(200) == [100, 70, 28, 2]
    assert sum(stage_counts(16)) == 16


def test_too_few_patients_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="give 8 or more"):
        write_phantom(tmp_path, patients=3)
