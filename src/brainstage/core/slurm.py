"""Workers of a Dask cluster as jobs of SLURM, which dask-jobqueue submits, and what replaces those that end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from brainstage.core.errors import RunError
from brainstage.core.files import make_folder
from brainstage.core.hub import cache_root
from brainstage.core.parallel import ONE_THREAD

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

LOOK_SECONDS = 10.0
"""How often SLURM is asked which jobs are left."""
WORKER_ENVIRONMENT = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
"""Environment of a worker, in place of what Dask does about memory.

Dask has a worker that has filled 80 % of its memory wait until there is more. What is kept for the next task,
such as a network, stays, so it would wait for ever. One that fills 95 % is ended by Dask still, and its task is
said to have had too little memory.

Dask sets the last to 64 KB, so that a worker gives all memory back to the system and asks for it anew. Here
glibc keeps that of arrays for the next ones, up to where it would learn to by itself. What Dask's value costs
shows without Dask: ``MALLOC_TRIM_THRESHOLD_=65536 brainstage prepare … --jobs 2`` took a third longer.
"""
MAX_FRUITLESS = 3
"""How many times as many jobs as were asked for may end while no worker stays."""
_ROLES = ("scheduler", "worker", "client")


@dataclass(frozen=True)
class SlurmSettings:
    """Jobs of SLURM: the table ``[slurm]`` of a cluster's TOML file.

    Attributes:
        jobs: How many jobs; one that ends while there is work is replaced.
        cores: Processors of a job, each of which is a worker.
        memory: Memory of a job, ``8GB``.
        walltime: Longest time that a job runs, ``HH:MM:SS``.
        partition: Partition; None takes SLURM's default.
        account: Account that is charged, likewise.
        directives: Further options of ``sbatch``, ``--qos=low``.
        prologue: Lines of shell before a worker starts, ``module load python``.
        python: Command that starts Python on a node; None takes this interpreter.
        interface: Network interface between nodes, ``ib0``; None takes the host's address.
        shared_folder: Folder that all nodes see, for certificates and logs of jobs; None takes the user's cache.
    """

    jobs: int
    memory: str
    walltime: str
    cores: int = 1
    partition: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str | None = None
    interface: str | None = None
    shared_folder: str | None = None

    @property
    def folder(self) -> Path:
        """The folder that all nodes see."""
        return Path(self.shared_folder or cache_root() / "cluster").expanduser().absolute()

    @property
    def logs(self) -> Path:
        """What jobs print."""
        return self.folder / "logs"


@contextmanager
def submit_jobs(settings: SlurmSettings, file: str) -> Iterator[tuple[Client, SlurmKeeper]]:
    """Submit the jobs of workers that talk TLS with certificates of their own, and cancel them in the end."""
    from distributed import Client

    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise RunError(f"{file}: {program} is not there; work where SLURM's commands are, on a login node")
    make_folder(settings.logs)
    with (
        TemporaryDirectory(prefix="tls-", dir=settings.folder, ignore_cleanup_errors=True) as private,
        _dask_cluster(settings, _temporary_security(Path(private)), file) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        _try_submission(cluster.job_script(), file)
        cluster.scale(jobs=settings.jobs)
        yield client, SlurmKeeper(cluster, client, settings, file)


def _temporary_security(folder: Path) -> Security:
    """Write a certificate of its own for this cluster into a folder that only the user can read."""
    from distributed import Security

    made = Security.temporary()
    files = {}
    for name, content in (("cert", made.tls_worker_cert), ("key", made.tls_worker_key)):
        files[name] = folder / f"{name}.pem"
        files[name].touch(0o600)
        files[name].write_text(content, encoding="ascii")
    roles = {f"tls_{role}_{name}": str(file) for role in _ROLES for name, file in files.items()}
    return Security(tls_ca_file=str(files["cert"]), require_encryption=True, **roles)


def _dask_cluster(settings: SlurmSettings, security: Security, file: str) -> SLURMCluster:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from dask_jobqueue import SLURMCluster  # takes these signals to itself when it is imported

    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        return SLURMCluster(
            queue=settings.partition,
            account=settings.account,
            cores=settings.cores,
            processes=settings.cores,
            memory=settings.memory,
            walltime=settings.walltime,
            python=settings.python,
            interface=settings.interface,
            security=security,
            log_directory=str(settings.logs),
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            worker_extra_args=["--dashboard-address", "127.0.0.1:0"],
            job_extra_directives=list(settings.directives),
            job_script_prologue=[
                *(f"export {name}={value}" for name, value in (ONE_THREAD | WORKER_ENVIRONMENT).items()),
                *settings.prologue,
            ],
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise RunError(
            f"{file}: no workers can be had with these settings ({str(error).splitlines()[0]}); correct them"
        ) from error


def _try_submission(script: str, file: str) -> None:
    """Ask SLURM whether it would take a job."""
    done = _call("sbatch", "--test-only", text=script)
    if done.returncode:
        lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
        raise RunError(
            f"{file}: SLURM refuses the job: {'; '.join(lines) or 'sbatch failed'}"
            "; correct the settings of this file"
        )


def _call(program: str, *options: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [shutil.which(program) or program, *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603


@dataclass
class SlurmKeeper:
    """Replaces jobs that end: cancelled, at their walltime, or with their node.

    Dask's cluster would wait for their workers to come back (dask-jobqueue resubmits nothing by itself). A worker
    that cannot import what it is handed reports and ends at once, so only one that stays from one look to the next
    counts.
    """

    cluster: SLURMCluster
    client: Client
    settings: SlurmSettings
    file: str
    _looked: float = field(default_factory=time.monotonic, init=False)
    _fruitless: int = field(default=0, init=False)
    _workers: set[str] = field(default_factory=set, init=False)

    def replace_ended_jobs(self) -> None:
        """Submit a job for each that SLURM no longer has.

        Raises:
            RunError: Jobs end, and no worker stays.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        asked = _call("squeue", "--noheader", "--format=%i", "--me")
        if asked.returncode:  # SLURM is busy or restarts; look again later
            return
        left = set(asked.stdout.split())
        alive = [name for name, job in self.cluster.workers.items() if job.job_id in left]
        # a job that sbatch refused has no number
        ended = [name for name in self.cluster.workers if name not in alive]
        before, self._workers = self._workers, set(self.client.scheduler_info(n_workers=-1)["workers"])
        if before & self._workers:
            self._fruitless = 0
        # Dask has forgotten jobs whose workers said farewell
        self._fruitless += len(ended) if alive or ended else self.settings.jobs
        if self._fruitless > MAX_FRUITLESS * self.settings.jobs:
            _try_submission(self.cluster.job_script(), self.file)
            raise RunError(
                f"{self.file}: {self._fruitless} SLURM jobs have ended, and no worker stays; their logs are in "
                f"{self.settings.logs}. Has their Python this version of brainstage?"
            )
        for name in ended:
            del self.cluster.workers[name]
        if len(alive) < self.settings.jobs:
            self.cluster.scale(jobs=self.settings.jobs)
