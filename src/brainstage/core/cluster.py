"""A Dask cluster that runs tasks: a scheduler that runs already, or SLURM jobs, which dask-jobqueue submits."""

from __future__ import annotations

import gc
import logging
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from brainstage.core.config import read_table
from brainstage.core.errors import ConfigError, RunError
from brainstage.core.links import docs_page
from brainstage.core.network import is_loopback
from brainstage.core.parallel import check_version, package_version
from brainstage.core.slurm import SlurmKeeper, SlurmSettings, submit_jobs

if TYPE_CHECKING:
    from distributed import Client, Security

INSTALL = 'pip install "brainstage[cluster]"'
EXAMPLES = docs_page("how-to/clusters")
CONNECT_SECONDS = 10.0
"""How long to wait for a scheduler's answer."""


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


Settings = SchedulerSettings | SlurmSettings
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
            # Dask closes a client that could not connect when it is collected, under the lock that a new client
            # holds while its thread starts: collected by that thread, it would wait for itself.
            gc.collect()
            if isinstance(self.settings, SchedulerSettings):
                self._client = self._stack.enter_context(_client(self.settings))
                if not self._client.scheduler_info(n_workers=0)["n_workers"]:
                    self.say(f"{self.name}: has no workers yet; work begins when the first one is there")
            else:
                self._client, self._keeper = self._stack.enter_context(submit_jobs(self.settings, self.name))
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
