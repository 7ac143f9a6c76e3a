"""A Dask scheduler and workers as processes of their own, started as docs/how-to/clusters.md says."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from brainstage.core.slurm import WORKER_ENVIRONMENT

SUPPORT = str(Path(__file__).parent)


@contextmanager
def dask_cluster(folder, workers=2, host="127.0.0.1", options=()):
    """Yield the address of a scheduler, and the processes: the scheduler's, then the workers'."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [SUPPORT, os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ,
        **WORKER_ENVIRONMENT,
        "PYTHONPATH": path,
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        "DASK_TEMPORARY_DIRECTORY": str(folder),
    }
    started = []

    def start(name, *command):
        log = folder / f"{name}.log"
        with log.open("w") as output:
            dask = [sys.executable, "-m", "dask", *command, *options]
            own_group = {"stdout": output, "stderr": output, "start_new_session": True}
            started.append(subprocess.Popen(dask, cwd=folder, env=environment, **own_group))
        return log

    try:
        http = ["--dashboard-address", "127.0.0.1:0"]
        log = start("scheduler", "scheduler", "--host", host, "--port", "0", *http)
        address = _wait_for(log, r"Scheduler at:\s+(\S+)")
        for number in range(workers):
            log = start(f"worker{number}", "worker", address, "--nthreads", "1", *http)
            _wait_for(log, r"Registered to:\s+(\S+)")
        yield address, started
    finally:
        for process in started:  # and the workers of nannies
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def _wait_for(log, pattern):
    for _ in range(1200):
        if match := re.search(pattern, log.read_text()):
            return match[1]
        time.sleep(0.1)
    raise RuntimeError(f"{log}: {log.read_text()[-2000:]}")
