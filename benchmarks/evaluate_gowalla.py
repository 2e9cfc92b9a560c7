"""Top-20 lists for every user of Gowalla from 64-dimensional vectors, what a user has seen excluded.

29,858 users x 40,981 items. Measured in one run, on all cores:
  product      the matrix product alone, in blocks, by BLAS
  bare         the product and the selection of the 20 best, in the best of some block sizes; nothing excluded
  retriever    ours, from requests to lists
  evaluate     ours, from a split to a report: recall and NDCG; with all usual metrics; apart from these AUC and
               R-precision, which read every score
  implicit     recommend_all of implicit, the same vectors, its own environment
  RecBole      its evaluator, the same vectors in its BPR model, its own environment

python benchmarks/evaluate_gowalla.py [--repeats 5] [--peers implicit recbole] [--recbole-every 10]

RecBole's default takes users one at a time, so that it is shown on every tenth user; 1 takes them all.

The data set is looked for under $TASTEMAKER_DATA; without it users and items are drawn at random.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import copy_peak, data_folder, in_fresh_process, interleave, measure, page_table, sgemm_peak, write

N_USERS, N_ITEMS, DIM, K = 29_858, 40_981, 64, 20
BLOCKS = (128, 256, 512)


def events() -> tuple[str, Any, Any, Any]:
    """Where they come from, users and items, and which of the pairs are for training."""
    folder = data_folder("gowalla")
    if folder is None:
        rng = np.random.default_rng(0)
        pairs = np.unique(rng.integers(0, N_USERS * N_ITEMS, 1_027_370))
        return "random pairs", pairs // N_ITEMS, pairs % N_ITEMS, rng.random(len(pairs)) < 0.8
    import polars as pl

    table = pl.read_parquet(folder / "interactions.parquet")
    return "Gowalla", *(table[c].to_numpy() for c in ("user_id", "item_id")), (table["split"] == "train").to_numpy()


def prepare(folder: Path) -> str:
    """Store the pairs and singular vectors of the training matrix, found by two rounds of subspace iteration."""
    import scipy.sparse as sp

    source, users, items, train = events()
    matrix = sp.csr_array((np.ones(train.sum(), np.float32), (users[train], items[train])), shape=(N_USERS, N_ITEMS))
    scale = [np.maximum(np.asarray(matrix.sum(axis=a)), 1.0) ** -0.5 for a in (1, 0)]
    matrix = (sp.diags_array(scale[0]) @ matrix @ sp.diags_array(scale[1])).tocsr().astype(np.float32)
    basis = np.random.default_rng(0).standard_normal((N_ITEMS, DIM), dtype=np.float32)
    for _ in range(2):
        basis = np.linalg.qr(matrix.T @ (matrix @ basis))[0]
    arrays = {"users": users, "items": items, "train": train, "queries": matrix @ basis, "vectors": basis}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array))
    return source


def load(folder: str) -> dict[str, Any]:
    return {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}


class Vectors:
    """A system that gives stored vectors."""

    def __init__(self, queries: Any, vectors: Any) -> None:
        self._queries, self._vectors = queries, vectors

    def queries(self, requests: Any) -> Any:
        return self._queries[requests.users]

    def items(self, numbers: Any = None) -> Any:
        return self._vectors if numbers is None else self._vectors[numbers]


def split_of(arrays: dict[str, Any]) -> Any:
    import polars as pl

    from tastemaker.types import Dataset, Split

    table = pl.DataFrame({n: arrays[n + "s"] for n in ("user", "item")}, schema={"user": pl.Int32, "item": pl.Int32})
    order = np.argsort(arrays["users"], kind="stable")
    people, things = (pl.DataFrame({n: np.arange(size)}) for n, size in (("user", N_USERS), ("item", N_ITEMS)))
    data = Dataset("gowalla", people, things, table[order])
    return Split("given", data, np.where(arrays["train"][order], 0, 2))


def floors_and_ours(folder: str, repeats: int) -> dict[str, Any]:
    """Everything that shares a process: product, bare, retriever, evaluate, timed in turn."""
    from tastemaker.evaluate import evaluate
    from tastemaker.index import retriever, select

    arrays = load(folder)
    queries, vectors = arrays["queries"], arrays["vectors"]
    split = split_of(arrays)
    requests = split.cases("test").requests
    buffer = np.empty(max(BLOCKS) * N_ITEMS, dtype=np.float32)

    def product(rows: int, then: Any = None) -> None:
        for start in range(0, N_USERS, rows):
            asked = queries[start : start + rows]
            scores = buffer[: len(asked) * N_ITEMS].reshape(len(asked), N_ITEMS)
            np.matmul(asked, vectors.T, out=scores)
            if then is not None:
                then(scores, K)

    system = Vectors(queries, vectors)
    ours = retriever(system)
    runs = {f"product, blocks of {rows}": lambda rows=rows: product(rows) for rows in BLOCKS}
    runs |= {f"bare, blocks of {rows}": lambda rows=rows: product(rows, select) for rows in BLOCKS}
    runs["retriever"] = lambda: ours.retrieve(requests, K)
    runs["evaluate, recall and ndcg"] = lambda: evaluate(system, split, ks=(K,), metrics=("recall", "ndcg"), slices=())
    runs["evaluate, all usual metrics"] = lambda: evaluate(system, split, ks=(K,), slices=())
    report = evaluate(system, split, ks=(K,), metrics=("recall", "ndcg"), slices=())
    whole = measure(lambda: evaluate(system, split, ks=(), metrics=("auc", "r_precision"), slices=()), min(repeats, 3))
    return {
        "requests": requests.n,
        "metrics": {name: round(float(values.mean()), 4) for name, values in report.rows.items()},
        "sgemm_peak_gflops": round(sgemm_peak(), 1),
        "copy_gb_per_s": round(copy_peak(), 1),
        "auc_and_r_precision": whole.to_json(),
        "timings": {name: timing.to_json() for name, timing in interleave(runs, repeats).items()},
    }


def lists_alone(folder: str) -> int:
    """The retriever's road in a process of its own, for its peak memory."""
    from tastemaker.index import retriever

    arrays = load(folder)
    cases = split_of(arrays).cases("test")
    return len(retriever(Vectors(arrays["queries"], arrays["vectors"])).retrieve(cases.requests, K))


def evaluate_alone(folder: str) -> int:
    """The evaluator's road in a process of its own, for its peak memory."""
    from tastemaker.evaluate import evaluate

    arrays = load(folder)
    return len(evaluate(Vectors(arrays["queries"], arrays["vectors"]), split_of(arrays), ks=(K,)).rows)


def implicit_all(folder: str, repeats: int) -> dict[str, Any]:
    """implicit: lists for all users with its own blocked product and selection."""
    import implicit
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares

    arrays = load(folder)
    train = arrays["train"]
    pairs = arrays["users"][train], arrays["items"][train]
    seen = sp.csr_matrix((np.ones(train.sum(), np.float32), pairs), shape=(N_USERS, N_ITEMS))
    model = AlternatingLeastSquares(factors=DIM, num_threads=len(os.sched_getaffinity(0)))
    model.user_factors, model.item_factors = arrays["queries"], arrays["vectors"]
    users = np.unique(arrays["users"][~train])
    found = {}

    def run() -> None:
        found["items"] = model.recommend(users, seen[users], N=K, filter_already_liked_items=True)[0]

    timing = measure(run, repeats)
    test = sp.csr_matrix((np.ones((~train).sum()), (arrays["users"][~train], arrays["items"][~train])), seen.shape)
    hits = np.asarray(test[np.repeat(users, K), found["items"].ravel()]).reshape(-1, K).sum(axis=1)
    recall = float((hits / np.diff(test.indptr)[users]).mean())
    about = {
        "version": implicit.__version__,
        "users": len(users),
        "users_per_second": round(len(users) / timing.median),
    }
    return {**about, "recall@20": round(recall, 4), **timing.to_json()}


def recbole_all(folder: str, repeats: int, rows: int, every: int) -> dict[str, Any]:
    """RecBole: full-sort evaluation of the same vectors, `rows` users at once (0: its default), every n-th user."""
    import pandas as pd
    import recbole
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import get_model, init_seed

    arrays = load(folder)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        (Path(place) / "data").mkdir()
        table = pd.DataFrame({"user_id:token": arrays["users"], "item_id:token": arrays["items"]})
        asked = ~arrays["train"] & (arrays["users"] % every == 0)
        for part, rows_of in (("train", arrays["train"]), ("valid", asked), ("test", asked)):
            table[rows_of].to_csv(f"data/data.{part}.inter", sep="\t", index=False)
        settings = {
            "data_path": place,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "eval_args": {"order": "RO", "group_by": "user", "mode": {"valid": "full", "test": "full"}},
            "embedding_size": DIM,
            "metrics": ["Recall", "NDCG"],
            "topk": [K],
            "gpu_id": "",
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
        }
        if rows:
            settings["eval_batch_size"] = rows * (N_ITEMS + 1)
        config = Config(model="BPR", dataset="data", config_dict=settings)
        init_seed(config["seed"], True)
        data = create_dataset(config)
        train, _, test = data_preparation(config, data)
        model = get_model("BPR")(config, train.dataset)
        tables = ("user_id", model.user_embedding, "queries"), ("item_id", model.item_embedding, "vectors")
        for field, table_of, name in tables:
            numbers = np.array([int(token) for token in data.field2id_token[field][1:]])
            table_of.weight.data[1:] = type(table_of.weight.data)(arrays[name][numbers])
        trainer = Trainer(config, model)
        trainer.eval_collector.data_collect(train)
        found: dict[str, Any] = {}
        run = lambda: found.update(trainer.evaluate(test, load_best_model=False, show_progress=False))  # noqa: E731
        timing = measure(run, repeats, warm_up=0)
    n = len(np.unique(arrays["users"][asked]))
    about = {"version": recbole.__version__, "users": n, "users_per_second": round(n / timing.median)}
    return {**about, "recall@20": round(float(found["recall@20"]), 4), **timing.to_json()}


def peers(names: list[str], folder: str, repeats: int, every: int) -> dict[str, Any]:
    from peers import peer

    found = {}
    for name in names:
        try:
            python = peer(name)
        except Exception as error:
            found[name] = {"error": f"its environment could not be made: {error}"}
            continue
        common = {"python": python, "folder": folder}
        if name == "implicit":
            quiet = {"OPENBLAS_NUM_THREADS": "1"}  # as implicit asks for; it has threads of its own
            found[name] = in_fresh_process(
                "evaluate_gowalla:implicit_all", environment=quiet, repeats=repeats, **common
            )
        else:
            old = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
            for label, rows, part in ((name, 0, every), (f"{name}, 256 users at once", 256, 1)):
                settings = {"repeats": 1, "rows": rows, "every": part, "environment": old}
                found[label] = in_fresh_process("evaluate_gowalla:recbole_all", **settings, **common)
    return found


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    timings, peaks, beside = found["timings"], found["peak_mb"], found["peers"]
    runs = {
        "lists": {
            "tastemaker, retriever": (timings["retriever"], peaks["retriever"]),
            "BLAS product and our selection, nothing excluded": (
                min((t for name, t in timings.items() if name.startswith("bare")), key=lambda t: t["median_s"]),
                None,
            ),
            "implicit, recommend_all": _peer(beside, "implicit"),
        },
        "reports": {
            "tastemaker, Recall and NDCG": (timings["evaluate, recall and ndcg"], peaks["evaluate"]),
            "tastemaker, all usual metrics": (timings["evaluate, all usual metrics"], peaks["evaluate"]),
            "RecBole, Recall and NDCG, as it comes": _peer(beside, "recbole"),
            "RecBole, Recall and NDCG, 256 users at once": _peer(beside, "recbole, 256 users at once"),
        },
    }
    shown = []
    for what, sides in runs.items():
        rows = []
        for who, (timing, peak) in sides.items():
            if timing is None:
                continue
            users = timing.get("users", found["requests"])
            rows.append(
                {
                    "who": who,
                    "users": users,
                    "seconds": timing["median_s"],
                    "CPU s": timing["median_cpu_s"],
                    "users a second": users / timing["median_s"],
                    "peak MB": peak,
                    "times ours, by user": 1.0,
                }
            )
            rows[-1]["times ours, by user"] = rows[0]["users a second"] / rows[-1]["users a second"]
        shown.append(page_table(f"{what.capitalize()}: {found['what']}", rows))
    return shown


def _peer(beside: dict[str, Any], name: str) -> tuple[Any, Any]:
    """A peer's timing and memory, or None twice where it was not run."""
    run = beside.get(name, {})
    return run.get("value"), run.get("peak_mb")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--peers", nargs="*", default=["implicit", "recbole"])
    arguments.add_argument("--recbole-every", type=int, default=10)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = prepare(Path(folder))
        answer = in_fresh_process("evaluate_gowalla:floors_and_ours", folder=folder, repeats=asked.repeats)
        if "error" in answer:
            sys.exit(str(answer["error"]))
        ours = answer["value"]
        alone = {
            name: in_fresh_process(f"evaluate_gowalla:{function}", folder=folder)
            for name, function in (("retriever", "lists_alone"), ("evaluate", "evaluate_alone"))
        }
        beside = peers(asked.peers, folder, asked.repeats, asked.recbole_every)
    timings = ours.pop("timings")
    best = {
        kind: min(t["median_s"] for name, t in timings.items() if name.startswith(kind)) for kind in ("product", "bare")
    }
    n = ours["requests"]
    flops, score_bytes = 2 * n * N_ITEMS * DIM, 4 * n * N_ITEMS
    payload = {
        "what": f"top {K} of {N_ITEMS:,} items for {n:,} users, {DIM} dimensions, seen items excluded",
        "data": source,
        **ours,
        "floor": {
            "product_s": best["product"],
            "bare_s": best["bare"],
            "gflops_of_the_product": round(flops / best["product"] / 1e9, 1),
            "share_of_sgemm_peak": round(flops / best["product"] / 1e9 / ours["sgemm_peak_gflops"], 3),
            "gb_of_scores_written_and_read": round(2 * score_bytes / 1e9, 2),
            "seconds_were_they_to_pass_through_memory": round(2 * score_bytes / 1e9 / ours["copy_gb_per_s"], 3),
        },
        "times_the_bare_floor": {
            name: round(t["median_s"] / best["bare"], 3) for name, t in timings.items() if "blocks" not in name
        },
        "users_per_second": {name: round(n / t["median_s"]) for name, t in timings.items() if "blocks" not in name},
        "timings": timings,
        "peak_mb": {name: run.get("peak_mb", run.get("error")) for name, run in alone.items()},
        "peers": beside,
    }
    print(write("evaluate_gowalla", payload, tables(payload)))


if __name__ == "__main__":
    main()
