"""A sweep on a shared database, as one of several processes: FOLDER DATABASE DATA TRIALS."""

import sys

from brainstage.datasets.sources import load_slices
from brainstage.models.recipes import load_recipe
from brainstage.training import sweep_storage, sweep_trials
from brainstage.training.sweep import sweep
from brainstage.training.sweep_trials import Factor
from helpers import TINY, few_people

sweep_storage.HEARTBEAT_SECONDS, sweep_trials.WAIT_SECONDS = 2, 0.5
RATES = Factor("learning_rate", tuple(round(1e-3 * number, 4) for number in range(1, 13)))


def run(folder, database, data):
    config = load_recipe("compact", **TINY).replace(epochs=3)
    slices = few_people(load_slices(data))
    return sweep(slices, config, [RATES], method="grid", name="s", out=folder, storage=database, resume=True)


if __name__ == "__main__":
    print(len(run(*sys.argv[1:]).trials))
