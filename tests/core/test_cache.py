"""Working space in files of the cache."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from brainstage.core import cache


def _flags_of(address: int) -> list[str]:
    """Return what the system notes of the mapping that holds an address."""
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE):
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", mapping)
        if bounds and int(bounds[1], 16) <= address < int(bounds[2], 16):
            return mapping.split("VmFlags:")[1].split()
    raise AssertionError("not mapped")


def test_a_large_array_lies_in_a_file_that_leaves_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 999)
    assert cache.scratch_array((10, 99), np.uint8).base is None
    values = cache.scratch_array((10, 100), np.uint8)
    values[:] = np.arange(100)
    assert values.base is not None and (values == np.arange(100)).all()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what it notes of a mapping")
def test_rows_in_random_order_are_read_without_their_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 0)
    in_order, at_random = (cache.scratch_array((4096,), np.uint8, random_order=order) for order in (False, True))
    assert "rr" not in _flags_of(in_order.ctypes.data)
    assert "rr" in _flags_of(at_random.ctypes.data)
