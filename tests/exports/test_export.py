import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
)

from brainstage import export as exported_by_name
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.schema import STAGES
from brainstage.exports.export import TOLERANCE, export
from brainstage.report.explanations import explain
from brainstage.inference.predictor import Predictor
from brainstage.models.engines import onnx as engine
from brainstage.models.engines.onnx import checked_bytes
from brainstage.models.folder import refuse_pickles
from brainstage.stats.calibration import Calibration, Fit
from helpers import encode, save_backbone, small_vit

NAMES = {"id2label": dict(enumerate(STAGES)), "label2id": {name: number for number, name in enumerate(STAGES)}}
WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
SMALL = {
    "vit": lambda: small_vit(STAGES),
    "swin": lambda: SwinForImageClassification(SwinConfig(**WINDOWS, **NAMES)),
    "swinv2": lambda: Swinv2ForImageClassification(Swinv2Config(**WINDOWS, **NAMES)),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], **NAMES)
    ),
    "regnet": lambda: RegNetForImageClassification(
        RegNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], groups_width=8, **NAMES)
    ),
}


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory):
    """Return a run whose scores have a temperature."""
    run = shutil.copytree(trained.path, tmp_path_factory.mktemp("runs") / "calibrated")
    Calibration(20, Fit(4.0, 0.21), Fit(2.0, 0.22)).save(run / "model")
    return run


@pytest.fixture(scope="module")
def found(calibrated, phantom, tmp_path_factory):
    return export(calibrated, tmp_path_factory.mktemp("exports") / "new", slices=phantom)


@pytest.fixture
def copied(found, tmp_path):
    """Return a copy of the exported folder to break."""
    return shutil.copytree(found.folder, tmp_path / "copy")


def test_an_exported_run_gives_the_runs_answers(calibrated, found, phantom):
    run, exported = Predictor.open(calibrated), Predictor.open(found.folder)
    assert (run.engine, exported.engine, exported.network) == ("torch", "onnx", None)
    assert (exported.classes, exported.calibrated, exported.refuses) == (run.classes, True, True)
    images = phantom.images[:70]
    np.testing.assert_allclose(exported.predict_proba(images), run.predict_proba(images), atol=TOLERANCE)
    one, other = (model.predict_features(model.extract_features(images), ["a"] * 70) for model in (run, exported))
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=TOLERANCE)
    np.testing.assert_array_equal(one.conformal_threshold, other.conformal_threshold)
    with exported.pool() as pool:  # several threads at once
        together = np.concatenate(
            list(pool.map(exported.extract_features, [images[:5], images[5:50], images[50:]]))
        )
    np.testing.assert_allclose(together, exported.extract_features(images), atol=1e-6)


def test_what_was_compared_is_written_beside_the_file(calibrated, found):
    assert found.parity.slices == 256
    assert found.parity.source == "slices of the phantom cohort (synthetic: says nothing about real brains)"
    assert 0 < found.parity.probabilities < TOLERANCE
    manifest = json.loads((found.folder / "manifest.json").read_text())
    run = json.loads((calibrated / "manifest.json").read_text())
    assert (manifest["protocol"], manifest["leakage"]) == (run["protocol"], run["leakage"])
    assert manifest["export"]["parity"]["probabilities"] == found.parity.probabilities
    assert manifest["export"]["weights"] == run["files"]["model/model.safetensors"]
    assert "model/model.onnx" in manifest["files"]


def test_the_description_says_all_that_another_program_needs(found, phantom):
    """Follow the README's steps without brainstage."""
    from PIL import Image

    text = (found.folder / "model" / "README.md").read_text()
    for said in ("never a diagnosis", "official: leaky", "synthetic", "`Non_Demented`, `Very_Mild_Demented`"):
        assert said in text
    settings = json.loads((found.folder / "model" / "preprocessor_config.json").read_text())
    short, mean, std = int(32 / settings["crop_pct"]), settings["image_mean"][0], settings["image_std"][0]
    for said in (
        "(N, 1, 32, 32)",
        f"shorter side has {short} pixels (bicubic",
        f"Subtract {mean} and divide by {std}",
    ):
        assert said in text
    assert "by the temperature 4.0000" in text
    scaled = np.asarray(Image.fromarray(phantom.images[0]).resize((short, short), Image.Resampling.BICUBIC))
    edge = (short - 32) // 2
    pixels = (scaled[edge : edge + 32, edge : edge + 32] / 255 - mean) / std
    session = onnxruntime.InferenceSession(found.folder / "model" / "model.onnx")
    [logits] = session.run(["logits"], {"pixel_values": pixels[None, None].astype(np.float32)})
    powers = np.exp(logits / 4)
    expected = Predictor.open(found.folder).predict_proba(phantom.images[:1])
    np.testing.assert_allclose(powers / powers.sum(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_every_architecture_is_exported(kind, tmp_path, phantom):
    (tmp_path / "run").mkdir()
    save_backbone(tmp_path / "run" / "model", SMALL[kind]())
    about = {"protocol": "official", "leakage": {"sentence": "leakage unknown"}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(about))
    found = export(tmp_path / "run", slices=phantom)
    assert found.folder == tmp_path / "run" / "onnx"
    assert found.parity.logits < 1e-3
    images = phantom.images[:3]
    ours, theirs = (Predictor.open(folder).predict_proba(images) for folder in (tmp_path / "run", found.folder))
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_predict_answers_without_torch(found, phantom, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(phantom.images[0]))
    arguments = ["predict", str(found.folder), str(tmp_path / "a.png"), "--json"]
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom brainstage.cli import app\n"
        f"done = CliRunner().invoke(app, {arguments!r})\n"
        "assert done.exit_code == 0, done.output\nassert 'predicted' in done.output\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'pandas') if name in sys.modules])"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.strip().splitlines()[-1] == "[]"


def test_a_network_that_answers_otherwise_is_not_written(calibrated, tmp_path, phantom, monkeypatch):
    run = shutil.copytree(calibrated, tmp_path / "run")
    write = exported_module().to_onnx

    def wrong(network, pixels, file):
        write(network, pixels, file)
        model = onnx.load(file)
        bias = next(one for one in model.graph.initializer if one.dims == [4])
        moved = onnx.numpy_helper.to_array(bias) + np.array([0.1, 0, 0, 0], np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
        onnx.save(model, file)

    monkeypatch.setattr(exported_module(), "to_onnx", wrong)
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match=r"differ from PyTorch's by up to .* on 256 .*nothing was written"):
        export(run, slices=phantom)
    assert sorted(run.rglob("*")) == before


def exported_module():
    return sys.modules["brainstage.exports.export"]


def test_int8_keeps_the_accuracy_of_compact(tmp_path, real_folder):
    from brainstage import load_slices

    found = export("compact", tmp_path / "new", int8=True, slices=load_slices(real_folder))
    assert found.int8 and found.int8.slices == 1280
    assert found.int8.moved < 0.002
    assert found.megabytes < 0.6
    assert "int8" in (tmp_path / "new" / "model" / "README.md").read_text()


def test_int8_that_moves_the_accuracy_is_not_written(calibrated, tmp_path, phantom, monkeypatch):
    quantise = exported_module().to_int8
    # ranges of black slices alone: whatever is brighter is cut off
    monkeypatch.setattr(
        exported_module(), "to_int8", lambda file, pixels, to: quantise(file, pixels * 0 - 1e-3, to)
    )
    with pytest.raises(
        RunError, match=r"8-bit integers move the accuracy on 102 test slices from 0\.\d+ to 0\.\d+"
    ):
        export(calibrated, tmp_path / "new", int8=True, slices=phantom)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_said(calibrated, found, tmp_path, phantom):
    for run, out, options, says in (
        ("patient", tmp_path / "new", {}, "the patient model is no network"),
        ("compact", None, {}, "say with --out where"),
        (found.folder, tmp_path / "new", {}, "was exported already"),
        (calibrated, tmp_path, {}, "is there already"),
        (calibrated, tmp_path / "new", {"int8": True}, "int8 needs the data"),
    ):
        with pytest.raises(ConfigError, match=says):
            export(run, out, **options)
    run = shutil.copytree(calibrated, tmp_path / "run")
    (run / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match="names no protocol"):
        export(run, slices=phantom)
    assert exported_by_name is export


def test_an_exported_model_is_explained_by_occlusion_alone(found, tmp_path):
    predictor = Predictor.open(found.folder)
    with pytest.raises(ConfigError, match="take occlusion"):
        explain(predictor, [], tmp_path / "out", method="grad-cam")
    with pytest.raises(ConfigError, match="take the run that it was exported from"):
        explain(predictor, [], tmp_path / "out", sanity=True)
    assert explain(predictor, [], tmp_path / "out").method == "occlusion"


# --- files from elsewhere -----------------------------------------------------------------------------------------


def cut(file):
    file.write_bytes(file.read_bytes()[:-5000])


def text(file):
    file.write_text("no protobuf at all")


def with_an_operator_of_its_own(file):
    model = onnx.load(file)
    model.graph.node[-1].domain = "com.example"
    onnx.save(model, file)


def with_weights_elsewhere(file):
    onnx.save(onnx.load(file), file, save_as_external_data=True, size_threshold=0, location="weights.data")


def of_another_network(file):
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("pixel_values", "logits")
    ]
    node = helper.make_node("Identity", ["pixel_values"], ["logits"])
    model = helper.make_model(
        helper.make_graph([node], "g", sides[:1], sides[1:]), opset_imports=[helper.make_opsetid("", 20)]
    )
    onnx.save(model, file)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "not a usable ONNX file"),
        (text, "not a usable ONNX file"),
        (with_an_operator_of_its_own, "operators that are not of the ONNX standard"),
        (with_weights_elsewhere, "keeps weights in another file"),
        (of_another_network, "does not take pixel_values of 32×32 pixels"),
    ],
)
def test_a_damaged_or_foreign_file_is_told_in_one_line(copied, damage, says):
    damage(copied / "model" / "model.onnx")
    with pytest.raises(RunError, match=says) as told:
        Predictor.open(copied)
    assert "\n" not in str(told.value)


def test_a_file_that_does_not_fit_its_folder_is_told(copied, monkeypatch):
    config = json.loads((copied / "model" / "config.json").read_text())
    (copied / "model" / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(RunError, match=r"gives \[4\] logits, expected one for each of a, b"):
        Predictor.open(copied)
    monkeypatch.setattr(engine, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="more than an exported network can be"):
        checked_bytes(copied / "model" / "model.onnx")


def test_without_the_extra_the_command_that_installs_it_is_said(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'brainstage\[onnx\]'"):
        Predictor.open(found.folder)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def zipped(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Harm()))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pytorch_model.bin", lambda file: file.write_text("")),
        ("notes.txt", lambda file: file.write_bytes(pickle.dumps(Harm()))),
        ("weights", zipped),
    ],
)
@pytest.mark.parametrize("kind", ["run", "exported"])
def test_a_model_folder_with_a_pickle_is_refused(name, write, kind, calibrated, copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = copied if kind == "exported" else shutil.copytree(calibrated, tmp_path / "run")
    write(folder / "model" / name)
    with pytest.raises(RunError, match=f"{name}: a pickle, or named like one") as told:
        Predictor.open(folder)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "harm").exists()


def test_weights_whose_length_reads_like_a_pickle_are_none(tmp_path):
    header = b"{" + b" " * 638 + b"}"  # safetensors begin with its length: 640 bytes are 80 02 in hexadecimal
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refuse_pickles(tmp_path)
    (tmp_path / "other").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="other: a pickle"):
        refuse_pickles(tmp_path)
