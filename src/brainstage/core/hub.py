"""The one way to the Hugging Face hub: explicit, and every failure says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from brainstage.core.errors import DataError
from brainstage.core.files import sha256


def cache_root() -> Path:
    """Return where downloads and features are kept: ``BRAINSTAGE_CACHE``, else the user's cache folder."""
    named = os.environ.get("BRAINSTAGE_CACHE")
    return Path(named) if named else user_cache_path("brainstage")


def download(
    repo: str,
    patterns: list[str],
    folder: Path,
    *,
    repo_type: str,
    by_hand: str,
    revision: str | None = None,
    endpoint: str | None = None,
    quiet: bool = True,
) -> str:
    """Download files of a hub repository into a folder, except those that are already there and complete.

    A download whose connection dropped is continued where it broke off. Large files are checked against the SHA-256
    that the hub states, and removed where it differs.

    Args:
        repo: Id of the repository.
        patterns: Names or globs of the files.
        folder: Folder that they are downloaded into.
        repo_type: ``dataset`` or ``model``.
        by_hand: What a user without a network can do: the end of an error's sentence, starting with "or".
        revision: Branch, tag or commit; None takes the newest.
        endpoint: Address of the hub; None takes the public one (or ``HF_ENDPOINT``).
        quiet: Show no progress bars.

    Returns:
        The commit of that revision.

    Raises:
        DataError: No network, the hub refuses or does not answer, a checksum does not match, or the disk is full.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    (disable_progress_bars if quiet else enable_progress_bars)()
    try:
        # snapshot_download asks the hub first and fails at once without a network; hf_hub_download retries for 20 s
        snapshot_download(
            repo,
            repo_type=repo_type,
            revision=revision,
            allow_patterns=patterns,
            local_dir=folder,
            endpoint=endpoint,
            max_workers=1,
        )
        stated: Any = HfApi(endpoint).repo_info(repo, repo_type=repo_type, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        raise DataError(
            f"the hub refused {repo} ({_first_line(error)}); check the name or try again later, {by_hand}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise DataError(f"the hub cannot be reached; check the network and try again, {by_hand}") from error
    except OSError as error:
        raise DataError(
            f"{folder}: download stopped ({_first_line(error)}); run it again to go on, {by_hand}"
        ) from error
    except Exception as error:  # the HTTP library's own errors, which hub versions pass on as they are
        raise DataError(f"download stopped ({_first_line(error)}); run it again to go on, {by_hand}") from error
    for file in stated.siblings or []:
        if file.lfs and (folder / file.rfilename).is_file():
            check_sha256(folder / file.rfilename, file.lfs.sha256)
    return str(stated.sha)


def check_sha256(file: Path, expected: str) -> None:
    """Check a downloaded file, and remove it where its content is not the expected one.

    Raises:
        DataError: The SHA-256 differs.
    """
    actual = sha256(file)
    if actual != expected:
        file.unlink()
        raise DataError(
            f"{file.name}: SHA-256 is {actual[:12]}…, expected {expected[:12]}…; the damaged file was removed, "
            "so download it again"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
