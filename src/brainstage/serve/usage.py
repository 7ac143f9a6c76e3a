"""How much of the limits is used, by all worker processes together."""

from __future__ import annotations

from collections.abc import MutableSequence
from ctypes import Array, c_int64
from typing import NamedTuple


class SharedCount:
    """A sum of shares, one for each worker process, in memory that the workers share.

    A worker writes its own share alone. So there is no lock that a killed worker could leave locked, and its share
    is known when it has gone.
    """

    def __init__(self, shares: MutableSequence[int] | Array[c_int64] | None = None, own: int = 0):
        """Take the shares.

        Args:
            shares: The share of each worker; None for one that works alone.
            own: Which of them this process writes.
        """
        self._shares: MutableSequence[int] | Array[c_int64] = [0] if shares is None else shares
        self._own = own

    @property
    def total(self) -> int:
        """The sum over all workers."""
        return sum(self._shares)

    def add(self, count: int, limit: int) -> bool:
        """Add to the own share unless the sum would pass a limit; return whether it was added.

        It is added before the sum is looked at: of two workers that add at once at least one sees both, so that the
        limit holds. At worst both are refused.
        """
        self._shares[self._own] += count
        if self.total <= limit:
            return True
        self.subtract(count)
        return False

    def subtract(self, count: int) -> None:
        """Take from the own share what was added to it."""
        self._shares[self._own] -= count


class Usage(NamedTuple):
    """What running requests use of a server's limits."""

    requests: SharedCount
    bytes: SharedCount
