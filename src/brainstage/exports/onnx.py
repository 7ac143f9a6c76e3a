"""A network of ``transformers`` to an ONNX file, and that to one of 8-bit integers."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from brainstage.core.errors import ConfigError
from brainstage.models.engines.base import Floats
from brainstage.models.engines.onnx import INPUT, MAX_BYTES, OUTPUT, library
from brainstage.models.engines.torch import PlainLogits

OPSET = 20
_BATCH = 32


def to_onnx(network: Any, pixels: Floats, file: Path) -> None:
    """Write a network as ONNX: of one piece, in fp32, for any number of slices.

    Args:
        network: In evaluation mode.
        pixels: Some inputs, two at least, (N, C, H, W).
        file: Where to.

    Raises:
        ConfigError: The extra is not installed, or the network is too large for the format.
    """
    library("onnxscript")
    if sum(weights.nbytes for weights in network.parameters()) >= MAX_BYTES:
        raise ConfigError(
            f"the network has more than {MAX_BYTES / 2**30:g} GiB of weights, more than ONNX can hold"
        )
    network = copy.deepcopy(network)
    if network.config.model_type.startswith("swin"):
        network.set_attn_implementation("eager")  # the exporter fails at its masks otherwise
    with _quiet():
        torch.onnx.export(
            PlainLogits(network).eval(),
            (torch.from_numpy(pixels[:2]),),
            file,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )


def to_int8(file: Path, pixels: Floats, target: Path) -> None:
    """Write an ONNX file as one of 8-bit weights and activations, of standard operators.

    Weights have a scale a channel. Both are signed: with unsigned activations the products of older processors
    (AVX2) overflow, which cost ``compact`` a fifth of its accuracy.

    Args:
        file: What :func:`to_onnx` wrote.
        pixels: Inputs that the ranges of the activations are taken from, (N, C, H, W).
        target: Where to.

    Raises:
        ConfigError: The extra is not installed.
    """
    quantization = library("onnxruntime.quantization")
    batches = iter([{INPUT: pixels[start : start + _BATCH]} for start in range(0, len(pixels), _BATCH)])
    reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda _: next(batches, None)})
    with _quiet():
        quantization.quantize_static(
            file,
            target,
            reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' remarks on themselves from the user's screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
