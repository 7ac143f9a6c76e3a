"""One training by one process and by several, as torchrun starts them: the same figures, and how much time.

    python benchmarks/processes.py [--data FOLDER] [--recipe compact] [--seeds 0 1 2] [--processes 2] [--threads 1]

Each seed is trained on the official split by ``brainstage train`` as a user would, once by one process and once by
several, with the same batch in all. Without ``--threads`` one process has all processors and several share them.
Accuracy is that of the test slices, which are looked at once; seconds are those of the training itself, from slices
to the weights of the best epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from brainstage.core.parallel import usable_cpus
from brainstage.core.run import RunFolder

LARGEST_DIFFERENCE = 0.005
"""Of the mean accuracy."""


def train(out: Path, options: argparse.Namespace, seed: int, processes: int) -> tuple[float, float]:
    """Return the test accuracy and the seconds of a training."""
    name = f"{processes}-{seed}"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "brainstage", "train", "--quiet"]
    command += ["--json", "--recipe", options.recipe, "--seed", str(seed), "--name", name, "--out", str(out)]
    command += ["--data", options.data] if options.data else []
    threads = options.threads or max(1, usable_cpus() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    run = RunFolder(out / name)
    accuracy = json.loads(run.metrics.read_text(encoding="utf-8"))["overall"]["accuracy"]["value"]
    return accuracy, run.read_manifest()["training_seconds"]


def main() -> int:
    """Print each training and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--recipe", default="compact")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, help="of each process")
    options = parser.parse_args()
    trained: dict[int, list[tuple[float, float]]] = {1: [], options.processes: []}
    print(f"protocol official · recipe {options.recipe}")
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            for processes, outcomes in trained.items():
                accuracy, seconds = train(Path(folder), options, seed, processes)
                outcomes.append((accuracy, seconds))
                print(f"seed {seed}, processes {processes}: accuracy {accuracy:.4f}, {seconds:.1f} s", flush=True)
    accuracies, times = (
        {processes: mean(outcome[which] for outcome in outcomes) for processes, outcomes in trained.items()}
        for which in (0, 1)
    )
    difference = accuracies[options.processes] - accuracies[1]
    for processes in trained:
        print(f"mean, processes {processes}: accuracy {accuracies[processes]:.4f}, {times[processes]:.1f} s")
    print(
        f"{options.recipe}: {options.processes} processes differ by {difference:+.4f} in accuracy and take "
        f"{times[options.processes] / times[1]:.2f} of the time"
    )
    return 0 if abs(difference) <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
