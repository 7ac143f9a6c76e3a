"""kill -9 at ten random moments, resume, same weights.

    python benchmarks/kill.py [--data FOLDER] [--kills 10] [--seed 0]

Trains a run without a stop, then the same run killed at random moments and resumed until it ends, and compares
the weights bit for bit. The moments are drawn over the time that the whole process of the first run took, so
they fall into imports, training, checkpoints and the writing of the results.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from brainstage.core.files import sha256


def start(out: Path, name: str, data: str | None) -> subprocess.Popen[bytes]:
    """Start or resume a training in a process group of its own."""
    command = [sys.executable, "-m", "brainstage", "train", "--recipe", "compact-fast", "--name", name]
    command += ["--out", str(out), "--resume", "--quiet", "--json"] + (["--data", data] if data else [])
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def main() -> int:
    """Print each kill and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        began = time.monotonic()
        if start(out, "whole", options.data).wait() != 0:
            return 1
        whole = time.monotonic() - began
        print(f"whole run: {whole:.1f} s", flush=True)
        runs, kills = ["killed-1"], 0
        while kills < options.kills:
            process = start(out, runs[-1], options.data)
            delay = moments.uniform(0.2 * whole, 0.8 * whole)
            try:
                process.wait(timeout=delay)
                runs.append(f"killed-{len(runs) + 1}")  # it ended before it could be killed: go on with a new one
                continue
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            kills += 1
            saved = sorted(path.name for path in (out / runs[-1] / "checkpoints").glob("*"))
            print(
                f"kill {kills}: {runs[-1]} after {delay:.1f} s, checkpoints {', '.join(saved) or 'none'}",
                flush=True,
            )
        if start(out, runs[-1], options.data).wait() != 0:
            return 1
        expected = sha256(out / "whole" / "model" / "model.safetensors")
        equal = [sha256(out / name / "model" / "model.safetensors") == expected for name in runs]
        print(f"{kills} kills, {len(runs)} resumed runs, weights of the unbroken run in {sum(equal)} of them")
        return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
