"""Two processes that train together, as torchrun starts them, forked so that the imports are paid for once.

``python together.py`` reads a command a line, ``{"arguments": ["train", …], "step": 13}``, runs it in both, and
prints how each ended. ``step`` has the second get SIGTERM in that step of its training.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial

from helpers import TERMINAL, Outcome
from ports import free_port


def terminate_in(step):
    """Return ``Trainer.training_step`` that sends this process SIGTERM the so-many-th time it is called."""
    from transformers import Trainer

    inner, steps = Trainer.training_step, iter(range(1, step + 1))

    def training_step(*arguments, **options):
        if next(steps, None) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*arguments, **options)

    return training_step


@contextmanager
def two_processes():
    """Yield a function that runs a command in two processes and returns how each ended, the first one first."""
    environment = os.environ | TERMINAL | {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # as the command line sets it
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:

        def run(*arguments, step=None):
            print(json.dumps({"arguments": [*map(str, arguments)], "step": step}), file=server.stdin, flush=True)
            return [Outcome(*outcome) for outcome in json.loads(server.stdout.readline())]

        yield run
        server.stdin.close()


def _serve():
    import transformers.trainer  # noqa: F401 - each process has it

    import brainstage.training.train  # noqa: F401

    for line in sys.stdin:
        port = free_port()
        started = [_start(rank, port, **json.loads(line)) for rank in range(2)]
        print(json.dumps([end() for end in started]), flush=True)


def _start(rank, port, arguments, step):
    """Fork a process; return a function that waits for its end."""
    out, err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 - closed by the function
    process = os.fork()
    if not process:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        _work(rank, port, arguments, step)
    return partial(_wait, process, out, err)


def _wait(process, *files):
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    texts = []
    for file in files:
        with file:
            file.seek(0)
            texts.append(file.read())
    return code, *texts


def _work(rank, port, arguments, step):
    from transformers import Trainer

    from brainstage.cli import main

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    if step and rank == 1:
        Trainer.training_step = terminate_in(step)
    sys.argv = ["brainstage", *arguments]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
