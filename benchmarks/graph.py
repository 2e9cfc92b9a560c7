"""A training step of LightGCN on Gowalla: its sparse products, and everything else.

70,839 nodes, 1,620,256 directed edges, vectors of 64, three layers, 2,048 pairs a step. In one process, in turn:
  step          ours, from the batch's numbers to the moved weights, by what the engine calls
  products      the sparse products of that step alone: two whole ones and one for the batch's nodes forward, one from
                the batch's nodes and two whole ones backward
  six products  what a step needs that smooths every node in every layer, forward and backward
  by layers     a step that does so, with our product
  by torch      a step that does so with torch's sparse COO product, as RecBole has it
  recommend     ours: vectors of all nodes made anew
RecBole runs its own LightGCN in its own environment and process: loss, gradient and Adam of its own batches.

python benchmarks/graph.py                 writes benchmarks/results/graph.json
python benchmarks/graph.py --rounds 15 --peers recbole

On a busy machine processor seconds are the steadier figure.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from common import data_folder, in_fresh_process, interleave, measure, page_table, write
from peers import peer

DIM, LAYERS, BATCH, REG = 64, 3, 2048, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", nargs="*", default=["recbole"])
    given = parser.parse_args()
    if data_folder("gowalla") is None:
        raise SystemExit("Gowalla is not there: set TASTEMAKER_DATA to the folder of data sets")
    beside = {}
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process("graph:prepare", folder=folder)
        done = in_fresh_process("graph:ours", folder=folder, rounds=given.rounds)
        if "recbole" in given.peers:
            old = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # RecBole 1.2.1 predates torch 2.6
            python = peer("recbole", timeout=3000)
            how: dict[str, Any] = {"python": python, "environment": old, "folder": folder}
            beside["recbole"] = in_fresh_process("graph:recbole", rounds=given.rounds, **how)
    for side, run in {"tastemaker": done, **beside}.items():
        if "error" in run:
            raise SystemExit(f"{side}: {run['error']}")
    timings, about = done["value"]["timings"], done["value"]["about"]
    found = {
        **about,
        "settings": {"dim": DIM, "n_layers": LAYERS, "batch_size": BATCH},
        "threads": len(os.sched_getaffinity(0)),
        "rounds": given.rounds,
        "timings": timings,
        "peak_mb": done["peak_mb"],
        "ratios": {f"step / {name}": ratios(timings["step"], timings[name]) for name in timings if name != "step"},
        "peers": beside,
    }
    write("graph", found, tables(found))


def ratios(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    return {clock: round(one[clock] / other[clock], 3) for clock in ("median_s", "median_cpu_s")}


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    names = {
        "step": "tastemaker, a step",
        "products": "its sparse products alone",
        "six products": "six whole products",
        "by layers": "a step by whole layers, our product",
        "by torch": "a step by whole layers, torch's COO product",
    }
    sides = {names[name]: timing for name, timing in found["timings"].items() if name in names}
    for run in found["peers"].values():
        sides["RecBole, a step"] = run["value"]
    own = sides[names["step"]]
    rows = [
        {
            "what": what,
            "seconds": timing["median_s"],
            "CPU s": timing["median_cpu_s"],
            "times a step of ours, CPU": timing["median_cpu_s"] / own["median_cpu_s"],
        }
        for what, timing in sides.items()
    ]
    return [page_table("LightGCN on Gowalla: a step of 2,048 pairs, 64 dimensions, three layers", rows)]


def prepare(folder: str) -> None:
    """Store users and items of the training part under dense numbers; RecBole's environment has no Polars."""
    import numpy as np
    import polars as pl

    source = data_folder("gowalla")
    assert source is not None
    table = pl.read_parquet(source / "interactions.parquet").filter(pl.col("split") == "train")
    users, items = (np.unique(table[column], return_inverse=True)[1] for column in ("user_id", "item_id"))
    np.savez(Path(folder) / "gowalla.npz", users=users, items=items)


def events(folder: str) -> Any:
    import numpy as np

    stored = np.load(Path(folder) / "gowalla.npz")
    return stored["users"], stored["items"]


def ours(folder: str, rounds: int) -> dict[str, Any]:
    """Seconds of our step and of its parts."""
    import polars as pl
    import torch
    from torch import nn

    from tastemaker.contracts import find
    from tastemaker.feeds import tensors
    from tastemaker.nn.sparse import power_sum, smoothed_reference, spmm
    from tastemaker.systems.graph import lightgcn
    from tastemaker.types import Dataset

    users, items = events(folder)
    tables = (pl.DataFrame({key: range(n.max() + 1)}) for key, n in (("user", users), ("item", items)))
    pairs = pl.DataFrame({"user": users, "item": items}).cast(pl.Int32)
    data, info = Dataset("gowalla", *tables, pairs), find("lightgcn")
    system = info.cls(info.config(dim=DIM, n_layers=LAYERS, batch_size=BATCH, reg=REG), data.schema)
    program = system.program(data)
    made = program.send(None)
    stage = program.send(made.function(*made.args))
    feed, graph, x = stage.feed, system.graph, system.table.weight
    adam = torch.optim.Adam(system.parameters(), lr=1e-3, fused=True)
    turn = iter(range(10**9))

    def step() -> None:
        batch = tensors(feed.batch(0, next(turn) % len(feed)), "cpu")
        adam.zero_grad(set_to_none=True)
        stage.objective(stage.gather(batch), batch).mean().backward()
        adam.step()

    def by(smoothing: Any) -> Any:
        def other() -> None:
            plain, lightgcn.smoothed = lightgcn.smoothed, smoothing
            try:
                step()
            finally:
                lightgcn.smoothed = plain

        return other

    def layers(graph: Any, x: Any, n: int, nodes: Any) -> Any:
        every = [x]
        for _ in range(n):
            every.append(spmm(graph, every[-1]))
        return nn.functional.embedding(nodes, torch.stack(every).mean(dim=0))

    batch = feed.batch(0, 0)
    numbers = [batch.users, batch.items + system.n_users, batch.negatives.ravel() + system.n_users]
    nodes = torch.unique(torch.cat([torch.from_numpy(n) for n in numbers]))
    slope = torch.randn(len(nodes), DIM)

    def products() -> None:
        from tastemaker.nn import sparse

        with torch.no_grad():
            spmm(graph, power_sum(graph, x, LAYERS - 1), x, nodes)
            total = sparse._spread(graph.columns, slope, nodes)
            for _ in range(LAYERS - 1):
                total = spmm(graph, total)

    def six() -> None:
        with torch.no_grad():
            for _ in range(2 * LAYERS):
                spmm(graph, x)

    def recommend() -> None:
        system.eval().train()
        system.vectors()

    sides = {
        "step": step,
        "products": products,
        "six products": six,
        "by layers": by(layers),
        "by torch": by(smoothed_reference),
        "recommend": recommend,
    }
    timings = {name: timing.to_json() for name, timing in interleave(sides, rounds, warm_up=2).items()}
    about = {
        "nodes": len(x),
        "edges": len(graph.values),
        "nodes of a batch": len(nodes),
        "edges of a batch's nodes": int(graph.degrees()[nodes].sum()),
    }
    return {"timings": timings, "about": about}


def recbole(folder: str, rounds: int) -> dict[str, Any]:
    """Seconds of RecBole's step on its own batches."""
    import recbole as library
    import torch
    from recbole_side import prepared

    _, train, model = prepared(
        "LightGCN", *events(folder), embedding_size=DIM, n_layers=LAYERS, reg_weight=REG, train_batch_size=BATCH
    )
    batches, adam = iter(train), torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        batch = next(batches)
        adam.zero_grad()
        model.calculate_loss(batch).backward()
        adam.step()

    return {"version": library.__version__, **measure(step, rounds, warm_up=2).to_json()}


if __name__ == "__main__":
    main()
