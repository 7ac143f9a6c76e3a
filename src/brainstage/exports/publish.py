"""A run's model for others: onto the hub, in one commit, with its card and without its people's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainstage import __version__
from brainstage.core import hub
from brainstage.core.errors import ConfigError
from brainstage.core.files import sha256
from brainstage.core.hub import HubId, Repository
from brainstage.core.run import RunFolder, StrPath
from brainstage.inference.classifiers import PatientClassifier, SliceClassifier, open_model
from brainstage.models.find import MANIFEST, PUBLISHED, is_published
from brainstage.models.folder import DETECTOR, WEIGHTS, is_named_like_pickle, weights_file
from brainstage.models.patient_model import PatientModel
from brainstage.report.methods import backbone_name
from brainstage.report.run_card import run_card

ENTRIES = (
    *("recipe", "protocol", "selection", "leakage", "optimistic", "data_hash", "synthetic", "ordered", "levels"),
    *("fitted_on", "fold", "folds", "parameters", "backbone", "versions", "export"),
)
"""Entries of a run's manifest that are published. Nothing of a single person, and no path, is in them."""
_EMPTY = {".gitattributes"}
"""What the hub puts into a repository that is new."""


@dataclass(frozen=True)
class Publication:
    """What would be uploaded, and where to.

    Attributes:
        repo: Id on the hub, ``ORG/NAME``.
        private: Whether only those whom its owner lets in can read it.
        files: Content of each file, or where it lies, by its name on the hub.
        kept_here: Entries of the run's folder that stay on this machine.
        inside: What the files tell of the training people, a sentence each.
    """

    repo: str
    private: bool
    files: dict[str, Path | bytes]
    kept_here: tuple[str, ...]
    inside: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by its name on the hub."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    @property
    def address(self) -> str:
        """Address of the model's page."""
        return hub.address_of(self.repo)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a program, without the files' content."""
        return {
            "repo": self.repo,
            "address": self.address,
            "private": self.private,
            "files": self.sizes,
            "kept_here": list(self.kept_here),
            "inside": list(self.inside),
        }


def prepare_publication(
    run: StrPath, repo: str, *, public: bool = False, license: str | None = None
) -> Publication:
    """Choose what of a run is published, and write its card. Nothing is sent.

    Args:
        run: A finished run, or an exported one.
        repo: Id on the hub, ``ORG/NAME``.
        public: Let everyone read it.
        license: Name that the hub has for the licence, such as ``cc-by-nc-4.0``; None states none.

    Raises:
        ConfigError: The id is none, or the run states no protocol or leakage verdict.
        RunError: The run is missing, not finished or was changed, or its model cannot be opened.
        DataError, LeakageError: Its predictions are not as they must be.
    """
    hub_id = HubId.parse(repo)
    if hub_id is None or hub_id.revision is not None:
        raise ConfigError(f"{repo}: not a name on the hub; take ORG/NAME, of letters, digits, '.', '_' and '-'")
    source = RunFolder.open(run)
    model = open_model(source.model)
    manifest = source.read_manifest()
    about = _about(manifest)
    hashes = {name: manifest["files"][name] for name in PUBLISHED if name in manifest["files"]}
    inside = tuple(_inside(source.model, model))
    weights = sha256(weights_file(source.model))
    card = run_card(source, repo, about, classes=model.classes, weights=weights, inside=inside, license=license)
    files: dict[str, Path | bytes] = {
        "README.md": card.encode(),
        MANIFEST: (json.dumps({**about, "files": hashes}, indent=2) + "\n").encode(),
        **{name: source.path / name for name in hashes},
    }
    return Publication(repo, not public, files, _kept_here(source, files), inside)


def look_at_target(publication: Publication) -> Repository | None:
    """Return what the hub has under a publication's name; None where that is free.

    Raises:
        ConfigError: Nobody is logged in, the repository holds something else, or others may read it than was said.
        DataError: The hub cannot be reached or refuses.
    """
    hub.check_login()
    repo, address = publication.repo, publication.address
    there = hub.look_up(HubId(repo, None))
    if there is None:
        return None
    others = [file for file in there.files if file not in _EMPTY]
    if others and not is_published(others):
        raise ConfigError(
            f"{repo}: holds {others[0]} and no brainstage model; take another name, or delete its files first "
            f"({address}/tree/main)"
        )
    if pickles := [file for file in others if is_named_like_pickle(file)]:
        raise ConfigError(
            f"{repo}: holds {pickles[0]}, a pickle or named like one, so nobody could open the model; delete that "
            f"file first ({address}/tree/main)"
        )
    if there.private and not publication.private:
        raise ConfigError(
            f"{repo}: is private; make it public in its settings ({address}/settings), or leave --public away"
        )
    if publication.private and not there.private:
        raise ConfigError(
            f"{repo}: is public, so everyone could read the model; add --public, or make it private in its "
            f"settings ({address}/settings)"
        )
    return there


def publish(publication: Publication, there: Repository | None, *, quiet: bool = True) -> str:
    """Upload a model in one commit, whole or not at all; return the commit.

    Files of an earlier version of the model that this one lacks are removed; others of the repository stay.

    Args:
        publication: What :func:`prepare_publication` chose.
        there: What :func:`look_at_target` found.
        quiet: Show no progress bars.

    Raises:
        DataError: The hub cannot be reached or refuses, or the upload stopped. Nothing was uploaded.
    """
    old = set(there.files if there else ()) & set(PUBLISHED) - set(publication.files)
    return hub.upload(
        publication.repo,
        publication.files,
        f"Model of brainstage {__version__}",
        there=there,
        private=publication.private,
        delete=sorted(old),
        quiet=quiet,
    )


def _about(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is published of a manifest."""
    about = {name: manifest[name] for name in ENTRIES if name in manifest}
    if "backbone" in about:
        about["backbone"] = {**about["backbone"], "name": backbone_name(str(about["backbone"].get("name")))}
    return about


def _inside(folder: Path, model: SliceClassifier | PatientClassifier) -> Iterator[str]:
    """Yield what a model's files tell of its training people, a sentence each."""
    if isinstance(model, PatientClassifier):
        people = len(PatientModel.open(folder))
        yield (
            f"{WEIGHTS} holds histograms of the slices, and the stage, of each of its {people} training people, in "
            "the order of their ids: to share it is to share that."
        )
    else:
        yield (
            "The weights can hold memories of training slices: whether someone was in the training set can often "
            "be told."
        )
    if (folder / DETECTOR).is_file():
        yield (
            f"{DETECTOR} holds mean pictures of clusters of training slices, 32×32 pixels; of few people, one may "
            "show a single person."
        )


def _kept_here(run: RunFolder, files: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a run's folder holds besides, but for hidden files."""
    entries = [entry for folder in (run.path, run.model) for entry in sorted(folder.glob("[!.]*"))]
    names = [entry.relative_to(run.path).as_posix() for entry in entries if entry != run.model]
    return tuple(name for name in names if name not in files)
