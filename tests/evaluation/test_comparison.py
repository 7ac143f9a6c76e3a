import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.schema import STAGES, with_metadata
from brainstage.evaluation.comparison import compare
from brainstage.stats.metrics import paired_difference


def table(folder, name, right, count=400, seed=0, patients=None, ids=None):
    """Write predictions of which a share is right, and return the file."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    answers = np.where(rng.random(count) < right, labels, (labels + 1) % 4)
    probabilities = np.full((count, 4), 0.1)
    probabilities[np.arange(count), answers] = 0.7
    columns = {
        "slice_id": ids or [str(number) for number in range(count)],
        "patient_id": pa.array(patients or [None] * count, pa.string()),
        "split": ["validation"] * count,
        "fold": [0] * count,
        "label": [STAGES[label] for label in labels],
        "model": [name] * count,
    } | {f"prob_{stage}": probabilities[:, number] for number, stage in enumerate(STAGES)}
    file = folder / f"{name}.parquet"
    pq.write_table(with_metadata(pa.table(columns), {"protocol": "official"}), file)
    return file


def test_the_best_leads_and_the_others_are_behind_by_what_they_lack(tmp_path):
    files = [table(tmp_path, "poor", 0.5), table(tmp_path, "good", 0.95), table(tmp_path, "fair", 0.93, seed=1)]
    found = compare(files)
    assert [candidate.name for candidate in found.candidates] == ["good.parquet", "fair.parquet", "poor.parquet"]
    poor = found.candidates[2]
    gap = (
        found.leader.evaluation.scores.overall["accuracy"].value - poor.evaluation.scores.overall["accuracy"].value
    )
    assert poor.behind["accuracy"].value == pytest.approx(gap)
    assert poor.behind["accuracy"].low < gap < poor.behind["accuracy"].high
    assert [candidate.is_behind for candidate in found.candidates] == [False, False, True]
    assert found.verdict == (
        "400 validation slices cannot tell good.parquet from fair.parquet (95 % intervals of accuracy)."
    )
    assert "protocol official" in found.title
    assert found.to_dict()["candidates"][2]["majority_baseline"]["accuracy"] == 0.25


def test_fifty_slices_cannot_separate_two_models(tmp_path):
    found = compare([table(tmp_path, "a", 0.6, 50), table(tmp_path, "b", 0.54, 50, seed=3)])
    assert "50 validation slices cannot tell" in found.verdict


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 4
    hard = rng.random(600) < 0.4
    first, second = (
        np.eye(4)[np.where(hard | (rng.random(600) < share), labels + 1, labels) % 4] for share in (0, 0.05)
    )
    paired = paired_difference(labels, first, second)["accuracy"]
    alone = np.sqrt(2 * 0.4 * 0.6 / 600) * 2 * 1.96  # of two independent samples
    assert paired.low > 0
    assert paired.high - paired.low < alone / 2


def test_patients_are_drawn_whole(tmp_path):
    people = [str(number // 32) for number in range(320)]
    by_patient, by_slice = (
        compare([table(folder, "a", 0.8, 320, 0, who), table(folder, "b", 0.6, 320, 1, who)])
        for folder, who in ((tmp_path / "p", people), (tmp_path / "s", None))
        if not folder.mkdir()
    )
    assert by_patient.leader.evaluation.resampled == "patients"
    assert by_slice.leader.evaluation.resampled == "slices"


def test_rows_in_another_order_are_the_same_rows(tmp_path):
    first = table(tmp_path, "a", 0.9)
    shuffled = pq.read_table(first).take(np.random.default_rng(0).permutation(400))
    pq.write_table(shuffled, tmp_path / "b.parquet")
    found = compare([first, tmp_path / "b.parquet"])
    assert vars(found.candidates[1].behind["log_loss"]) == pytest.approx({"value": 0, "low": 0, "high": 0})


def test_what_cannot_be_compared_is_told(tmp_path):
    one = table(tmp_path, "a", 0.9)
    with pytest.raises(ConfigError, match="two runs or more"):
        compare([one])
    other = table(tmp_path, "b", 0.9, ids=[str(number + 100) for number in range(400)])
    with pytest.raises(DataError, match="share 300 of 400 slices"):
        compare([one, other])
    flipped = table(tmp_path, "c", 0.9, ids=[str((number + 1) % 400) for number in range(400)])
    with pytest.raises(DataError, match="gives some slices another label"):
        compare([one, flipped])
