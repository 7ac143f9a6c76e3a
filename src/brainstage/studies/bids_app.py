"""A BIDS App: participants each for themselves, in any number of jobs at once; then all of them together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brainstage.cohorts.assemble import assemble
from brainstage.cohorts.bids import BidsDataset
from brainstage.cohorts.derivatives import DerivativesFolder
from brainstage.cohorts.ledger import Measured
from brainstage.cohorts.prepare import DIED
from brainstage.cohorts.selection import with_classes
from brainstage.core.errors import ConfigError, DataError
from brainstage.core.files import make_folder, write_json
from brainstage.core.parallel import Workers, run_tasks
from brainstage.core.progress import Progress, silent
from brainstage.datasets.sources import load_slices
from brainstage.datasets.table import SliceTable
from brainstage.inference.predictor import Predictor
from brainstage.inference.scan_results import (
    ScanResult,
    ScanTask,
    is_done,
    process_scan,
    read_result,
    result_key,
    write_result,
)
from brainstage.scans.extraction import Skull
from brainstage.studies.external_validation import ExternalValidation, validate

HASH_LENGTH = 12
"""Digits of a model's SHA-256 by which it is named."""


@dataclass(frozen=True)
class BidsApp:
    """A dataset, a model, and where the derivatives go.

    Attributes:
        dataset: The dataset and what is selected of it.
        folder: The derivatives dataset.
        model: Run folder, or a bundled model.
        predictor: The same, opened.
        skull: ``strip`` takes the skull off, ``stripped`` says that none is there, ``auto`` looks.
    """

    dataset: BidsDataset
    folder: DerivativesFolder
    model: str
    predictor: Predictor
    skull: Skull

    @classmethod
    def open(cls, dataset: BidsDataset, out: Path | str, model: str, skull: Skull = "auto") -> BidsApp:
        """Check that the derivatives can be written to a folder, which need not exist; nothing is written.

        Args:
            dataset: The dataset.
            out: The derivatives dataset.
            model: Run folder, or a bundled model.
            skull: As in :class:`BidsApp`.

        Raises:
            ConfigError: The folder is the dataset itself, holds something else, or was made with another model
                or ``skull``.
            RunError: The model cannot be opened.
        """
        out = Path(out)
        app = cls(dataset, DerivativesFolder(out), model, Predictor.open(model), skull)
        if out.is_dir() and out.resolve() == dataset.folder.resolve():
            raise ConfigError(f"{out}: is the dataset itself; choose a folder of its own for the derivatives")
        if not app._settings.is_file():
            if out.is_dir() and any(out.iterdir()) and not app.folder.private.is_dir():
                raise ConfigError(f"{out}: holds other files; choose a new folder for the derivatives")
            return app
        made, wanted = json.loads(app._settings.read_text(encoding="utf-8")), app._made_with
        for name, value in wanted.items():
            if made.get(name) != value:
                raise ConfigError(
                    f"{out}: was made with another {name} ({made.get(name)}, not {value}); give the same --{name}, "
                    "or choose a new folder for the derivatives"
                )
        return app

    @property
    def _made_with(self) -> dict[str, str]:
        """What all derivatives of a folder have in common."""
        return {"model": self.predictor.hash[:HASH_LENGTH], "skull": self.skull}

    @property
    def _settings(self) -> Path:
        return self.folder.private / "settings.json"

    def tasks(self) -> list[ScanTask]:
        """Return the selected scans."""
        levels, model_hash = self.predictor.level_set, self.predictor.hash
        return [
            ScanTask(
                self.folder, scan, self.skull, levels, self.model, result_key(scan, self.skull, levels, model_hash)
            )
            for scan in self.dataset.selected
        ]

    def process(
        self, *, workers: Workers, done: Callable[[str], object], progress: Progress = silent
    ) -> list[ScanResult]:
        """Write derivatives, prediction and result of each selected scan; those that are there are kept.

        Args:
            workers: Where scans are processed; those of a cluster must see all folders under the same paths.
            done: Called with each participant's id when all of their selected scans are processed.
            progress: How to show progress.

        Returns:
            What became of the selected scans.

        Raises:
            RunError: A file cannot be written.
        """
        make_folder(self.folder.private)
        write_json(self._settings, self._made_with)
        tasks = self.tasks()
        missing = [task for task in tasks if not is_done(task)]
        waiting = Counter(task.scan.participant_id for task in missing)
        for person in sorted({task.scan.participant_id for task in tasks}.difference(waiting)):
            done(person)
        with progress("Processing scans", len(missing)) as advance:
            for task, status in run_tasks(process_scan, missing, workers):
                if status is None:
                    write_result(task, Measured("failed", DIED))
                waiting[task.scan.participant_id] -= 1
                if not waiting[task.scan.participant_id]:
                    done(task.scan.participant_id)
                advance(1)
        return self.results([task.scan.scan_id for task in tasks])

    def results(self, scan_ids: Sequence[str]) -> list[ScanResult]:
        """Return what became of scans; those that were not processed are left out."""
        found = (read_result(self.folder, scan_id) for scan_id in scan_ids)
        return [result for result in found if result]

    def results_of(self, participant_id: str) -> list[ScanResult]:
        """Return what became of a participant's scans, in whatever job they were processed."""
        scans = self.dataset.source.scans
        return self.results([scan.scan_id for scan in scans if scan.participant_id == participant_id])

    def all_results(self) -> list[ScanResult]:
        """Return what became of the dataset's scans, in whatever job they were processed."""
        return self.results([scan.scan_id for scan in self.dataset.source.scans])

    def unprocessed(self) -> list[str]:
        """Return the names of the selected scans that no job has processed."""
        return [task.scan.scan_id for task in self.tasks() if not is_done(task)]

    def evaluate(
        self,
        *,
        class_order: tuple[str, ...] | None = None,
        class_map: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> tuple[ExternalValidation, SliceTable]:
        """Judge the model on the selected scans that were processed and have a label in ``participants.tsv``.

        The slices of these scans become a cohort as ``prepare`` makes it, which is validated as any other.

        Args:
            class_order: Labels from the least to the most severe; None recognises the usual names.
            class_map: Class of the model that each label stands for, as for ``validate``.
            progress: How to show progress.

        Returns:
            The validation, and the slices that it was made of.

        Raises:
            DataError: No scan can be used, or nothing can be compared.
            LeakageError: A slice is of the model's training set.
            ConfigError: The mapping names an unknown class or label.
            RunError: Another process evaluates, or the folder is not writable.
        """
        source = self.dataset.source
        done = {result.scan_id for result in self.results([scan.scan_id for scan in self.dataset.selected])}
        if not done:
            raise DataError("none of these participants was processed; run the participant level first")
        processed = replace(source, scans=[scan for scan in self.dataset.selected if scan.scan_id in done])
        processed, classes, ordered = with_classes(processed, class_order)
        cohort = self.folder.cohort
        with cohort.claim():
            assemble(
                cohort,
                processed,
                classes,
                ordered=ordered,
                level_set=self.predictor.level_set,
                progress=progress,
            )
            slices = load_slices(cohort.path)
            result = validate(
                self.model,
                slices,
                self.folder.validation,
                cohort=cohort.path,
                by=source.covariates,
                class_map=class_map,
                progress=progress,
            )
        return result, slices
