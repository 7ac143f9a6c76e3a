"""Shared fixtures: a small phantom cohort, a trained run, and the real dataset where it is there."""

import gc
import os
import signal

# a shell starts what runs in its background with Ctrl-C ignored, and the programs that tests interrupt inherit that
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# two processes run the tests: each library works in one thread, and none spins while it waits
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from functools import partial
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from brainstage.core.config import TrainConfig
from brainstage.datasets.phantom import write_phantom
from brainstage.datasets.sources import load_slices
from brainstage.models.recipes import load_recipe
from helpers import TINY, few_people, save_backbone, small_vit

# a busy machine is no failure of what is tested
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=slow)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True, scope="module")
def _garbage_is_of_this_file():
    """Have the garbage collector, which fits and clusters run, walk what these tests made and not all libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("vit"), small_vit())


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a file or folder by ``once(name, make)``: the first of the processes that run the tests makes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make_once(name, make):
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                make(shared / name)
        return shared / name

    return make_once


@pytest.fixture(scope="session")
def phantom_folder(once):
    return once("phantom", partial(write_phantom, patients=16))


@pytest.fixture(scope="session")
def phantom(phantom_folder):
    return load_slices(phantom_folder)


@pytest.fixture(scope="session")
def few(phantom):
    """Return every second slice of ten people of the phantom cohort."""
    return few_people(phantom)


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    """Settings that train in a second."""
    return load_recipe("compact", **TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, phantom, tiny):
    """Return a finished run on the phantom cohort, evaluated."""
    from brainstage.evaluation.slices import evaluate
    from brainstage.report.results import write_evaluation
    from brainstage.training.train import train

    run = train(phantom, tiny, name="trained", out=tmp_path_factory.mktemp("runs"))
    write_evaluation(evaluate(run), run.path, run.history)
    return run


@pytest.fixture(scope="session")
def real_folder():
    named = os.environ.get("BRAINSTAGE_DATA")
    if not named:
        pytest.skip("BRAINSTAGE_DATA does not name the real dataset")
    return Path(named)


@pytest.fixture(scope="module")
def slurm_file(tmp_path_factory):
    """Return a cluster's TOML file for a SLURM of one node, which runs as long as the file's tests."""
    import slurm_node

    if why := slurm_node.why_not():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("slurm")
    file = folder / "slurm.toml"
    file.write_text(
        '[slurm]\njobs = 2\nmemory = "1500MB"\nwalltime = "00:10:00"\npartition = "main"\n'
        f'shared_folder = "{folder / "shared"}"\n'
    )
    with slurm_node.slurm_node(folder / "node"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "node" / "slurm.conf"))
        yield file


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Return the address of a PostgreSQL database, which runs as long as the file's tests."""
    import postgresql

    pytest.importorskip("psycopg")
    if postgresql.programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with postgresql.postgresql(tmp_path_factory.mktemp("database") / "server") as address:
        yield address


@pytest.fixture(scope="session")
def dask(tmp_path_factory):
    """Return the address of a Dask scheduler on this machine with two workers."""
    import dask_cluster

    pytest.importorskip("distributed")
    with dask_cluster.dask_cluster(tmp_path_factory.mktemp("dask")) as (address, _):
        yield address
