"""One pool of threads: results in order, never nested, nothing started after an error."""

import os
import subprocess
import sys
import threading
import time

import pytest

from brainstage.core.parallel import is_worker, parallel_map, usable_cpus, worker_pool


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
