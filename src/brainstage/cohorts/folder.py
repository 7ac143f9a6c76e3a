"""The folder of a cohort: what lies where, who works on it, and whether it is one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brainstage.core.errors import RunError
from brainstage.core.files import atomic, locked, make_folder
from brainstage.core.levels import LevelSet

VERSION = 1
"""Version of the cohort folder."""


@dataclass(frozen=True)
class CohortFolder:
    """Paths of a cohort.

    ======================================= =========================================================
    ``data/train-00000-of-000NN.parquet``   the slices: image, label, person, session, scan, level, covariates
    ``scans.parquet``                       the ledger, a row a scan (:mod:`brainstage.cohorts.ledger`)
    ``cohort.json``                         levels, classes, counts
    ``qc.html``                             each scan's cuts to be checked by eye, written by the command line
    ``.prepare/``                           private: slices scan by scan, from which a stopped run goes on, and the
                                            salt of the hashes; not to be published, and safe to delete in the end
    ======================================= =========================================================
    """

    path: Path

    @property
    def data(self) -> Path:
        """The folder of the slices."""
        return self.path / "data"

    @property
    def ledger(self) -> Path:
        """The ledger."""
        return self.path / "scans.parquet"

    @property
    def about(self) -> Path:
        """What the cohort is."""
        return self.path / "cohort.json"

    @property
    def private(self) -> Path:
        """What a stopped run goes on from."""
        return self.path / ".prepare"

    def part(self, scan_id: str) -> Path:
        """Return the file of one scan's slices."""
        return self.private / "parts" / f"{scan_id}.parquet"

    @property
    def quality(self) -> Path:
        """The page by which people check scans."""
        return self.path / "qc.html"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder and lock it for this process.

        Raises:
            RunError: Another process prepares it, it is not writable, or it holds something else.
        """
        if (
            self.path.is_dir()
            and not self.about.exists()
            and not self.private.exists()
            and any(self.path.iterdir())
        ):
            raise RunError(f"{self.path}: holds other files; choose a new folder with --out")
        make_folder(self.private / "parts")
        with locked(self.path, "another process prepares this cohort; wait for it", f"{self.private.name}/.lock"):
            yield

    def salt(self) -> bytes:
        """Return the cohort's salt, made where there is none yet."""
        file = self.private / "salt"
        if not file.is_file():
            with atomic(file) as part:
                part.write_text(secrets.token_hex(32), encoding="ascii")
            file.chmod(0o600)
        return file.read_bytes()


def check_made(folder: CohortFolder, level_set: LevelSet) -> None:
    """Refuse a finished cohort of another version or of other levels."""
    if not folder.about.exists():
        return
    try:
        about = json.loads(folder.about.read_text(encoding="utf-8"))
        version, levels = about["version"], about["levels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder.about}: not readable as a cohort ({error}); choose a new folder with --out"
        ) from error
    if version != VERSION:
        raise RunError(
            f"{folder.path}: a cohort of version {version}, this brainstage makes version {VERSION}; choose a new "
            "folder with --out"
        )
    if levels != level_set.name:
        raise RunError(
            f"{folder.path}: was prepared with --levels {levels}, not {level_set.name}; give the same levels, or "
            "choose a new folder with --out"
        )
