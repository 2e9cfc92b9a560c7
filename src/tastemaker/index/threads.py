"""Work on all cores without two thread pools fighting: one Python thread a core, one BLAS thread in each.

Kernels here release the interpreter lock, so plain threads serve. Numba's own pool is not used: some of its
backends may not be entered by two callers at once, which a server would do.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_here = threading.local()


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_workers() -> int:
    """Threads that work may be shared out to from here: the cores, or one where `stay_alone` was called."""
    return 1 if getattr(_here, "alone", False) else n_cores()


def stay_alone() -> None:
    """From now on this thread shares no work out, and BLAS keeps to one thread in the whole process.

    For where the other cores have work of their own, as a server's event loop has. A second search thread beside it
    takes the interpreter's lock in turns with it and makes both slower. Idle threads of BLAS are no better: they spin.
    """
    _here.alone = True
    _hold_blas()  # and never let go


def share(tasks: Sequence[T], work: Callable[[Iterator[T]], None], *, threads: int | None = None) -> None:
    """Run `work` on several threads, which draw from one supply of `tasks` until none is left.

    `work` is called once a thread, so buffers it allocates serve all tasks of that thread. An error of any
    thread is raised here.
    """
    threads = min(n_workers() if threads is None else threads, len(tasks))
    supply = deque(tasks)
    if threads <= 1:
        work(_drain(supply))
        return
    with one_blas_thread():
        others = [_pool().submit(work, _drain(supply)) for _ in range(threads - 1)]
        try:
            work(_drain(supply))
        finally:
            supply.clear()  # after an error the others stop at their next task
            started = [other for other in others if not other.cancel()]
            wait(started)
        for other in started:
            other.result()


def _drain(supply: deque[T]) -> Iterator[T]:
    while True:
        try:
            yield supply.popleft()
        except IndexError:
            return


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_cores(), thread_name_prefix="tastemaker-index")


@cache
def _libraries() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401 - kernels multiply with it; what is loaded later would not be held
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


class _Limit:
    """How many callers hold BLAS to one thread now, and what the first of them found set."""

    lock = threading.Lock()
    callers = 0
    found: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread a call; the setting returns when the last of several callers has left."""
    _hold_blas()
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.callers -= 1
            if _Limit.callers == 0:
                with _control():
                    _Limit.found.restore_original_limits()


def _hold_blas() -> None:
    with _Limit.lock:
        _Limit.callers += 1
        if _Limit.callers == 1:
            with _control():
                _Limit.found = _libraries().limit(limits=1)


@contextmanager
def _control() -> Iterator[None]:
    """Let this thread set limits: threadpoolctl heeds only the first that did, and the last to leave is another."""

    def clear() -> None:
        for library in _libraries().lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)

    clear()
    yield
    clear()


def _after_fork() -> None:
    """Threads do not survive a fork, and a lock may have been held by one of them."""
    _pool.cache_clear()
    _Limit.lock, _Limit.callers = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
