"""Diag-LinUCB at a million edges: edge updates a second on one core, and how long a look-up takes.

python benchmarks/diag_linucb.py                       writes benchmarks/results/diag_linucb.json
python benchmarks/diag_linucb.py --edges 100000 --seconds 1

The graph is random: 5,000 clusters with 200 links each into 200,000 items. A trial touches the edges of one item to
the five clusters of who was served. An update is timed from `Feedback`, with its trace, to the delta, an apply from the
delta to the snapshot that answers; a look-up from the requests to lists of 20 with their trace. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from common import page_table, peak_mb, write

from tastemaker.contracts import find
from tastemaker.index.threads import stay_alone
from tastemaker.nn.clusters import Clusters
from tastemaker.nn.edges import CLUSTER, Edges
from tastemaker.nn.space import Space, unit
from tastemaker.types import Columns, Feedback, Jagged, Requests, Schema, Slates, generator, request_seeds

WIDTH, DIM, NEAREST = 200, 32, 5


def made(n_edges: int, n_users: int = 50_000) -> Any:
    """A system of so many edges, as if it had been fitted and had learnt."""
    rng = generator(0, "diag-linucb benchmark")
    n_clusters, n_items = n_edges // WIDTH, max(n_edges // 5, 2 * WIDTH)
    info = find("diag-linucb")
    system = info.cls(info.config(n_clusters=n_clusters, nearest=NEAREST), Schema(n_users, n_items))
    vectors = {
        name: unit(rng.standard_normal((n, DIM)))
        for name, n in (("users", n_users), ("items", n_items), ("centres", n_clusters))
    }
    system.space = Space(vectors["users"], vectors["items"])
    system.clusters = Clusters(vectors["centres"], NEAREST, 0.3)
    links = np.stack([rng.choice(n_items, WIDTH, replace=False) for _ in range(n_clusters)])
    keys = (np.arange(n_clusters)[:, None] * CLUSTER + links).ravel()
    seen = 1.0 + rng.gamma(2.0, size=len(keys))
    system.edges = Edges.of(keys, n_clusters, seen, rng.random(len(keys)) * (seen - 1))
    return system


def feedback(system: Any, n: int, seed: int) -> Feedback:
    """n trials of items that edges lead to, with the trace as served."""
    rng = generator(seed, "feedback")
    asked = Requests.of_users(rng.integers(0, system.schema.n_users, n))
    numbers, weights = system.clusters.memberships(system.space.queries(asked))
    place = system.edges.offsets[numbers[:, 0]] + rng.integers(0, WIDTH, n)
    items = system.edges.items[place]
    columns = Columns(
        item=items, kind=np.full(n, "click", dtype=object), value=rng.integers(0, 2, n).astype(np.float32)
    )
    slates = Slates(items[:, None], np.zeros((n, 1)), trace=Columns(cluster=numbers, weight=weights))
    return Feedback(asked, events=Jagged(columns, np.arange(n + 1)), slates=slates)


def rate(work: Callable[[], Any], amount: int, seconds: float) -> dict[str, float]:
    """How much is done in a second of processor time, a call doing `amount`; and quantiles of a call's time, by the
    processor and by the clock, in milliseconds. On a machine that others use too, the processor's are the steadier."""
    work()
    clock: list[float] = []
    processor: list[float] = []
    while sum(clock) < seconds or len(clock) < 5:
        began, used = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    p50, p99 = np.quantile(processor, [0.5, 0.99]) * 1000
    return {
        "per_second": amount * len(processor) / sum(processor),
        "p50_cpu_ms": float(p50),
        "p99_cpu_ms": float(p99),
        "p50_ms": float(np.median(clock) * 1000),
        "n": len(clock),
    }


def measured(n_edges: int, seconds: float) -> dict[str, Any]:
    stay_alone()
    numba.set_num_threads(1)
    system = made(n_edges)
    found: dict[str, Any] = {}
    for n in (1_000, 50_000):
        trials = feedback(system, n, seed=n)
        delta = system.update(trials)
        found[f"update {n}"] = rate(lambda trials=trials: system.update(trials), n * NEAREST, seconds)
        found[f"merge {n}"] = rate(lambda delta=delta: system.merge(delta, delta), 2 * len(delta.keys), seconds)
        found[f"apply {n}"] = rate(lambda delta=delta: system.apply(delta), len(delta.keys), seconds)
    for n in (1, 64):
        rows = iter(range(10**9))

        def look_up(n: int = n, rows: Any = rows) -> Slates:
            users = (np.arange(n) + n * next(rows)) % system.schema.n_users
            return system.retrieve(Requests(n, users=users, seeds=request_seeds(n, 0)), 20)

        found[f"look up {n}"] = rate(look_up, n, seconds)
    return found


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "what": what,
            "a second of one core": f"{one['per_second']:,.0f}",
            "median CPU ms": round(one["p50_cpu_ms"], 3),
            "p99 CPU ms": round(one["p99_cpu_ms"], 3),
            "median ms by the clock": round(one["p50_ms"], 3),
        }
        for what, one in found["measured"].items()
    ]
    note = "Look-ups are counted in requests, all else in edges; the number is how many trials or requests a call has."
    return [page_table(f"Diag-LinUCB, {found['edges']:,} edges, one core", rows, note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each figure is measured")
    given = parser.parse_args()
    found = {"edges": given.edges, "measured": measured(given.edges, given.seconds), "peak_mb": round(peak_mb(), 1)}
    print(write("diag_linucb", found, tables(found)))


if __name__ == "__main__":
    main()
