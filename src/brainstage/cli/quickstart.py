"""The quickstart: its data, and what its figure means. No other command falls back to the phantom cohort."""

from __future__ import annotations

from pathlib import Path

from brainstage.core.errors import DataError
from brainstage.core.progress import Progress, silent
from brainstage.core.run import RunFolder
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.datasets.layouts import hub_files
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.public import DATA_HASH, cache_folder, fetch
from brainstage.datasets.sources import default_source
from brainstage.datasets.table import SliceTable
from brainstage.evaluation.slices import Evaluation, evaluate
from brainstage.models.recipes import load_recipe
from brainstage.models.weights import bundled_folder
from brainstage.report.cards import NEW_PEOPLE, OPTIMISTIC
from brainstage.training.train import train

ROW = f"{OPTIMISTIC}: slices of {NEW_PEOPLE}, 4 stages"
"""Row of the bundled network's manifest: its recipe on slices of people whom it was not trained on."""
FEW_EPOCHS = 5


def find_data(named: Path | None = None, progress: Progress = silent) -> tuple[Path, str]:
    """Return the path of the quickstart's data and a sentence that says what it is.

    It is the one named, else that of ``BRAINSTAGE_DATA``, else of the cache, else of the hub; without any of them
    the phantom cohort.

    Raises:
        RunError: The cache is not writable.
    """
    if named:
        return named, f"Data: {named}"
    try:
        source = default_source()
        if source.exists():
            return source, f"Real data: {source}"
        missing = f"{source} does not exist"
    except DataError:
        try:
            fetch(quiet=progress is silent)
            return cache_folder(), f"Real data: {cache_folder()}"
        except DataError as error:
            missing = str(error)
    folder = cache_folder().parent / "phantom"
    if not hub_files(folder):
        write_phantom(folder, progress=progress)
    return folder, f"No real data ({missing}). Using the phantom cohort instead, {SYNTHETIC_NOTICE}."


def lesson(slices: SliceTable, run: RunFolder, evaluation: Evaluation, progress: Progress) -> dict[str, str]:
    """Return four figures, by what each is of, that say what the accuracy of the quickstart's network means.

    On the public dataset its accuracy on people whom it was not trained on is that of the bundled network; on
    other data with known patients a second network is trained, on one fold and for a few epochs.

    Args:
        slices: The data.
        run: The quickstart's run.
        evaluation: Its performance.
        progress: How to show progress.

    Raises:
        BrainstageError: As :func:`brainstage.train`.
    """
    shared = "people in the training set" if evaluation.leakage_status == "leaky" else "the test side"
    nearest, majority = (evaluation.baselines[name] for name in ("nearest_training_slice", "majority"))
    return {
        f"the network, on slices of {shared}": f"{evaluation.scores.overall['accuracy'].value:.3f}",
        "the nearest training slice there, without any training": f"{nearest.accuracy.value:.3f}",
        "the same network, on slices of people not in the training set": _on_new_people(slices, run, progress),
        majority.name: f"{majority.accuracy.value:.3f}",
    }


def _on_new_people(slices: SliceTable, run: RunFolder, progress: Progress) -> str:
    if slices.data_hash == DATA_HASH:
        accuracy = RunFolder(bundled_folder("compact")).read_manifest()["figures"][ROW]["accuracy"]["value"]
        return f"{accuracy:.3f} (bundled figure; optimistic: its settings were tuned on these people)"
    if None in slices.patients:
        return "not known: the data does not name its patients; `brainstage audit` recovers them"
    config = load_recipe("compact", protocol="patient", epochs=FEW_EPOCHS)
    fold = train(slices, config, name=f"{run.path.name}-people", out=run.path.parent, progress=progress)
    accuracy = evaluate(fold).scores.overall["accuracy"]
    return f"{accuracy.value:.3f} ({FEW_EPOCHS} epochs, one fold of people)"
