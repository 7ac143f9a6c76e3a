"""A SLURM of one node for tests, in a folder and on ports of its own, with nothing written elsewhere."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

from ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not():
    """Return why no SLURM can be started here; None where it can."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "slurmd runs jobs as root only"


@contextmanager
def slurm_node(folder):
    """Start the node and yield the environment in which its commands work."""
    for name in ("spool", "state"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    ports = [free_port() for _ in range(2)]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 - 1000
    values = {"host": socket.gethostname(), "controller_port": ports[0], "node_port": ports[1]}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values, folder=folder, memory=memory))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["--force", f"--socket={folder}/munge.socket", f"--key-file={key}", f"--pid-file={folder}/munged.pid"]
    logs = [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    started = []
    try:
        for command in (["munged", "--foreground", *munge, *logs], ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("w") as output:
                started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        subprocess.run(["scancel", "--me"], env=environment, check=False, capture_output=True)
        for process in reversed(started):
            process.terminate()
            process.wait(20)


def _wait_until_idle(environment, folder):
    for _ in range(240):
        state = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        if "idle" in state.stdout:
            return
        time.sleep(0.5)
    logs = "\n".join(log.read_text()[-800:] for log in folder.glob("*.log"))
    raise RuntimeError(f"SLURM did not start: {logs}")
