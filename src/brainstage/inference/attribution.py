"""Attribution: how much each pixel moved a score. Captum (Kokhlikyan et al. 2020, arXiv 2009.07896) computes it.

**grad-cam** (Selvaraju et al. 2017, ICCV), for convolutional networks: where the last layer with a grid of at least
7×7 cells raises the stage's score. **integrated-gradients** (Sundararajan et al. 2017, ICML), for ViT and Swin,
whose tokens have no such grid: what each patch adds on the way from a blurred slice to the slice. **occlusion**
(Zeiler and Fergus 2014, ECCV), for any model: how the probability changes when a window of the slice is blurred.
**contributions**, for the patient model, needs no Captum: its severity is a sum over cells of the slices
(:meth:`brainstage.models.patient_model.PatientModel.contributions`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_fill_holes

from brainstage.core.arrays import BoolArray, Float32Array, Pixels
from brainstage.core.errors import ConfigError
from brainstage.inference.predictor import Predictor
from brainstage.models.patient_model import Contributions

CONTRIBUTIONS, OCCLUSION = "contributions", "occlusion"
METHODS = (CONTRIBUTIONS, "grad-cam", "integrated-gradients", OCCLUSION)
CONVOLUTIONAL = ("convnext", "regnet", "resnet")
HEAD_GREY_VALUE = 10
"""Grey value above which a pixel shows the head; the outside of a skull-stripped slice is black."""


def methods_for(predictor: Predictor) -> list[str]:
    """Return the methods that suit a model; the first is its default."""
    if not predictor.by_slice:
        return [CONTRIBUTIONS, OCCLUSION]
    if predictor.network is None:
        return [OCCLUSION]
    by_gradient = "grad-cam" if predictor.network.config.model_type in CONVOLUTIONAL else "integrated-gradients"
    return [by_gradient, OCCLUSION]


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
        stage: Index of the stage in the model's classes; contributions are to the severity, whatever the stage.
        method: One of :data:`METHODS`.

    Returns:
        For each slice float32 of its own shape: positive where a pixel raised the score, negative where it lowered
        it.

    Raises:
        ConfigError: The method does not suit the model.
    """
    check_method(predictor, method)
    if method == CONTRIBUTIONS:
        contributions = predictor.contributions(predictor.extract_features(images), levels)
        return [] if contributions is None else cell_maps(contributions, images)
    from brainstage.inference.captum_methods import network_maps, occlusion_maps  # seconds, for torch and Captum

    if method == OCCLUSION:
        return occlusion_maps(predictor, images, levels, stage)
    return network_maps(predictor, images, stage, method)


def cell_maps(contributions: Contributions, images: Sequence[Pixels]) -> list[Float32Array]:
    """Return what each pixel's cell contributes, all directions together: of each slice, float32 of its shape."""
    maps = []
    for cells, image in zip(contributions.edges.sum(axis=3), images, strict=True):
        row, column = (np.arange(side) * len(cells) // side for side in image.shape)
        maps.append(cells[np.ix_(row, column)].astype(np.float32))
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
    head = head_mask(image)
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
    head = head_mask(image)
    strengths = np.abs(first[head]), np.abs(second[head])
    if any(np.ptp(strength) == 0 for strength in strengths):
        return 0.0  # an empty map is similar to none
    from scipy.stats import spearmanr  # a second, which only the sanity check needs

    return float(spearmanr(*strengths).statistic)


def head_mask(image: Pixels) -> BoolArray:
    """Return which pixels of a slice show the head or lie within it, bool of shape (H, W)."""
    head: BoolArray = binary_fill_holes(image > HEAD_GREY_VALUE)
    return head
