"""Exported networks, ``model.onnx``, run by ONNX Runtime: the extra ``brainstage[onnx]``.

A file is checked before it is run, since it may come from anywhere: it must be of one piece, of standard operators
alone, and take and give what the folder around it says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

from brainstage.core.arrays import Float32Array
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.parallel import worker_pool

INPUT, OUTPUT = "pixel_values", "logits"
MAX_BYTES = 2**31
"""Largest file that is opened; the format ends there."""


class OnnxEngine:
    """A network in a ``model.onnx``. A call is computed by the thread that makes it, on one core.

    Attributes:
        channels: How many the network takes.
    """

    name = "onnx"
    network: Any | None = None

    def __init__(self, session: Any, classes: tuple[str, ...]):
        self._session = session
        self.classes = classes
        self.channels: int = session.get_inputs()[0].shape[1]

    @classmethod
    def open(cls, file: Path, classes: tuple[str, ...], size: int) -> OnnxEngine:
        """Open a file.

        Args:
            file: The ``model.onnx``.
            classes: Class names, in the order of its logits.
            size: Side of its input in pixels.

        Raises:
            ConfigError: ONNX Runtime is not installed.
            DataError: The file is damaged, has parts elsewhere or operators of its own, or does not fit.
        """
        session = _session(checked_bytes(file), file)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shapes = [one.shape[1:] for one in (*inputs, *outputs)]
        expected = [[channels, size, size] for channels in (1, 3)]
        if [one.name for one in (*inputs, *outputs)] != [INPUT, OUTPUT] or shapes[0] not in expected:
            raise DataError(
                f"{file}: does not take {INPUT} of {size}×{size} pixels and give {OUTPUT}; export it again"
            )
        if shapes[1] != [len(classes)]:
            raise DataError(
                f"{file}: gives {shapes[1]} logits, expected one for each of {', '.join(classes)}; export it again"
            )
        return cls(session, classes)

    def logits(self, pixels: Float32Array) -> Float32Array:
        """Return logits (N, classes) for normalised pixels (N, C, H, W)."""
        found: Float32Array = self._session.run([OUTPUT], {INPUT: pixels})[0]
        return found

    def randomised(self, seed: int) -> OnnxEngine:
        """Refuse: the weights of an exported network are out of reach.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "an exported model cannot be made to know nothing; take the run that it was exported from"
        )

    def pool(self) -> AbstractContextManager[Executor]:
        """Return threads, one a core."""
        return worker_pool()


def library(name: str) -> Any:
    """Import a library of the extra, telemetry off.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError('ONNX is not installed; install it with: pip install "brainstage[onnx]"') from error


def checked_bytes(file: Path) -> bytes:
    """Return the content of a ``model.onnx`` of one piece and of standard operators.

    Raises:
        ConfigError: ONNX is not installed.
        DataError: It is damaged, too large, or something else.
    """
    onnx = library("onnx")
    if file.stat().st_size > MAX_BYTES:
        raise DataError(
            f"{file}: larger than {MAX_BYTES / 2**30:g} GiB, more than an exported network can be; export it again"
        )
    content = file.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # the protobuf library's own
        raise _damaged(file, error) from error
    graphs = list(_graphs(model.graph))
    if model.functions or any(node.domain not in ("", "ai.onnx") for graph in graphs for node in graph.node):
        raise DataError(f"{file}: holds operators that are not of the ONNX standard; export it again")
    if any(tensor.data_location or tensor.external_data for graph in graphs for tensor in _tensors(graph)):
        raise DataError(f"{file}: keeps weights in another file; export it again")
    return content


def _graphs(graph: Any) -> Iterator[Any]:
    """Give a graph and those within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _session(content: bytes, file: Path) -> Any:
    runtime = library("onnxruntime")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what is wrong is raised as well
    try:
        return runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own, of many kinds
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file}: not a usable ONNX file ({shorten(str(error), 200) or type(error).__name__}); export it again"
    )
