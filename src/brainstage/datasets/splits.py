"""Who trains and who is tested: the official split and the patient folds."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from brainstage.core.arrays import IntArray
from brainstage.core.config import Protocol, TrainConfig
from brainstage.core.errors import ConfigError, DataError, LeakageError
from brainstage.core.files import write_json
from brainstage.core.notebooks import Displayed, Tabular
from brainstage.core.run import StrPath
from brainstage.core.schema import SPLIT_NAMES
from brainstage.datasets.grouping import Grouping
from brainstage.datasets.leakage import Verdict, find_leaks
from brainstage.datasets.same_heads import same_heads
from brainstage.datasets.table import SliceTable


@dataclass(frozen=True)
class Fold:
    """Slice ids of the three sides of one fold."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def selecting(self, config: TrainConfig) -> tuple[str, ...]:
        """Return the slices that pick the epoch."""
        return self.test if config.selection == "test" else self.validation

    @property
    def tested(self) -> str:
        """SHA-256 of the test slices, whatever their order."""
        return hashlib.sha256("\n".join(sorted(self.test)).encode()).hexdigest()

    @property
    def hash(self) -> str:
        """SHA-256 of all sides, whatever the order of the slices in each."""
        sides = [sorted(side) for side in (self.train, self.validation, self.test)]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


@dataclass(frozen=True)
class Splits(Displayed, Tabular):
    """A protocol's folds. The leakage verdict is computed when it is made.

    Attributes:
        protocol: ``official`` or ``patient``.
        folds: One fold for ``official``, k for each repeat of ``patient``: each repeat tests everyone once.
        seed: Seed that the folds were drawn with.
        data_hash: Hash of the slices and labels the folds belong to.
        patient_of: Patient of each slice id, None where it is not known.
        inferred: Whether patients were recovered from the pictures, not given.
        grouping: What is kept apart beside people, between the test side and the two others; None where nothing is.
        same_heads: Patients whose head is that of another, and that other, by whom they are judged.
        verdict: The worst verdict of all folds.

    Raises:
        LeakageError: The protocol is ``patient`` and a patient is on two sides of a fold, or a patient is
            not known; or a group is in test and in train or validation.
    """

    protocol: Protocol
    folds: tuple[Fold, ...]
    seed: int
    data_hash: str
    patient_of: Mapping[str, str | None] = field(repr=False)
    inferred: bool = False
    grouping: Grouping | None = None
    same_heads: Mapping[str, str] = field(default_factory=dict, repr=False)
    verdict: Verdict = field(init=False)

    def __post_init__(self) -> None:
        verdicts = [self._judge(fold.test, fold.train + fold.validation) for fold in self.folds]
        worst = max(verdicts, key=lambda verdict: ("clean", "unknown", "leaky").index(verdict.status))
        if self.grouping:
            for number, fold in enumerate(self.folds):
                self.grouping.check(number, fold.test, fold.train + fold.validation)
            worst = replace(worst, grouped_by=self.grouping.column)
        object.__setattr__(self, "verdict", worst)
        if self.protocol == "patient":
            inner = [self._judge(fold.validation, fold.train) for fold in self.folds]
            for verdict in (worst, *inner):
                if verdict.status != "clean":
                    raise LeakageError(
                        f"these folds are not a patient protocol ({verdict}{': ' if verdict.people else ''}"
                        f"{', '.join(verdict.people)}{', …' * (verdict.shared_patients > len(verdict.people))})"
                        "; give folds that keep each person on one side"
                    )

    def _judge(self, test: Sequence[str], train: Sequence[str]) -> Verdict:
        return find_leaks(test, train, self.patient_of, inferred=self.inferred, same_heads=self.same_heads)

    def chosen(self, config: TrainConfig) -> Fold:
        """Return the fold that a configuration asks for.

        Raises:
            ConfigError: The folds are of another protocol, there are not so many, or they were not grouped so.
        """
        if config.group_by and config.group_by != (self.grouping and self.grouping.column):
            raise ConfigError(
                f"group_by: the splits given do not keep {config.group_by} apart; leave --group-by or --splits away"
            )
        number = config.fold if config.protocol == "patient" else 0
        if self.protocol != config.protocol or number >= len(self.folds):
            raise ConfigError(
                f"fold {number} of protocol {config.protocol} was asked for, but the splits given have "
                f"{len(self.folds)} of protocol {self.protocol}; ask for one of these"
            )
        return self.folds[number]

    def named(self, number: int) -> str | None:
        """Return ``fold 0 of 5`` for a fold of the patient protocol; None where there is only one."""
        return f"fold {number} of {len(self.folds)}" if len(self.folds) > 1 else None

    def save(self, path: Path, classes: Sequence[str] = ()) -> None:
        """Write the folds as JSON, to be read and edited by hand: people where every side holds whole people.

        Args:
            path: The file.
            classes: Class names in the order of the data, written too where they are given.
        """
        sides = [{side: getattr(fold, side) for side in SPLIT_NAMES} for fold in self.folds]
        by_people = [{side: _people_of(ids, self.patient_of) for side, ids in fold.items()} for fold in sides]
        whole = all(
            people is not None and _slices_of(people, self.patient_of) == fold[side]
            for fold, named in zip(sides, by_people, strict=True)
            for side, people in named.items()
        )
        content: dict[str, Any] = {
            "protocol": self.protocol,
            "seed": self.seed,
            "data_hash": self.data_hash,
            "grouped_by": self.grouping.column if self.grouping else None,
            "leakage": self.verdict.to_dict(),
            "names": "patient_id" if whole else "slice_id",
            "folds": by_people if whole else sides,
            "hashes": [fold.hash for fold in self.folds],
        }
        if classes:
            content["classes"] = list(classes)
        write_json(path, content)

    @classmethod
    def load(cls, path: StrPath, slices: SliceTable) -> Splits:
        """Read folds and check them against the data they are for; the verdict is computed anew.

        Args:
            path: A file that :meth:`save` wrote, as it was or edited by hand.
            slices: The data.

        Raises:
            DataError: The file is not a splits file, lists a name twice on a side, or names slices or a covariate
                that the data does not have. Slices without a label stay out.
            LeakageError: It claims the patient protocol, or groups that are kept apart, and breaks it.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            folds = [{side: tuple(fold[side]) for side in SPLIT_NAMES} for fold in content["folds"]]
            by_people = content.get("names") == "patient_id"
            protocol, seed, column = content["protocol"], content["seed"], content.get("grouped_by")
            if protocol not in get_args(Protocol):
                raise ValueError(f"unknown protocol {protocol!r}")
            if not folds:
                raise ValueError("no folds")
            lists = [names for fold in folds for names in fold.values()]
            if not all(isinstance(name, str) for names in [*lists, [column or ""]] for name in names):
                raise ValueError("a name is not text")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a readable splits file ({error}); write it again") from error
        everyone, inferred = _patients(slices)
        patient_of = {one: who for one, who in everyone.items() if slices.labels[slices.row_of[one]] is not None}
        twice = [name for names in lists for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"{path}: {twice[0]} is listed twice on one side; list each name once")
        named = {name for names in lists for name in names}
        missing = named - set(patient_of.values() if by_people else patient_of)
        if missing:
            raise DataError(
                f"{path}: {len(missing)} of its {len(named)} {'people' if by_people else 'slices'} are not in this "
                "data, or have no label there; give the data that the split was made for"
            )
        if by_people:
            folds = [{side: _slices_of(people, patient_of) for side, people in fold.items()} for fold in folds]
        made = tuple(Fold(**fold) for fold in folds)
        grouping = Grouping.read(slices, column) if column else None
        heads = same_heads(slices)
        return cls(protocol, made, seed, slices.data_hash, everyone, inferred, grouping, heads)


def _people_of(slice_ids: Sequence[str], patient_of: Mapping[str, str | None]) -> list[str] | None:
    """Return the people of some slices; None where one is not known."""
    people = dict.fromkeys(patient_of.get(slice_id) for slice_id in slice_ids)
    return None if None in people else [str(patient) for patient in people]


def _slices_of(people: Sequence[str], patient_of: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return all slices of some people, in the data's order."""
    wanted = set(people)
    return tuple(slice_id for slice_id, patient in patient_of.items() if patient in wanted)


def make_splits(slices: SliceTable, config: TrainConfig) -> Splits:
    """Split the slices by the configuration's protocol, seed, number of folds and validation share.

    ``official`` keeps the train and test sides that the source gives, and takes the validation part from
    train, stratified by class. ``patient`` makes grouped, stratified folds (scikit-learn's
    ``StratifiedGroupKFold``), drawn anew for each repeat, the validation part grouped and stratified too; patients
    who show one head are one person (:func:`brainstage.datasets.same_heads.same_heads`). With ``group_by`` the test
    sides are made of whole groups, the values of that covariate, where groups that share a person are one; the
    validation part is still drawn person by person. A repeat that deals as an earlier one did is left out, as
    happens where there are as many groups as folds. Slices without a label stay out; of exact duplicates on one
    side one is kept. ``train_rows`` and ``test_rows`` then draw from a side.

    Raises:
        DataError: The source has no train and test sides (``official``), or a class is too small; the covariate to
            group by does not exist or is not known of someone, or its groups are too few or differ too much.
        LeakageError: A slice has no patient (``patient``). Of inferred patients, slices whose person is not sure
            stay out.
    """
    grouping = Grouping.read(slices, config.group_by) if config.group_by else None
    heads = same_heads(slices)
    official = config.protocol == "official"
    made = _official(slices, config) if official else _patient(slices, config, grouping, heads)
    folds = tuple(_sampled(fold, config) for fold in made)
    return Splits(config.protocol, folds, config.seed, slices.data_hash, *_patients(slices), grouping, heads)


def default_protocol(slices: SliceTable) -> Protocol:
    """Return ``patient`` for data that name each person and have no test side, as cohorts do, else ``official``."""
    without_sides = not {"train", "test"} <= set(slices.rows["split"].to_pylist())
    return "patient" if without_sides and None not in slices.patients else "official"


def make_everyone(splits: Splits) -> Splits:
    """Return a fold that trains on every slice of some folds, whichever their side, and tests nobody.

    It is for the model to be used, whose performance the folds tell.
    """
    slice_ids = {slice_id for fold in splits.folds for side in SPLIT_NAMES for slice_id in getattr(fold, side)}
    train = tuple(slice_id for slice_id in splits.patient_of if slice_id in slice_ids)
    return replace(splits, folds=(Fold(train, (), ()),))


def _sampled(fold: Fold, config: TrainConfig) -> Fold:
    train = _draw(fold.train, config.train_rows, config.seed)
    return Fold(train, fold.validation, _draw(fold.test, config.test_rows, config.seed))


def _draw(slice_ids: tuple[str, ...], count: int, seed: int) -> tuple[str, ...]:
    """Draw as ``dataset.shuffle(seed).select(range(count))`` of Hugging Face's datasets does."""
    if not count or count >= len(slice_ids):
        return slice_ids
    return tuple(slice_ids[row] for row in np.random.default_rng(seed).permutation(len(slice_ids))[:count])


def _official(slices: SliceTable, config: TrainConfig) -> tuple[Fold, ...]:
    sides: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for slice_id, label, side in zip(
        slices.slice_ids, slices.labels, slices.rows["split"].to_pylist(), strict=True
    ):
        if side is not None and label is not None:
            sides[side].setdefault(slice_id, label)
    if not (sides["train"] and sides["test"]):
        raise DataError(
            "the official protocol needs data that comes with a train and a test side (folders or files named "
            "train and test, or a split column); data with patient ids can take --protocol patient"
        )
    ids, labels = list(sides["train"]), list(sides["train"].values())
    train, validation = _stratified(ids, labels, config)
    return (Fold(tuple(train), tuple(validation), tuple(sides["test"])),)


def _stratified(ids: list[str], labels: list[str], config: TrainConfig) -> tuple[list[str], list[str]]:
    if config.validation_share == 0:
        return ids, []
    rarest = min(set(labels), key=labels.count)
    if labels.count(rarest) < 2:
        raise DataError(f"class {rarest} has one image in train; two or more are needed to hold some out")
    try:
        parts = train_test_split(ids, test_size=config.validation_share, stratify=labels, random_state=config.seed)
    except ValueError as error:
        raise DataError(
            f"the {len(ids)} training slices are too few to hold out {config.validation_share:.0%} of each class; "
            "add slices or set --validation-share 0"
        ) from error
    return parts[0], parts[1]


def _labelled_people(slices: SliceTable, heads: Mapping[str, str]) -> tuple[list[int], IntArray, NDArray[np.str_]]:
    """Return rows, labels and people of the slices that the patient protocol can use; who share a head are one."""
    rows = [row for row in slices.row_of.values() if slices.labels[row] is not None]
    if slices.patient_source == "inferred":  # what is unsure stays out
        rows = [row for row in rows if slices.patients[row] is not None]
    people = [slices.patients[row] for row in rows]
    if None in people or not people:
        raise LeakageError(
            f"{people.count(None)} of {len(people)} slices have no patient id, so a patient figure cannot be had; "
            "name the column with --patient-column, recover them with `brainstage audit` and give its table with "
            "--patients, or take --protocol official"
        )
    return rows, slices.targets(rows), np.array([heads.get(str(person), person) for person in people])


def _patient(
    slices: SliceTable, config: TrainConfig, grouping: Grouping | None, heads: Mapping[str, str]
) -> tuple[Fold, ...]:
    rows, labels, people = _labelled_people(slices, heads)
    ids = [slices.slice_ids[row] for row in rows]
    units = grouping.units(ids, people, config.folds) if grouping else people

    def named(side: IntArray) -> tuple[str, ...]:
        return tuple(ids[number] for number in side.tolist())

    folds = []
    for rest, test in _drawn(labels, units, config):
        train, validation = rest, rest[:0]
        if config.validation_share > 0:
            train, validation = _validation_people(rest, labels, people, config)
        folds.append(Fold(named(train), named(validation), named(test)))
    if grouping:
        _check_groups(slices, folds, grouping)
    return tuple(folds)


def _drawn(labels: IntArray, units: NDArray[Any], config: TrainConfig) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the two sides of each fold of each repeat, but for repeats that deal as an earlier one did."""
    draws: dict[frozenset[tuple[int, ...]], list[tuple[IntArray, IntArray]]] = {}
    for seed in _seeds(config):
        draw = _grouped(labels, units, config.folds, seed)
        draws.setdefault(frozenset(tuple(test.tolist()) for _, test in draw), draw)
    return chain.from_iterable(draws.values())


def _check_groups(slices: SliceTable, folds: Sequence[Fold], grouping: Grouping) -> None:
    """Refuse folds in which a class is found in the tested groups alone."""
    groups_of: dict[str, set[str]] = {}
    for slice_id, row in slices.row_of.items():
        if slice_id in grouping.group_of and (label := slices.labels[row]) is not None:
            groups_of.setdefault(label, set()).add(grouping.group_of[slice_id])
    for number, fold in enumerate(folds):
        grouping.check_classes(number, groups_of, {grouping.group_of[one] for one in fold.test})


def _seeds(config: TrainConfig) -> list[int]:
    """Return a seed for each repeat; the first is the configuration's own."""
    later = np.random.SeedSequence(config.seed).generate_state(config.repeats - 1)
    return [config.seed, *later.tolist()]


def _grouped(labels: IntArray, people: NDArray[Any], folds: int, seed: int) -> list[tuple[IntArray, IntArray]]:
    count = len(np.unique(people))
    if count < folds:
        raise DataError(f"{count} patients cannot make {folds} folds; give --folds {count} or fewer")
    most = int(np.bincount(labels).max())
    if most < folds:
        raise DataError(
            f"no class has more than {most} slices, too few for {folds} folds; give --folds {most} or fewer"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of rare classes, which the callers check themselves
        return list(splitter.split(np.zeros(len(labels)), labels, people))


def _validation_people(
    rest: IntArray, labels: IntArray, people: NDArray[np.str_], config: TrainConfig
) -> tuple[IntArray, IntArray]:
    """Take people out of train for validation, the first draw that leaves every class in train."""
    most = max(2, int(np.bincount(labels[rest]).max()))  # more parts than that cannot be drawn by class
    parts = min(max(2, round(1 / config.validation_share)), len(np.unique(people[rest])), most)
    draws = _grouped(labels[rest], people[rest], parts, config.seed)
    for train, validation in draws:
        if set(labels[rest][train]) == set(labels[rest]):
            return rest[train], rest[validation]
    raise DataError("a class has one patient in train, so none can be held out; set --validation-share 0")


def _patients(slices: SliceTable) -> tuple[dict[str, str | None], bool]:
    of = {slice_id: slices.patients[row] for slice_id, row in slices.row_of.items()}
    return of, slices.patient_source == "inferred"
