"""What kills a training and a sweep: one process starts both, so that the imports are paid for once."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from brainstage.core.config import TrainConfig
from brainstage.core.run import RunFolder
from brainstage.training.sweep_trials import Factor

VICTIMS = """
import os, sys
from pathlib import Path
from brainstage.core.config import TrainConfig
from brainstage.datasets.sources import load_slices
from brainstage.training.sweep import sweep
from brainstage.training.sweep_trials import Factor
from brainstage.training.train import train

data, out, support = map(Path, sys.argv[1:])
sys.path.append(str(support))
from helpers import few_people
slices = few_people(load_slices(data))
config = lambda name: TrainConfig.from_json(out / f"{name}.json")
children = []
for work in (
    lambda: train(slices, config("run"), name="run", out=out),
    lambda: sweep(slices, config("sweep"), [Factor("learning_rate", RATES)], name="sweep", out=out),
):
    children.append(os.fork())
    if not children[-1]:
        work()
        os._exit(0)
print(*children, flush=True)
for child in children:
    os.waitpid(child, 0)
"""


@dataclass(frozen=True)
class Killed:
    """A run and a sweep that were killed by SIGKILL, and the factor that was varied."""

    run: RunFolder
    sweep: Path
    sweep_config: TrainConfig
    factor: Factor


def kill_when(condition, pid, process):
    """Kill a child of a process by SIGKILL once a condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def complete_trials(database):
    """Return the number of a sweep's complete trials, read without Optuna, which would be slow to ask.

    What a killed process left half written is rolled back, so that the database is not opened for reading alone.
    """
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            query = "SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'"
            return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # the sweep has not made it yet
        return 0
