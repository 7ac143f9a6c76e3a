"""The peak memory of a process, which several benchmarks measure."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_memory() -> float:
    """Return the most memory that this process has had at a time, in GB.

    The ``ru_maxrss`` of Linux begins at the peak of the process that started this one, so it is asked only where
    there is no ``/proc``.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
