"""A Dask cluster that runs tasks: a scheduler that runs already, or SLURM jobs, which dask-jobqueue submits."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from brainstage.core.config import read_table
from brainstage.core.errors import ConfigError, RunError
from brainstage.core.files import make_folder
from brainstage.core.hub import cache_root
from brainstage.core.links import docs_page
from brainstage.core.network import is_loopback
from brainstage.core.parallel import ONE_THREAD, check_version, package_version

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

INSTALL = 'pip install "brainstage[cluster]"'
EXAMPLES = docs_page("how-to/clusters")
CONNECT_SECONDS = 10.0
"""How long to wait for a scheduler's answer."""
LOOK_SECONDS = 10.0
"""How often SLURM is asked which jobs are left."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""Environment in which glibc keeps the memory of arrays for the next ones, up to where it would learn to by itself.

Dask sets the second to 64 KB, so that a worker gives all memory back to the system and asks for it anew. What that
costs shows without Dask: ``MALLOC_TRIM_THRESHOLD_=65536 brainstage prepare … --jobs 2`` took a third longer.
"""
MAX_FRUITLESS = 3
"""How many times as many jobs as were asked for may end while no worker stays."""


@dataclass(frozen=True)
class SchedulerSettings:
    """A Dask scheduler that runs already: the table ``[dask]`` of a cluster's TOML file.

    Attributes:
        address: ``tls://HOST:PORT``, or ``tcp://HOST:PORT`` on this machine.
        ca_file: Certificate of the authority that signed the others, PEM; None takes Dask's own configuration.
        cert_file: Certificate of this client, likewise.
        key_file: Its key, likewise.
        tls: Whether a scheduler beyond this machine must use TLS; false lets anyone on the network read what is
            sent and run code on the workers.
    """

    address: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    tls: bool = True


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


Settings = SchedulerSettings | SlurmSettings
_ROLES = ("scheduler", "worker", "client")
_TABLES: dict[str, type[Settings]] = {"dask": SchedulerSettings, "slurm": SlurmSettings}


def read_cluster(cluster: str) -> Settings:
    """Return what names a cluster: a scheduler's address, or a TOML file with a table ``[dask]`` or ``[slurm]``.

    Raises:
        ConfigError: It is neither, or a setting is not valid.
    """
    if "://" in cluster:
        return SchedulerSettings(cluster)
    file = Path(cluster)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"--cluster {cluster}: no such file; give a scheduler's address, tls://HOST:PORT, or a TOML file"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not readable as TOML ({error}); correct it") from error
    if len(content) != 1 or not content.keys() <= _TABLES.keys():
        raise ConfigError(f"{file}: expected one table, [slurm] or [dask]; each has an example in {EXAMPLES}")
    [(name, table)] = content.items()
    return read_table(_TABLES[name], table, f"{file}: [{name}]")


@dataclass
class ClusterWorkers:
    """The workers of a Dask cluster, as :class:`brainstage.core.parallel.Workers`.

    The cluster is connected to, and SLURM jobs are submitted, when the first task is.
    """

    settings: Settings
    name: str
    say: Callable[[str], None]
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _client: Client | None = field(default=None, init=False)
    _keeper: SlurmKeeper | None = field(default=None, init=False)
    _slots: int = field(default=2, init=False)
    _looked: float = field(default=0.0, init=False)

    @property
    def worker_died(self) -> type[Exception]:
        """What a future raises whose task several workers in a row died over."""
        from distributed import KilledWorker

        return KilledWorker

    @property
    def slots(self) -> int:
        """How many tasks to submit at a time: two for each thread of a worker."""
        if self._client and time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            with suppress(OSError):  # of a scheduler that is gone, which run_tasks will learn from its futures
                self._slots = 2 * max(1, self._client.scheduler_info(n_workers=0)["total_threads"])
        return self._slots

    @contextmanager
    def open(self) -> Iterator[Executor]:
        """Return the cluster's executor.

        Raises:
            RunError: It cannot be reached, is not protected, or SLURM refuses the job.
        """
        if self._client is None:
            if isinstance(self.settings, SchedulerSettings):
                self._client = self._stack.enter_context(_client(self.settings))
                if not self._client.scheduler_info(n_workers=0)["n_workers"]:
                    self.say(f"{self.name}: has no workers yet; work begins when the first one is there")
            else:
                self._client, self._keeper = self._stack.enter_context(_slurm(self.settings, self.name))
                jobs = f"{self.settings.jobs} SLURM job{'s' if self.settings.jobs > 1 else ''}"
                self.say(f"{jobs} submitted; work begins when the first one runs. Logs: {self.settings.logs}")
        executor = self._client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)

    def path(self, path: Path) -> Path:
        """Return the absolute path: workers have other working folders."""
        return path.absolute()

    def check(self) -> None:
        """Replace jobs of SLURM that have ended.

        Raises:
            RunError: They end before their workers report.
        """
        if self._keeper:
            self._keeper.replace_ended_jobs()

    def close(self) -> None:
        """Leave the scheduler, or cancel the jobs."""
        self._stack.close()


@contextmanager
def open_cluster(cluster: str, say: Callable[[str], None] = lambda _text: None) -> Iterator[ClusterWorkers]:
    """Yield the workers of a cluster; SLURM jobs end with the block.

    Args:
        cluster: As for :func:`read_cluster`.
        say: Called with a sentence where the work has to wait for workers.

    Raises:
        ConfigError: It is not named correctly, or the extra ``cluster`` is not installed.
    """
    settings = read_cluster(cluster)
    for library in ("distributed", "dask_jobqueue", "tornado", "cryptography"):
        if find_spec(library) is None:
            raise ConfigError(f"--cluster: Dask is not installed; {INSTALL}")
    _silence_dask()
    workers = ClusterWorkers(settings, cluster, say)
    try:
        yield workers
    finally:
        workers.close()


def _silence_dask() -> None:
    """Leave it to :func:`brainstage.core.parallel.run_tasks` to tell what became of the work."""
    import_module("distributed")  # which sets the levels of these loggers

    for name in ("distributed", "distributed.client", "tornado", "tornado.application", "dask_jobqueue"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


# --- a scheduler that runs already ------------------------------------------------------------------------------


@contextmanager
def _client(settings: SchedulerSettings) -> Iterator[Client]:
    from distributed import Client

    address = settings.address
    _refuse_unprotected(address, settings)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, security=_security(settings), set_as_default=False)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise RunError(
            f"{address}: no Dask scheduler can be reached there ({str(error).splitlines()[0]}); check the address, "
            f"and for tls:// the certificates ({EXAMPLES})"
        ) from error
    with client:
        known = client.scheduler_info(n_workers=-1)
        for place in (known["address"], *known["workers"]):
            _refuse_unprotected(place, settings)
        _check_versions(client)
        yield client


def _check_versions(client: Client) -> None:
    """Refuse workers without this version of the package, which would end at the first task they are handed."""
    for place, worker in client.get_versions(packages=["brainstage"])["workers"].items():
        check_version(f"{place}: the worker", worker["packages"]["brainstage"], package_version())


def _security(settings: SchedulerSettings) -> Security | None:
    from distributed import Security

    files = {
        "tls_ca_file": settings.ca_file,
        "tls_client_cert": settings.cert_file,
        "tls_client_key": settings.key_file,
    }
    for file in filter(None, files.values()):
        if not Path(file).is_file():
            raise ConfigError(f"{file}: no such file, though [dask] names it for TLS; correct its path there")
    return Security(**{name: file for name, file in files.items() if file}) if any(files.values()) else None


def _refuse_unprotected(address: str, settings: SchedulerSettings) -> None:
    """Raise :class:`RunError` where others could listen to an address and it does not use TLS."""
    if address.startswith("tls://") or not settings.tls or is_loopback(urlsplit(address).hostname or ""):
        return
    raise RunError(
        f"{address}: can be reached from other machines and does not use TLS, so anyone there could read what is "
        "sent and run code on the workers; start it with TLS, or with --host 127.0.0.1, or write tls = false with "
        f"its address in a TOML file ({EXAMPLES})"
    )


# --- SLURM ------------------------------------------------------------------------------------------------------


@contextmanager
def _slurm(settings: SlurmSettings, file: str) -> Iterator[tuple[Client, SlurmKeeper]]:
    """Submit the jobs of workers that talk TLS with certificates of their own, and cancel them in the end."""
    from distributed import Client

    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise RunError(f"{file}: {program} is not there; work where SLURM's commands are, on a login node")
    make_folder(settings.logs)
    with (
        TemporaryDirectory(prefix="tls-", dir=settings.folder, ignore_cleanup_errors=True) as private,
        _slurm_cluster(settings, _temporary_security(Path(private)), file) as cluster,
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


def _slurm_cluster(settings: SlurmSettings, security: Security, file: str) -> SLURMCluster:
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
                *(f"export {name}={value}" for name, value in (ONE_THREAD | KEEP_MEMORY).items()),
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
