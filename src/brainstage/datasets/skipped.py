"""Which files of a source's folder are not read, and why."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from brainstage.datasets.images import IMAGE_SUFFIXES

SPLIT_FOLDERS = ("train", "test")
"""Sides that a source may have; validation slices are drawn from train."""
OTHER_IMAGES = (".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2", ".npy")
"""Endings of images that a source of slices does not hold."""
VOLUMES = (".nii", ".nii.gz", ".dcm", ".mgz", ".mha")
"""Endings of volumes, of which a cohort's slices are cut first."""
ABOUT_FILES = ("readme", "license", "licence", "citation", "dataset_infos", "dataset_dict", "thumbs", "desktop")
"""Names, without their ending, of files that stand beside data and hold none."""
COHORT_FILES = ("cohort.json", "croissant.json", "dataset_description.json", "qc.html", "scans.parquet")
"""What `brainstage prepare` writes beside the slices."""
EXAMPLES = 3
"""Files that a sentence names."""


def skipped_files(folder: Path, read: Collection[Path]) -> tuple[str, ...]:
    """Name the files of a folder that are not read.

    Hidden files and those that describe the data (``README.md``) are not counted.

    Args:
        folder: The source.
        read: Its files that are read.

    Returns:
        One sentence for each reason, with the number of files and the first of them by name.
    """
    of_hub = any(file.suffix == ".parquet" for file in read)
    splits = () if of_hub else tuple(side for side in SPLIT_FOLDERS if (folder / side).is_dir())
    read = set(read)
    names: dict[str, list[str]] = {}
    for file in _files(folder):
        if file not in read:
            relative = file.relative_to(folder)
            reason = "not readable by this user" if file.is_dir() else _reason(relative, splits, of_hub=of_hub)
            names.setdefault(reason, []).append(relative.as_posix())
    return tuple(f"{_named(files)}: {reason}" for reason, files in names.items())


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it; of a folder that may not be read, the folder."""
    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(files):
            about = name.lower().partition(".")[0] in ABOUT_FILES or name in COHORT_FILES
            if not name.startswith(".") and not about:
                yield Path(place, name)
    yield from (Path(error.filename) for error in unreadable)


def _reason(file: Path, splits: tuple[str, ...], *, of_hub: bool) -> str:
    """Return why a file, by its path within the source, is not read."""
    name = file.name.lower()
    if name.endswith(".parquet"):
        return _parquet_reason(name)
    if name.endswith(OTHER_IMAGES):
        return "only JPEG and PNG images are read; convert them to PNG"
    if name.endswith(VOLUMES):
        return "a volume is no slice; make a cohort of them first: brainstage prepare FOLDER --out cohort/"
    if name.endswith(".csv"):
        return "a CSV file is read where it is named itself; name it with --data to use it"
    if not name.endswith(IMAGE_SUFFIXES):
        return "not images"
    if of_hub:
        return "the parquet files are read, images beside them are not; name their folder with --data"
    if splits and len(file.parts) > 1 and file.parts[0] not in splits:
        also = "; validation slices are drawn from train" if file.parts[0].lower().startswith("val") else ""
        return f"of the folders beside {' and '.join(splits)} none is read{also}; move the files there to use them"
    if len(file.parts) - bool(splits) < 2:
        return "outside of any class folder; move them into the folder of their class"
    return "in a folder inside of a class folder; move them up into the class folder"


def _parquet_reason(name: str) -> str:
    if name.startswith(("val", "dev")):
        return "a validation side is not read, validation slices are drawn from train; name it train-… to use it"
    return "only train-*.parquet and test-*.parquet are read, in one folder; name the file itself with --data"


def _named(files: list[str]) -> str:
    """Return the number of files and the names of the first."""
    more = ", …" if len(files) > EXAMPLES else ""
    return f"{len(files):,} file{'s' * (len(files) != 1)} ({', '.join(files[:EXAMPLES])}{more})"
