"""iALS beside implicit's ALS: seconds until each reaches the same value of the same objective.

python benchmarks/ials.py                 writes benchmarks/results/ials.json
python benchmarks/ials.py --rounds 5 --sweeps 20

Both sides get the same matrix, the same first item factors and the same objective (Hu, Koren, Volinsky 2008:
a chosen pair weighs alpha, every other pair 1, all factors are regularised alike). The factors after every sweep
are kept and their objective is computed afterwards by one function. Each round runs every side once, each in a
process of its own that first warms up; times are those of the sweeps, the transposed matrix included, and the
comparison is of medians over rounds. Both run with their default solvers, three steps of conjugate gradients
(ours for rows of many choices, and users start at 0, not at random), and with their exact ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import data_folder, in_fresh_process, page_table, write
from peers import peer

DATA = ("ml-1m", "gowalla")
DIM, ALPHA, REG = 64, 40.0, 0.01
SIDES = {
    "tastemaker": "ours_cg",
    "tastemaker, exact": "ours_exact",
    "implicit, cg": "theirs_cg",
    "implicit, cholesky": "theirs_exact",
}
RACES = {"implicit, cg": "tastemaker", "implicit, cholesky": "tastemaker, exact"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweeps", type=int, default=15)
    given = parser.parse_args()
    python, threads = peer("implicit"), len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"dim": DIM, "alpha": ALPHA, "reg": REG, "threads": threads, "rounds": given.rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name in DATA:
            if data_folder(name) is None:
                continue
            size = in_fresh_process("ials:prepare", name=name, folder=folder)["value"]
            runs: dict[str, list[Any]] = {side: [] for side in SIDES}
            for turn in range(given.rounds):
                for side in sorted(SIDES, reverse=bool(turn % 2)):
                    theirs = {"python": python, "environment": {"OPENBLAS_NUM_THREADS": "1"}}
                    peers = theirs if side in RACES else {}
                    settings = {"folder": folder, "name": name, "threads": threads, "sweeps": given.sweeps}
                    done = in_fresh_process(f"ials:{SIDES[side]}", **peers, **settings)
                    if "error" in done:
                        raise SystemExit(f"{side} on {name}: {done['error']}")
                    runs[side].append(done)
            curves = {
                side: in_fresh_process("ials:objectives", folder=folder, name=name, side=SIDES[side])["value"]
                for side in SIDES
            }
            found[name] = {**size, **compare(curves, runs)}
    write("ials", found, tables(found))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in DATA:
        for goal, mine in RACES.items() if name in found else ():
            race = next(value for key, value in found[name].items() if key.startswith(f"to the objective of {goal},"))
            sweeps = len(found[name][goal]["objective"])
            for side, who, n in ((mine, "ours", race["sweeps of ours"]), (goal, "theirs", sweeps)):
                cpu, ours = race[f"{who}_cpu_seconds"], race["ours_cpu_seconds"]
                rows.append(
                    {
                        "data": name,
                        "objective": race["objective"],
                        "who": side,
                        "sweeps": n,
                        "seconds": race[f"{who}_seconds"],
                        "CPU s": cpu,
                        "peak MB": found[name][side]["peak_mb"],
                        "times ours, CPU": cpu / ours if ours else None,
                    }
                )
    title = f"ALS, {found['dim']} dimensions: until the objective at which implicit ends is reached"
    return [page_table(title, rows)]


def compare(curves: dict[str, list[float]], runs: dict[str, list[Any]]) -> dict[str, Any]:
    """Objective and median seconds after each sweep, and how long each side takes to what another ends at."""
    table: dict[str, Any] = {}
    clocks: dict[str, dict[str, list[float]]] = {}
    for side, done in runs.items():
        clocks[side] = {
            clock: [round(statistics.median(at), 3) for at in zip(*(run["value"][clock] for run in done), strict=True)]
            for clock in ("seconds", "cpu_seconds")
        }
        peak = max(run["peak_mb"] for run in done)
        table[side] = {"objective": [round(v) for v in curves[side]], **clocks[side], "peak_mb": peak}
    for goal, mine in RACES.items():
        value = curves[goal][-1]
        reached = next((n for n, v in enumerate(curves[mine]) if v <= value * (1 + 1e-6)), None)  # but for rounding
        ours = {clock: None if reached is None else clocks[mine][clock][reached] for clock in clocks[goal]}
        table[f"to the objective of {goal}, {len(curves[goal])} sweeps"] = {
            "objective": round(value),
            "sweeps of ours": None if reached is None else reached + 1,
            **{f"ours_{clock}": ours[clock] for clock in ours},
            **{f"theirs_{clock}": clocks[goal][clock][-1] for clock in ours},
            **{f"theirs / ours, {c}": round(clocks[goal][c][-1] / ours[c], 2) for c in ours if ours[c]},
        }
    return table


def prepare(name: str, folder: str) -> dict[str, int]:
    """Store the training choices of a data set under dense numbers, and the first factors of its items."""
    import numpy as np
    import polars as pl

    source = data_folder(name)
    assert source is not None
    events = pl.read_parquet(source / "interactions.parquet").filter(pl.col("split") == "train")
    users, items = (np.unique(events[column], return_inverse=True)[1] for column in ("user_id", "item_id"))
    first = np.random.default_rng(0).random((items.max() + 1, DIM), dtype=np.float32) * np.float32(0.01)
    np.savez(Path(folder) / f"{name}.npz", users=users, items=items, first=first)
    return {"users": int(users.max()) + 1, "items": len(first), "choices": len(users)}


def load(folder: str, name: str) -> tuple[Any, Any]:
    """The matrix of choices, and the first factors."""
    import numpy as np
    import scipy.sparse as sp

    stored = np.load(Path(folder) / f"{name}.npz")
    pairs = stored["users"], stored["items"]
    return sp.csr_array((np.ones(len(pairs[0]), dtype=np.float32), pairs)), stored["first"]


class Clock:
    """Wall and processor seconds of the sweeps; storing factors in between does not count."""

    def __init__(self, folder: str, side: str) -> None:
        self.folder, self.side = Path(folder), side
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.resume()

    def resume(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def lap(self, users: Any, items: Any) -> None:
        import numpy as np

        now = time.perf_counter(), time.process_time()
        for laps, since, until in zip((self.seconds, self.cpu_seconds), self.start, now, strict=True):
            laps.append((laps[-1] if laps else 0.0) + until - since)
        np.savez(self.folder / f"{self.side}-{len(self.seconds):03d}.npz", users=users, items=items)
        self.resume()

    def value(self) -> dict[str, list[float]]:
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


def ours_cg(folder: str, name: str, threads: int, sweeps: int) -> dict[str, list[float]]:
    from tastemaker.systems.classical.ials import IALS

    return ours("ours_cg", IALS.Config().steps, folder, name, sweeps)


def ours_exact(folder: str, name: str, threads: int, sweeps: int) -> dict[str, list[float]]:
    return ours("ours_exact", 0, folder, name, sweeps)


def ours(side: str, steps: int, folder: str, name: str, sweeps: int) -> dict[str, list[float]]:
    """Our sweeps; on all cores, which are as many as the threads the others get."""
    import numpy as np

    from tastemaker.systems.classical.ials import sweep

    matrix, first = load(folder, name)
    for n in (1, sweeps):  # the first round warms up
        clock = Clock(folder, side)
        users, items = np.zeros((matrix.shape[0], DIM), dtype=np.float32), first
        transposed = matrix.T.tocsr()
        for _ in range(n):
            users, items = sweep(matrix, transposed, users, items, penalty(), steps)
            clock.lap(users, items)
    return clock.value()


def theirs_cg(folder: str, name: str, threads: int, sweeps: int) -> dict[str, list[float]]:
    return theirs("theirs_cg", True, folder, name, threads, sweeps)


def theirs_exact(folder: str, name: str, threads: int, sweeps: int) -> dict[str, list[float]]:
    return theirs("theirs_exact", False, folder, name, threads, sweeps)


def theirs(side: str, use_cg: bool, folder: str, name: str, threads: int, sweeps: int) -> dict[str, list[float]]:
    """implicit's sweeps, seen through its callback."""
    import scipy.sparse as sp
    from implicit.cpu.als import AlternatingLeastSquares

    matrix, first = load(folder, name)
    for n in (1, sweeps):
        model = AlternatingLeastSquares(
            DIM, regularization=REG, alpha=ALPHA, use_cg=use_cg, iterations=n, num_threads=threads, random_state=0
        )
        model.item_factors = first.copy()
        clock = Clock(folder, side)

        def keep(*_: Any, clock: Clock = clock, model: Any = model) -> None:
            clock.lap(model.user_factors, model.item_factors)

        model.fit(sp.csr_matrix(matrix), show_progress=False, callback=keep)
    return clock.value()


def penalty() -> Any:
    """The objective of both sides, as ours names it."""
    from tastemaker.systems.classical.ials import Penalty

    return Penalty(reg=REG, nu=0.0, unobserved=1.0, alpha=ALPHA, replaces=True)


def objectives(folder: str, name: str, side: str) -> list[float]:
    """The objective at the factors that one side left after each sweep."""
    import numpy as np

    from tastemaker.systems.classical.ials import objective

    matrix, _ = load(folder, name)
    kept = [np.load(path) for path in sorted(Path(folder).glob(f"{side}-*.npz"))]
    return [objective(matrix, factors["users"], factors["items"], penalty()) for factors in kept]


if __name__ == "__main__":
    main()
