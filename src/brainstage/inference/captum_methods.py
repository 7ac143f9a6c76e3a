"""Captum's methods: maps of networks by their gradients, and of any model by hiding windows of a slice.

This is the one module that imports Captum (Kokhlikyan et al. 2020, arXiv 2009.07896).
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
from scipy.ndimage import gaussian_filter

from brainstage.core.arrays import FeatureArray, Float32Array, Pixels
from brainstage.datasets.preprocessing import Preprocessing
from brainstage.inference.attribution import head_mask
from brainstage.inference.predictor import BATCH, Predictor

MIN_GRAD_CAM_CELLS = 7
"""Fewest cells along a side of the layer that Grad-CAM uses: ResNet-50 has as many at 224 pixels."""
INTEGRATION_STEPS = 24
"""Steps of the integral from the blurred slice to the slice."""
OCCLUSION_WINDOWS = 8
"""Windows of an occlusion along each side of a slice, without overlap."""
BLUR_WIDTH = 1 / 16
"""Standard deviation of the Gaussian that blurs a slice, as a share of its side: half a window. Black would draw
new edges; a blurred outline, which all training slices have in common, moved the patient model most of all."""


def network_maps(predictor: Predictor, images: Sequence[Pixels], stage: int, method: str) -> list[Float32Array]:
    """Return maps of a network's slices, each float32 of its slice's shape.

    Args:
        predictor: The network.
        images: Grey slices, each uint8 of shape (H, W).
        stage: Index of the stage in the model's classes.
        method: ``grad-cam`` or ``integrated-gradients``.
    """
    network, preprocessing = _unshared(predictor.network), predictor.preprocessing
    maps: list[Float32Array] = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        grids = (_grad_cam if method == "grad-cam" else _integrate)(network, preprocessing, batch, stage)
        maps += [preprocessing.undo(grid, image.shape) for grid, image in zip(grids, batch, strict=True)]
    return maps


def occlusion_maps(
    predictor: Predictor, images: Sequence[Pixels], levels: Sequence[int | None], stage: int
) -> list[Float32Array]:
    """Return maps of a person's slices by the change of the prediction, each float32 of its slice's shape.

    Args:
        predictor: Any model.
        images: Grey slices, each uint8 of shape (H, W).
        levels: Level of each; None where it is not known.
        stage: Index of the stage in the model's classes.
    """
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


def blurred(image: Pixels) -> Pixels:
    """Return a slice without detail but of the same brightness; head and surroundings apart: the outline stays."""
    smooth = np.zeros(image.shape)
    for part in (head_mask(image), ~head_mask(image)):
        width = BLUR_WIDTH * np.array(image.shape)
        brightness = gaussian_filter(np.where(part, image, 0), width, output=np.float64)
        share = gaussian_filter(part, width, output=np.float64)
        smooth[part] = brightness[part] / share[part].clip(min=1e-6)
    return smooth.round().astype(np.uint8)


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
