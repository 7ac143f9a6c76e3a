"""The models that come with the package: what they are, what is said of them, what they answer."""

import json

import numpy as np
import pytest

from brainstage import load_slices
from brainstage.core.errors import ConfigError, RunError
from brainstage.core.levels import PUBLIC
from brainstage.inference.predictor import Predictor
from brainstage.models.find import find_model
from brainstage.models.weights import BUNDLED, bundled_folder
from brainstage.report.cards import Card, write_card

CARD = Card("a", "b", "c", "d", ("e",))


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_says_its_performance_on_people_outside_its_training_set(name, phantom):
    predictor = Predictor.open(name)
    scores = predictor.predict_proba(phantom.images[:3])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    card = (bundled_folder(name) / "README.md").read_text(encoding="utf-8")
    assert "never a diagnosis" in card
    assert (
        f"protocol of the figures | {predictor.about['protocol']}: {predictor.about['leakage']['sentence']}" in card
    )
    assert predictor.hash in card
    assert predictor.about["performance"] in card
    for row, scores in {**predictor.about.get("nested", {}), **predictor.about["figures"]}.items():
        assert row in card
        assert f"{scores['accuracy']['value']:.3f} [" in card


def drawn_head(level):
    """Return a slice that a formula draws, so that what models say of it can be written down."""
    rows, columns = np.meshgrid(np.arange(128) - 63.5, np.arange(128) - 63.5, indexing="ij")
    head = np.exp(-(((rows / 55) ** 2 + (columns / 45) ** 2) ** 4))
    return (head * (170 + 50 * np.sin(rows / 5 + level / 4) * np.cos(columns / 6))).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "stated", "whole", "sixth"),
    [
        (
            "patient",
            "public",
            [0.2442117, 0.5203654, 0.2224322, 0.0129907],
            [0.4005355, 0.4208439, 0.1678136, 0.0108070],
        ),
        (
            "compact",
            None,
            [0.8913946, 0.0059092, 0.0631011, 0.0395950],
            [0.8935683, 0.0059128, 0.0646738, 0.0358452],
        ),
    ],
)
def test_a_bundled_model_predicts_what_it_always_did(name, stated, whole, sixth):
    """A file that states no levels, since it is older, is of the public ones."""
    predictor, images = Predictor.open(name), [drawn_head(level) for level in range(PUBLIC.count)]
    config = json.loads((bundled_folder(name) / "model" / "config.json").read_text())
    assert config.get("brainstage_levels") == stated
    assert predictor.level_set == PUBLIC
    together = predictor.predict_proba(images, ["a"] * len(images), range(len(images)))
    # processors differ in the last bit of sine and exponential, and so in a pixel or two of what is drawn
    np.testing.assert_allclose(together[0], whole, atol=1e-4)
    np.testing.assert_allclose(predictor.predict_proba(images, None, range(len(images)))[5], sixth, atol=1e-4)


def test_bundled_models_are_small_and_hold_no_code():
    files = [file for name in BUNDLED for file in bundled_folder(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1e7
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}


def test_the_patient_model_knows_everyone_of_the_public_dataset(real_folder):
    assert json.loads((bundled_folder("patient") / "manifest.json").read_text())["synthetic"] is False
    assert Predictor.open().about["data_hash"] == load_slices(real_folder).data_hash


def test_a_card_without_protocol_or_verdict_is_refused(tmp_path):
    about = {"figures": {}, "performance": "", "hash": ""}
    with pytest.raises(ConfigError, match="protocol"):
        write_card(tmp_path, CARD, {**about, "leakage": {"sentence": "clean"}})
    with pytest.raises(ConfigError, match="leakage"):
        write_card(tmp_path, CARD, {**about, "protocol": "patient"})
    assert not list(tmp_path.iterdir())


def test_a_card_tells_the_performance(tmp_path):
    about = {"protocol": "patient", "leakage": {"sentence": "clean"}, "figures": {}, "hash": "0"}
    card = write_card(tmp_path, CARD, {**about, "performance": "On others: accuracy 0.61."}).read_text()
    assert "On others: accuracy 0.61." in card
    assert "patient: clean" in card


def test_the_first_name_may_be_a_model(trained, tmp_path):
    image = str(tmp_path / "a.png")
    (tmp_path / "a.png").touch()
    assert find_model([image]) == ("patient", [image])
    assert find_model(["compact", image]) == ("compact", [image])
    assert find_model([str(trained.path), image]) == (str(trained.path), [image])
    with pytest.raises(RunError, match="no such run, file or folder"):
        find_model([str(tmp_path / "none"), image])
    with pytest.raises(ConfigError, match="is a model; name files or folders"):
        find_model(["patient"])
