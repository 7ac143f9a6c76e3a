"""One pool of threads, never nested; tasks in processes, of which some die."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import tasks
from brainstage.core.errors import RunError
from brainstage.core.parallel import (
    CHUNK_SECONDS,
    MAX_CHUNK,
    Processes,
    _next_size,
    _run_chunk,
    is_worker,
    parallel_map,
    run_tasks,
    usable_cpus,
    worker_pool,
)


def test_results_and_progress_come_in_the_order_of_the_items():
    reported = []

    def late_if_early(number):
        time.sleep(0.02 * (3 - number))
        return number * 10

    assert parallel_map(late_if_early, range(4), done=reported.append) == [0, 10, 20, 30] == reported


def test_pools_do_not_nest():
    def inner(_number):
        return threading.current_thread()

    def outer(_number):
        return is_worker() and set(parallel_map(inner, range(5))) == {threading.current_thread()}

    assert parallel_map(outer, range(8)) == [True] * 8
    with worker_pool(1) as pool:
        assert pool.submit(outer, 0).result()
    assert not is_worker()


def test_after_an_error_nothing_more_is_started():
    started = []

    def work(number):
        started.append(number)
        if number == 0:
            raise ValueError("the first")
        time.sleep(0.05)

    with pytest.raises(ValueError, match="the first"):
        parallel_map(work, range(500))
    time.sleep(0.2)
    assert len(started) < 50


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_the_affinity_mask_counts():
    code = "from brainstage.core.parallel import usable_cpus; print(usable_cpus())"
    one = min(os.sched_getaffinity(0))
    restrict = f"import os; os.sched_setaffinity(0, {{{one}}}); "
    done = subprocess.run([sys.executable, "-c", restrict + code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert usable_cpus() >= 1


# --- tasks in processes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_is_run_once(jobs):
    results = dict(run_tasks(tasks.double, range(3000), Processes(jobs)))
    assert results == {number: 2 * number for number in range(3000)}


def test_chunks_grow_where_tasks_are_short_and_never_beyond_their_seconds():
    assert _next_size(1, seconds=0.0001) == 2
    assert _next_size(900, seconds=0.0001) == MAX_CHUNK
    assert _next_size(8, seconds=2 * CHUNK_SECONDS) == 4
    assert _next_size(1, seconds=60) == 1


def test_a_task_whose_process_is_killed_is_run_again(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "killer", "c", "d")]
    assert dict(run_tasks(tasks.die_once, files, Processes(2))) == dict.fromkeys(files, "survived")


def test_a_task_that_always_kills_its_process_has_no_result_and_the_others_go_on():
    numbers = [*range(20), -1, *range(20, 40), -2, *range(40, 60)]
    results = dict(run_tasks(tasks.die_if_negative, numbers, Processes(2)))
    assert results == {number: None if number < 0 else 2 * number for number in numbers}


def test_an_error_of_a_task_is_raised_and_few_items_are_taken():
    taken = iter(range(10**9))
    with pytest.raises(ValueError, match="five"):
        list(run_tasks(tasks.fail_at_five, taken, Processes(2)))
    assert next(taken) < 5000


def test_processes_work_in_one_thread_each():
    assert dict(run_tasks(tasks.threads, range(2), Processes(2))) == {0: "1", 1: "1"}


def test_a_worker_of_another_version_says_so():
    with pytest.raises(RunError, match=r"a worker has brainstage .*, this machine 0\.0\.0; install the same"):
        _run_chunk(tasks.double, [1], "0.0.0")


def test_nothing_of_dask_is_imported_without_a_cluster():
    code = "import sys, brainstage.cohorts.prepare, brainstage.cli.cohorts, brainstage.studies.bids_app; "
    code += "print({name.partition('.')[0] for name in sys.modules} & {'dask', 'distributed', 'dask_jobqueue'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no mask of signals")
def test_ctrl_c_of_a_terminal_does_not_reach_a_process_that_starts():
    assert dict(run_tasks(tasks.holds_ctrl_c_back, range(2), Processes(2))) == {0: True, 1: True}
    assert not tasks.holds_ctrl_c_back(0)  # it reaches this process as before


THREAD_WHOSE_START_IS_INTERRUPTED = """
import threading
from brainstage.core.parallel import parallel_map
start = threading.Thread.start
def interrupted(thread):
    start(thread)
    raise KeyboardInterrupt
threading.Thread.start = interrupted
try:
    parallel_map(str, range(9))
except KeyboardInterrupt:
    threading.Thread.start = start
"""


@pytest.mark.parametrize("then", ["", "print(*parallel_map(str, range(9)))"])
def test_ctrl_c_while_a_thread_starts_leaves_nothing_that_python_waits_for(then):
    command = [sys.executable, "-c", THREAD_WHOSE_START_IS_INTERRUPTED + then]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "0 1 2 3 4 5 6 7 8" if then else "", "")
