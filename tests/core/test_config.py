import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError
from brainstage.models.recipes import load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_survives_json(name, tmp_path):
    config = load_recipe(name)
    (tmp_path / "config.json").write_text(config.to_json())
    assert TrainConfig.from_json(tmp_path / "config.json") == config
    assert config.recipe == name


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "epochs: 0 is out of range; give a number from 1"),
        ({"stem_channels": 7}, "stem_channels: 7 is out of range; give a number from 8 to 1024"),
        ({"stage_channels": [16, 7], "stage_blocks": [1, 1]}, "stage_channels: .* below 8; give 8 or more"),
        ({"epochs": 2.5}, "epochs: expected int, not 2.5"),
        ({"epochs": True}, "epochs: expected int"),
        ({"epochs": "ten"}, "epochs: expected int, not 'ten'"),
        ({"protocol": "pateint"}, "is not one of official, patient"),
        ({"stage_channels": [8]}, "one number a stage"),
        ({"stage_channels": "wide"}, "expected a list"),
        ({"fold": 5}, "there are 5 folds"),
        ({"learning_rate": float("nan")}, "out of range"),
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"downsample_first": 1}, "expected bool"),
        ({"tuned_on": "here"}, "tuned_on: 'here' is not a SHA-256"),
        ({"tuned_on": None, "tuned_without": "0" * 64}, "tuned_without: needs tuned_on"),
    ],
)
def test_bad_settings_are_told(changes, says):
    with pytest.raises(ConfigError, match=says):
        load_recipe("compact", **changes)


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'compact'"):
        load_recipe("compct")


def test_a_recipe_may_be_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 3\nstage_channels = [8, 16, 32]\n")
    for name in (file, str(file)):
        config = load_recipe(name, seed=4)
        assert (config.recipe, config.epochs, config.seed) == ("mine", 3, 4)
    changed = load_recipe("linear-probe", learning_rate=1e-5, mirror=False)
    (tmp_path / "linear-probe.toml").write_text(changed.to_toml())
    assert load_recipe(tmp_path / "linear-probe.toml") == changed


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.toml", "epoch = 3", "a.toml: unknown setting 'epoch'; did you mean 'epochs'"),
        ("a.toml", "epochs = 0", "a.toml: epochs: 0 is out of range"),
        ("a.toml", "epochs = ", "a.toml: not readable as TOML"),
        ("a.toml", 'recipe = "b"', "a.toml: recipe is the file's name"),
        ("a b.toml", "epochs = 3", "a b.toml: recipe name 'a b' is not usable"),
        ("a.toml", None, "a.toml: no such recipe file"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_named_with_its_field(name, content, says, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=says):
        load_recipe(tmp_path / name)


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(TrainConfig)]), st.from_type(object)))
def test_any_json_is_a_config_or_a_config_error(values):
    try:
        config = TrainConfig.from_dict({"recipe": "x", **values})
    except ConfigError:
        return
    assert TrainConfig.from_dict(json.loads(config.to_json())) == config
