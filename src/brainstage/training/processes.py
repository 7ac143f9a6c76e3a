"""The processes of one training, as ``torchrun`` and ``accelerate launch`` start them.

The first process owns the run folder: it alone writes there, prints and evaluates. All of them read the data and
take their share of each batch. A process that was not started by such a launcher is the first of one.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, NoReturn, TypeVar

from brainstage.core.config import TrainConfig
from brainstage.core.errors import BrainstageError, ConfigError, OtherProcessError, RunError

Result = TypeVar("Result")

_PATIENCE = timedelta(days=1)
"""How long a process waits for another: the first reads the data and evaluates alone. One that dies is noticed at
once, since its connections close."""


def process_count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def is_first() -> bool:
    """Return whether this process owns the run folder."""
    return process_count() == 1 or os.environ.get("RANK") == "0"


def refuse(error: BrainstageError) -> NoReturn:
    """Raise an error that all processes meet alike: the first says it, the others end without a word.

    Raises:
        BrainstageError: The error, in the first process.
        OtherProcessError: In the others.
    """
    raise error if is_first() else OtherProcessError


def share_of_batch(config: TrainConfig) -> int:
    """Return how many rows of each batch a process takes: the batch of the settings is that of all together.

    Raises:
        ConfigError: This model is trained by one process, or the batch cannot be divided.
    """
    count = process_count()
    if count > 1 and (config.frozen or config.model == "patient"):
        what = "the patient model" if config.model == "patient" else "the head of a frozen backbone"
        refuse(ConfigError(f"{what} is trained by one process; start it without torchrun"))
    if config.batch_size % count:
        refuse(
            ConfigError(
                f"batch_size: {config.batch_size} cannot be divided among {count} processes; start another number "
                "of them, or set it to a multiple of their number"
            )
        )
    return config.batch_size // count


def on_first(function: Callable[[], Result]) -> Result:
    """Call a function in the first process; return its result, a value of JSON, in all of them.

    Raises:
        Exception: What the function raised, in the first process.
        OtherProcessError: It raised something, in the others.
        RunError: The connection to another process is lost.
    """
    if not is_first():
        return _hear()
    with _others_hear() as said:
        said.append(function())
    return said[0]


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Let the first process through the block before the others: it fills the caches, and names what is wrong.

    Raises:
        OtherProcessError: It failed, in the others.
        RunError: The connection to another process is lost.
    """
    if is_first():
        with _others_hear():
            yield
    else:
        _hear()
        yield


def any_process(condition: bool) -> bool:
    """Return whether a condition holds in any process; all must call this at the same point.

    Raises:
        RunError: The connection to another process is lost.
    """
    if process_count() == 1:
        return condition
    import torch

    flag = torch.tensor(int(condition))
    with connected():
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=_group())
    return bool(flag)


@contextmanager
def connected() -> Iterator[None]:
    """Turn what a collective operation raises, where another process is gone, into a sentence.

    Raises:
        RunError: The connection to another process is lost.
    """
    try:
        yield
    except RuntimeError as error:
        if process_count() == 1 or not _is_of_connection(error):
            raise
        refuse(RunError("another process of this training ended; its own message says why, and --resume goes on"))


def _is_of_connection(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


@contextmanager
def _others_hear() -> Iterator[list[Any]]:
    """Yield a list, the first of which the others hear; where the block fails they hear of that."""
    if process_count() > 1:
        _group()  # who is joined can be told, and a process that ends is noticed
    said: list[Any] = []
    try:
        yield said
    except BaseException:
        _broadcast({"failed": True})
        raise
    _broadcast({"failed": False, "said": said[0] if said else None})


def _hear() -> Any:
    """Return what the first process said.

    Raises:
        OtherProcessError: It failed.
    """
    message = _broadcast({})
    if message["failed"]:
        raise OtherProcessError
    return message["said"]


def _broadcast(message: dict[str, Any]) -> Any:
    """Return the first process's message in all of them, sent as JSON."""
    if process_count() == 1:
        return message
    import torch

    text = torch.tensor(list(json.dumps(message).encode()), dtype=torch.uint8)
    size = torch.tensor(len(text))
    with connected():
        torch.distributed.broadcast(size, 0, group=_group())
        text = text if is_first() else torch.empty(int(size), dtype=torch.uint8)
        torch.distributed.broadcast(text, 0, group=_group())
    return json.loads(bytes(text.tolist()))


@cache
def _group() -> Any:
    """Return the connection by which the processes talk, beside that of the gradients; it needs no GPU.

    Raises:
        ConfigError: There are fewer GPUs than processes here.
    """
    import torch
    from accelerate import PartialState

    from brainstage.models.device import best_device

    local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    on_gpu = best_device().type == "cuda"
    if on_gpu and local > gpus:
        refuse(ConfigError(f"{local} processes were started for {gpus} GPUs; start one for each GPU"))
    PartialState(cpu=not on_gpu, timeout=_PATIENCE)  # joins the processes, by NCCL on GPUs
    atexit.register(torch.distributed.destroy_process_group)  # its threads abort a process that ends around them
    return torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
