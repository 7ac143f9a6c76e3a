"""The run folder: where each artifact of a training lies, one process at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brainstage.core.errors import ConfigError, RunError
from brainstage.core.files import make_folder, sha256, write_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunFolder:
    """Paths and files of one run, ``runs/NAME``.

    ============================ =====================================================
    ``model/``                   weights, architecture and image processor
    ``train_config.json``        every setting
    ``splits.json``              which slice is on which side, and the leakage verdict
    ``history.jsonl``            one line an epoch
    ``predictions.parquet``      probabilities of every validation and test slice
    ``folds/00/`` …              a run for each fold, where all folds of the patient protocol were trained
    ``baseline.parquet``         predictions of the linear baseline on the same folds
    ``patient_metrics.json``     what the predictions are worth for people
    ``metrics.json``             what those predictions are worth
    ``curves.png``, ``confusion_matrix.png``
    ``onnx/``                    the network as ONNX, a folder like this one, where it was exported
    ``tensorboard/``             event files, where that tracker was asked for
    ``manifest.json``            SHA-256 of each file above, and the versions; written last
    ``checkpoints/``             only while training
    ============================ =====================================================
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.model = self.path / "model"
        self.checkpoints = self.path / "checkpoints"
        self.config = self.path / "train_config.json"
        self.splits = self.path / "splits.json"
        self.history = self.path / "history.jsonl"
        self.predictions = self.path / "predictions.parquet"
        self.baseline = self.path / "baseline.parquet"
        self.metrics = self.path / "metrics.json"
        self.curves = self.path / "curves.png"
        self.confusion_matrix = self.path / "confusion_matrix.png"
        self.tensorboard = self.path / "tensorboard"
        self.manifest = self.path / "manifest.json"

    @classmethod
    def named(cls, name: str, root: Path | str = "runs") -> RunFolder:
        """Return the folder of a new run. ``name`` is a plain name, never a path.

        Raises:
            ConfigError: ``name`` is empty, too long or holds anything but letters, digits, ``.``, ``_``, ``-``.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"run name {name!r} is not usable; take up to 100 letters, digits, '.', '_' or '-', "
                "starting with a letter or a digit"
            )
        return cls(Path(root) / name)

    @classmethod
    def new(cls, name: str | None, kind: str, root: Path | str = "runs") -> RunFolder:
        """Return the folder of that name, or without one the first ``KIND-NNN`` that does not exist.

        Raises:
            ConfigError: ``name`` is not usable.
        """
        if name:
            return cls.named(name, root)
        number = 1
        while (run := cls.named(f"{kind}-{number:03d}", root)).path.exists():
            number += 1
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return the folder of a finished run.

        Raises:
            RunError: There is no finished run.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise RunError(f"{path}: no such run; `brainstage train --name NAME` makes runs/NAME")
        if not run.finished:
            raise RunError(
                f"{path}: this run is not finished; go on with `brainstage train --resume --name {run.path.name}`"
            )
        return run

    @property
    def finished(self) -> bool:
        """Whether training ended and every file was written."""
        return self.manifest.is_file()

    @property
    def started(self) -> bool:
        """Whether a training has begun here."""
        return self.config.is_file()

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunError: The place is not writable.
        """
        make_folder(self.path)

    @contextmanager
    def claim(self, *, resume: bool) -> Iterator[bool]:
        """Make the folder and hold it for a training; gives whether there is anything left to do.

        Raises:
            RunError: It is finished or begun and not to be resumed, another process holds it, or the place is not
                writable.
        """
        self.create()
        with self.lock():
            if self.finished and not resume:
                raise RunError(f"{self.path}: this run is finished; take another --name")
            if self.started and not resume:
                raise RunError(f"{self.path}: this run was begun; go on with --resume or take another --name")
            yield not self.finished

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the operating system lets go of it when the process ends, however.

        Raises:
            RunError: Another process holds it, or the folder is not writable.
        """
        from filelock import FileLock, Timeout  # prediction, which locks nothing, does not wait for its import

        try:
            with FileLock(self.path / ".lock", blocking=False):
                yield
        except Timeout:
            raise RunError(
                f"{self.path}: another process is training this run; wait for it or take another --name"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path}: this folder is not writable; give another --out") from error

    def write_manifest(self, extra: dict[str, Any]) -> None:
        """Write the SHA-256 of every file of the run, beside ``extra``. A run with a manifest is finished."""
        files = sorted(
            file
            for file in self.path.rglob("*")
            if file.is_file() and not file.name.startswith(".") and self.checkpoints not in file.parents
        )
        hashes = {file.relative_to(self.path).as_posix(): sha256(file) for file in files if file != self.manifest}
        write_json(self.manifest, {**extra, "files": hashes})
