"""The public dataset on the Hugging Face hub: fetched once, checked, kept in a cache."""

from __future__ import annotations

import os
from pathlib import Path

from brainstage.errors import DataError
from brainstage.files import sha256

DATASET = "Falah/Alzheimer_MRI"
FILES = {
    "data/train-00000-of-00001-c08a401c53fe5312.parquet": (
        "b3b247af61f36fb8499f9243fed844dbc4f90a72395e276ac966bda1fb1ce071"
    ),
    "data/test-00000-of-00001-44110b9df98c5585.parquet": (
        "35439152496cb6f6b76df442fde831177a4aa78a82295ff977ad5974952ece81"
    ),
}
"""SHA-256 of each file, as published on the dataset's hub page."""


def cache_folder() -> Path:
    """Return where the dataset is kept: ``BRAINSTAGE_CACHE``, else the user's cache folder."""
    from platformdirs import user_cache_path

    named = os.environ.get("BRAINSTAGE_CACHE")
    return (Path(named) if named else user_cache_path("brainstage")) / "alzheimer_mri"


def fetch(*, endpoint: str | None = None, quiet: bool = True) -> list[Path]:
    """Download the two parquet files of the public dataset (28 MB) into the cache and check them.

    Files that are there and whole are not downloaded again; an interrupted download goes on where it stopped.

    Args:
        endpoint: Address of the hub; None takes the public one (or ``HF_ENDPOINT``).
        quiet: Show no bars of what is downloaded.

    Returns:
        The files, train first.

    Raises:
        DataError: No network, the hub does not answer, a checksum does not match, or the disk is full. What
            to do is in the message.
    """
    folder = cache_folder()
    files = [folder / name for name in FILES]
    for file, (name, expected) in zip(files, FILES.items(), strict=True):
        if not (file.is_file() and sha256(file) == expected):
            _download(name, folder, endpoint, quiet)
            _check(file, expected)
    return files


def _download(name: str, folder: Path, endpoint: str | None, quiet: bool) -> None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    (disable_progress_bars if quiet else enable_progress_bars)()
    (folder / name).unlink(missing_ok=True)
    try:
        # snapshot_download asks the hub first and fails at once without a network; hf_hub_download retries for 20 s
        snapshot_download(
            DATASET,
            repo_type="dataset",
            allow_patterns=[name],
            local_dir=folder,
            endpoint=endpoint,
            max_workers=1,
        )
    except HfHubHTTPError as error:
        raise DataError(f"the hub refused {DATASET} ({_first_line(error)}); try again later, {_BY_HAND}") from error
    except LocalEntryNotFoundError as error:
        raise DataError(f"the hub cannot be reached; check the network and try again, {_BY_HAND}") from error
    except OSError as error:
        raise DataError(
            f"{folder}: download stopped ({_first_line(error)}); run it again to go on, {_BY_HAND}"
        ) from error
    except Exception as error:  # the HTTP library's own errors, which hub versions pass on as they are
        raise DataError(f"download stopped ({_first_line(error)}); run it again to go on, {_BY_HAND}") from error


_BY_HAND = (
    f"or download the two parquet files of https://huggingface.co/datasets/{DATASET} on another machine "
    "and name their folder with --data or in BRAINSTAGE_DATA"
)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check(file: Path, expected: str) -> None:
    if not file.is_file():
        raise DataError(f"the hub's {DATASET} has no {file.name} any more; {_BY_HAND.removeprefix('or ')}")
    found = sha256(file)
    if found != expected:
        file.unlink()
        raise DataError(
            f"{file.name}: SHA-256 is {found[:12]}…, expected {expected[:12]}…; the damaged file was removed, "
            "so fetch it again"
        )
