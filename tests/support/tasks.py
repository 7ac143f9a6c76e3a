"""Tasks for workers in other processes, which import them by name."""

import os
import signal
import time
from pathlib import Path

_kept = []


def double(number):
    return 2 * number


def slow_double(number):
    time.sleep(0.05)
    return 2 * number


def die_once(file):
    """Kill the process at the first call for the file ``killer``."""
    if Path(file).name == "killer" and not Path(file).exists():
        Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def die_if_negative(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return 2 * number


def fail_at_five(number):
    time.sleep(0.01)  # else the other process could take thousands of items before this one is told
    if number == 5:
        raise ValueError("five")
    return number


def threads(_number):
    """Return how many threads libraries are told to use."""
    return os.environ.get("OMP_NUM_THREADS")


def keep_memory(size):
    """Have the process fill ``size`` bytes of memory and keep them; last long enough for that to be noticed."""
    import psutil

    missing = size - psutil.Process().memory_info().rss
    _kept.append(b"1" * max(0, missing))
    time.sleep(0.5)
    return len(_kept)


def holds_ctrl_c_back(_number):
    """Return whether Ctrl-C has been kept from this process since it was started."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def process_number(_number):
    return os.getpid()
