"""SASRec and GRU4Rec: seconds an epoch, SASRec beside RecTools' on the same sequences.

python benchmarks/sequential.py                 writes benchmarks/results/sequential.json
python benchmarks/sequential.py --rounds 5 --epochs 10 --threads 1

Both sides learn from MovieLens-100K without the last two choices of each user, in one order: vectors of 64, two
blocks of two heads, the last 50 items of a history, batches of 128, dropout 0.2, the softmax over the whole
catalogue, float32, Adam. Each round runs every side once, in a process of its own; an epoch's time is that between
its first and its last step, and the first epoch, which warms up, does not count. "fit_s / epochs" is the whole call
of `fit`, set-up included. On a busy machine one thread and processor seconds are the steadier figures: threads that
wait for one another waste their turn there, on either side.

RecTools keeps the last 51 items of a history and learns from nothing before them, as ours does with windows="last".
Ours with windows="all" learns from every choice: an epoch has twice the work. So does an epoch of GRU4Rec, which
RecBole's walks through as one sample a prefix.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import data_folder, in_fresh_process, write
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
    given = parser.parse_args()
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
    write("sequential", {**found, "settings": settings(), "sides": table, "ratios": ratios})


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
    left = pl.int_range(pl.len()).over("user_id") < pl.len().over("user_id") - 2
    events = events.filter(left)
    users, items = (np.unique(events[column], return_inverse=True)[1] for column in ("user_id", "item_id"))
    np.savez(Path(folder) / "ml-100k.npz", users=users, items=items)
    return {"users": int(users.max()) + 1, "items": int(items.max()) + 1, "choices": len(users)}


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
    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    torch.set_num_threads(threads)
    stored = np.load(Path(folder) / "ml-100k.npz")
    order = pd.to_datetime(np.arange(len(stored["users"])), unit="s")
    frame = {Columns.User: stored["users"], Columns.Item: stored["items"], Columns.Weight: 1.0, Columns.Datetime: order}
    clock = Clock()

    class Watch(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            clock.begin()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            clock.end(float(trainer.callback_metrics.get("train_loss", float("nan"))))

    def trainer() -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, callbacks=[Watch()], **quiet)

    model = SASRecModel(
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
    began = time.perf_counter()
    model.fit(Dataset.construct(pd.DataFrame(frame)))
    return clock.value(time.perf_counter() - began)


if __name__ == "__main__":
    main()
