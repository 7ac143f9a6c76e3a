"""OpenVINO as the engine of a frozen backbone, also with 8-bit integers: the extra ``brainstage[openvino]``."""

from __future__ import annotations

import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainstage.core.arrays import Float32Array
from brainstage.core.errors import ConfigError
from brainstage.models.backbones import BATCH
from brainstage.models.engines.torch import PlainLogits

CALIBRATION_SLICES = 16
"""Number of slices that the ranges of the 8-bit activations are taken from."""

Forward = Callable[[Float32Array], Float32Array]


def compiled(body: Any, inputs: Float32Array, *, bf16: bool) -> Forward:
    """Return a function from inputs, float32 of shape (N, 3, H, W), to features, float32 of shape (N, D).

    Args:
        body: A network in fp32 that returns features.
        inputs: Some inputs; the network is traced with two of them.
        bf16: Whether to compute in bfloat16.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    openvino = _library("openvino")
    return _compile(openvino, _convert(openvino, body, inputs), bf16=bf16)


def quantized(body: Any, inputs: Float32Array, folder: Path) -> Forward:
    """Return the same function in 8-bit integers: post-training quantisation of NNCF.

    Args:
        body: A network in fp32 that returns features.
        inputs: What the ranges of the activations are taken from, float32 of shape (N, 3, H, W).
        folder: Where the network is kept. It belongs to these inputs alone: the next call with this folder opens
            the network that is kept there.

    Raises:
        ConfigError: OpenVINO or NNCF is not installed.
    """
    openvino = _library("openvino")
    kept = folder / "int8.xml"
    if not kept.is_file():
        network = _quantize(_convert(openvino, body, inputs), inputs)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            openvino.save_model(network, Path(temporary) / kept.name, compress_to_fp16=False)
            for suffix in (".bin", ".xml"):  # the .xml last: where it is, all is there
                (Path(temporary) / kept.name).with_suffix(suffix).replace(kept.with_suffix(suffix))
    return _compile(openvino, openvino.Core().read_model(kept), bf16=False)


def _library(name: str) -> Any:
    """Import a library of the extra, its telemetry off."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return __import__(name)
    except ImportError as error:
        raise ConfigError(
            'engine openvino is not installed; install it with: pip install "brainstage[openvino]"'
        ) from error


def _convert(openvino: Any, body: Any, inputs: Float32Array) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about checks of shapes that never change here
        return openvino.convert_model(PlainLogits(body), example_input=torch.from_numpy(inputs[:2]))


def _quantize(network: Any, inputs: Float32Array) -> Any:
    nncf = _library("nncf")
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            network,
            nncf.Dataset([slice_input[None] for slice_input in inputs]),
            model_type=nncf.ModelType.TRANSFORMER,
        )


def _compile(openvino: Any, network: Any, *, bf16: bool) -> Forward:
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
    run, batch = openvino.Core().compile_model(network, "CPU", settings), BATCH["cpu"]

    def forward(inputs: Float32Array) -> Float32Array:
        parts = [run(inputs[start : start + batch])[0] for start in range(0, len(inputs), batch)]
        return np.concatenate(parts)

    return forward
