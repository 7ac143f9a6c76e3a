"""The data of the quickstart: the only command that falls back to the phantom cohort."""

from __future__ import annotations

from pathlib import Path

from brainstage.core.errors import DataError
from brainstage.core.progress import Progress, silent
from brainstage.core.schema import SYNTHETIC_NOTICE
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.public import cache_folder, fetch
from brainstage.datasets.sources import default_source, hub_files


def find_data(progress: Progress = silent) -> tuple[Path, str]:
    """Return the path of the quickstart's data and a sentence that says what it is.

    It is that of ``BRAINSTAGE_DATA``, else of the cache, else of the hub; without any of them the phantom cohort.

    Raises:
        RunError: The cache is not writable.
    """
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
