"""Pretrained backbones: a hub id or a folder becomes a network with a head for the data's classes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from transformers import AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from brainstage.core.arrays import Float32Array
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.files import sha256, write_json
from brainstage.core.hub import HubId, cache_root, download
from brainstage.models.device import best_device
from brainstage.models.folder import CONFIG, PROCESSOR, WEIGHTS, read_config

BATCH = {"cpu": 16, "cuda": 256}
"""Slices a forward pass; larger batches are no faster on processors (``benchmarks/study.py``)."""
FETCHED = "fetched.json"
"""Written into a downloaded backbone's folder last, with its id, commit and SHA-256: the download is complete."""


def backbones_folder() -> Path:
    """Return the folder of downloaded backbones."""
    return cache_root() / "backbones"


def find_backbone(name: str, *, quiet: bool = True) -> Path:
    """Return the folder of a backbone; a hub id that is not in the cache is downloaded.

    Args:
        name: A folder, or a hub id, ``google/vit-base-patch16-224`` or ``facebook/dino-vitb8@refs/pr/1``.
        quiet: Show no progress bars.

    Raises:
        ConfigError: It is neither.
        DataError: The folder does not hold a backbone, or it cannot be downloaded.
    """
    if Path(name).is_dir():
        read_config(Path(name))
        return Path(name)
    return fetch(name, quiet=quiet)


def fetch(name: str, *, endpoint: str | None = None, quiet: bool = True) -> Path:
    """Download a backbone into the cache and check its SHA-256; one in the cache is not downloaded again.

    Args:
        name: Hub id, with ``@REVISION`` (branch, tag or commit) for another revision than the newest.
        endpoint: Address of the hub; None takes the public one (or ``HF_ENDPOINT``).
        quiet: Show no progress bars.

    Returns:
        Its folder, with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``.

    Raises:
        ConfigError: The name is not a hub id.
        DataError: No network, not on the hub, a checksum does not match, only pickled weights, an architecture
            that is not known, or the disk is full. What to do is in the message.
    """
    hub_id = HubId.parse(name)
    if hub_id is None:
        raise ConfigError(f"backbone {name!r}: no such folder, and not a hub id like google/vit-base-patch16-224")
    folder = backbones_folder() / name.replace("/", "--")
    if (folder / FETCHED).is_file():
        return folder
    repo, revision = hub_id
    by_hand = (
        f"or fetch it on a machine with a network (`brainstage models fetch {name}`) and copy {folder} here, "
        f"or give a folder with {CONFIG}, {PROCESSOR} and {WEIGHTS} as the backbone"
    )
    files = [CONFIG, PROCESSOR, WEIGHTS]
    commit = download(
        repo, files, folder, repo_type="model", by_hand=by_hand, revision=revision, endpoint=endpoint, quiet=quiet
    )
    read_config(folder, name)
    write_json(folder / FETCHED, {"id": repo, "commit": commit, "sha256": sha256(folder / WEIGHTS)})
    return folder


def open_backbone(folder: Path, classes: tuple[str, ...], seed: int) -> Any:
    """Return the network with a head for these classes, in fp32, ready to be trained.

    A head that was trained for these very classes is kept, its rows put in their order. Any other is replaced by a
    new one, normal with a standard deviation of 0.02 like those of ``transformers``, the bias zero.

    Args:
        folder: The backbone's folder.
        classes: Class names, in the order of the scores.
        seed: Seed of a new head.

    Raises:
        DataError: A file is missing, damaged or does not fit.
    """
    rows = _rows_of_head(read_config(folder).get("id2label") or {}, classes)
    if rows is None:
        model = load(folder, num_labels=len(classes), ignore_mismatched_sizes=True)
        _new_head(linear(model), seed)
    else:
        model = load(folder)
        head = linear(model)
        head.load_state_dict({name: value[rows] for name, value in head.state_dict().items()})
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: number for number, name in enumerate(classes)}
    return model


def load(folder: Path, **settings: Any) -> Any:
    """Return the network of a model folder in evaluation mode; nothing in the folder is executed.

    Args:
        folder: The model folder.
        settings: Passed to ``from_pretrained``. With any, a missing head is no error.

    Raises:
        DataError: A file is missing, damaged or does not fit.
    """
    read_config(folder)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **settings
        )
    except Exception as error:  # whatever transformers, safetensors or torch raise for foreign files
        reason = shorten(str(error), 200) or type(error).__name__
        raise DataError(f"{folder}: not a usable model folder ({reason}); get it anew") from error
    body = [key for key in loading["missing_keys"] if not (settings and key.startswith("classifier"))]
    if body:
        raise DataError(f"{folder}: not a usable model folder (no {body[0]} in {WEIGHTS}); get it anew")
    return model.eval()


def linear(model: Any) -> torch.nn.Linear:
    """Return the linear layer of a network's head; that of a ResNet follows a flattening."""
    head = model.classifier
    return head if isinstance(head, torch.nn.Linear) else head[-1]


def _rows_of_head(id2label: dict[Any, str], classes: tuple[str, ...]) -> list[int] | None:
    """Return the head's row for each class; None where it was trained for something else.

    A head of as many rows without names (``LABEL_0`` …) is taken to be in alphabetical order, which is how the hub
    numbers the public dataset's classes.
    """
    names = [str(id2label[key]) for key in sorted(id2label, key=int)]
    if names == [f"LABEL_{number}" for number in range(len(classes))]:
        names = sorted(classes)
    return [names.index(name) for name in classes] if sorted(names) == sorted(classes) else None


def _new_head(head: torch.nn.Linear, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(head.weight, std=0.02, generator=generator)
    torch.nn.init.zeros_(head.bias)


def split_head(model: Any) -> tuple[Any, torch.nn.Module]:
    """Return a copy of the network that returns features instead of logits, and the head that takes them.

    Every architecture of :data:`MODEL_TYPES` computes
    ``logits = classifier(features)``: with a flattening for a classifier, its logits are the features.
    """
    head, model.classifier = model.classifier, torch.nn.Flatten()
    body = copy.deepcopy(model).eval()
    model.classifier = head
    _leave_out_what_is_not_used(body)
    return body, head


def _leave_out_what_is_not_used(body: Any) -> None:
    """Let the MLP of a ViT's last layer compute the class token alone, the only one that the head uses.

    After the last attention no token depends on another, so the other tokens, a twentieth of the network's
    arithmetic, can be left out and the class token is the same.
    """
    layers = getattr(body.base_model, "layers", None)
    if body.config.model_type == "vit" and layers:
        layers[-1].layernorm_after.register_forward_pre_hook(lambda _module, inputs: (inputs[0][:, :1],))


def forward(body: Any, bf16: bool) -> Callable[[Float32Array], Float32Array]:
    """Return a function from inputs, float32 of shape (N, 3, H, W), to features, float32 of shape (N, D).

    Args:
        body: The network that :func:`split_head` returned.
        bf16: Whether to compute in bfloat16; weights and inputs are rounded to it.
    """
    device = best_device()
    dtype = torch.bfloat16 if bf16 else torch.float32
    body, batch = body.to(device, dtype), BATCH[device.type]

    @torch.inference_mode()
    def compute(inputs: Float32Array) -> Float32Array:
        parts = [
            body(torch.from_numpy(inputs[start : start + batch]).to(device, dtype)).logits.float().cpu()
            for start in range(0, len(inputs), batch)
        ]
        return torch.cat(parts).numpy()

    return compute
