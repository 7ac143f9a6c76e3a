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
    ],
)
def test_bad_settings_are_told(changes, says):
    with pytest.raises(ConfigError, match=says):
        load_recipe("compact", **changes)


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'compact'"):
        load_recipe("compct")


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(TrainConfig)]), st.from_type(object)))
def test_any_json_is_a_config_or_a_config_error(values):
    try:
        config = TrainConfig.from_dict({"recipe": "x", **values})
    except ConfigError:
        return
    assert TrainConfig.from_dict(json.loads(config.to_json())) == config
