"""SASRec and GRU4Rec: seconds an epoch, SASRec beside RecTools' on the same sequences.

python benchmarks/sequential.py                 writes benchmarks/results/sequential.json
python benchmarks/sequential.py --rounds 5 --epochs 10 --threads 1
python benchmarks/sequential.py --quality       writes benchmarks/results/sequential-quality.json

Both sides learn from MovieLens-100K without the last two choices of each user, in one order: vectors of 64, two
blocks of two heads, the last 50 items of a history, batches of 128, dropout 0.2, the softmax over the whole
catalogue, float32, Adam. Each round runs every side once, in a process of its own; an epoch's time is that between
its first and its last step, and the first epoch, which warms up, does not count. "fit_s / epochs" is the whole call
of `fit`, set-up included. On a busy machine one thread and processor seconds are the steadier figures: threads that
wait for one another waste their turn there, on either side.

RecTools keeps the last 51 items of a history and learns from nothing before them, as ours does with windows="last".
Ours with windows="all" learns from every choice: an epoch has twice the work. So does an epoch of GRU4Rec, which
RecBole's walks through as one sample a prefix.

"--quality": ours at its defaults until the next-to-last choices, which it is not shown, stop it; RecTools' at these
settings for as many seconds. Both then know all but the last choice of a user and are asked for it among all items,
those of the history left out.
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

DIM, LAYERS, HEADS, LENGTH, BATCH, DROPOUT = 64, 2, 2, 50, 128, 0.2
SIDES: dict[str, dict[str, Any]] = {
    "tastemaker sasrec": {"system": "sasrec", "settings": {"windows": "last"}},
    "tastemaker sasrec, all windows": {"system": "sasrec", "settings": {"windows": "all"}},
    "tastemaker sasrec, sampled": {"system": "sasrec", "settings": {"windows": "last", "loss": "sampled"}},
    "tastemaker gru4rec, all windows": {"system": "gru4rec", "settings": {"windows": "all"}},
    "tastemaker bert4rec, all windows": {"system": "bert4rec", "settings": {"windows": "all"}},
    "rectools sasrec": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quality", action="store_true", help="accuracy after the same time, in the place of speed")
    given = parser.parse_args()
    if given.quality:
        quality(given.threads)
        return
    python, threads = peer("rectools"), given.threads
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    runs: dict[str, list[Any]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        size = in_fresh_process("sequential:prepare", folder=folder)["value"]
        for turn in range(given.rounds):
            for side in sorted(SIDES, reverse=bool(turn % 2)):
                how: dict[str, Any] = {"environment": environment, "timeout": 1800, "folder": folder}
                how |= {"threads": threads, "epochs": given.epochs}
                done = (
                    in_fresh_process("sequential:ours", **how, **SIDES[side])
                    if SIDES[side]
                    else in_fresh_process("sequential:theirs", python=python, **how)
                )
                if "error" in done:
                    raise SystemExit(f"{side}: {done['error']}")
                runs[side].append(done)
    table = {side: summary(done) for side, done in runs.items()}
    ours, theirs = table["tastemaker sasrec"], table["rectools sasrec"]
    figures = ("epoch_s", "epoch_cpu_s", "fit_s / epochs")
    ratios = {f"rectools / tastemaker, {name}": round(theirs[name] / ours[name], 2) for name in figures}
    found = {"threads": threads, "rounds": given.rounds, "epochs": given.epochs, **size}
    found |= {"settings": settings(), "sides": table, "ratios": ratios}
    write("sequential", found, tables(found))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    if "quality" in found:
        rows = [{"side": side, **told} for side, told in found["quality"].items()]
        title = "SASRec on MovieLens-100K, the last choice of each user, after the same training time"
        return [page_table(title, rows)]
    rows = [
        {
            "side": side,
            "epoch, s": told["epoch_s"],
            "epoch, CPU s": told["epoch_cpu_s"],
            "fit / epochs, s": told["fit_s / epochs"],
            "peak MB": told["peak_mb"],
        }
        for side, told in found["sides"].items()
    ]
    title = f"Sequences of MovieLens-100K: {found['choices']:,} choices, {found['threads']} threads"
    return [page_table(title, rows)]


def quality(threads: int) -> None:
    """Ours to its end, RecTools' for as long."""
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    how: dict[str, Any] = {"environment": environment, "timeout": 7200, "threads": threads}
    python = peer("rectools")
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process("sequential:prepare", folder=folder)
        sides = {"tastemaker": in_fresh_process("sequential:ours_to_the_end", folder=folder, **how)}
        if "error" not in sides["tastemaker"]:
            seconds = sides["tastemaker"]["value"]["seconds"]
            sides["rectools"] = in_fresh_process(
                "sequential:theirs_for", python=python, folder=folder, seconds=seconds, **how
            )
    for side, done in sides.items():
        if "error" in done:
            raise SystemExit(f"{side}: {done['error']}")
    found = {side: {**done["value"], "peak_mb": done["peak_mb"]} for side, done in sides.items()}
    payload = {"threads": threads, "quality": found}
    write("sequential-quality", payload, tables(payload))
    print(found)


def figures(lists: Any, held: Any) -> dict[str, float]:
    """Lists [U, 10] of items against the one that is right [U]."""
    import numpy as np

    place = np.where((lists == held[:, None]).any(axis=1), (lists == held[:, None]).argmax(axis=1), -1)
    gains = np.where(place >= 0, 1 / np.log2(place + 2), 0.0)
    return {"recall@10": round(float((place >= 0).mean()), 4), "ndcg@10": round(float(gains.mean()), 4)}


def ours_to_the_end(folder: str, threads: int) -> dict[str, Any]:
    import numpy as np
    import polars as pl
    import torch

    from tastemaker.data import build, split
    from tastemaker.train import fit
    from tastemaker.types import quiet

    torch.set_num_threads(threads)
    stored = np.load(Path(folder) / "ml-100k.npz")
    users, items = stored["all_users"], stored["all_items"]
    events = pl.DataFrame({"user": users, "item": items, "time": np.arange(len(users))})
    parts = split(build("ml-100k", events, time_unit="step"), "leave-one-out")
    with quiet():
        bundle = fit("sasrec", parts, {"max_len": LENGTH})
    requests = parts.cases("test").requests
    lists = bundle.retriever.retrieve(requests, 10).items
    names, people = parts.data.items["item"].to_numpy(), parts.data.users["user"].to_numpy()
    told = bundle.about["training"][0]
    held = stored["test"][people[requests.users]]
    return {"seconds": told["seconds"], "epochs": told["epochs"], **figures(names[lists], held)}


def rectools(threads: int, **limits: Any) -> Any:
    """RecTools' SASRec in these settings; `limits` go to Lightning's trainer."""
    import torch
    from pytorch_lightning import Trainer
    from rectools.models import SASRecModel

    torch.set_num_threads(threads)

    def trainer() -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **limits)

    return SASRecModel(
        n_factors=DIM,
        n_blocks=LAYERS,
        n_heads=HEADS,
        session_max_len=LENGTH,
        batch_size=BATCH,
        dropout_rate=DROPOUT,
        loss="softmax",
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )


def rectools_data(users: Any, items: Any) -> Any:
    """RecTools' dataset of choices in their order."""
    import numpy as np
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    order = pd.to_datetime(np.arange(len(users)), unit="s")
    columns = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: order}
    return Dataset.construct(pd.DataFrame(columns))


def theirs_for(folder: str, threads: int, seconds: float) -> dict[str, Any]:
    """RecTools' SASRec after so many seconds of training."""
    from datetime import timedelta

    import numpy as np
    from pytorch_lightning import Callback
    from rectools import Columns

    stored, epochs = np.load(Path(folder) / "ml-100k.npz"), []

    class Watch(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            epochs.append(trainer.current_epoch)

    model = rectools(threads, max_epochs=10**6, max_time=timedelta(seconds=seconds), callbacks=[Watch()])
    began = time.perf_counter()
    model.fit(rectools_data(stored["users"], stored["items"]))
    spent = time.perf_counter() - began
    known = rectools_data(stored["before_users"], stored["before_items"])
    asked = np.arange(int(stored["all_users"].max()) + 1)
    found = model.recommend(asked, known, k=10, filter_viewed=True)
    lists = np.full((len(asked), 10), -1)
    lists[found[Columns.User].to_numpy(), found[Columns.Rank].to_numpy() - 1] = found[Columns.Item].to_numpy()
    return {"seconds": round(spent, 1), "epochs": len(epochs), **figures(lists, stored["test"])}


def settings() -> dict[str, Any]:
    return {
        "dim": DIM,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "max_len": LENGTH,
        "batch_size": BATCH,
        "dropout": DROPOUT,
    }


def summary(done: list[Any]) -> dict[str, Any]:
    """Medians over rounds and epochs, first epochs left out."""
    values = [run["value"] for run in done]
    seconds, cpu = ([t for v in values for t in v[name][1:]] for name in ("seconds", "cpu_seconds"))
    return {
        "epoch_s": round(statistics.median(seconds), 3),
        "best_epoch_s": round(min(seconds), 3),
        "epoch_cpu_s": round(statistics.median(cpu), 3),
        "best_epoch_cpu_s": round(min(cpu), 3),
        "fit_s / epochs": round(statistics.median(v["fit_s"] / len(v["seconds"]) for v in values), 3),
        "loss": values[0]["loss"],
        "peak_mb": max(run["peak_mb"] for run in done),
    }


class Clock:
    """Wall and processor seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.loss: list[float] = []
        self.begin()

    def begin(self) -> None:
        self.since = time.perf_counter(), time.process_time()

    def end(self, loss: float) -> None:
        self.seconds.append(time.perf_counter() - self.since[0])
        self.cpu_seconds.append(time.process_time() - self.since[1])
        self.loss.append(round(loss, 4))

    def value(self, fit_s: float) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "loss": self.loss, "fit_s": fit_s}


def prepare(folder: str) -> dict[str, int]:
    """Store users and items of the training choices under dense numbers, in the order of time."""
    import numpy as np
    import polars as pl

    source = data_folder("ml-100k")
    assert source is not None, "MovieLens-100K is not at $TASTEMAKER_DATA"
    events = pl.read_parquet(source / "ratings.parquet").sort("user_id", "timestamp", maintain_order=True)
    from_end = (pl.len().over("user_id") - pl.int_range(pl.len()).over("user_id")).alias("from_end")
    events = events.with_columns(from_end)
    users, items = (np.unique(events[column], return_inverse=True)[1] for column in ("user_id", "item_id"))
    left = (events["from_end"] > 2).to_numpy()
    before, last = (events["from_end"] > 1).to_numpy(), (events["from_end"] == 1).to_numpy()
    test = np.empty(users.max() + 1, dtype=np.int64)
    test[users[last]] = items[last]
    parts = {"users": users[left], "items": items[left], "all_users": users, "all_items": items, "test": test}
    np.savez(Path(folder) / "ml-100k.npz", **parts, before_users=users[before], before_items=items[before])
    return {"users": int(users.max()) + 1, "items": len(np.unique(items[left])), "choices": int(left.sum())}


def ours(folder: str, threads: int, epochs: int, system: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Epochs of a system of ours; nobody judges it in between."""
    import numpy as np
    import polars as pl
    import torch

    from tastemaker.data import build
    from tastemaker.train import fit
    from tastemaker.types import quiet

    torch.set_num_threads(threads)
    stored = np.load(Path(folder) / "ml-100k.npz")
    events = pl.DataFrame({"user": stored["users"], "item": stored["items"], "time": np.arange(len(stored["users"]))})
    data, clock = build("ml-100k", events, time_unit="step"), Clock()

    class Watch:
        def log(self, record: Any) -> None:
            if record["event"] == "epoch":
                clock.end(record["loss"])
            if record["event"] in ("start", "epoch"):
                clock.begin()

    config = {"dim": DIM, "max_len": LENGTH, "batch_size": BATCH, "dropout": DROPOUT, "epochs": epochs, "every": 10**6}
    config |= {} if system == "gru4rec" else {"n_layers": LAYERS, "n_heads": HEADS}
    began = time.perf_counter()
    with quiet():
        fit(system, data, {**config, **settings}, judge=lambda system, metric: 0.0, loggers=[Watch()])
    return clock.value(time.perf_counter() - began)


def theirs(folder: str, threads: int, epochs: int) -> dict[str, Any]:
    """Epochs of RecTools' SASRec, seen through Lightning's callbacks."""
    import numpy as np
    from pytorch_lightning import Callback

    stored, clock = np.load(Path(folder) / "ml-100k.npz"), Clock()

    class Watch(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            clock.begin()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            clock.end(float(trainer.callback_metrics.get("train_loss", float("nan"))))

    model = rectools(threads, max_epochs=epochs, callbacks=[Watch()])
    began = time.perf_counter()
    model.fit(rectools_data(stored["users"], stored["items"]))
    return clock.value(time.perf_counter() - began)


if __name__ == "__main__":
    main()
