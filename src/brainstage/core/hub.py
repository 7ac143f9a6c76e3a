"""The one way to the Hugging Face hub: explicit, and every failure says what to do."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from platformdirs import user_cache_path

from brainstage.core.errors import ConfigError, DataError
from brainstage.core.files import sha256

_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[A-Za-z0-9][\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"https?://\S+")
"""Addresses in errors of libraries: those of a storage are signed, so they are not shown."""


class HubId(NamedTuple):
    """Name of a repository of the hub, ``ORG/NAME``, and its branch, tag or commit; None for the newest."""

    repo: str
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> HubId | None:
        """Return the id that a name is; None where it is no id."""
        match = _ID.fullmatch(name)
        return cls(match["repo"], match["revision"]) if match and ".." not in name else None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


@dataclass(frozen=True)
class Repository:
    """A model repository that exists on the hub.

    Attributes:
        files: Names of its files.
        private: Whether only those whom its owner lets in can read it.
        commit: Its newest commit.
    """

    files: tuple[str, ...]
    private: bool
    commit: str


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
    api = _api(endpoint, quiet=quiet)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

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
        stated: Any = api.repo_info(repo, repo_type=repo_type, revision=revision, files_metadata=True)
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


def fetch_snapshot(hub_id: HubId, names: Sequence[str], *, quiet: bool = True) -> Path:
    """Return the folder of a model repository in the library's own cache, with the files that are named.

    What is in the cache is not downloaded again; without a network, or with ``HF_HUB_OFFLINE``, the cache answers.

    Args:
        hub_id: The repository and the revision.
        names: Names of the files; those that the repository lacks are left out.
        quiet: Show no progress bars.

    Returns:
        The folder, whose name is the commit.

    Raises:
        DataError: The hub cannot be reached and the cache lacks it, there is no such repository or revision, it may
            not be read, the download stopped, or the disk is full.
    """
    _api(quiet=quiet)
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(hub_id.repo, revision=hub_id.revision, allow_patterns=list(names), max_workers=1)
    except Exception as error:  # the HTTP library's own errors too, which hub versions pass on as they are
        raise DataError(f"{hub_id}: {_what_to_do(error, writes=False)}") from error
    return Path(folder)


def cached_commit(hub_id: HubId, names: Sequence[str]) -> Path | None:
    """Return the folder of a commit that :func:`fetch_snapshot` fetched, without asking the hub: it never changes.

    None where the revision is no commit, or the cache lacks it.
    """
    if not (hub_id.revision and _COMMIT.fullmatch(hub_id.revision)):
        return None
    _api()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            hub_id.repo, revision=hub_id.revision, allow_patterns=list(names), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)


def is_cached(repo: str) -> bool:
    """Return whether a revision of a model repository was fetched before, by whatever program."""
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}").is_dir()


def look_up(hub_id: HubId) -> Repository | None:
    """Return what the hub says of a model repository; None where it shows none of that name.

    Raises:
        ConfigError: The name is not one that the hub allows.
        DataError: The hub cannot be reached or refuses.
    """
    api = _api()
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        found = api.model_info(hub_id.repo, revision=hub_id.revision)
    except RepositoryNotFoundError as error:
        if isinstance(error, GatedRepoError):
            raise DataError(f"{hub_id}: {_what_to_do(error, writes=False)}") from error
        return None
    except Exception as error:
        raise DataError(f"{hub_id}: {_what_to_do(error, writes=False)}") from error
    return Repository(
        tuple(sorted(file.rfilename for file in found.siblings or ())), bool(found.private), str(found.sha)
    )


def check_login() -> None:
    """Check that a token for the hub is there.

    Raises:
        ConfigError: There is none.
    """
    _api()
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError(
            "you are not logged in to the Hugging Face hub; run `hf auth login` with a token that has write "
            "permission, or set HF_TOKEN"
        )


def upload(
    repo: str,
    files: Mapping[str, Path | bytes],
    message: str,
    *,
    there: Repository | None,
    private: bool = True,
    delete: Iterable[str] = (),
    quiet: bool = True,
) -> str:
    """Put files into a model repository in one commit, whole or not at all; return the commit.

    Args:
        repo: Id of the repository.
        files: The content of each file, or where it lies, by its name in the repository.
        message: The commit's message.
        there: The repository as :func:`look_up` found it; None makes a new one. If it was changed since, nothing is
            uploaded.
        private: Whether a new repository is private.
        delete: Files of the repository that the commit removes.
        quiet: Show no progress bars.

    Raises:
        DataError: The hub cannot be reached or refuses, or the upload stopped. The repository is as it was; a new
            one may have been made, and is then empty.
    """
    api = _api(quiet=quiet)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions = [CommitOperationAdd(name, content) for name, content in files.items()]
    try:
        if there is None:
            api.create_repo(repo, private=private)
        commit = api.create_commit(
            repo,
            [*additions, *map(CommitOperationDelete, delete)],
            commit_message=message,
            parent_commit=there.commit if there else None,
            num_threads=1,
        )
    except (
        Exception
    ) as error:  # also those of the HTTP library and of the storage's client, which are of many kinds
        raise DataError(f"{repo}: nothing was uploaded: {_what_to_do(error, writes=True)}") from error
    return str(commit.oid)


def address_of(repo: str) -> str:
    """Return the address of a model repository on the hub."""
    return f"{_api().endpoint}/{repo}"


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


def _api(endpoint: str | None = None, *, quiet: bool = True) -> Any:
    """Return the hub's library, set to say nothing of this machine and to print nothing that we do not."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.logging import set_verbosity
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True
    set_verbosity(ERROR)  # its warnings show addresses, and what follows from them is said by the error
    (enable_progress_bars if not quiet and sys.stderr.isatty() else disable_progress_bars)()
    return HfApi(endpoint)


def _what_to_do(error: Exception, *, writes: bool) -> str:
    """Return what went wrong between this machine and the hub, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = list(_causes(error))
    kinds = [type(cause) for cause in chain]
    status = _status(chain)
    if str(error).startswith(_BAD_CARD):
        reasons = shorten(str(error).removeprefix(_BAD_CARD), 300)
        return f"the hub does not accept the card ({reasons}); take another --license, or none"
    if any(issubclass(kind, HFValidationError) for kind in kinds):
        return "the hub allows no such name; take ORG/NAME of at most 96 letters, digits, '.', '_' and '-'"
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set and the cache does not hold it; unset HF_HUB_OFFLINE once, with a network"
    if any(issubclass(kind, RevisionNotFoundError) for kind in kinds):
        return "the hub has no such revision of it; name a branch, a tag or a commit after @, or leave it away"
    if any(issubclass(kind, GatedRepoError) for kind in kinds):
        return "its owner must let you in; ask for access on its page, and log in with `hf auth login`"
    if any(issubclass(kind, RepositoryNotFoundError) for kind in kinds) and not writes:
        return (
            "no such folder here, and no such model on the hub, or it is private and your login may not read it; "
            "check the name, or log in with `hf auth login`"
        )
    if status in _ANSWERS:
        return _ANSWERS[status]
    if status == 403 or (status == 404 and writes):
        return _MAY_NOT_WRITE if writes else "your login may not read it; ask its owner for access"
    if status >= 500:
        return f"the hub has a fault of its own ({status}); try again later"
    if status:
        words = shorten(_ADDRESS.sub("…", getattr(error, "server_message", None) or ""), 200)
        return f"the hub refused ({status}{': ' * bool(words)}{words}); look at its page, or try again later"
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in chain):
        return f"the disk is full; free some space or set HF_HOME to another disk (now {constants.HF_HOME})"
    if any(kind.__name__ in ("ConnectError", "ConnectTimeout", "ProxyError") for kind in kinds):
        return "the hub cannot be reached; check the network and try again"
    if str(error).startswith(_STORAGE) or any(kind.__module__.startswith("httpx") for kind in kinds):
        return "the connection to the hub was lost; check the network and try again"
    return f"stopped ({shorten(_ADDRESS.sub('…', str(error)), 200) or type(error).__name__}); try again"


_BAD_CARD = "Invalid metadata in README.md."
"""How the library's error begins where the hub does not accept a card's metadata."""
_STORAGE, _STORAGE_STATUS = "Network error:", re.compile(r"\berror \((\d{3}) [A-Z]")
"""How errors of the client of the hub's storage (``hf_xet``) begin and name a status; they have no own kind."""
_ANSWERS = {
    401: "the hub does not accept your login; log in again with `hf auth login`, or correct HF_TOKEN",
    409: "the name is taken, or it was changed at the same time; look at its page, then try again",
    412: "it was changed at the same time; look at its page, then try again",
    429: "the hub says that there were too many requests; wait a few minutes and try again",
}
"""What to do, by the status that the hub answers with."""
_MAY_NOT_WRITE = (
    "your login may not write there; take a name of your own or of an organisation that lets you write, or log in "
    "with a token that has write permission (`hf auth login`)"
)


def _status(chain: Sequence[BaseException]) -> int:
    """Return the status that the hub, or its storage, answered with; 0 where there was no answer."""
    for cause in chain:
        answer = getattr(cause, "response", None)
        if answer is not None:
            return int(answer.status_code)
        if match := _STORAGE_STATUS.search(str(cause)):
            return int(match[1])
    return 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
