"""The folder of several runs that are compared: it holds runs of one set of settings and one data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from brainstage.core.config import TrainConfig
from brainstage.core.errors import ConfigError, DataError, RunError
from brainstage.core.files import write_json
from brainstage.core.run import RunFolder, StrPath
from brainstage.datasets.table import SliceTable
from brainstage.training.start import check_settings

SETTINGS = "settings.json"
"""What a study was started with, in its folder."""


def begin(kind: str, name: str | None, out: StrPath, resume: bool) -> RunFolder:
    """Return the folder of a comparison or a study, which is made when it starts.

    Args:
        kind: What an unnamed one is called.
        name: Its name; None takes the first ``KIND-NNN`` that does not exist.
        out: Folder of the runs.
        resume: Whether it may exist.

    Raises:
        ConfigError: The name is not usable.
        RunError: It exists and is not to be resumed.
    """
    run = RunFolder.new(name, kind, out)
    if run.path.exists() and not resume:
        raise RunError(f"{run.path}: exists; go on with --resume or take another --name")
    return run


@contextmanager
def started_with(folder: Path, slices: SliceTable, configs: dict[str, TrainConfig]) -> Iterator[None]:
    """Make a study's folder, or check that it was started with the same settings and data.

    Where the block fails before any of its runs has a result, the folder that was made is removed.

    Args:
        folder: The folder.
        slices: The data.
        configs: Settings of what is trained, by name.

    Raises:
        ConfigError: It was started with different settings; the message names them.
        DataError: It was started with different data.
        RunError: The place is not writable, or its settings are not readable.
    """
    file = folder / SETTINGS
    with RunFolder(folder).kept_if_used():
        if file.is_file():
            _check(file, slices, configs)
        else:
            settings = {name: asdict(config) for name, config in configs.items()}
            write_json(file, {"data_hash": slices.data_hash, "settings": settings})
        yield


def _check(file: Path, slices: SliceTable, configs: dict[str, TrainConfig]) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        data_hash, settings = content["data_hash"], dict(content["settings"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{file}: not readable ({error}); take another --name") from error
    if data_hash != slices.data_hash:
        raise DataError(f"{file.parent}: was started with different data; name that data with --data")
    if set(settings) != set(configs):
        raise ConfigError(
            f"{file.parent}: was started with {', '.join(settings)}, not {', '.join(configs)}; name the "
            "same or take another --name"
        )
    for name, config in configs.items():
        check_settings(file.parent, TrainConfig.from_dict(settings[name], str(file)), config)
