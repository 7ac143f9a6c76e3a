"""The public dataset on the Hugging Face hub: fetched once, checked, kept in a cache."""

from __future__ import annotations

from pathlib import Path

from brainstage.core.errors import DataError
from brainstage.core.files import sha256
from brainstage.core.hub import cache_root, check_sha256, download

DATASET = "Falah/Alzheimer_MRI"
DATA_HASH = "378db284001d1638d261b1ccf0a4710d3405c08f2bf003fb5b521ab694ee206e"
"""``SliceTable.data_hash`` of the public dataset."""
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
    """Return where the dataset is kept."""
    return cache_root() / "alzheimer_mri"


def fetch(*, endpoint: str | None = None, quiet: bool = True) -> list[Path]:
    """Download the two parquet files of the public dataset (28 MB) into the cache and check them.

    Files that are there and whole are not downloaded again.

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
            file.unlink(missing_ok=True)
            download(DATASET, [name], folder, repo_type="dataset", by_hand=_BY_HAND, endpoint=endpoint, quiet=quiet)
            _check(file, expected)
    return files


_BY_HAND = (
    f"or download the two parquet files of https://huggingface.co/datasets/{DATASET} on another machine "
    "and name their folder with --data or in BRAINSTAGE_DATA"
)


def _check(file: Path, expected: str) -> None:
    if not file.is_file():
        raise DataError(f"the hub's {DATASET} has no {file.name} any more; {_BY_HAND.removeprefix('or ')}")
    check_sha256(file, expected)
