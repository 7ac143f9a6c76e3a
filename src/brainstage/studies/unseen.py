"""Whether a model has seen the people of a cohort, as far as its folder tells."""

from __future__ import annotations

import pyarrow.parquet as pq

from brainstage.core.errors import LeakageError
from brainstage.core.run import RunFolder, StrPath
from brainstage.datasets.patient_map import is_public
from brainstage.datasets.table import SliceTable
from brainstage.inference.predictor import Predictor
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
    """
    bundled = str(model) in BUNDLED
    known = None if bundled else _known_slices(RunFolder(model))
    shared = [one for one in slices.slice_ids if (is_public(one) if bundled else one in (known or ()))]
    if shared or predictor.about.get("data_hash") == slices.data_hash:
        count = len(shared) or len(slices)
        raise LeakageError(
            f"{count:,} of {len(slices):,} slices are in the data that {model} was made with: this would be no "
            "external validation; give people whom it has never seen"
        )
    return UNSEEN if bundled or known is not None else UNKNOWN


def _known_slices(run: RunFolder) -> set[str] | None:
    """Return the slices that a run was fitted to, chosen and tested on; None where its folder does not say."""
    if not run.training_slices.is_file():
        return None
    files = [run.training_slices, *([run.predictions] if run.predictions.is_file() else [])]
    return {one for file in files for one in pq.read_table(file, columns=["slice_id"])["slice_id"].to_pylist()}


def training_people(model: StrPath) -> set[str]:
    """Return the people whom a run names; none of a bundled model, whose people have no names elsewhere."""
    if str(model) in BUNDLED:
        return set()
    run = RunFolder(model)
    files = [file for file in (run.training_slices, run.predictions) if file.is_file()]
    people = [pq.read_table(file, columns=["patient_id"])["patient_id"].to_pylist() for file in files]
    return {one for ids in people for one in ids} - {None}
