"""A model by its name: one that comes with the package, a folder, or one that was published on the hub."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.hub import HubId, cached_commit, fetch_snapshot, look_up
from brainstage.core.run import RunFolder, StrPath
from brainstage.models.folder import CONFIG, MODEL_FILES, is_named_like_pickle, refuse_pickles
from brainstage.models.weights import BUNDLED, DEFAULT, bundled_folder

if TYPE_CHECKING:
    from brainstage.core.parallel import Workers

MANIFEST = "manifest.json"
PUBLISHED = ("README.md", MANIFEST, *(f"model/{name}" for name in MODEL_FILES))
"""Every file that a published model may have: laid out like a run."""

_AS_ON_THE_HUB = "a model on the hub is named ORG/NAME@main, with scans after it"

RUNS = "runs"
"""The folder that runs are written into unless another is named."""

_FILE_SUFFIXES = (
    *(".csv", ".dcm", ".gz", ".hdr", ".html", ".ima", ".img", ".jpeg", ".jpg", ".json", ".mgz", ".nii", ".npy"),
    *(".onnx", ".parquet", ".png", ".safetensors", ".tif", ".tiff", ".toml", ".tsv", ".zip"),
)
"""Suffixes of names that are files, and no models of the hub."""


def find_model(inputs: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Separate the model from the scans among the names that a user typed: the model may come first.

    Args:
        inputs: A run folder, a bundled model or one on the hub, which may be left out; then files, folders or
            globs.

    Returns:
        The model and the names of the scans.

    Raises:
        RunError: The first name is neither a model nor a scan. The hub is not asked: what may be the name of a scan
            stays here.
        ConfigError: There is a model but no scan.
    """
    first, rest = inputs[0], inputs[1:]
    named = first in BUNDLED or (Path(first) / "model").is_dir() or RunFolder(first).started
    if not named and not _is_there(first):
        if hub_id_of(first) is None or not rest:
            remedy = _AS_ON_THE_HUB if HubId.parse(first) else "check the name"
            raise RunError(f"{first}: no such run, file or folder; {remedy}")
        if not any(map(_is_there, rest)):
            raise RunError(f"{rest[0]}: no such file or folder, so {first} was not looked for on the hub")
        named = True
    if named and not rest:
        raise ConfigError(f"{first}: is a model; name files or folders with scans after it")
    return (first, rest) if named else (DEFAULT, inputs)


def _is_there(name: str) -> bool:
    return Path(name).exists() or glob.has_magic(name)


def find_folder(name: StrPath, *, quiet: bool = True) -> Path:
    """Return the folder of a model, laid out like a run; one on the hub is downloaded unless the cache holds it.

    Args:
        name: A bundled model, a run folder, or ``ORG/NAME`` or ``ORG/NAME@REVISION`` on the hub. A folder of that
            name comes first. A ``Path`` is always a folder.
        quiet: Show no progress bars.

    Raises:
        RunError: It is to be on the hub, but cannot be fetched, or is no model that may be opened.
    """
    if not isinstance(name, str):
        return Path(name)
    if name in BUNDLED:
        return bundled_folder(name)
    hub_id = hub_id_of(name)
    return _fetch(hub_id, quiet=quiet) if hub_id else Path(name)


def hub_id_of(name: str) -> HubId | None:
    """Return the id on the hub that a model's name stands for; None where it is the name of something local.

    What may be the name of a local file is never asked of the hub, since such names can tell of people: not a name
    that ends like a file, and not one below a folder that exists here, or below ``runs``, where training writes,
    unless it has a revision.
    """
    hub_id = HubId.parse(name)
    if hub_id is None or Path(name).exists() or Path(name).suffix.lower() in _FILE_SUFFIXES:
        return None
    folder = Path(name).parent
    return None if hub_id.revision is None and (folder.exists() or folder.name == RUNS) else hub_id


def pin(hub_id: HubId, *, quiet: bool = True) -> str:
    """Fetch a model of the hub; return its name with the commit, ``ORG/NAME@COMMIT``, which never changes.

    Args:
        hub_id: The model.
        quiet: Show no progress bars.

    Raises:
        RunError: As :func:`find_folder`.
    """
    return str(HubId(hub_id.repo, _fetch(hub_id, quiet=quiet).name))


def place_of_model(model: str, workers: Workers) -> str:
    """Return what workers open a model by: the name of a bundled one, or a path that they can reach.

    Args:
        model: As for :func:`find_folder`.
        workers: Who opens it.

    Raises:
        RunError: As :func:`find_folder`.
    """
    return model if model in BUNDLED else str(workers.path(find_folder(model)))


def is_published(files: Sequence[str]) -> bool:
    """Return whether files are those of a model that was published with ``brainstage push``, by their names."""
    return {MANIFEST, f"model/{CONFIG}"} <= set(files)


def check_published(hub_id: HubId, files: Sequence[str]) -> None:
    """Refuse a repository that holds a pickle, or no model that was published with ``brainstage push``.

    Args:
        hub_id: The repository.
        files: Names of its files.

    Raises:
        DataError: It is such a repository.
    """
    if pickles := [file for file in files if is_named_like_pickle(file)]:
        raise DataError(
            f"{hub_id}: holds {pickles[0]}, a pickle or named like one, which can run code when it is opened, so "
            "nothing of it is; name a revision without it, or ask its owner to take it away"
        )
    if not is_published(files):
        raise DataError(
            f"{hub_id}: holds no brainstage model, which has {MANIFEST} and model/{CONFIG}; check the name, or "
            "name a revision that has one"
        )


def _fetch(hub_id: HubId, *, quiet: bool) -> Path:
    """Return the folder of a published model; what is fetched anew is checked, file by file."""
    try:
        return cached_commit(hub_id, PUBLISHED) or _fetch_and_check(hub_id, quiet=quiet)
    except DataError as error:
        raise RunError(str(error)) from error


def _fetch_and_check(hub_id: HubId, *, quiet: bool) -> Path:
    try:
        there = look_up(hub_id)
    except DataError:  # the cache may answer without the hub, else fetch_snapshot says what is wrong
        there = None
    if there:
        check_published(hub_id, there.files)
        quiet = quiet or cached_commit(HubId(hub_id.repo, there.commit), PUBLISHED) is not None
    folder = fetch_snapshot(hub_id, PUBLISHED, quiet=quiet)
    run = RunFolder(folder)
    check_published(hub_id, [file.relative_to(folder).as_posix() for file in folder.rglob("*")])
    refuse_pickles(run.model)
    try:
        run.verify(run.model)
    except RunError as error:
        raise DataError(
            f"{hub_id}: a file is not as its {MANIFEST} says ({error}); if the download was damaged, delete "
            f"{folder.parents[1]} and try again, else do not use this model"
        ) from error
    return folder
