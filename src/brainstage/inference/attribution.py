"""Attribution: how much each pixel moved a score. Captum (Kokhlikyan et al. 2020, arXiv 2009.07896) computes it.

**grad-cam** (Selvaraju et al. 2017, ICCV), for convolutional networks: where the last layer with a grid of at least
7×7 cells raises the stage's score. **integrated-gradients** (Sundararajan et al. 2017, ICML), for ViT and Swin,
whose tokens have no such grid: what each patch adds on the way from a blurred slice to the slice. **occlusion**
(Zeiler and Fergus 2014, ECCV), for any model: how the probability changes when a window of the slice is blurred.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam, LayerIntegratedGradients, Occlusion
from scipy.ndimage import binary_fill_holes, gaussian_filter
from scipy.stats import spearmanr

from brainstage.core.arrays import BoolArray, FeatureArray, Float32Array, Pixels
from brainstage.core.errors import ConfigError
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.inference.predictor import BATCH, Predictor

METHODS = ("grad-cam", "integrated-gradients", "occlusion")
CONVOLUTIONAL = ("convnext", "regnet", "resnet")
MIN_GRAD_CAM_CELLS = 7
"""Fewest cells along a side of the layer that Grad-CAM uses: ResNet-50 has as many at 224 pixels."""
INTEGRATION_STEPS = 24
"""Steps of the integral from the blurred slice to the slice."""
OCCLUSION_WINDOWS = 8
"""Windows of an occlusion along each side of a slice, without overlap."""
BLUR_WIDTH = 1 / 16
"""Standard deviation of the Gaussian that blurs a slice, as a share of its side: half a window. Black would draw
new edges; a blurred outline, which all training slices have in common, moved the patient model most of all."""
HEAD_GREY_VALUE = 10
"""Grey value above which a pixel shows the head; the outside of a skull-stripped slice is black."""


def methods_for(predictor: Predictor) -> list[str]:
    """Return the methods that suit a model; the first is its default."""
    if predictor.network is None:
        return ["occlusion"]
    by_gradient = "grad-cam" if predictor.network.config.model_type in CONVOLUTIONAL else "integrated-gradients"
    return [by_gradient, "occlusion"]


def default_method(predictor: Predictor) -> str:
    """Return the method that suits a model best."""
    return methods_for(predictor)[0]


def attribute(
    predictor: Predictor, images: Sequence[Pixels], levels: Sequence[int | None], stage: int, method: str
) -> list[Float32Array]:
    """Return how much each pixel of a person's slices moved the score of a stage.

    A network predicts each slice alone, the patient model all of them together; the maps are made accordingly.

    Args:
        predictor: The model.
        images: Grey slices, each uint8 of shape (H, W).
        levels: Level of each slice in the model's level set; None where it is not known.
        stage: Index of the stage in the model's classes.
        method: One of :data:`METHODS`.

    Returns:
        For each slice float32 of its own shape: positive where a pixel raised the score, negative where it lowered
        it.

    Raises:
        ConfigError: The method does not suit the model.
    """
    check_method(predictor, method)
    if method == "occlusion":
        return _occlude(predictor, images, levels, stage)
    network, preprocessing = _unshared(predictor.network), predictor.preprocessing
    maps: list[Float32Array] = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        grids = (_grad_cam if method == "grad-cam" else _integrate)(network, preprocessing, batch, stage)
        maps += [preprocessing.undo(grid, image.shape) for grid, image in zip(grids, batch, strict=True)]
    return maps


def check_method(predictor: Predictor, method: str) -> None:
    """Refuse a method that does not suit a model.

    Raises:
        ConfigError: It does not.
    """
    if method not in METHODS:
        raise ConfigError(f"{method}: no such method; take one of {', '.join(METHODS)}")
    suitable = methods_for(predictor)
    if method not in suitable:
        raise ConfigError(f"{method}: not right for this model; take {' or '.join(suitable)}")


def outside(map_: Float32Array, image: Pixels) -> float:
    """Return the share of a map's attribution that lies outside of the head; 0 where the map is empty."""
    head = _head(image)
    strength = np.abs(map_)
    return float(strength[~head].sum() / strength.sum()) if strength.any() else 0.0


def similarity_to_randomised(
    predictor: Predictor,
    images: Sequence[Pixels],
    levels: Sequence[int | None],
    stage: int,
    method: str,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
) -> float:
    """Return the similarity of maps to those of the same model with its weights randomised: it should be low.

    A map that stays the same when the model has lost everything that it learned shows the picture, not the model
    (Adebayo et al. 2018, NeurIPS). The values of each weight tensor of a network are shuffled; in the patient
    model, its people's stages.

    Args:
        predictor: The model.
        images: Grey slices of one person, each uint8 of shape (H, W).
        levels: As for :func:`attribute`.
        stage: As for :func:`attribute`.
        method: As for :func:`attribute`.
        seeds: One for each randomised model.

    Returns:
        Mean over slices and seeds of Spearman's correlation of the strengths within the head.
    """
    maps = attribute(predictor, images, levels, stage, method)
    similarities = []
    for seed in seeds:
        others = attribute(predictor.randomised(seed), images, levels, stage, method)
        similarities += list(map(_correlation, maps, others, images))
    return float(np.mean(similarities))


def _correlation(first: Float32Array, second: Float32Array, image: Pixels) -> float:
    head = _head(image)
    strengths = np.abs(first[head]), np.abs(second[head])
    if any(np.ptp(strength) == 0 for strength in strengths):
        return 0.0  # an empty map is similar to none
    return float(spearmanr(*strengths).statistic)


# --- networks ---------------------------------------------------------------------------------------------------


def _unshared(network: Any) -> Any:
    """Return the same network with modules of its own, which only read the weights that they share.

    Captum hooks into modules and replaces what they return; other threads predict with the network meanwhile.
    """
    weights = itertools.chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in weights})


def _logits(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = network(pixels).logits
    return logits


def _pixels(network: Any, preprocessing: Preprocessing, images: Sequence[Pixels]) -> torch.Tensor:
    """Return the network's input, where the network is."""
    return torch.from_numpy(preprocessing.normalise(preprocessing.resize(images))).to(network.device)


def _grad_cam(network: Any, preprocessing: Preprocessing, images: Sequence[Pixels], stage: int) -> Float32Array:
    """Return maps of the layer's grid, float32 of shape (N, h, w), nowhere negative."""
    pixels = _pixels(network, preprocessing, images)
    forward = partial(_logits, network)
    attributions = LayerGradCam(forward, _last_fine_layer(network, pixels[:1])).attribute(
        pixels, target=stage, relu_attributions=True
    )
    maps: Float32Array = attributions[:, 0].detach().cpu().numpy()
    return maps


def _last_fine_layer(network: Any, pixels: torch.Tensor) -> Any:
    """Return the last stage of a convolutional network whose grid is fine enough; the first if none is."""
    sides: list[int] = []
    stages = network.base_model.encoder.stages
    hooks = [
        stage.register_forward_hook(lambda _, __, output: sides.append(min(output.shape[2:]))) for stage in stages
    ]
    with torch.no_grad():
        network(pixels)
    for hook in hooks:
        hook.remove()
    return stages[max([number for number, side in enumerate(sides) if side >= MIN_GRAD_CAM_CELLS], default=0)]


def _integrate(network: Any, preprocessing: Preprocessing, images: Sequence[Pixels], stage: int) -> Float32Array:
    """Return maps of the patches, float32 of shape (N, h, w)."""
    patches = network.base_model.embeddings.patch_embeddings.projection
    attributions = LayerIntegratedGradients(partial(_logits, network), patches).attribute(
        _pixels(network, preprocessing, images),
        baselines=_pixels(network, preprocessing, [blurred(image) for image in images]),
        target=stage,
        n_steps=INTEGRATION_STEPS,
        internal_batch_size=BATCH,
    )
    maps: Float32Array = attributions.sum(dim=1).detach().cpu().numpy().astype(np.float32)
    return maps


# --- any model --------------------------------------------------------------------------------------------------


def blurred(image: Pixels) -> Pixels:
    """Return a slice without detail but of the same brightness; head and surroundings apart: the outline stays."""
    smooth = np.zeros(image.shape)
    for part in (_head(image), ~_head(image)):
        width = BLUR_WIDTH * np.array(image.shape)
        brightness = gaussian_filter(np.where(part, image, 0), width, output=np.float64)
        share = gaussian_filter(part, width, output=np.float64)
        smooth[part] = brightness[part] / share[part].clip(min=1e-6)
    return smooth.round().astype(np.uint8)


def _head(image: Pixels) -> BoolArray:
    head: BoolArray = binary_fill_holes(image > HEAD_GREY_VALUE)
    return head


def _occlude(
    predictor: Predictor, images: Sequence[Pixels], levels: Sequence[int | None], stage: int
) -> list[Float32Array]:
    features = predictor.extract_features(images, as_it_is=True)  # thousands of versions of one scan follow
    fixed = predictor.levels(features, levels)  # a blurred window must not move the slice to another level
    maps = []
    for number, image in enumerate(images):
        forward = partial(_score, predictor, features, fixed, number, stage)
        window, smooth = (1, *(max(1, side // OCCLUSION_WINDOWS) for side in image.shape)), blurred(image)
        attributions = Occlusion(forward).attribute(
            _tensor(image),
            sliding_window_shapes=window,
            strides=window,
            baselines=_tensor(smooth),
            perturbations_per_eval=BATCH,
        )
        map_ = np.where(
            image != smooth, attributions[0, 0].numpy(), 0
        )  # what blurring did not change moved nothing
        maps.append(map_.astype(np.float32))
    return maps


def _score(
    predictor: Predictor,
    features: FeatureArray,
    levels: Sequence[int | None],
    number: int,
    stage: int,
    changed: torch.Tensor,
) -> torch.Tensor:
    """Return the probability of a stage for changed versions (n, 1, H, W) of one of a person's slices."""
    shown = [pixels.round().clamp(0, 255).byte().numpy() for pixels in changed[:, 0]]
    versions = predictor.extract_features(shown, as_it_is=True)
    if predictor.by_slice:
        return torch.from_numpy(predictor.predict_features(versions).probabilities[:, stage])
    count, slices = len(versions), len(features)
    stacks = np.repeat(features[None], count, axis=0)
    stacks[:, number] = versions
    patients = np.repeat(np.arange(count), slices).astype(str).tolist()
    prediction = predictor.predict_features(stacks.reshape(-1, *features.shape[1:]), patients, list(levels) * count)
    return torch.from_numpy(prediction.probabilities[::slices, stage])


def _tensor(image: Pixels) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32))[None, None]
