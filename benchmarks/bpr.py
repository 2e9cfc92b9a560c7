"""BPR-MF beside implicit's and RecBole's: seconds an epoch, and seconds to a peer's own best figure.

python benchmarks/bpr.py                          MovieLens-100K; writes benchmarks/results/bpr.json
python benchmarks/bpr.py --data gowalla --epochs 20 --peers implicit

A tenth of each user's choices, drawn at random, judges (NDCG@10, all other items as candidates); the others are
learnt from. Vectors of 64, one negative a choice. Ours and RecBole take batches of 2,048 and Adam, implicit descends
choice by choice; learning rates are each side's default. Every side runs in a process of its own, is looked at after
every few epochs by one and the same code, and the looking is not timed. An epoch is one pass over the choices.
"Profile" gives the shares of our own step.
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

DIM, BATCH, K, SEED = 64, 2048, 10, 42
SOURCES = {"ml-100k": "ratings.parquet", "gowalla": "interactions.parquet"}
LIBRARIES = ("implicit", "recbole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(SOURCES), default="ml-100k")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--every", type=int, default=5, help="epochs between looks")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers", nargs="*", default=list(LIBRARIES), choices=LIBRARIES)
    given = parser.parse_args()
    environment = {name: str(given.threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # RecBole predates torch 2.6
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        size = in_fresh_process("bpr:prepare", folder=folder, data=given.data)["value"]
        how: dict[str, Any] = {"folder": folder, "epochs": given.epochs, "every": given.every}
        how |= {"threads": given.threads, "environment": environment, "timeout": 3600}
        for side in ("ours", *given.peers):
            python = {} if side == "ours" else {"python": peer(side, timeout=3000)}
            done = in_fresh_process(f"bpr:{side}", **python, **how)
            if "error" in done:
                raise SystemExit(f"{side}: {done['error']}")
            sides[side] = {**done["value"], "peak_mb": done["peak_mb"]}
        profile = in_fresh_process("bpr:profile", folder=folder, environment=environment)["value"]
    found = {"data": given.data, "threads": given.threads, "settings": {"dim": DIM, "batch_size": BATCH}, **size}
    found |= {"sides": sides, "profile": profile}
    write("bpr" if given.data == "ml-100k" else f"bpr-{given.data}", found, tables(found))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    names = {"ours": "tastemaker", "implicit": "implicit", "recbole": "RecBole"}
    own = found["sides"]["ours"]
    rows = []
    for side, told in found["sides"].items():
        best = max(look["ndcg"] for look in told["looks"])
        rows.append(
            {
                "side": names[side],
                "epoch, s": told["epoch_s"],
                "epoch, CPU s": told["epoch_cpu_s"],
                "best NDCG@10": round(best, 4),
                "CPU s to it": reached(told, best),
                "ours to it, CPU s": reached(own, best),
                "one look, s": told["look_s"],
                "peak MB": told["peak_mb"],
            }
        )
    shares = [{"what": what, "share of a step": share} for what, share in found["profile"].items()]
    title = f"BPR-MF on {found['data']}: {found['choices']:,} choices, 64 dimensions, {found['threads']} threads"
    return [page_table(title, rows), page_table("Where a step of BPR-MF spends its time", shares)]


def reached(told: dict[str, Any], figure: float) -> float | None:
    """Processor seconds of training until a look first gave `figure`."""
    return next((look["cpu_s"] for look in told["looks"] if look["ndcg"] >= figure), None)


def prepare(folder: str, data: str) -> dict[str, int]:
    """Users and items under dense numbers; a tenth of each user's choices apart."""
    import numpy as np
    import polars as pl

    source = data_folder(data)
    assert source is not None, f"{data} is not at $TASTEMAKER_DATA"
    events = pl.read_parquet(source / SOURCES[data])
    if "split" in events.columns:
        events = events.filter(pl.col("split") == "train")
    users, items = (np.unique(events[name], return_inverse=True)[1] for name in ("user_id", "item_id"))
    drawn = np.lexsort((np.random.default_rng(SEED).random(len(users)), users))
    first = np.concatenate([[0], np.cumsum(np.bincount(users))])[:-1]
    rank = np.empty(len(users), dtype=np.int64)
    rank[drawn] = np.arange(len(users)) - first[users[drawn]]
    held = rank < np.bincount(users)[users] // 10
    np.savez(Path(folder) / "choices.npz", users=users, items=items, held=held)
    return {"users": int(users.max()) + 1, "items": int(items.max()) + 1, "choices": int((~held).sum())}


class Look:
    """NDCG@10 of vectors, or of vectors and a bias, on the choices held back; times what lies between looks."""

    def __init__(self, folder: str) -> None:
        import numpy as np
        import scipy.sparse as sp

        stored = np.load(Path(folder) / "choices.npz")
        users, items, held = stored["users"], stored["items"], stored["held"]
        shape = (users.max() + 1, items.max() + 1)
        self.users, self.items = users[~held], items[~held]
        ones = np.ones(len(users), dtype=np.float32)
        self.train = sp.csr_matrix((ones[~held], (self.users, self.items)), shape=shape)
        self.held = sp.csr_matrix((ones[held], (users[held], items[held])), shape=shape)
        self.looks: list[dict[str, float]] = []
        self.epochs: list[tuple[float, float]] = []
        self.spent, self.looking = 0.0, []
        self.begin()

    def begin(self) -> None:
        self.since = time.perf_counter(), time.process_time()

    def epoch(self, n: int = 1) -> None:
        """`n` epochs have ended."""
        wall, cpu = time.perf_counter() - self.since[0], time.process_time() - self.since[1]
        self.epochs += [(wall / n, cpu / n)] * n
        self.spent += cpu
        self.begin()

    def at(self, users: Any, items: Any) -> float:
        """Judge vectors [U, D] and [I, D]."""
        import numpy as np

        began, total = time.perf_counter(), 0.0
        judged = np.flatnonzero(np.diff(self.held.indptr))
        gains = 1 / np.log2(np.arange(2, K + 2))
        for start in range(0, len(judged), 1000):
            rows = judged[start : start + 1000]
            scores = users[rows] @ items.T
            seen = self.train[rows]
            scores[np.repeat(np.arange(len(rows)), np.diff(seen.indptr)), seen.indices] = -np.inf
            top = np.argpartition(-scores, K, axis=1)[:, :K]
            top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1)
            right = np.asarray(self.held[np.repeat(rows, K), top.ravel()]).reshape(len(rows), K) > 0
            most = np.cumsum(gains)[np.minimum(np.diff(self.held.indptr)[rows], K) - 1]
            total += float(((right * gains).sum(axis=1) / most).sum())
        self.looks.append({"epoch": len(self.epochs), "cpu_s": round(self.spent, 3), "ndcg": total / len(judged)})
        self.looking.append(time.perf_counter() - began)
        self.begin()
        return self.looks[-1]["ndcg"]

    def value(self, version: str) -> dict[str, Any]:
        later = self.epochs[1:] or self.epochs
        return {
            "version": version,
            "epoch_s": round(statistics.median(wall for wall, _ in later), 4),
            "epoch_cpu_s": round(statistics.median(cpu for _, cpu in later), 4),
            "look_s": round(statistics.median(self.looking), 3),
            "looks": [{**look, "ndcg": round(look["ndcg"], 5)} for look in self.looks],
        }


def world(folder: str) -> tuple[Any, Look]:
    import polars as pl

    from tastemaker.types import Dataset

    look = Look(folder)
    tables = (pl.DataFrame({key: range(n)}) for key, n in zip(("user", "item"), look.train.shape, strict=True))
    pairs = pl.DataFrame({"user": look.users, "item": look.items}).cast(pl.Int32)
    return Dataset("choices", *tables, pairs), look


def ours(folder: str, epochs: int, every: int, threads: int) -> dict[str, Any]:
    import numpy as np

    import tastemaker
    from tastemaker.train import fit
    from tastemaker.types import Requests, quiet

    data, look = world(folder)
    everybody = Requests(data.n_users, users=np.arange(data.n_users, dtype=np.int32))

    class Watch:
        def log(self, record: Any) -> None:
            if record["event"] == "start":
                look.begin()
            if record["event"] == "epoch":
                look.epoch()

    def judge(system: Any, metric: str) -> float:
        return look.at(system.queries(everybody).numpy(), system.items().numpy())

    config = {"dim": DIM, "batch_size": BATCH, "epochs": epochs, "every": every, "patience": 10**6}
    with quiet():
        fit("bpr-mf", data, config, judge=judge, loggers=[Watch()])
    return look.value(tastemaker.__version__)


def profile(folder: str, steps: int = 200) -> dict[str, float]:
    """Shares of the time of a step: making the batch, forward, backward, optimiser."""
    import torch

    from tastemaker.contracts import find
    from tastemaker.feeds import tensors
    from tastemaker.nn.row_adam import RowAdam

    data, _ = world(folder)
    info = find("bpr-mf")
    system = info.cls(info.config(dim=DIM, batch_size=BATCH), data.schema)
    stage = system.program(data).send(None)
    adam = RowAdam(list(system.parameters()), lr=1e-3)
    spent = dict.fromkeys(("sampling", "forward", "backward", "optimiser"), 0.0)
    for step in range(steps + 20):
        times = [time.perf_counter()]
        batch = tensors(stage.feed.batch(step // len(stage.feed), step % len(stage.feed)), "cpu")
        times.append(time.perf_counter())
        loss = stage.objective(stage.gather(batch), batch).mean()
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        adam.step()
        adam.zero_grad(set_to_none=True)
        times.append(time.perf_counter())
        if step >= 20:
            for name, before, after in zip(spent, times, times[1:], strict=False):
                spent[name] += after - before
    total = sum(spent.values())
    assert torch.isfinite(loss)
    return {name: round(seconds / total, 3) for name, seconds in spent.items()}


def implicit(folder: str, epochs: int, every: int, threads: int) -> dict[str, Any]:
    """implicit forgets what it learnt at every call of `fit`, so each look is a whole run of its own."""
    import implicit as library
    from implicit.bpr import BayesianPersonalizedRanking

    look = Look(folder)
    for n in [1, *range(every, epochs + 1, every)]:
        model = BayesianPersonalizedRanking(factors=DIM, iterations=n, num_threads=threads, random_state=SEED)
        look.spent, look.epochs = 0.0, []
        look.begin()
        model.fit(look.train, show_progress=False)
        look.epoch(n)
        look.at(model.user_factors, model.item_factors)
    return look.value(library.__version__)


def recbole(folder: str, epochs: int, every: int, threads: int) -> dict[str, Any]:
    import numpy as np
    import recbole as library
    import torch
    from recbole.trainer import Trainer
    from recbole_side import prepared

    torch.set_num_threads(threads)
    look = Look(folder)
    config, train, model = prepared("BPR", look.users, look.items, embedding_size=DIM, train_batch_size=BATCH)
    tokens = train.dataset.field2id_token

    def vectors(table: Any, field: str, n: int) -> Any:
        rows = np.zeros((n, DIM), dtype=np.float32)
        rows[np.array(tokens[field][1:], dtype=np.int64)] = table.weight.detach().numpy()[1:]
        return rows

    trainer = Trainer(config, model)
    for epoch in range(1, epochs + 1):
        look.begin()
        trainer._train_epoch(train, epoch, show_progress=False)
        look.epoch()
        if epoch == 1 or epoch % every == 0:
            n_users, n_items = look.train.shape
            look.at(
                vectors(model.user_embedding, "user_id", n_users), vectors(model.item_embedding, "item_id", n_items)
            )
    return look.value(library.__version__)


if __name__ == "__main__":
    main()
