import json
import shutil
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from brainstage.answers import answer
from brainstage.data.io import decode_slice
from brainstage.data.sources import load_slices
from brainstage.data.table import slice_id
from brainstage.errors import RunError
from brainstage.predict import BATCH, Predictor
from conftest import encode, picture


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.open(trained.path)


@pytest.fixture
def copied(trained, tmp_path):
    """Return a copy of the trained run to break."""
    return shutil.copytree(trained.path, tmp_path / "copy")


def test_a_slice_gets_the_same_answer_alone_and_in_a_batch(predictor, phantom):
    images = phantom.images[: BATCH + 3]
    together = predictor.predict(images)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[[0, -1]], predictor.predict([images[0], images[-1]]), atol=1e-5)
    assert predictor.predict([]).shape == (0, 4)


def test_each_answer_belongs_to_its_image(predictor):
    pixels = [picture(number, (60 + number % 3, 64)) for number in range(150)]
    readers = [(str(i), partial(decode_slice, encode(image), str(i))) for i, image in enumerate(pixels)]
    readers[70] = ("70", partial(decode_slice, b"text", "70"))
    rows = answer(predictor, readers).rows
    assert [row["source"] for row in rows] == [str(number) for number in range(150)]
    assert [row["slice_id"] for row in rows if row["error"] is None] == [
        slice_id(image) for number, image in enumerate(pixels) if number != 70
    ]
    assert rows[70]["error"] == "70: not a JPEG or PNG image"
    assert rows[70]["stage"] is None
    alone = predictor.predict([pixels[149]])[0]
    assert [rows[149]["prob_" + name] for name in predictor.classes] == pytest.approx(alone.tolist(), abs=1e-5)


def truncated(run):
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def without_a_weight(run):
    weights = load_file(run / "model" / "model.safetensors")
    weights.pop("classifier.1.bias")
    save_file(weights, run / "model" / "model.safetensors")


def of_another_kind(run):
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncated, "not a usable model folder"),
        (without_a_weight, "classifier.1.bias"),
        (of_another_kind, "its architecture is gpt2, expected one of convnext"),
        (lambda run: (run / "model" / "config.json").unlink(), "holds no config.json"),
        (shutil.rmtree, "no such run"),
    ],
)
def test_a_damaged_model_is_told_in_one_line(copied, damage, says):
    damage(copied)
    with pytest.raises(RunError, match=says) as told:
        Predictor.open(copied)
    assert "\n" not in str(told.value)


def test_slices_of_one_person_get_the_mean_of_a_networks_answers(predictor, phantom):
    alone = predictor.predict(phantom.images[:4])
    joined = predictor.predict(phantom.images[:4], ["a", None, "a", None])
    np.testing.assert_allclose(
        joined[[0, 2]], alone[[0, 2]].mean(axis=0, keepdims=True).repeat(2, axis=0), atol=1e-6
    )
    np.testing.assert_allclose(joined[[1, 3]], alone[[1, 3]], atol=1e-6)


def test_slices_of_people_it_was_fitted_on_are_told(real_folder, phantom):
    seen = load_slices(real_folder).images[:2]
    readers = [(str(i), partial(decode_slice, encode(image), str(i))) for i, image in enumerate(seen)]
    readers.append(("other", partial(decode_slice, encode(phantom.images[0]), "other")))
    assert "people that it was fitted on: 2 of 3" in answer(Predictor.open(), readers).notice
    assert "fitted on" not in answer(Predictor.open(), readers[2:]).notice
