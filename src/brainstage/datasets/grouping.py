"""Sites, scanners or other groups of people that the folds keep apart, as they keep people apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brainstage.core.arrays import IntArray
from brainstage.core.config import did_you_mean
from brainstage.core.errors import DataError, LeakageError
from brainstage.datasets.covariates import in_words
from brainstage.datasets.table import SliceTable


@dataclass(frozen=True)
class Grouping:
    """A covariate whose values are kept apart, such as the site of the scans.

    Attributes:
        column: Its name.
        group_of: Its value of each slice id; slices without a label may lack it.
    """

    column: str
    group_of: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, slices: SliceTable, column: str) -> Grouping:
        """Return the grouping of some slices by a covariate.

        Raises:
            DataError: There is no such covariate, or it is not known of someone with a label.
        """
        if column not in slices.covariates:
            known = list(slices.covariates)
            hint = did_you_mean(column, known) if known else "; they have no covariates"
            raise DataError(f"the data have no column {column!r} to group by{hint}")
        values = slices.covariates[column]
        labelled = [row for row in slices.row_of.values() if slices.labels[row] is not None]
        lacking = {slices.patients[row] for row in labelled if values[row] is None}
        if lacking:
            people = len({slices.patients[row] for row in labelled})
            raise DataError(
                f"column {column} is not known of {len(lacking)} of {people} people, so they cannot be kept apart "
                "by it; fill it in or leave them out"
            )
        group_of = {
            one: in_words(value) for one, row in slices.row_of.items() if (value := values[row]) is not None
        }
        return cls(column, group_of)

    def check(self, number: int, test: Sequence[str], train: Sequence[str]) -> None:
        """Refuse a fold that has a group on both sides.

        Args:
            number: Of the fold, for the error.
            test: Slice ids of its test side.
            train: Slice ids of its training and validation sides.

        Raises:
            LeakageError: A group is on both sides.
        """
        shared = {self.group_of[one] for one in test} & {self.group_of[one] for one in train}
        if shared:
            raise LeakageError(
                f"fold {number} does not keep {self.column} apart: {min(shared)} is both tested and trained on"
            )

    def units(self, slice_ids: Sequence[str], people: NDArray[np.str_], folds: int) -> IntArray:
        """Return the number of the group of each slice; groups that share a person count as one.

        Args:
            slice_ids: n slice ids.
            people: Person of each.
            folds: Number of folds that they are to make.

        Returns:
            int64 of shape (n,).

        Raises:
            DataError: There are fewer groups than folds.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        names, group = np.unique([self.group_of[one] for one in slice_ids], return_inverse=True)
        _, person = np.unique(people, return_inverse=True)
        size = len(names) + int(person.max()) + 1
        links = coo_array((np.ones(len(group)), (group, len(names) + person)), shape=(size, size))
        _, unit_of = connected_components(links, directed=False)
        units: IntArray = unit_of[group].astype(np.int64)
        count = len(np.unique(units))
        if count < folds:
            values = "value" if count == 1 else "values"
            joined = ", those that share a person counted as one," if count < len(names) else ""
            remedy = f"give --folds {count} or fewer" if count > 1 else "fold by person alone"
            raise DataError(f"{count} {values} of {self.column}{joined} cannot make {folds} folds; {remedy}")
        return units

    def check_classes(self, number: int, classes: Mapping[str, set[str]], tested: set[str]) -> None:
        """Refuse a fold in which nobody of a class is left to train on.

        Args:
            number: Of the fold, for the error.
            classes: The groups in which each class occurs.
            tested: The groups of the test side.

        Raises:
            DataError: All groups of a class are tested.
        """
        for name, groups in classes.items():
            if groups <= tested:
                remedy = "give more --folds or another --seed, or " if len(groups) > 1 else ""
                values = ", ".join(sorted(tested))
                raise DataError(
                    f"fold {number} tests {self.column} {values}, where everyone of class {name} is, so there is "
                    f"nobody of it to train on; {remedy}leave the class out or fold by person alone"
                )
