import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.schema import STAGES, with_metadata
from brainstage.evaluation.comparison import compare
from brainstage.stats.metrics import differences_from_leader


def table(
    folder, name, share, count=400, seed=0, patients=None, ids=None, split="validation", folds=None, about=None
):
    """Write predictions of which a share is correct, and return the file."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    predicted = np.where(rng.random(count) < share, labels, (labels + 1) % 4)
    probabilities = np.full((count, 4), 0.1)
    probabilities[np.arange(count), predicted] = 0.7
    columns = {
        "slice_id": ids or [str(number) for number in range(count)],
        "patient_id": pa.array(patients or [None] * count, pa.string()),
        "split": [split] * count,
        "fold": folds or [0] * count,
        "label": [STAGES[label] for label in labels],
        "model": [name] * count,
    } | {f"prob_{stage}": probabilities[:, number] for number, stage in enumerate(STAGES)}
    file = folder / f"{name}.parquet"
    pq.write_table(with_metadata(pa.table(columns), {"protocol": "official"} | (about or {})), file)
    return file


def test_the_most_accurate_leads_and_the_others_are_behind_by_the_difference(tmp_path):
    files = [table(tmp_path, "poor", 0.5), table(tmp_path, "good", 0.95), table(tmp_path, "fair", 0.93, seed=1)]
    comparison = compare(files)
    assert [candidate.name for candidate in comparison.candidates] == [
        "good.parquet",
        "fair.parquet",
        "poor.parquet",
    ]
    poor = comparison.candidates[2]
    gap = (
        comparison.leader.evaluation.scores.overall["accuracy"].value
        - poor.evaluation.scores.overall["accuracy"].value
    )
    assert poor.behind["accuracy"].value == pytest.approx(gap)
    assert poor.behind["accuracy"].low < gap < poor.behind["accuracy"].high
    assert [candidate.is_behind for candidate in comparison.candidates] == [False, False, True]
    assert comparison.verdict == (
        "400 validation slices cannot distinguish good.parquet from fair.parquet "
        "(95 % intervals of accuracy, simultaneous for all pairs)."
    )
    assert "protocol official" in comparison.title
    assert comparison.to_dict()["candidates"][2]["baselines"]["majority"]["accuracy"]["value"] == 0.25


def test_a_run_whose_figures_are_optimistic_is_marked_beside_one_whose_are_not(tmp_path):
    files = [table(tmp_path, "clean", 0.95), table(tmp_path, "tuned", 0.9, about={"selection": "test"})]
    comparison = compare(files)
    assert comparison.names == ["clean.parquet", "tuned.parquet (optimistic)"]
    assert comparison.verdict.endswith(
        "The figures of tuned.parquet are optimistic: epoch chosen on the test slices."
    )


def test_fifty_slices_cannot_separate_two_models(tmp_path):
    comparison = compare([table(tmp_path, "a", 0.6, 50), table(tmp_path, "b", 0.54, 50, seed=3)])
    assert "50 validation slices cannot distinguish" in comparison.verdict


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 4
    hard = rng.random(600) < 0.4
    first, second = (
        np.eye(4)[np.where(hard | (rng.random(600) < share), labels + 1, labels) % 4] for share in (0, 0.05)
    )
    paired = differences_from_leader(labels, [first, second], 0)[1]["accuracy"]
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
    comparison = compare([first, tmp_path / "b.parquet"])
    assert vars(comparison.candidates[1].behind["log_loss"]) == pytest.approx({"value": 0, "low": 0, "high": 0})


def test_tables_that_cannot_be_compared_are_refused(tmp_path):
    first = table(tmp_path, "a", 0.9)
    with pytest.raises(ConfigError, match="two runs or more"):
        compare([first])
    other = table(tmp_path, "b", 0.9, ids=[str(number + 100) for number in range(400)])
    with pytest.raises(DataError, match="share 300 of 400 slices"):
        compare([first, other])
    flipped = table(tmp_path, "c", 0.9, ids=[str((number + 1) % 400) for number in range(400)])
    with pytest.raises(DataError, match="gives some slices another label"):
        compare([first, flipped])
    doubled = table(tmp_path, "d", 0.9, ids=["0", *(str(number) for number in range(399))])
    with pytest.raises(DataError, match="1 rows of its validation side have the fold and slice_id of another row"):
        compare([doubled, doubled])
    trained = table(tmp_path, "e", 0.9, split="train")
    with pytest.raises(DataError, match=r"no side \(validation, test\) has labelled slices in all of them"):
        compare([first, trained])


def test_cross_validated_runs_are_compared_fold_by_fold(tmp_path):
    ids = [str(number % 200) for number in range(400)]  # every slice in two repeats
    options = {"split": "test", "ids": ids, "folds": [0] * 200 + [1] * 200}
    same, other = table(tmp_path, "a", 0.8, **options), table(tmp_path, "b", 0.6, seed=1, **options)
    itself = compare([same, same]).candidates[1]
    assert {tuple(vars(score).values()) for score in itself.behind.values()} == {(0, 0, 0)}
    shuffled = pq.read_table(same).take(np.random.default_rng(0).permutation(400))
    pq.write_table(shuffled, tmp_path / "c.parquet")
    assert vars(compare([same, tmp_path / "c.parquet"]).candidates[1].behind["accuracy"])["value"] == 0
    comparison = compare([same, other])
    accuracies = [candidate.evaluation.scores.overall["accuracy"].value for candidate in comparison.candidates]
    assert comparison.candidates[1].behind["accuracy"].value == pytest.approx(accuracies[0] - accuracies[1])
    apart = table(tmp_path, "d", 0.6, **options | {"folds": [0] * 200 + [2] * 200})
    with pytest.raises(DataError, match="share 200 of 400 slices in the same folds"):
        compare([same, apart])


def test_a_choice_on_the_validation_people_of_all_folds_is_cautioned(tmp_path):
    about = {"protocol": "patient"}
    options = {"patients": [str(number // 4) for number in range(400)], "about": about}
    crossed = options | {"folds": [number // 80 for number in range(400)]}
    words = (
        "chosen on validation people of all folds, each a test person of another fold: "
        "a cross-validated figure of this choice is optimistic"
    )
    assert compare([table(tmp_path, "a", 0.8, **crossed)] * 2).title.endswith(words)
    assert "chosen on" not in compare([table(tmp_path, "b", 0.8, **crossed, split="test")] * 2).title
    assert "chosen on" not in compare([table(tmp_path, "c", 0.8, **options)] * 2).title  # its one fold tests others


def test_runs_without_a_validation_side_are_compared_on_the_test_side(tmp_path):
    tested = [table(tmp_path, name, 0.8, seed=seed, split="test") for seed, name in enumerate("ab")]
    comparison = compare(tested)
    assert comparison.leader.evaluation.split == "test"
    assert comparison.title.startswith("test · 400 slices")
    assert "400 test slices cannot distinguish" in comparison.verdict
    validated = pq.read_table(table(tmp_path, "v", 0.8, ids=[f"v{number}" for number in range(400)]))
    for file in tested:
        pq.write_table(pa.concat_tables([pq.read_table(file), validated]), file)
    assert compare(tested).leader.evaluation.split == "validation"
    assert compare(tested, split="test").leader.evaluation.split == "test"
