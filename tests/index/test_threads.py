"""Threads: work is shared, errors arrive, and the BLAS setting returns whoever leaves last."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from threadpoolctl import threadpool_info

from tastemaker.index.threads import one_blas_thread, share


def blas_threads():
    """Threads of the BLAS of NumPy, and of SciPy, by which kernels multiply."""
    return sorted((p["filepath"], p["num_threads"]) for p in threadpool_info() if p["user_api"] == "blas")


def held():
    return {n for _, n in blas_threads()} <= {1}


def test_every_task_is_done_once_by_several_threads():
    done, seen, both = [], set(), threading.Barrier(2, timeout=10)

    def work(tasks):
        for task in tasks:
            if task < 2:
                both.wait()  # passes only when two threads are at work at once
            seen.add(threading.get_ident())
            done.append(task)

    share(range(100), work, threads=2)
    assert sorted(done) == list(range(100)) and len(seen) == 2
    share([], work, threads=2)


@pytest.mark.parametrize("bad", [0, 1, 50])
def test_an_error_of_any_thread_is_raised(bad):
    def work(tasks):
        for task in tasks:
            if task == bad:
                raise ValueError(f"task {task}")

    with pytest.raises(ValueError, match=f"task {bad}"):
        share(range(100), work, threads=2)
    assert all(n >= 1 for _, n in blas_threads())


def test_an_error_of_another_thread_alone_is_raised():
    caller, both = threading.get_ident(), threading.Barrier(2, timeout=10)

    def work(tasks):
        for _ in tasks:
            both.wait()
            if threading.get_ident() != caller:
                raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        share([1, 2], work, threads=2)


def test_the_blas_setting_returns_when_the_last_has_left():
    before = blas_threads()
    first, second = one_blas_thread(), one_blas_thread()
    with first:
        assert held()
        second.__enter__()
    assert held()
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_any_thread_holds_blas_and_any_other_lets_it_go():
    with one_blas_thread():
        pass  # this thread was the first to set it
    before, hold = blas_threads(), one_blas_thread()
    found = []

    def elsewhere():
        hold.__enter__()
        found.append(held())

    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()
    assert found == [True] and held()
    hold.__exit__(None, None, None)
    assert blas_threads() == before


ALONE = """
import threading
from threadpoolctl import threadpool_info
from tastemaker.index.threads import one_blas_thread, stay_alone
with one_blas_thread():
    other = threading.Thread(target=stay_alone)
    other.start()
    other.join()
print([p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"])
"""


def test_blas_stays_alone_whoever_leaves_afterwards():
    told = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(told)) == {1}


def test_concurrent_callers_all_finish():
    totals = []

    def call():
        mine = []
        share(range(200), lambda tasks: mine.extend(tasks), threads=4)
        totals.append(sum(mine))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
    assert totals == [19900] * 8
