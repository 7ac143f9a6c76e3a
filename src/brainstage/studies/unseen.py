"""Whether a model has seen the people of a cohort, as far as its folder tells."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from brainstage.core.errors import LeakageError, RunError
from brainstage.core.run import RunFolder, StrPath
from brainstage.datasets.patient_map import is_public
from brainstage.datasets.table import SliceTable
from brainstage.inference.predictor import Predictor
from brainstage.models.folder import read_json
from brainstage.models.weights import BUNDLED

UNSEEN = {"status": "clean", "sentence": "clean: no slice of the data that the model was made with"}
"""Leakage verdict: of slices, since whether the people are others cannot be seen."""
UNKNOWN = {"status": "unknown", "sentence": "leakage unknown: the model does not say which slices it was fitted to"}
"""Leakage verdict of a model without its run, as those of the hub and exported ones are."""


def check_unseen(model: StrPath, predictor: Predictor, slices: SliceTable) -> dict[str, str]:
    """Refuse a cohort that shares slices with the data that the model was made with.

    Args:
        model: A run folder, a bundled model, or a model of the hub, by its path or name.
        predictor: That model, opened.
        slices: The cohort.

    Returns:
        The leakage verdict, :data:`UNSEEN` or :data:`UNKNOWN`.

    Raises:
        LeakageError: A slice is of that data.
        DataError, RunError: A file of the run cannot be read.
    """
    bundled = str(model) in BUNDLED
    run = None if bundled else RunFolder(model)
    known = _known(run, "slice_id") if run else set()
    shared = [one for one in slices.slice_ids if (is_public(one) if bundled else one in known)]
    if shared or predictor.about.get("data_hash") == slices.data_hash:
        count = len(shared) or len(slices)
        raise LeakageError(
            f"{count:,} of {len(slices):,} slices are in the data that {model} was made with: this would be no "
            "external validation; give people whom it has never seen"
        )
    return UNKNOWN if run and not run.training_slices.is_file() else UNSEEN


def training_people(model: StrPath) -> set[str]:
    """Return the people whom a run names; none of a bundled model, whose people have no names elsewhere."""
    return set() if str(model) in BUNDLED else _known(RunFolder(model), "patient_id")


def _known(run: RunFolder, column: str) -> set[str]:
    """Return the slices or people that a run was fitted to, chosen or tested on, as far as its folder says.

    Raises:
        DataError, RunError: A file of it cannot be read.
    """
    known: set[str | None] = set()
    if column == "slice_id" and run.splits.is_file():
        splits = read_json(run.splits)
        if splits.get("names") == "slice_id":
            known |= {one for fold in splits["folds"] for side in fold.values() for one in side}
    for file in (run.training_slices, run.predictions):
        if file.is_file():
            try:
                known |= set(pq.read_table(file, columns=[column])[column].to_pylist())
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0]
                raise RunError(f"{file}: not a readable parquet file ({reason}); train the run again") from error
    return {one for one in known if one is not None}
