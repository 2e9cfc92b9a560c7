"""What a piece of work cost: seconds and peak memory; and on which machine."""

from __future__ import annotations

import copy
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass
class Cost:
    """Wall seconds, processor seconds over all threads, and peak resident memory of the process in MB."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def metered() -> Iterator[Cost]:
    """Measure the block. The peak is the block's own where the system lets it be reset, else the process's."""
    cost = Cost()
    _note_peak()
    _reset_peak()
    _open.append(cost)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - wall
        cost.cpu_seconds = time.process_time() - cpu
        _note_peak()
        _open.remove(cost)


_open: list[Cost] = []  # blocks being measured, outermost first: an inner one's reset must not hide their peaks


def _note_peak() -> None:
    peak = peak_memory_mb() if _open else 0.0
    for cost in _open:
        cost.peak_mb = max(cost.peak_mb, peak)


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the whole process


def peak_memory_mb() -> float:
    """Peak resident memory since it was last reset, in MB (1 MB = 2^20 bytes)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass  # no /proc: ask the kernel the portable way
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def available_memory_mb() -> float:
    """Memory that can be taken without swapping, in MB, a container's limit counted."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) / 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            free = min(free, (int(limit) - used) / 2**20)
    except (OSError, ValueError):
        pass  # no such files here: the first estimate stands
    return free


def machine() -> dict[str, Any]:
    """Processor, accelerator, cores, memory and versions, for provenance; no name of the machine."""
    about = copy.deepcopy(_machine())
    torch = sys.modules.get("torch")  # who did not load it used no accelerator
    if torch is not None and torch.cuda.is_available():
        about["accelerator"] = torch.cuda.get_device_name()
    return about


@cache
def _machine() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # the platform's own word is kept
    versions: dict[str, str] = {}
    for package in ("tastemaker", "numpy", "scipy", "numba", "polars", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": versions,
    }
