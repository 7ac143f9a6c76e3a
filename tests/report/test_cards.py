"""A model's card, as a reader and as the Hugging Face hub reads it.

The hub's own check (``ModelCard.validate``) is a request to the hub, so it is not made here. ``check_card`` does
what its library does without one.
"""

import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from brainstage.models.weights import BUNDLED, bundled_folder
from brainstage.report.cards import Card, write_card

CARD = Card("brainstage test", "Stages: a person, or none.", "all 200 people", "Out of fold.", ("Few people.",))
ABOUT = {
    "protocol": "patient",
    "leakage": {"sentence": "clean: no inferred patient on both sides"},
    "figures": {
        "all slices, 2 stages": {
            "accuracy": {"value": 0.742, "low": 0.69, "high": 0.8},
            "auroc_ovr": {"value": 0.821, "low": 0.758, "high": 0.871},
            "quadratic_kappa": {"value": None, "low": None, "high": None},
        },
        "linear baseline, 2 stages": {"accuracy": {"value": 0.681, "low": 0.62, "high": 0.74}},
    },
    "performance": "On others: AUROC 0.82.",
    "hash": "0",
}
NESTED = {"chosen inside the folds, 2 stages": {"accuracy": {"value": 0.719, "low": 0.661, "high": 0.772}}}
WHY = "the settings were tuned on these same people"


def metrics(folder, **changes):
    """Return the results' datasets and the metrics, in the order of the card, as the hub would list them."""
    index = metadata_load(write_card(folder, CARD, ABOUT | changes))["model-index"]
    return [(result["dataset"], metric) for result in index[0]["results"] for metric in result["metrics"]]


def check_card(path):
    """Check that the metadata parse, come back as they were, and hold an index that the hub's library takes."""
    card, data = ModelCard.load(path), metadata_load(path)
    assert card.data.to_dict() == data
    assert metadata_load(path) == ModelCard(str(card)).data.to_dict()
    assert data["license"] == "apache-2.0" and data["library_name"] == "brainstage"
    assert data["datasets"] == ["Falah/Alzheimer_MRI"] and data["pipeline_tag"] == "image-classification"
    name, results = model_index_to_eval_results(data["model-index"])
    assert eval_results_to_model_index(name, results) == data["model-index"]
    assert results
    for result in results:
        assert isinstance(result.metric_value, float)
        assert "protocol" in result.dataset_name and "interval" in result.metric_name
    return results


def test_the_metadata_parse_and_come_back_as_they_were(tmp_path):
    results = check_card(write_card(tmp_path, CARD, ABOUT))
    assert [(one.metric_type, one.metric_value) for one in results] == [("accuracy", 0.742), ("roc_auc", 0.821)]


def test_a_result_names_protocol_and_interval_and_is_the_models_own(tmp_path):
    (dataset, metric), _ = metrics(tmp_path)
    assert dataset["name"] == "Falah/Alzheimer_MRI, protocol patient (no person on both sides)"
    assert metric["name"] == "all slices, 2 stages: accuracy, 95 % interval 0.690 to 0.800"
    assert "linear baseline" not in str(metrics(tmp_path))  # it stands in the table alone
    assert "| linear baseline, 2 stages | patient | 0.681 [0.62, 0.74] |" in (tmp_path / "README.md").read_text()


def test_figures_chosen_inside_the_folds_stand_first_and_the_others_are_called_optimistic(tmp_path):
    (_, first), *others = metrics(tmp_path, nested=NESTED, optimistic=WHY)
    assert first["value"] == 0.719 and "optimistic" not in first["name"]
    assert others and all(metric["name"].startswith("optimistic: all slices") for _, metric in others)
    text = (tmp_path / "README.md").read_text().partition("\n---\n")[2]
    assert text.index("| chosen inside the folds") < text.index("| optimistic: all slices")
    assert f"optimistic: {WHY}" in text
    assert "| linear baseline, 2 stages |" in text  # it was tuned on nobody


def test_a_row_that_says_it_is_optimistic_does_not_say_it_twice(tmp_path):
    figures = {f"optimistic: {row}": scores for row, scores in ABOUT["figures"].items()}
    assert all(metric["name"].count("optimistic") == 1 for _, metric in metrics(tmp_path, figures=figures))
    assert all(
        metric["name"].count("optimistic") == 1 for _, metric in metrics(tmp_path, figures=figures, optimistic=WHY)
    )


def test_rows_of_two_protocols_are_two_results(tmp_path):
    official = {"test slices": {"accuracy": {"value": 0.99, "low": 0.98, "high": 1.0}}}
    others = {"optimistic: slices of people not in the training set": ABOUT["figures"]["all slices, 2 stages"]}
    leaky = {"protocol": "official", "leakage": {"sentence": "leaky: 200 inferred patients on both sides"}}
    found = metrics(tmp_path, **leaky, figures={**official, **others})
    assert [(dataset["split"], metric["value"]) for dataset, metric in found] == [
        ("test", 0.99),
        ("train+test", 0.742),
        ("train+test", 0.821),
    ]
    assert "protocol official (leaky: 200 inferred patients on both sides)" in found[0][0]["name"]
    assert "protocol patient (no person on both sides)" in found[1][0]["name"]
    assert "| test slices | official | 0.990 [0.98, 1.00] |" in (tmp_path / "README.md").read_text()


def test_the_stages_and_the_people_are_defined(tmp_path):
    card = write_card(tmp_path, CARD, ABOUT).read_text()
    for fact in ("Clinical Dementia Ratings 0, 0.5", "Morris 1993", "OASIS-1", "18 to 96", "age or sex"):
        assert fact in card


@pytest.mark.parametrize("name", BUNDLED)
def test_the_card_of_a_bundled_model_is_one_that_the_hub_can_read(name):
    results = check_card(bundled_folder(name) / "README.md")
    assert len({result.metric_name for result in results}) == len(results) >= 10
    assert any("protocol patient" in result.dataset_name for result in results)
