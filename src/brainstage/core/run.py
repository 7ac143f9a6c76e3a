"""The run folder: where each artifact of a training is, written by one process at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brainstage.core.errors import ConfigError, RunError
from brainstage.core.files import locked, make_folder, sha256, write_json
from brainstage.core.notebooks import Displayed, Plotted, Tabular

StrPath = os.PathLike[str] | str
"""What a run may be named by: a :class:`RunFolder`, a ``pathlib.Path`` or a string."""

NEAREST_SLICE, BASELINE, AGE_AND_SEX = "nearest_training_slice.parquet", "baseline.parquet", "age_and_sex.parquet"
"""Prediction tables of what stands beside the model, in the folder of ``predictions.parquet``."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str, what: str = "run name") -> str:
    """Return a name that is safe as the name of a file or folder.

    Raises:
        ConfigError: It is empty, too long or holds anything but letters, digits, ``.``, ``_``, ``-``.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} is not usable; take up to 100 letters, digits, '.', '_' or '-', "
            "starting with a letter or a digit"
        )
    return name


class RunFolder(Displayed, Plotted, Tabular):
    """Paths and files of one run, ``runs/NAME``. Functions that take a path take a run folder too.

    ================================== ==========================================================================
    ``model/``                         weights, architecture and image processor
    ``train_config.json``              every setting
    ``splits.json``                    the slices or people of each side, and the leakage verdict
    ``training_slices.parquet``        ``slice_id`` and ``patient_id`` of the slices that the model was fitted to
    ``history.jsonl``                  one line an epoch
    ``predictions.parquet``            probabilities of every validation and test slice
    ``folds/00/`` …                    a run for each fold, where the run is cross-validated
    ``nearest_training_slice.parquet`` the same slices, each given the stage of the most similar training slice
    ``baseline.parquet``               predictions of the linear baseline on the same folds
    ``age_and_sex.parquet``            predictions from age and sex alone on the same folds, where they are known
    ``manifest.json``                  SHA-256 of each file above, and the versions; written last
    ``metrics.json``                   performance by slice, written by ``evaluate``
    ``patient_metrics.json``           performance by person, written by ``evaluate``
    ``claim.md``, ``tripod.md``        reporting checklists, written by ``cross-validate``
    ``curves.png``                     loss and accuracy by epoch, drawn by ``evaluate``
    ``confusion_matrix.png``           drawn by ``evaluate``
    ``onnx/``                          the network as ONNX, a folder like this one, written by ``export``
    ``tensorboard/``                   event files, where that tracker was asked for
    ``checkpoints/``                   only while training
    ``.slices/``                       the slices, only while other processes train the folds
    ================================== ==========================================================================
    """

    def __init__(self, path: StrPath):
        self.path = Path(path)
        self.model = self.path / "model"
        self.checkpoints = self.path / "checkpoints"
        self.folds = self.path / "folds"
        self.config = self.path / "train_config.json"
        self.splits = self.path / "splits.json"
        self.training_slices = self.path / "training_slices.parquet"
        self.history = self.path / "history.jsonl"
        self.predictions = self.path / "predictions.parquet"
        self.nearest_slice = self.path / NEAREST_SLICE
        self.baseline = self.path / BASELINE
        self.age_and_sex = self.path / AGE_AND_SEX
        self.metrics = self.path / "metrics.json"
        self.patient_metrics = self.path / "patient_metrics.json"
        self.curves = self.path / "curves.png"
        self.confusion_matrix = self.path / "confusion_matrix.png"
        self.tensorboard = self.path / "tensorboard"
        self.manifest = self.path / "manifest.json"
        self.stored_slices = self.path / ".slices"

    def __fspath__(self) -> str:
        """Return the path, so that ``Predictor.open(train(...))`` and ``Path(run)`` work."""
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def named(cls, name: str, root: StrPath = "runs") -> RunFolder:
        """Return the folder of a new run. ``name`` is a plain name, never a path.

        Raises:
            ConfigError: As :func:`check_name`.
        """
        return cls(Path(root) / check_name(name))

    @classmethod
    def new(cls, name: str | None, kind: str, root: StrPath = "runs") -> RunFolder:
        """Return the folder of a new run.

        Args:
            name: Name of the run; None takes the first ``KIND-NNN`` that does not exist.
            kind: What an unnamed run is called.
            root: Folder of the runs.

        Raises:
            ConfigError: As :func:`check_name`.
        """
        if name:
            return cls.named(name, root)
        number = 1
        while (run := cls.named(f"{kind}-{number:03d}", root)).path.exists():
            number += 1
        return run

    @classmethod
    def open(cls, path: StrPath) -> RunFolder:
        """Return the folder of a finished run, whose files are as they were when it finished.

        Raises:
            RunError: There is no run, it is not finished, or a file was changed.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise RunError(f"{run.path}: no such run; `brainstage train --name NAME` makes runs/NAME")
        if not run.finished:
            raise RunError(
                f"{run.path}: this run is not finished; repeat the command that began it with "
                f"--resume --name {run.path.name}"
            )
        run.verify()
        return run

    @property
    def finished(self) -> bool:
        """Whether training ended and every file was written."""
        return self.manifest.is_file()

    @property
    def started(self) -> bool:
        """Whether a training was started here."""
        return self.config.is_file()

    @property
    def has_results(self) -> bool:
        """Whether there is anything that a resumed run need not do again: a checkpoint, a model or a fold."""
        return any(file.parent != self.tensorboard for file in self.path.glob("[!.]*/*"))

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunError: The place is not writable.
        """
        make_folder(self.path)

    @contextmanager
    def kept_if_used(self, has_results: Callable[[], bool] | None = None) -> Iterator[None]:
        """Make the folder; where the block fails before there is any result, remove what was made.

        Args:
            has_results: Whether there is a result; None takes :attr:`has_results`.

        Raises:
            RunError: The place is not writable.
        """
        above = [folder for folder in self.path.parents if not folder.exists()]
        is_new = self._make()
        try:
            yield
        except BaseException:
            if is_new and not (has_results() if has_results else self.has_results):
                shutil.rmtree(self.path, ignore_errors=True)
                with suppress(OSError):  # another run is in it
                    for folder in above:
                        folder.rmdir()
            raise

    def _make(self) -> bool:
        """Make the folder; return whether this process made it."""
        make_folder(self.path.parent)
        try:
            self.path.mkdir()
        except OSError:
            self.create()  # it exists, or it says why it cannot be made
            return False
        return True

    @contextmanager
    def claim(self, *, resume: bool) -> Iterator[bool]:
        """Make and lock the run; yields False if it is finished.

        A new run that fails before there is anything to resume leaves no folder behind. What a killed process
        left half-written is removed.

        Args:
            resume: Whether a run that was started or finished may be opened again.

        Raises:
            RunError: The run is finished or was started and is not to be resumed, another process holds it, a file
                of the finished run was changed, or the place is not writable.
        """
        with self.kept_if_used(), self.lock():
            if self.finished and not resume:
                raise RunError(f"{self.path}: this run is finished; take another --name")
            if self.started and not resume:
                raise RunError(f"{self.path}: this run was started; go on with --resume or take another --name")
            if self.finished:
                self.verify()
            else:
                self._remove_leftovers()
            yield not self.finished

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process; the operating system unlocks it when the process ends, even if killed.

        Raises:
            RunError: Another process holds it, or the folder is not writable.
        """
        with locked(self.path, "another process is training this run; wait for it or take another --name"):
            yield

    def _remove_leftovers(self) -> None:
        """Remove the temporary files and folders of a process that was killed; their names start with a dot."""
        for entry in self.path.glob(".*"):
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.suffix == ".part":
                entry.unlink()

    def write_manifest(self, extra: dict[str, Any]) -> None:
        """Write the SHA-256 of every file of the run, beside ``extra``. A run with a manifest is finished.

        Of a run within this one, such as a fold, its manifest alone is listed: it lists that run's files. Hidden
        files and checkpoints are not the run's.
        """
        names = [file.relative_to(self.path) for file in sorted(self.path.rglob("*")) if file.is_file()]
        inner = {name.parent for name in names if name.name == self.manifest.name and len(name.parts) > 1}
        hashes = {
            name.as_posix(): sha256(self.path / name)
            for name in names
            if not any(part.startswith(".") for part in name.parts)
            and name.parts[0] not in (self.checkpoints.name, self.manifest.name)
            and inner.isdisjoint(name.parents[name.name == self.manifest.name :])
        }
        write_json(self.manifest, {**extra, "files": hashes})

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest of a finished run.

        Raises:
            RunError: It is not readable.
        """
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.manifest}: not readable as JSON ({error}); train the run again") from error
        if not isinstance(content, dict) or not isinstance(content.get("files", {}), dict):
            raise RunError(f"{self.manifest}: not a manifest; train the run again")
        return content

    def verify(self, within: Path | None = None) -> dict[str, str]:
        """Check that files are as they were when the run finished; return the SHA-256 of each, by its name.

        Files that the manifest does not list, such as the metrics of ``evaluate``, are not checked.

        Args:
            within: A folder of the run; None checks all of it.

        Raises:
            RunError: A file was changed or removed, or the manifest is not readable.
        """
        hashes = {
            name: expected
            for name, expected in self.read_manifest().get("files", {}).items()
            if within is None or within in (self.path / name).parents
        }
        for name, expected in hashes.items():
            file = self.path / name
            if not file.is_file():
                raise RunError(f"{file}: was removed after the run finished; restore it or train the run again")
            if sha256(file) != expected:
                raise RunError(
                    f"{file}: was changed after the run finished (its SHA-256 differs from {self.manifest.name}); "
                    "restore it or train the run again"
                )
        return hashes
