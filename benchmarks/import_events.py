"""Import of a large table of events: read with every row checked, numbered, sorted, saved, and split by time.

python benchmarks/import_events.py                       1, 5, 10 and 25 million events, three runs each
python benchmarks/import_events.py --millions 1 --runs 1 a short look

The table is made up: a CSV file with text ids, 25 events a user, items by a power law, rows in random order. A run is
a fresh process. Beside ours: the floor, which is what Polars alone takes to read, encode, sort and write the same
file with nothing checked, no tables of users and items and no numbers that keep their meaning as data grows; and
pandas doing the same by its usual calls.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import in_fresh_process, machine, page_table, write

MILLION = 1_000_000
EVENTS_PER_USER = 25
N_ITEMS = 100_000
PEER_UP_TO = 5  # millions of events for which pandas is run too
BAR = {"seconds": 25.0, "peak_mb": 4096.0}  # for 25 million events on two cores
COLUMNS = ["user", "item", "rating", "timestamp"]


def generate(path: str, n: int, seed: int = 0) -> int:
    """Write the table in slices of a million rows; returns its size in bytes."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(seed)
    n_users = n // EVENTS_PER_USER
    of_user = np.cumsum(rng.lognormal(0, 1, n_users))
    of_item = np.cumsum(np.arange(1, N_ITEMS + 1) ** -0.8)
    with Path(path).open("wb") as file:
        file.write((",".join(COLUMNS) + "\n").encode())
        for start in range(0, n, MILLION):
            size = min(MILLION, n - start)
            rows = pl.DataFrame(
                {
                    "user": np.searchsorted(of_user / of_user[-1], rng.random(size)),
                    "item": np.searchsorted(of_item / of_item[-1], rng.random(size)),
                    "rating": rng.integers(1, 11, size) / 2,
                    "timestamp": rng.integers(1_200_000_000, 1_700_000_000, size),
                }
            )
            named = rows.with_columns(user=pl.format("u{}", "user"), item=pl.format("i{}", "item"))
            named.write_csv(file, include_header=False)
    return Path(path).stat().st_size


class Phases:
    """Wall and processor seconds of named blocks."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = round(time.perf_counter() - wall, 3)
        self.cpu[name] = round(time.process_time() - cpu, 3)

    def report(self, **counts: int) -> dict[str, Any]:
        total = {"seconds": round(sum(self.wall.values()), 3), "cpu_seconds": round(sum(self.cpu.values()), 3)}
        return {**total, "phases": self.wall, **counts}


def ours(path: str, out: str) -> dict[str, Any]:
    from tastemaker.data import read
    from tastemaker.data.splits import split

    phase = Phases()
    with phase("read"):
        data = read(path)
    with phase("save"):
        data.save(out)
    with phase("split"):
        train = split(data, "time:0.9").train
    return phase.report(events=data.n_events, users=data.n_users, items=data.n_items, train=train.n_events)


def floor(path: str, out: str) -> dict[str, Any]:
    import polars as pl

    phase = Phases()
    with phase("read"):
        table = pl.scan_csv(path).with_columns(pl.col("user", "item").cast(pl.Categorical)).collect(engine="streaming")
    with phase("sort"):
        table = table.with_columns(pl.col("user", "item").to_physical()).sort("user", "timestamp")
    with phase("save"):
        Path(out).mkdir()
        table.write_parquet(Path(out) / "events.parquet", compression="zstd", compression_level=1)
    return phase.report(events=table.height, users=table["user"].n_unique(), items=table["item"].n_unique())


def pandas(path: str, out: str) -> dict[str, Any]:
    import pandas as pd

    phase = Phases()
    with phase("read"):
        table = pd.read_csv(path)
    with phase("encode"):
        counts = {}
        for key in ("user", "item"):
            table[key], ids = pd.factorize(table[key])
            counts[f"{key}s"] = len(ids)
    with phase("sort"):
        table = table.sort_values(["user", "timestamp"], kind="stable", ignore_index=True)
    with phase("save"):
        Path(out).mkdir()
        table.to_parquet(Path(out) / "events.parquet", compression="zstd")
    with phase("split"):
        train = table[table["timestamp"] < table["timestamp"].quantile(0.9)]
    return phase.report(events=len(table), train=len(train), **counts)


def run(millions: list[int], runs: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="tastemaker-import-") as folder:
        for size in millions:
            path = Path(folder) / f"{size}m.csv"
            made = in_fresh_process("import_events:generate", path=str(path), n=size * MILLION)
            names = ["ours", "floor", *(["pandas"] if size <= PEER_UP_TO else [])]
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for turn in range(runs):
                for name in names:  # in turn, so that a busy minute of the machine hits all alike
                    out = Path(folder) / f"{size}-{turn}-{name}"
                    load = round(os.getloadavg()[0], 1)
                    answer = in_fresh_process(f"import_events:{name}", path=str(path), out=str(out))
                    if "error" in answer:
                        raise SystemExit(f"{name}, {size} million: {answer['error']}")
                    found[name].append({**answer["value"], "peak_mb": answer["peak_mb"], "load_before": load})
            counts = {name: {k: found[name][0][k] for k in ("events", "users", "items")} for name in names}
            if len({str(count) for count in counts.values()}) > 1:
                raise SystemExit(f"{size} million: they disagree on what the table holds: {counts}")
            rows += [_summary(size, made["value"], name, found[name]) for name in names]
            path.unlink()
    return rows


def _summary(size: int, n_bytes: int, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    def median(get: Callable[[dict[str, Any]], float]) -> float:
        return round(statistics.median(map(get, runs)), 2)

    return {
        "million_events": size,
        "file_gb": round(n_bytes / 1e9, 3),
        "who": name,
        "seconds": median(lambda r: r["seconds"]),
        "best_seconds": round(min(r["seconds"] for r in runs), 2),
        "cpu_seconds": median(lambda r: r["cpu_seconds"]),
        "peak_mb": max(r["peak_mb"] for r in runs),
        "phases": {phase: median(lambda r, phase=phase: r["phases"][phase]) for phase in runs[0]["phases"]},
        "users": runs[0]["users"],
        "runs": runs,
    }


def show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="import, number, sort, save, split", title_justify="left")
    for head in ("million events", "who", "seconds", "best", "CPU s", "s per million", "peak MB", "phases"):
        table.add_column(head, justify="left" if head in ("who", "phases") else "right")
    for row in rows:
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in row["phases"].items())
        each = f"{row['seconds'] / row['million_events']:.3f}"
        cells = (row["seconds"], row["best_seconds"], row["cpu_seconds"])
        shown = [f"{cell:.1f}" for cell in cells]
        table.add_row(str(row["million_events"]), row["who"], *shown, each, f"{row['peak_mb']:,.0f}", phases)
    Console(width=140).print(table)


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    ours = {row["million_events"]: row for row in found["rows"] if row["who"] == "ours"}
    shown = [
        {
            "million events": row["million_events"],
            "file GB": row["file_gb"],
            "who": "tastemaker" if row["who"] == "ours" else row["who"],
            "seconds": row["seconds"],
            "CPU s": row["cpu_seconds"],
            "s per million": row["seconds"] / row["million_events"],
            "peak MB": row["peak_mb"],
            "times ours, seconds": row["seconds"] / ours[row["million_events"]]["seconds"],
        }
        for row in found["rows"]
    ]
    note = "The floor reads, sorts and saves with Polars alone: no vocabulary, no check, no split."
    return [page_table("A CSV of events imported, numbered, sorted, saved and split", shown, note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 5, 10, 25])
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # kernels are compiled once and kept: not part of an import
        path = str(Path(folder) / "warm.csv")
        generate(path, 100_000)
        in_fresh_process("import_events:ours", path=path, out=str(Path(folder) / "out"))
    rows = run(given.millions, given.runs)
    show(rows)
    mine = {row["million_events"]: row for row in rows if row["who"] == "ours"}
    small, large = mine[min(mine)], mine[max(mine)]
    each = {size: row["cpu_seconds"] / size for size, row in mine.items()}
    growth = (
        {"cpu_per_event_largest_over_smallest": round(each[max(mine)] / each[min(mine)], 2)} if len(mine) > 1 else {}
    )
    found = {"bar": BAR, "cores": os.cpu_count(), **growth, "rows": rows}
    path = write("import_events", found, tables(found))
    print(
        f"{large['million_events']} million: {large['seconds']} s, {large['peak_mb']:,.0f} MB; "
        f"{small['million_events']} million: {small['seconds']} s; load now {machine()['load_1min']}; {path}"
    )


if __name__ == "__main__":
    main()
