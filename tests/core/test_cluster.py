"""Tasks on a Dask cluster of real processes: the same results, workers that die, schedulers that are not safe."""

import gc
import os
import signal
import subprocess
import sys

import pytest

import tasks
from brainstage.core import cluster as cluster_module
from brainstage.core.cluster import SchedulerSettings, open_cluster, read_cluster
from brainstage.core.errors import ConfigError, RunError
from brainstage.core.parallel import run_tasks
from brainstage.core.slurm import SlurmSettings
from dask_cluster import dask_cluster

distributed = pytest.importorskip("distributed")


def results(function, items, cluster):
    with open_cluster(str(cluster)) as workers:
        return dict(run_tasks(function, items, workers))


def test_every_task_is_run_once_by_workers_that_work_in_one_thread_each(dask):
    assert results(tasks.double, range(3000), dask) == {number: 2 * number for number in range(3000)}
    assert results(tasks.threads, range(4), dask) == dict.fromkeys(range(4), "1")


def test_an_error_of_a_task_is_raised_as_it_is(dask):
    with pytest.raises(ValueError, match="five"):
        results(tasks.fail_at_five, range(1000), dask)


def test_a_task_that_kills_every_worker_has_no_result_and_the_others_go_on(dask):
    numbers = [*range(20), -1, *range(20, 60)]
    expected = {number: None if number < 0 else 2 * number for number in numbers}
    assert results(tasks.die_if_negative, numbers, dask) == expected


def test_a_worker_that_is_killed_costs_nothing_but_time(dask):
    worker = results(tasks.process_number, [0], dask)[0]

    def numbers():
        yield from range(20)
        os.kill(worker, signal.SIGKILL)
        yield from range(20, 60)

    assert results(tasks.slow_double, numbers(), dask) == {number: 2 * number for number in range(60)}


LOG_OF_DASK = """
import logging, sys
from brainstage.core.cluster import open_cluster
from brainstage.core.parallel import run_tasks
from brainstage.core.slurm import SlurmSettings
with open_cluster(sys.argv[1]) as workers:
    assert dict(run_tasks(abs, [-1, -2], workers)) == {-1: 1, -2: 2}
    logging.getLogger("tornado.application").error("a callback failed")
    logging.getLogger("distributed.client").warning("work was cancelled")
"""


def test_what_dask_logs_is_not_printed(dask):  # in a process of its own: Dask sets its log up when it is imported
    done = subprocess.run([sys.executable, "-c", LOG_OF_DASK, dask], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_workers_of_another_version_are_refused_before_they_are_handed_anything(tmp_path, monkeypatch):
    other = tmp_path / "brainstage-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: brainstage\nVersion: 0.0.1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    message = r"the worker has brainstage 0\.0\.1, this machine .*; install the same"
    with dask_cluster(tmp_path / "dask", workers=1) as (address, _), pytest.raises(RunError, match=message):
        results(tasks.double, [1], address)


def test_a_scheduler_that_goes_away_is_one_sentence(tmp_path):
    with dask_cluster(tmp_path, workers=1) as (address, processes):

        def numbers():
            yield from range(20)
            processes[0].kill()
            yield from range(20, 100_000)

        with pytest.raises(RunError, match="scheduler is gone .* what is finished is kept"):
            results(tasks.slow_double, numbers(), address)


# --- protection -------------------------------------------------------------------------------------------------


def certificates(folder):
    """Write a certificate and its key; return both and a scheduler's options that name them."""
    made = distributed.Security.temporary()
    ca, key = folder / "ca.pem", folder / "key.pem"
    ca.write_text(made.tls_ca_file)
    key.write_text(made.tls_worker_key)
    return ca, key, ["--tls-ca-file", str(ca), "--tls-cert", str(ca), "--tls-key", str(key)]


def test_a_scheduler_that_others_can_reach_must_use_tls(tmp_path):
    with pytest.raises(RunError, match=r"tcp://10\.1\.2\.3:8786: .* does not use TLS"):
        results(tasks.double, [1], "tcp://10.1.2.3:8786")
    with dask_cluster(tmp_path, workers=1, host="0.0.0.0") as (address, _):
        port = address.rpartition(":")[2]
        with pytest.raises(RunError, match="does not use TLS, so anyone there could read"):
            results(tasks.double, [1], f"tcp://127.0.0.1:{port}")
        allowed = tmp_path / "open.toml"
        allowed.write_text(f'[dask]\naddress = "tcp://127.0.0.1:{port}"\ntls = false\n')
        assert results(tasks.double, [1], allowed) == {1: 2}


def test_tls_with_certificates_of_ones_own(tmp_path, monkeypatch):
    ca, key, options = certificates(tmp_path)
    with dask_cluster(tmp_path / "cluster", workers=1, options=options) as (address, _):
        assert address.startswith("tls://")
        named = f'[dask]\naddress = "{address}"\nca_file = "{ca}"\n'
        file = tmp_path / "cluster.toml"
        file.write_text(f'{named}cert_file = "{ca}"\nkey_file = "{key}"\n')
        assert results(tasks.double, range(10), file) == {number: 2 * number for number in range(10)}
        monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1.0)
        with pytest.raises(RunError, match=r"no Dask scheduler can be reached .* certificates"):
            results(tasks.double, [1], address)
        file.write_text(f'{named}cert_file = "{tmp_path / "no.pem"}"\n')
        with pytest.raises(ConfigError, match=r"no\.pem: no such file"):
            results(tasks.double, [1], file)


def test_after_a_scheduler_that_refused_us_the_next_one_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1.0)
    _, _, options = certificates(tmp_path)
    loop_factory = distributed.utils.get_loop_factory
    # Python may collect what is left of the first client in the thread that the second one starts
    monkeypatch.setattr(distributed.utils, "get_loop_factory", lambda: (gc.collect(), loop_factory())[1])
    with dask_cluster(tmp_path / "cluster", workers=1, options=options) as (address, _):
        with pytest.raises(RunError, match="no Dask scheduler can be reached there") as refused:
            results(tasks.double, [1], address)
        refused.value.itself = refused.value  # which only a collection frees, like the error that pytest keeps
        del refused
        with pytest.raises(RunError, match="no Dask scheduler can be reached there"):
            results(tasks.double, [1], "tcp://127.0.0.1:1")


# --- what names a cluster ---------------------------------------------------------------------------------------


def test_a_cluster_is_named_by_an_address_or_a_file(tmp_path):
    assert read_cluster("tls://node:8786") == SchedulerSettings("tls://node:8786")
    file = tmp_path / "slurm.toml"
    file.write_text('[slurm]\njobs = 4\nmemory = "8GB"\nwalltime = "01:00:00"\ndirectives = ["--qos=low"]\n')
    assert read_cluster(str(file)) == SlurmSettings(4, "8GB", "01:00:00", directives=("--qos=low",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"expected one table, \[slurm\] or \[dask\]"),
        ("[pbs]\njobs = 1\n", r"expected one table"),
        ("jobs = 1\n", r"expected one table"),
        ("[slurm]\njobs = 1\n", r"\[slurm\]: memory and walltime missing"),
        ('[slurm]\njobs = "1"\nmemory = "1GB"\nwalltime = "1:0:0"\n', r"\[slurm\]: jobs: expected int, not '1'"),
        ("[slurm]\njbos = 1\n", r"unknown setting 'jbos'; did you mean 'jobs'"),
        ("[slurm\n", "not readable as TOML"),
    ],
)
def test_a_file_that_is_not_right_is_one_sentence(tmp_path, content, message):
    file = tmp_path / "cluster.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_cluster(str(file))


def test_neither_an_address_nor_a_file():
    with pytest.raises(ConfigError, match=r"--cluster node:8786: no such file; give a scheduler's address"):
        read_cluster("node:8786")


def test_nobody_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1.0)
    with pytest.raises(RunError, match="no Dask scheduler can be reached there"):
        results(tasks.double, [1], "tcp://127.0.0.1:1")
