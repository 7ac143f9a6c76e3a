"""Conversion of a ``transformers`` network to an ONNX file, and of that file to 8-bit integers."""

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

from brainstage.core.arrays import Float32Array
from brainstage.core.errors import ConfigError
from brainstage.models.engines.onnx import INPUT, MAX_BYTES, OUTPUT, library
from brainstage.models.engines.torch import PlainLogits

OPSET = 20
"""Version of the ONNX operators that the file is written in."""
_BATCH = 32
"""Slices of one pass while ranges are measured."""


def to_onnx(network: Any, pixels: Float32Array, file: Path) -> None:
    """Write a network as one ONNX file, in fp32, that takes any number of slices.

    Args:
        network: A ``transformers`` network in evaluation mode.
        pixels: At least two inputs to trace it with, float32 of shape (N, C, H, W).
        file: File to write.

    Raises:
        ConfigError: The extra is not installed, or the network is too large for the format.
    """
    library("onnxscript")
    if sum(weights.nbytes for weights in network.parameters()) >= MAX_BYTES:
        raise ConfigError(
            f"the network has more than {MAX_BYTES / 2**30:g} GiB of weights, more than an ONNX file can hold"
            "; use the run as it is"
        )
    network = copy.deepcopy(network).cpu()
    if network.config.model_type.startswith("swin"):
        network.set_attn_implementation("eager")  # the exporter fails on its attention masks otherwise
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


def to_int8(file: Path, pixels: Float32Array, target: Path) -> None:
    """Quantise an ONNX file to 8-bit weights and activations, with standard operators only.

    Weights have one scale for each channel. Weights and activations are signed: with unsigned activations products
    overflow on older processors (AVX2), which cost ``compact`` a fifth of its accuracy.

    Args:
        file: A file that :func:`to_onnx` wrote.
        pixels: Inputs that the ranges of the activations are taken from, float32 of shape (N, C, H, W).
        target: File to write.

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
    """Silence what the libraries print, log and warn about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
