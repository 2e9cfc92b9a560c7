"""LightGCN beside its authors' code: loss and test figures of the same epochs, epoch by epoch.

git clone https://github.com/gusye1234/LightGCN-PyTorch
python benchmarks/lightgcn.py LightGCN-PyTorch                                  Gowalla, epochs 1, 2, 5 and 10
python benchmarks/lightgcn.py LightGCN-PyTorch --data lastfm --at 1 10 50 300

Writes benchmarks/results/lightgcn-DATA.json. The authors' functions run unchanged, with their own loader, sampler,
model, Adam and test, in an environment of their own. Both sides have their published settings: 64 dimensions, three
layers, batches of 2,048 pairs, learning rate .001, penalty 1e-4, and judge on the test part, which decides nothing
here. They draw other random numbers, so figures agree only up to the luck of a seed. Processor seconds, training alone,
are summed over all threads; OMP_NUM_THREADS and NUMBA_NUM_THREADS say how many there are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from common import HERE, data_folder, in_fresh_process, page_table, write
from peers import peer

DATA = {"gowalla": "gowalla", "lastfm": "lastfm-hetrec"}
METRICS = ("recall", "ndcg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path, help="a checkout of github.com/gusye1234/LightGCN-PyTorch")
    parser.add_argument("--data", choices=list(DATA), default="gowalla")
    parser.add_argument("--at", type=int, nargs="+", default=[1, 2, 5, 10], help="epochs after which to look")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020])
    parser.add_argument("--sides", nargs="+", default=["ours", "theirs"], choices=["ours", "theirs"])
    parser.add_argument("--hours", type=float, default=4.0, help="after which a run ends with the looks it has had")
    asked = parser.parse_args()
    if data_folder(DATA[asked.data]) is None:
        raise SystemExit(f"{DATA[asked.data]} is not there: set TASTEMAKER_DATA to the folder of data sets")
    if not (asked.reference / "code" / "model.py").is_file():
        raise SystemExit(f"{asked.reference} is no checkout of github.com/gusye1234/LightGCN-PyTorch")
    if asked.data == "gowalla" and not (listed := asked.reference / "data" / "gowalla" / "train.txt").is_file():
        listed.write_text(lists("train"))
    name = f"lightgcn-{asked.data}"
    stored = HERE / "results" / f"{name}.json"
    found: dict[str, Any] = {"ours": [], "theirs": []}
    if stored.is_file():
        before = json.loads(stored.read_text())
        found = {side: before.get(side, []) for side in found}
    for side in asked.sides:
        python = {"python": peer("lightgcn", timeout=3000)} if side == "theirs" else {}
        more = {"reference": str(asked.reference.resolve())} if side == "theirs" else {}
        found[side] = []
        for seed in asked.seeds:
            with tempfile.TemporaryDirectory() as folder:
                looks = Path(folder) / "looks.jsonl"
                how = {"data": asked.data, "at": asked.at, "seed": seed, "looks": str(looks)}
                done = in_fresh_process(f"lightgcn:{side}", timeout=asked.hours * 3600, **how, **python, **more)
                epochs = [json.loads(line) for line in looks.read_text().splitlines()] if looks.is_file() else []
            if not epochs:
                raise SystemExit(f"{side}: {done.get('error', 'no epoch was looked at')}")
            found[side].append({"seed": seed, "peak_mb": done.get("peak_mb"), "epochs": epochs})
            write(name, found, tables(found))
    for table in tables(found):
        print(table["title"], *table["rows"], sep="\n")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row an epoch, each figure the mean over a side's seeds; empty where a side was not looked at."""
    means = {side: mean_of(found[side]) for side in ("ours", "theirs")}
    rows = []
    for epoch in sorted({epoch for mean in means.values() for epoch in mean}):
        row: dict[str, Any] = {"epoch": epoch}
        for what, digits in (("loss", 5), ("recall@20", 4), ("ndcg@20", 4), ("cpu_seconds", 1)):
            for side, mean in means.items():
                row[f"{what}, {side}"] = round(mean[epoch][what], digits) if epoch in mean else None
        rows.append(row)
    return [page_table("LightGCN and its authors' code after the same epochs", rows)]


def mean_of(runs: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    by_epoch: dict[int, list[dict[str, float]]] = {}
    for run in runs:
        for record in run["epochs"]:
            by_epoch.setdefault(int(record["epoch"]), []).append(record)
    return {
        epoch: {name: sum(r[name] for r in records) / len(records) for name in records[0]}
        for epoch, records in by_epoch.items()
    }


def lists(part: str) -> str:
    """A part of Gowalla as the authors keep it: a user and the user's items a line."""
    import polars as pl

    source = data_folder("gowalla")
    assert source is not None
    table = pl.read_parquet(source / "interactions.parquet").filter(pl.col("split") == part)
    users = table.group_by("user_id", maintain_order=True).agg("item_id").sort("user_id")
    return "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in users.iter_rows())


def append(looks: str, record: dict[str, Any]) -> None:
    """Keep a look at once: a run may be given up."""
    with Path(looks).open("a") as file:
        file.write(json.dumps(record) + "\n")


def ours(data: str, at: list[int], seed: int, looks: str) -> None:
    """What `fit` and `evaluate` give after each of these epochs; seconds are those of training so far."""
    from tastemaker.data import split
    from tastemaker.data.sources import get
    from tastemaker.evaluate import evaluate
    from tastemaker.train import fit
    from tastemaker.types import quiet

    folder = data_folder(DATA[data])
    assert folder is not None
    parts = split(get(DATA[data], folder=folder), "column:split")
    cases = parts.cases("test")
    losses: list[float] = []
    spent, since, epoch = 0.0, time.process_time(), 0

    class Watch:
        def log(self, record: Any) -> None:
            if record["event"] == "epoch":
                losses.append(record["loss"])

    def judge(system: Any, metric: str) -> float:
        nonlocal spent, since, epoch
        spent, epoch = spent + time.process_time() - since, epoch + 1
        if epoch in at:
            report = evaluate(system, cases, train=parts.train, ks=(20,), metrics=METRICS)
            figures = {f"{name}@20": report.value(f"{name}@20") for name in METRICS}
            append(looks, {"epoch": epoch, "loss": losses[-1], **figures, "cpu_seconds": round(spent, 1)})
        since = time.process_time()
        return float(epoch)

    with quiet():
        fit("lightgcn", parts.train, {"epochs": max(at), "every": 1}, seed=seed, judge=judge, loggers=[Watch()])


def theirs(data: str, at: list[int], seed: int, looks: str, reference: str) -> None:
    """What the authors' functions give, called as their main file does."""
    import sys

    os.chdir(Path(reference) / "code")  # they look for ../data
    sys.path.insert(0, os.getcwd())
    sys.argv = ["main.py", f"--dataset={data}", f"--seed={seed}", "--tensorboard=0"]
    import Procedure
    import utils
    import world

    utils.set_seed(world.seed)
    import register  # loads the data

    model = register.MODELS[world.model_name](world.config, register.dataset).to(world.device)
    loss = utils.BPRLoss(model, world.config)
    spent, losses = 0.0, []
    stage = loss.stageOne
    loss.stageOne = lambda *batch: losses.append(stage(*batch)) or losses[-1]
    for epoch in range(1, max(at) + 1):
        losses.clear()
        since = time.process_time()
        Procedure.BPR_train_original(register.dataset, model, loss, epoch, neg_k=1, w=None)
        spent += time.process_time() - since
        if epoch in at:
            figures = Procedure.Test(register.dataset, model, epoch, None, world.config["multicore"])
            record = {f"{name}@20": float(figures[name][0]) for name in METRICS}
            mean = sum(losses) / len(losses)
            append(looks, {"epoch": epoch, "loss": mean, **record, "cpu_seconds": round(spent, 1)})


if __name__ == "__main__":
    main()
