"""What benchmarks share: timings, memory of a fresh process, the machine's own limits, results as JSON.

python benchmarks/common.py tables NAME ...    lay out the tables of stored results anew, without another run

This file runs in the peers' environments too, so it needs nothing but the standard library at import.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Timing:
    """Wall seconds of repeated runs, in the order they were made, and processor seconds over all threads."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def to_json(self) -> dict[str, Any]:
        rounded = [round(s, 4) for s in self.seconds]
        shown = {"median_s": round(self.median, 4), "best_s": min(rounded), "worst_s": max(rounded), "runs": rounded}
        if self.cpu_seconds:  # on a shared machine the steadier figure
            shown["median_cpu_s"] = round(statistics.median(self.cpu_seconds), 4)
        return shown


def measure(function: Callable[[], Any], repeats: int = 5, *, warm_up: int = 1) -> Timing:
    """Time `function` alone; the first `warm_up` calls (compilation, cold caches) do not count."""
    return interleave({"": function}, repeats, warm_up=warm_up)[""]


def interleave(functions: Mapping[str, Callable[[], Any]], repeats: int = 5, *, warm_up: int = 1) -> dict[str, Timing]:
    """Time several functions in turn, round by round, so that a busy minute of the machine hits all alike."""
    for function in functions.values():
        for _ in range(warm_up):
            function()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            runs[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Timing(*zip(*pairs, strict=True)) for name, pairs in runs.items()}


def peak_mb() -> float:
    """Peak resident memory of this process in MB (2^20 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, not inflated by the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def in_fresh_process(
    function: str,
    *,
    python: str | Path = sys.executable,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
    **arguments: Any,
) -> dict[str, Any]:
    """Call `function` ("module:name" in this folder) in a new process, perhaps of another environment.

    Arguments and the returned value travel as JSON.

    Returns {"value", "peak_mb", "wall_s"}: what it returned, the process's peak memory and its whole wall
    time, imports included; or {"error"}: its last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [str(python), str(HERE / "common.py"), function, json.dumps(arguments), str(answer)]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, env={**os.environ, **(environment or {})}, timeout=timeout, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {timeout:.0f} s"}
        if done.returncode or not answer.exists():
            return {"error": (done.stderr or done.stdout).strip().splitlines()[-1:]}
        return {**json.loads(answer.read_text()), "wall_s": round(time.perf_counter() - start, 3)}


def _answer(function: str, arguments: str, answer: str) -> None:
    """The other side of `in_fresh_process`."""
    import importlib

    sys.path.insert(0, str(HERE))
    module, _, name = function.partition(":")
    value = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(answer).write_text(json.dumps({"value": value, "peak_mb": round(peak_mb(), 1)}))


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, and how busy the machine was in the last minute."""
    import torch  # noqa: F401  # once it is loaded, an accelerator is described too

    from tastemaker.types.meter import machine as described

    return {**described(), "load_1min": round(os.getloadavg()[0], 2)}


def sgemm_peak(n: int = 3072, repeats: int = 5) -> float:
    """Billions of float32 operations a second that a large square matrix product reaches here, on all cores."""
    import numpy as np

    left = np.random.default_rng(0).random((n, n), dtype=np.float32)
    out = np.empty_like(left)
    return 2 * n**3 / min(measure(lambda: np.matmul(left, left, out=out), repeats).seconds) / 1e9


def copy_peak(megabytes: int = 256, repeats: int = 5) -> float:
    """Billions of bytes a second, read and written, of a copy too large for the caches, by one thread."""
    import numpy as np

    source = np.ones(megabytes * 2**18, dtype=np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(measure(lambda: np.copyto(target, source), repeats).seconds) / 1e9


def data_folder(name: str) -> Path | None:
    """The folder of a real data set under $TASTEMAKER_DATA, or None where it is not there."""
    folder = Path(os.environ.get("TASTEMAKER_DATA", HERE.parent.parent / "shared" / "data")) / name
    return folder if folder.is_dir() else None


def page_table(title: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> dict[str, Any]:
    """A table for the page of benchmarks, a mapping a row, headings as in the first; None leaves a cell empty."""
    columns = list(rows[0]) if rows else []
    return {"title": title, "columns": columns, "rows": [[row[name] for name in columns] for row in rows], "note": note}


def write(name: str, payload: Mapping[str, Any], tables: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Store what a benchmark found as results/NAME.json, with the machine, the date and the command.

    `tables` (of `page_table`) are what the page of benchmarks shows of it.
    """
    RESULTS.mkdir(exist_ok=True)
    words = [
        Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]
    ]  # folders are nobody else's
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    head = {"benchmark": name, "date": f"{datetime.now(UTC):%Y-%m-%d}", "command": command, "machine": machine()}
    return _store({**head, "tables": list(tables), **payload})


def _store(found: Mapping[str, Any]) -> Path:
    path = RESULTS / f"{found['benchmark']}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def lay_out(name: str) -> Path:
    """Make the tables of a stored result anew, from the figures it has: `tables(found)` of its benchmark.

    NAME is that of the benchmark, or the benchmark's and a part's: "lightgcn-gowalla".
    """
    import importlib

    sys.path.insert(0, str(HERE))
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return _store({**found, "tables": importlib.import_module(name.partition("-")[0]).tables(found)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["tables"]:
        for stored in sys.argv[2:]:
            print(lay_out(stored))
    else:
        _answer(*sys.argv[1:4])
