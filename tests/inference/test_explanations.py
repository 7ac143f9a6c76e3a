"""Maps of what moved a score: they find what is planted, follow the model, and show nothing for what is refused."""

import csv
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from brainstage.core.errors import ConfigError
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.inference import captum_methods
from brainstage.inference.attribution import attribute, default_method, outside, similarity_to_randomised
from brainstage.inference.captum_methods import blurred
from brainstage.inference.classifiers import SliceClassifier
from brainstage.inference.contributions import rim_cells
from brainstage.inference.explanations import MAX_RANDOMISED_SIMILARITY, NOTICE, Explanations, explain_person
from brainstage.inference.predictor import Predictor
from brainstage.models.engines.torch import TorchEngine
from brainstage.report import montage
from brainstage.report.explanations import _legend, draw, explain
from brainstage.report.montage import overlay
from brainstage.scans.discover import File, find_scans, scans_of
from brainstage.scans.stack import training_stack
from helpers import encode, picture
from volumes import brain, write_nifti


class TopLeft(torch.nn.Module):
    """Speaks for its second class where the top left quarter has detail."""

    config = SimpleNamespace(model_type="resnet", id2label={0: "a", 1: "b"}, num_labels=2)

    def forward(self, pixels):
        quarter = pixels[:, 0, : pixels.shape[2] // 2, : pixels.shape[3] // 2]
        detail = quarter.diff(dim=1).abs().mean(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([-detail, detail], dim=1) * 3)


def slice_of_a_head(seed=0, side=64):
    """Return noise within a disc, black outside."""
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.where(rows**2 + columns**2 < 0.8, picture(seed, (side, side)) // 2 + 60, 0).astype(np.uint8)


def predictor_of(network, size=64, **about):
    return Predictor(SliceClassifier(TorchEngine(network.eval()), Preprocessing(size, None, 0.5, 0.5)), "", about)


def tiny(kind):
    torch.manual_seed(0)
    stages = {"num_labels": 4, "num_channels": 3, "image_size": 32}
    if kind == "vit":
        vit = ViTConfig(
            patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **stages
        )
        return ViTForImageClassification(vit).eval()
    if kind == "resnet":
        resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **stages)
        return ResNetForImageClassification(resnet).eval()
    swin = SwinConfig(patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, **stages)
    return SwinForImageClassification(swin).eval()


def test_occlusion_finds_what_the_score_hangs_on():
    image = slice_of_a_head()
    [found] = attribute(predictor_of(TopLeft()), [image], [None], 1, "occlusion")
    assert found.shape == image.shape
    quarter = np.abs(found[:32, :32]).sum() / np.abs(found).sum()
    assert quarter > 0.95
    assert found[:32, :32].sum() > 0  # detail there speaks for the stage
    [against] = attribute(predictor_of(TopLeft()), [image], [None], 0, "occlusion")
    assert against[:32, :32].sum() < 0


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_integrated_gradients_add_up_to_what_the_slice_adds_to_the_score(kind):
    network, preprocessing = tiny(kind), Preprocessing(32, None, (0.5,) * 3, (0.5,) * 3)
    images = [slice_of_a_head(seed, 32) for seed in range(2)]
    found = captum_methods._integrate(network, preprocessing, images, 2)
    side = 4 if kind == "vit" else 8
    assert found.shape == (2, side, side)
    with torch.no_grad():
        scores, smooth = (
            network(captum_methods._pixels(network, preprocessing, some)).logits[:, 2].numpy()
            for some in (images, [blurred(image) for image in images])
        )
    np.testing.assert_allclose(found.sum(axis=(1, 2)), scores - smooth, rtol=0.05, atol=1e-4)
    predictor = Predictor(SliceClassifier(TorchEngine(network), preprocessing), "", {})
    assert default_method(predictor) == "integrated-gradients"
    with pytest.raises(ConfigError, match="grad-cam: not right for this model; take integrated-gradients or occl"):
        attribute(predictor, images, [None, None], 0, "grad-cam")


def test_grad_cam_reads_a_layer_that_is_fine_enough(trained, phantom):
    predictor = Predictor.open(trained.path)
    assert default_method(predictor) == "grad-cam"
    network, preprocessing = predictor.network, predictor.preprocessing
    grid = captum_methods._grad_cam(network, preprocessing, phantom.images[:2], 0)
    assert grid.shape[0] == 2
    assert (grid >= 0).all()
    first, second = attribute(predictor, phantom.images[:2], [None] * 2, 0, "grad-cam")
    assert first.shape == phantom.images[0].shape
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_explaining_disturbs_nobody_who_predicts_with_the_model_meanwhile(kind):
    """Captum replaces what a layer returns by a hook, which another thread's forward pass would run into."""
    network = tiny(kind)
    predictor = Predictor(
        SliceClassifier(TorchEngine(network), Preprocessing(32, None, (0.5,) * 3, (0.5,) * 3)), "", {}
    )
    images = [slice_of_a_head(seed, 32) for seed in range(4)]
    method = default_method(predictor)

    def explained():
        return attribute(predictor, images, [None] * 4, 2, method)

    alone, expected = explained(), predictor.predict_proba(images)
    done = threading.Event()

    def predicted():
        predictions = []
        while not done.is_set() or not predictions:
            predictions.append(predictor.predict_proba(images))
        return predictions

    with ThreadPoolExecutor(3) as pool:
        predicting = [pool.submit(predicted) for _ in range(2)]
        try:
            explanations = [explained() for _ in range(10)]
        finally:
            done.set()
        predictions = [prediction for future in predicting for prediction in future.result()]
    for prediction in predictions:
        np.testing.assert_allclose(prediction, expected, atol=1e-5)
    for explanation in explanations:
        np.testing.assert_allclose(explanation, alone, atol=1e-5)


def test_a_map_comes_back_to_where_the_slice_was_cropped():
    cropped = Preprocessing(56, 0.875, 0.5, 0.5)
    found = cropped.undo(np.ones((7, 7), np.float32), (128, 128))
    assert found.shape == (128, 128)
    assert found[8:120, 8:120].min() > 0.4
    assert found[:7].max() == found[:, -7:].max() == 0
    whole = Preprocessing(56, None, 0.5, 0.5).undo(np.ones((7, 7), np.float32), (100, 80))
    assert whole.shape == (100, 80)
    assert whole.min() == 1


def test_the_share_outside_of_the_head():
    image = slice_of_a_head()
    inside = (image > 10).astype(np.float32)
    assert outside(inside, image) == 0
    assert outside(-np.ones_like(inside), image) == pytest.approx(1 - inside.mean(), abs=0.01)
    assert outside(np.zeros_like(inside), image) == 0


def test_a_blurred_slice_keeps_its_outline():
    image = slice_of_a_head()
    smooth = blurred(image)
    assert np.array_equal(smooth > 10, image > 10)
    assert smooth[image > 10].std() < image[image > 10].std() / 3
    assert smooth.mean() == pytest.approx(image.mean(), rel=0.02)


def test_pixels_without_attribution_stay_as_they_are():
    image = slice_of_a_head()
    map_ = np.zeros(image.shape, np.float32)
    map_[10, 10], map_[30, 30], map_[40, 40] = 1, 1, -1
    shown = overlay(image, map_, 1)
    grey = np.repeat(image[..., None], 3, axis=2)
    changed = (shown != grey).any(axis=2)
    assert set(zip(*np.nonzero(changed), strict=True)) == {(10, 10), (30, 30), (40, 40)}
    assert shown[30, 30, 0] > shown[30, 30, 2]  # red for
    assert shown[40, 40, 2] > shown[40, 40, 0]  # blue against


def test_maps_change_when_the_model_forgets(trained, phantom):
    predictor, images = Predictor.open(trained.path), phantom.images[:8]
    assert similarity_to_randomised(predictor, images, [None] * 8, 0, "grad-cam") < 0.8
    kept = ("network", "preprocessing", "by_slice")
    stubborn = SimpleNamespace(**{name: getattr(predictor, name) for name in kept})
    stubborn.randomised = lambda _seed: predictor
    assert similarity_to_randomised(stubborn, images, [None] * 8, 0, "grad-cam") == pytest.approx(1)
    before = predictor.predict_proba(images)
    assert not np.allclose(predictor.randomised(0).predict_proba(images), before, atol=1e-3)
    np.testing.assert_array_equal(predictor.predict_proba(images), before)


def test_the_sanity_check_says_what_it_found():
    row = {"person": 1, "similarity_to_randomised": 0.9, "file": "001.png", "reason": None}
    assert "THEY DO NOT CHANGE" in Explanations([row], "grad-cam", "0", {}).sanity
    assert (
        "they change"
        in Explanations([row | {"similarity_to_randomised": MAX_RANDOMISED_SIMILARITY}], "grad-cam", "0", {}).sanity
    )
    assert Explanations([row | {"similarity_to_randomised": None}], "grad-cam", "0", {}).sanity is None


def test_one_picture_a_person_and_none_for_what_is_refused(trained, phantom, tmp_path):
    good, photo = phantom.images[0], picture(1, (90, 120))
    files = {"good": encode(good), "photo": encode(photo), "text": b"text"}
    scans = scans_of(File(name, partial(io.BytesIO, content)) for name, content in files.items())
    found = explain(Predictor.open(trained.path), scans, tmp_path / "out", sanity=True)
    assert [row["status"] for row in found.rows] == ["predicted", "refused", "failed"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["001.png", "explanations.json"]
    written = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert NOTICE in written["notice"]
    assert "never a diagnosis" in written["notice"]
    assert written["maps"][0]["similarity_to_randomised"] is not None
    assert 0 <= written["maps"][0]["outside"] <= 1
    assert [(person["person"], person["picture"]) for person in written["people"]] == [(1, "001.png")]
    assert len(found.reasons) == 2


@pytest.fixture(scope="module")
def patient():
    return Predictor.open()


@pytest.fixture(scope="module")
def explained(patient, tmp_path_factory):
    """Return the folder of the explanation of a volume whose left half is darker, and what was returned."""
    folder = tmp_path_factory.mktemp("explained")
    volume = brain((3, 3, 3))
    middle = -volume.affine[0, 3] / volume.affine[0, 0]
    volume.voxels[: int(middle)] *= 0.85  # RAS: x rises from left to right
    write_nifti(folder / "brain.nii.gz", volume)
    [scan] = find_scans(folder / "brain.nii.gz")
    slices = scan.read()
    scans = [replace(scan, read=lambda level_set: slices)]  # registered once
    return (
        folder / "out",
        explain(patient, scans, folder / "out"),
        explain_person(patient, (scans[0].name, scans), "contributions"),
    )


def test_what_is_written_of_a_volume_adds_up_to_its_score(explained):
    out, found, _ = explained
    assert found.method == "contributions"
    assert sorted(file.name for file in out.iterdir()) == ["001.csv", "001.png", "explanations.json"]
    written = json.loads((out / "explanations.json").read_text())
    [person] = written["people"]
    difference = person["severity"] - person["mean_severity"]
    assert person["grey_values"] + person["edges"] == pytest.approx(difference, abs=1e-4)
    rows = list(csv.DictReader((out / "001.csv").open(newline="")))
    assert len(rows) == 32 * (8 * 8 * 8 + 24)
    assert sum(float(row["contribution"]) for row in rows) == pytest.approx(difference, abs=1e-4)
    cells = sum(np.sum(row["cells"]) + row["grey_values"] for row in written["maps"])
    assert cells == pytest.approx(difference, abs=1e-3)
    cell = [row for row in rows if (row["level"], row["row"], row["column"]) == ("9", "3", "2")]
    assert sum(float(row["contribution"]) for row in cell) == pytest.approx(
        written["maps"][9]["cells"][3][2], abs=1e-5
    )
    assert {row["degrees"] for row in cell} == {str(22.5 * number).removesuffix(".0") for number in range(8)}


def test_the_largest_are_told_with_place_stage_and_rim(explained):
    _, found, person = explained
    summary, severity = found.people[0], person.severity
    assert [part["mark"] for part in summary["largest"]] == [*"ABCD", *"123456"]
    for part in summary["largest"]:
        end = "Moderate Demented" if part["contribution"] > 0 else "Non Demented"
        assert part["words"].startswith(f"{part['contribution']:+.2f} towards {end} (odds × ")
        first, last = part["levels"]
        assert f"levels {first} to {last}" in part["words"]
        own = [
            severity.cells[level] if part["cell"] else severity.grey_values[level]
            for level in range(first, last + 1)
        ]
        total = np.sum(own, axis=0)[tuple(part["cell"] or ())]
        assert part["contribution"] == pytest.approx(total, abs=1e-5)
        if part["cell"]:
            assert ("at the rim of the brain" in part["words"]) == part["rim"]
    cells = [part["contribution"] for part in summary["largest"] if part["cell"]]
    slabs = severity.cells.reshape(8, 4, 8, 8).sum(axis=1)
    np.testing.assert_allclose(np.abs(cells), np.sort(np.abs(slabs).ravel())[::-1][:6], atol=1e-5)
    share = np.abs(severity.cells)[severity.rim].sum() / np.abs(severity.cells).sum()
    assert f"{share:.0%} of what edges add, by size, lies at the rim" in summary["summary"][2]
    assert "the registration's, not the person's" in summary["summary"][2]


def test_left_and_right_are_the_persons(explained):
    _, _, person = explained
    images = np.stack([item.image for item in person.slices]).astype(float)
    bright = [half[half > 60].mean() for half in (images[:, :, :56], images[:, :, 72:])]
    assert bright[0] > 1.08 * bright[1]  # the right half is the brighter one, and stands on the left of the picture
    for part in person.severity._cells():
        side = "right" if part.cell[1] < 3 else "left" if part.cell[1] > 4 else "near the midline"
        assert part.where.startswith(f"{side}, ")
        assert (part.position[0] > 0) == (part.cell[1] < 4)


def test_the_montage_shows_all_slices_at_three_times_their_size_in_one_scale(explained):
    out, _, person = explained
    shown = np.asarray(Image.open(out / "001.png").convert("RGB"), int)
    columns, side = montage.MAX_COLUMNS, montage.SIDE
    assert side == 3 * 128
    assert shown.shape[1] == columns * side + (columns - 1) * montage.GAP + 2 * montage.MARGIN
    assert len({item.full_colour for item in person.slices}) == 1
    assert (shown[montage.MARGIN : montage.MARGIN + montage.LINE] < 60).any()  # the title
    down = montage.LABEL + side + montage.STRIP + montage.GAP
    start = montage.MARGIN + 5 * montage.LINE + montage.LABEL
    for number, item in enumerate(person.slices):
        row, column = divmod(number, columns)
        top, left = start + row * down, montage.MARGIN + column * (side + montage.GAP)
        drawn = np.asarray(Image.fromarray(draw(item)).resize((side, side), Image.Resampling.BICUBIC), int)
        same = (np.abs(shown[top : top + side, left : left + side] - drawn) <= 2).all(axis=2)
        assert same.mean() > 0.9  # all but the marks
        assert not same.all()  # L and R at least
        middle = slice(side // 2 - 15, side // 2 + 15)
        assert not same[middle, :40].all() and not same[middle, -40:].all()


def test_of_lone_slices_neither_left_nor_right_nor_a_place_in_the_head_is_claimed(patient, tmp_path):
    image = training_stack(brain((3, 3, 3)), "template")[0][14]
    Image.fromarray(image).save(tmp_path / "slice.png")
    scans = find_scans(tmp_path / "slice.png")
    [person] = explain(patient, scans, tmp_path / "out").people
    assert not person["registered"]
    places = [part["words"] for part in person["largest"] if part["cell"]]
    assert all("of the picture" in words and "estimated" in words and "MNI" not in words for words in places)
    assert "registration" not in person["summary"][2]
    header = (tmp_path / "out" / "001.csv").read_text().splitlines()[0]
    assert "mni" not in header
    assert not _legend(patient, explain_person(patient, ("a", scans), "contributions"), "contributions", 1.0).sides


def test_cells_the_outline_passes_through_are_the_rim():
    rim = rim_cells([slice_of_a_head(side=128)])[0]
    assert not rim[2:6, 2:6].any()
    assert rim[0].all() and rim[:, 7].all() and rim[1, 1]


def test_contributions_take_no_stage(patient, tmp_path):
    with pytest.raises(ConfigError, match="leave out the stage, or take occlusion"):
        explain(patient, [], tmp_path / "out", method="contributions", stage="Mild_Demented")
    assert explain(patient, [], tmp_path / "out", stage="Mild_Demented").method == "occlusion"


def test_the_patient_model_explains_a_persons_slices_together(tmp_path):
    images = training_stack(brain((3, 3, 3)), "template")[0][10:12]
    predictor = Predictor.open()
    together = attribute(predictor, images, [10, 11], 0, "occlusion")
    alone = attribute(predictor, images[:1], [10], 0, "occlusion")
    assert together[0].shape == (128, 128)
    assert not np.array_equal(together[0], alone[0])
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    files = find_scans([str(tmp_path / "0.png"), str(tmp_path / "1.png")])
    [person] = explain(predictor, files, tmp_path / "out", one_person=True).people
    features = predictor.extract_features(images)
    expected = predictor.contributions(features)
    assert (person["slices"], person["severity"]) == (2, pytest.approx(expected.severity, abs=1e-5))
    assert [one["slices"] for one in explain(predictor, files, tmp_path / "apart").people] == [1, 1]
    assert person["stage"] == predictor.classes[int(predictor.predict_proba(images, ["a", "a"])[0].argmax())]


def test_the_patient_models_contributions_change_when_it_forgets(patient):
    images = list(training_stack(brain((3, 3, 3)), "template")[0][8:20:4])
    similarity = similarity_to_randomised(patient, images, [8, 12, 16], 0, "contributions", seeds=(0, 1))
    assert similarity < 0.5  # three slices are few; a whole person is held to MAX_RANDOMISED_SIMILARITY


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "tea-leaves"}, "tea-leaves: no such method; take one of contributions, grad-cam"),
        ({"method": "integrated-gradients"}, "not right for this model; take grad-cam or occlusion"),
        ({"stage": "Grim"}, "Grim: no such stage; the model has Non_Demented"),
    ],
)
def test_what_cannot_be_explained_is_said_before_any_work(trained, tmp_path, options, says):
    with pytest.raises(ConfigError, match=says):
        explain(Predictor.open(trained.path), [], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty; give a new folder"):
        explain(Predictor.open(trained.path), [], tmp_path)
