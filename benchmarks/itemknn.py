"""ItemKNN beside implicit's: the same data, the same measures, fit and lists for every user, in turn.

python benchmarks/itemknn.py                 writes benchmarks/results/itemknn.json
python benchmarks/itemknn.py --rounds 3

Each round runs both sides once, each in a process of its own that first warms up, and the ratio is of medians.
Ours is timed from the Dataset to the fitted bundle, implicit's from the finished CSR matrix.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import data_folder, in_fresh_process, page_table, write
from peers import peer

DATA = ("ml-1m", "gowalla")
MODELS: dict[str, dict[str, Any]] = {
    "cosine": {"weighting": "none", "neighbours_of": "history"},
    "bm25": {"weighting": "bm25", "similarity": "dot", "neighbours_of": "history"},
}
NEIGHBOURS, K = 100, 20
TIMES = "fit_s", "fit_cpu_s", "recommend_all_s", "recommend_all_cpu_s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    python, threads = peer("implicit"), len(os.sched_getaffinity(0))
    sides: dict[str, dict[str, Any]] = {
        "tastemaker": {"function": "itemknn:ours"},
        "implicit": {"function": "itemknn:theirs", "python": python, "environment": {"OPENBLAS_NUM_THREADS": "1"}},
    }
    found: dict[str, Any] = {"neighbours": NEIGHBOURS, "k": K, "threads": threads, "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name in DATA:
            if data_folder(name) is None:
                continue
            size = in_fresh_process("itemknn:prepare", name=name, folder=folder)["value"]
            runs: dict[str, list[Any]] = {side: [] for side in sides}
            for turn in range(rounds):
                for side in sorted(sides, reverse=bool(turn % 2)):
                    done = in_fresh_process(**sides[side], folder=folder, name=name, threads=threads)
                    if "error" in done:
                        raise SystemExit(f"{side} on {name}: {done['error']}")
                    runs[side].append(done)
            found[name] = {**size, **{model: _compare(model, runs) for model in MODELS}}
    write("itemknn", found, tables(found))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in DATA:
        for model in MODELS if name in found else ():
            sides = found[name][model]
            for side in ("tastemaker", "implicit"):
                one = sides[side]
                rows.append(
                    {
                        "data": name,
                        "similarity": model,
                        "library": side,
                        "fit s": one["fit_s"],
                        "all lists s": one["recommend_all_s"],
                        "CPU s": one["fit_cpu_s"] + one["recommend_all_cpu_s"],
                        "peak MB": one["peak_mb"],
                        "Recall@20": one["recall@20"],
                        "times ours, seconds": one["both_s"] / sides["tastemaker"]["both_s"],
                    }
                )
    title = f"ItemKNN, {found['neighbours']} neighbours: fit, and the {found['k']} best items for every user"
    return [page_table(title, rows, "implicit makes these lists user by user, on one core.")]


def _compare(model: str, runs: dict[str, list[Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for side, done in runs.items():
        rows = [run["value"][model] for run in done]
        both = statistics.median(row["fit_s"] + row["recommend_all_s"] for row in rows)
        table[side] = {
            "both_s": round(both, 4),
            **{what: statistics.median(row[what] for row in rows) for what in rows[0]},
            "peak_mb": max(run["peak_mb"] for run in done),
            "runs": [[row["fit_s"], row["recommend_all_s"]] for row in rows],
        }
    for what in ("both_s", *TIMES):
        table[f"implicit / tastemaker, {what}"] = round(table["implicit"][what] / table["tastemaker"][what], 2)
    return table


def prepare(name: str, folder: str) -> dict[str, int]:
    """Store training and test choices of a data set under dense numbers, for both sides to read."""
    import numpy as np
    import polars as pl

    source = data_folder(name)
    assert source is not None
    events = pl.read_parquet(source / "interactions.parquet")
    users, items = (np.unique(events[column], return_inverse=True)[1] for column in ("user_id", "item_id"))
    part = events["split"].to_numpy()
    train, test = part == "train", part == "test"
    held = {"test_users": users[test], "test_items": items[test]}
    np.savez(Path(folder) / f"{name}.npz", users=users[train], items=items[train], **held)
    return {"users": int(users.max()) + 1, "items": int(items.max()) + 1, "choices": int(train.sum())}


def ours(folder: str, name: str, threads: int) -> dict[str, Any]:
    """Our side: seconds of `fit` and of lists for all users."""
    import numba
    import numpy as np
    import polars as pl

    from tastemaker.train import fit
    from tastemaker.types import Dataset, Requests

    numba.set_num_threads(threads)
    stored = np.load(Path(folder) / f"{name}.npz")
    shape = [
        int(max(stored[a].max(), stored[b].max())) + 1 for a, b in (("users", "test_users"), ("items", "test_items"))
    ]
    tables = (pl.DataFrame({key: np.arange(n)}) for key, n in zip(("user", "item"), shape, strict=True))
    events = pl.DataFrame({"user": stored["users"], "item": stored["items"]}).cast(pl.Int32)
    data = Dataset(name, *tables, events)
    data.fingerprint  # noqa: B018 - belongs to reading the data, not to the fit
    history = data.histories()
    requests = Requests(data.n_users, history=history, exclude=history.column("item"))
    answers = {}
    for model, config in MODELS.items():

        def fit_it(config: Any = config) -> Any:
            return fit("itemknn", data, {"neighbours": NEIGHBOURS, **config})

        fitted, *fit_s = _second_time(fit_it)
        slates, *recommend_s = _second_time(lambda fitted=fitted: fitted.retriever.retrieve(requests, K))
        answers[model] = _row(stored, slates.items, fit_s, recommend_s)
    return answers


def theirs(folder: str, name: str, threads: int) -> dict[str, Any]:
    """implicit's side."""
    import warnings

    import numpy as np
    import scipy.sparse as sp
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

    warnings.simplefilter("ignore")
    stored = np.load(Path(folder) / f"{name}.npz")
    pairs = stored["users"], stored["items"]
    shape = [
        int(max(stored[a].max(), stored[b].max())) + 1 for a, b in (("users", "test_users"), ("items", "test_items"))
    ]
    matrix = sp.csr_matrix((np.ones(len(pairs[0]), dtype=np.float32), pairs), shape=shape)
    answers = {}
    for model, kind in (("cosine", CosineRecommender), ("bm25", BM25Recommender)):

        def fit_it(kind: Any = kind) -> Any:
            fitted = kind(K=NEIGHBOURS, num_threads=threads)
            fitted.fit(matrix, show_progress=False)
            return fitted

        fitted, *fit_s = _second_time(fit_it)

        def recommend(fitted: Any = fitted) -> Any:
            return fitted.recommend(np.arange(shape[0]), matrix, N=K)

        lists, *recommend_s = _second_time(recommend)
        answers[model] = _row(stored, lists[0], fit_s, recommend_s)
    return answers


def _second_time(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the function gives, and its wall and processor seconds once it has run before."""
    function()
    start, used = time.perf_counter(), time.process_time()
    value = function()
    return value, round(time.perf_counter() - start, 4), round(time.process_time() - used, 4)


def _row(stored: Any, lists: Any, fit: Sequence[float], recommend: Sequence[float]) -> dict[str, float]:
    return {**dict(zip(TIMES, (*fit, *recommend), strict=True)), "recall@20": _recall(stored, lists)}


def _recall(stored: Any, lists: Any) -> float:
    """Recall@20 on the test part: that both sides do the same work shows in it."""
    import numpy as np

    users, items = stored["test_users"], stored["test_items"]
    hits = (lists[users] == items[:, None]).any(axis=1)
    counts = np.bincount(users)
    per_user = np.bincount(users, hits)[counts > 0] / counts[counts > 0]
    return round(float(per_user.mean()), 4)


if __name__ == "__main__":
    main()
