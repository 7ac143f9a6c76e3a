import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

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
from brainstage.core.run import RunFolder
from brainstage.core.schema import STAGES
from brainstage.datasets.sources import load_slices
from brainstage.datasets.splits import Splits
from brainstage.exports.export import MAX_PROBABILITY_DIFFERENCE, Int8, export
from brainstage.exports.onnx import to_int8
from brainstage.inference.predictor import Predictor
from brainstage.models.engines import onnx as engine
from brainstage.models.engines.onnx import checked_bytes
from brainstage.models.folder import refuse_pickles
from brainstage.report.explanations import explain
from helpers import encode, save_backbone, small_vit

NAMES = {"id2label": dict(enumerate(STAGES)), "label2id": {name: number for number, name in enumerate(STAGES)}}
WINDOWS = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2],  # the second block shifts its windows
    "num_heads": [1],
    "window_size": 4,
}
SMALL = {
    "vit": lambda: small_vit(STAGES, layers=1),
    "swin": lambda: SwinForImageClassification(SwinConfig(**WINDOWS, **NAMES)),
    "swinv2": lambda: Swinv2ForImageClassification(Swinv2Config(**WINDOWS, **NAMES)),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, **NAMES)
    ),
    "regnet": lambda: RegNetForImageClassification(
        RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=8, **NAMES)
    ),
}


def test_an_exported_run_predicts_what_the_run_predicts(calibrated, exported, phantom):
    run, export_ = Predictor.open(calibrated), Predictor.open(exported.folder)
    assert (run.engine, export_.engine, export_.network) == ("torch", "onnx", None)
    assert (export_.classes, export_.calibrated, export_.refuses) == (run.classes, True, True)
    images = phantom.images[:70]
    np.testing.assert_allclose(
        export_.predict_proba(images), run.predict_proba(images), atol=MAX_PROBABILITY_DIFFERENCE
    )
    one, other = (model.predict_features(model.extract_features(images), ["a"] * 70) for model in (run, export_))
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=MAX_PROBABILITY_DIFFERENCE)
    np.testing.assert_array_equal(one.conformal_threshold, other.conformal_threshold)
    with export_.pool() as pool:  # several threads at once
        together = np.concatenate(list(pool.map(export_.extract_features, [images[:5], images[5:50], images[50:]])))
    np.testing.assert_allclose(together, export_.extract_features(images), atol=1e-6)


def test_what_was_compared_is_written_beside_the_file(calibrated, exported):
    assert exported.parity.slices == 256
    assert exported.parity.source == "slices of the phantom cohort (synthetic: says nothing about real brains)"
    assert 0 < exported.parity.max_probability_difference < MAX_PROBABILITY_DIFFERENCE
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    run = json.loads((calibrated / "manifest.json").read_text())
    assert (manifest["protocol"], manifest["leakage"]) == (run["protocol"], run["leakage"])
    assert manifest["export"]["parity"]["max_probability_difference"] == exported.parity.max_probability_difference
    assert manifest["export"]["weights"] == run["files"]["model/model.safetensors"]
    assert "model/model.onnx" in manifest["files"]


def test_the_readme_says_all_that_another_program_needs(exported, phantom):
    """Follow the README's steps without brainstage."""
    from PIL import Image

    text = (exported.folder / "model" / "README.md").read_text()
    for said in ("never a diagnosis", "official: leaky", "synthetic", "`Non_Demented`, `Very_Mild_Demented`"):
        assert said in text
    settings = json.loads((exported.folder / "model" / "preprocessor_config.json").read_text())
    short, mean, std = int(32 / settings["crop_pct"]), settings["image_mean"][0], settings["image_std"][0]
    for said in (
        "(N, 1, 32, 32)",
        f"shorter side has {short} pixels (bicubic",
        f"Subtract {mean} and divide by {std}",
    ):
        assert said in text
    assert "| 1 | 4.0000 | 0.2100 |\n| 2 | 2.0000 | 0.2200 |\n" in text
    scaled = np.asarray(Image.fromarray(phantom.images[0]).resize((short, short), Image.Resampling.BICUBIC))
    edge = (short - 32) // 2
    pixels = (scaled[edge : edge + 32, edge : edge + 32] / 255 - mean) / std
    session = onnxruntime.InferenceSession(exported.folder / "model" / "model.onnx")
    [logits] = session.run(["logits"], {"pixel_values": pixels[None, None].astype(np.float32)})
    powers = np.exp(logits / 4)
    expected = Predictor.open(exported.folder).predict_proba(phantom.images[:1])
    np.testing.assert_allclose(powers / powers.sum(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_every_architecture_is_exported(kind, tmp_path, phantom):
    (tmp_path / "run").mkdir()
    save_backbone(tmp_path / "run" / "model", SMALL[kind]())
    about = {"protocol": "official", "leakage": {"sentence": "leakage unknown"}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(about))
    result = export(tmp_path / "run", slices=phantom)
    assert result.folder == tmp_path / "run" / "onnx"
    assert result.parity.max_logit_difference < 1e-3
    images = phantom.images[:3]
    ours, theirs = (Predictor.open(folder).predict_proba(images) for folder in (tmp_path / "run", result.folder))
    np.testing.assert_allclose(ours, theirs, atol=MAX_PROBABILITY_DIFFERENCE)


def test_predict_runs_without_torch(exported, phantom, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(phantom.images[0]))
    arguments = ["predict", str(exported.folder), str(tmp_path / "a.png"), "--json"]
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom brainstage.cli import app\n"
        f"done = CliRunner().invoke(app, {arguments!r})\n"
        "assert done.exit_code == 0, done.output\nassert 'predicted' in done.output\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'pandas') if name in sys.modules])"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.strip().splitlines()[-1] == "[]"


def test_a_network_that_predicts_differently_is_not_written(calibrated, exported, tmp_path, phantom, monkeypatch):
    run = shutil.copytree(calibrated, tmp_path / "run")

    def wrong(_network, _pixels, file):
        model = onnx.load(exported.folder / "model" / "model.onnx")
        bias = next(tensor for tensor in model.graph.initializer if tensor.dims == [4])
        moved = onnx.numpy_helper.to_array(bias) + np.array([0.1, 0, 0, 0], np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
        onnx.save(model, file)

    monkeypatch.setattr("brainstage.exports.export.to_onnx", wrong)
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match=r"differ from PyTorch's by up to .* on 256 .*[Nn]othing was written"):
        export(run, slices=phantom)
    assert sorted(run.rglob("*")) == before


# --- 8-bit integers -----------------------------------------------------------------------------------------------


def test_int8_keeps_the_accuracy_of_compact(tmp_path, real_folder):
    result = export("compact", tmp_path / "new", int8=True, slices=load_slices(real_folder))
    assert result.int8
    assert (result.int8.slices, result.int8.source) == (1024, "training slices held back from the ranges")
    assert result.int8.accuracy_change < 0.002
    assert result.int8.agreement >= 0.99
    assert result.megabytes < 0.6
    assert "held back from the ranges; the same stage for" in (tmp_path / "new" / "model" / "README.md").read_text()


class Recorded(list):
    """Images that keep the numbers of those that were read."""

    def __init__(self, images):
        super().__init__(images)
        self.read = set()

    def __getitem__(self, row):
        self.read.add(row)
        return super().__getitem__(row)


@pytest.fixture
def recorded(phantom, exported, monkeypatch):
    """Return the data, which keeps the numbers of the slices that are read after the comparison with PyTorch."""
    images = Recorded(phantom.images)

    def convert(_network, _pixels, file):
        shutil.copyfile(exported.folder / "model" / "model.onnx", file)
        images.read.clear()

    monkeypatch.setattr("brainstage.exports.export.to_onnx", convert)
    monkeypatch.setattr(
        "brainstage.exports.export.to_int8", lambda file, _pixels, target: shutil.copy(file, target)
    )
    return replace(phantom, images=images)


def own_splits(_run):
    return "validation slices"


def no_splits(run):
    """As the bundled compact: the sides are those of the data."""
    (run / "splits.json").unlink()
    return "training slices held back from the ranges"


def fitted_on_everyone(run):
    """As a cross-validated run, whose model has a fold of its own without validation people."""
    everyone = run / "folds" / "everyone"
    everyone.mkdir(parents=True)
    shutil.copy(run / "train_config.json", everyone)
    splits = json.loads((run / "splits.json").read_text())
    splits["folds"][0] |= {
        "train": splits["folds"][0]["train"] + splits["folds"][0]["validation"],
        "validation": [],
    }
    (everyone / "splits.json").write_text(json.dumps(splits))
    return "training slices held back from the ranges"


@pytest.mark.parametrize("prepare", [own_splits, no_splits, fitted_on_everyone])
def test_int8_reads_no_test_slice(prepare, calibrated, tmp_path, recorded):
    fold = Splits.load(calibrated / "splits.json", recorded).folds[0]
    run = shutil.copytree(calibrated, tmp_path / "run")
    source = prepare(run)
    manifest = json.loads((run / "manifest.json").read_text())
    RunFolder(run).write_manifest({name: value for name, value in manifest.items() if name != "files"})
    result = export(run, int8=True, slices=recorded)
    assert result.int8.source == source
    assert result.int8.agreement == 1
    test, validation = ({recorded.row_of[name] for name in ids} for ids in (fold.test, fold.validation))
    assert len(recorded.images.read) > 200
    assert recorded.images.read.isdisjoint(test)
    if prepare is own_splits:
        assert result.int8.slices == len(validation)
        assert validation < recorded.images.read
    else:
        assert result.int8.slices == round(0.2 * len(fold.train + fold.validation))


@pytest.mark.usefixtures("converted_before")
def test_int8_that_changes_the_accuracy_is_not_written(calibrated, tmp_path, phantom, monkeypatch):
    # ranges of black slices alone: whatever is brighter is cut off
    monkeypatch.setattr(
        "brainstage.exports.export.to_int8", lambda file, pixels, target: to_int8(file, pixels * 0 - 1e-3, target)
    )
    with pytest.raises(
        RunError, match=r"change the accuracy on 41 validation slices from 0\.\d+ to 0\.\d+, and \d+\.\d+% of them"
    ):
        export(calibrated, tmp_path / "new", int8=True, slices=phantom)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("accuracy", "agreement", "accepted"),
    [(0.9, 1.0, True), (0.8981, 0.99, True), (0.8979, 0.995, False), (0.9021, 0.995, False), (0.9, 0.98, False)],
)
def test_int8_is_accepted_by_accuracy_and_agreement(accuracy, agreement, accepted):
    assert Int8(1000, "validation slices", 0.9, accuracy, agreement).accepted == accepted


# --- what cannot be exported --------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_refused(calibrated, exported, tmp_path, phantom):
    for run, out, options, says in (
        ("patient", tmp_path / "new", {}, "the patient model is not a network"),
        ("compact", None, {}, "choose a folder for the export with --out"),
        (exported.folder, tmp_path / "new", {}, "is an exported network"),
        (calibrated, tmp_path, {}, "already exists; choose another --out or delete it"),
        (calibrated, tmp_path / "new", {"int8": True}, "int8 needs the data"),
    ):
        with pytest.raises(ConfigError, match=says):
            export(run, out, **options)
    run = shutil.copytree(calibrated, tmp_path / "run")
    (run / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match="names no protocol"):
        export(run, slices=phantom)
    assert exported_by_name is export


def test_an_exported_model_is_explained_by_occlusion_alone(exported, tmp_path):
    predictor = Predictor.open(exported.folder)
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
def test_a_damaged_or_foreign_file_is_refused_in_one_line(copied, damage, says):
    damage(copied / "model" / "model.onnx")
    with pytest.raises(RunError, match=says) as raised:
        Predictor.open(copied)
    assert "\n" not in str(raised.value)


def test_a_file_that_does_not_fit_its_folder_is_refused(copied, monkeypatch):
    config = json.loads((copied / "model" / "config.json").read_text())
    (copied / "model" / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(RunError, match=r"gives \[4\] logits, expected one for each of a, b"):
        Predictor.open(copied)
    monkeypatch.setattr(engine, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="more than an exported network can be"):
        checked_bytes(copied / "model" / "model.onnx")


def test_without_the_extra_the_error_is_its_install_command(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r'pip install "brainstage\[onnx\]"'):
        Predictor.open(exported.folder)


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
    with pytest.raises(RunError, match=f"{name}: a pickle, or named like one") as raised:
        Predictor.open(folder)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "harm").exists()


def test_weights_whose_length_reads_like_a_pickle_are_none(tmp_path):
    header = b"{" + b" " * 638 + b"}"  # safetensors begin with its length: 640 bytes are 80 02 in hexadecimal
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refuse_pickles(tmp_path)
    (tmp_path / "other").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="other: a pickle"):
        refuse_pickles(tmp_path)
