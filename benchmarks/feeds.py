"""Feeds: examples a second, and how long steps wait for them.

python benchmarks/feeds.py             writes benchmarks/results/feeds.json

The choices of Gowalla's training part (810,128), in batches as systems take them; an example is a choice, or a place
of a window that is to be told. Feeds make batches in one thread beside the steps. "Waiting" is the share of the time
of training steps that systems spent waiting for a batch, in three epochs on MovieLens-100K.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from common import data_folder, page_table, write

TRAINED = ("bpr-mf", "lightgcn", "multvae", "simplex", "sasrec", "gru4rec", "bert4rec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for which each feed is run")
    given = parser.parse_args()
    if data_folder("gowalla") is None or data_folder("ml-100k") is None:
        raise SystemExit("Gowalla and MovieLens-100K are not there: set TASTEMAKER_DATA to the folder of data sets")
    found = {"feeds": rates(given.seconds), "waiting": waits()}
    write("feeds", found, tables(found))
    for table in tables(found):
        print(*table["rows"], sep="\n")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"feed": name, "batch": told["batch"], "examples a second": told["rate"]}
        for name, told in found["feeds"].items()
    ]
    shares = [{"system": name, "share of step time": share} for name, share in found["waiting"].items()]
    return [page_table("Feeds on Gowalla", rows), page_table("Waiting for a batch", shares)]


def rates(seconds: float) -> dict[str, dict[str, Any]]:
    """Examples a second of each feed, in one thread."""
    import polars as pl

    from tastemaker.data import read, split
    from tastemaker.feeds import (
        bags,
        cloze,
        interaction_matrix,
        next_items,
        popular,
        shared,
        triplets,
        uniform,
        windows,
    )
    from tastemaker.types import Dataset

    folder = data_folder("gowalla")
    assert folder is not None
    data = split(read(folder), "column:split").train
    matrix = interaction_matrix(data)
    order = pl.Series(range(data.n_events), dtype=pl.Int64)  # the data has no times; any order will do for a rate
    timed = Dataset(data.name, data.users, data.items, data.events.with_columns(time=order), time_unit="step")
    seen = windows(timed, 50, which="all")
    feeds: dict[str, tuple[Any, Any]] = {
        "triplets, 1 uniform negative": (triplets(matrix, 2048, uniform(matrix, 1)), len),
        "triplets, 16 uniform negatives": (triplets(matrix, 2048, uniform(matrix, 16)), len),
        "triplets, 16 by popularity": (triplets(matrix, 2048, popular(matrix, 16)), len),
        "triplets, 500 shared by the batch": (triplets(matrix, 2048, shared(matrix, 500)), len),
        "triplets, the batch's own items": (triplets(matrix, 2048, "batch"), len),
        "next items, windows of 50": (next_items(seen, 128), lambda batch: len(batch.targets)),
        "hidden items, windows of 50": (cloze(seen, 128, data.n_items), lambda batch: len(batch.targets)),
        "rows of the matrix": (bags(matrix, 500), lambda batch: len(batch.items)),
    }
    return {name: rate(feed, count, seconds) for name, (feed, count) in feeds.items()}


def rate(feed: Any, count: Any, seconds: float) -> dict[str, Any]:
    feed.batch(0, 0)
    examples, number, began = 0, 0, time.process_time()
    while time.process_time() - began < seconds:
        examples += count(feed.batch(number // len(feed), number % len(feed)))
        number += 1
    return {"batch": feed.batch_size, "rate": round(examples / (time.process_time() - began)), "batches": number}


def waits() -> dict[str, float]:
    """The share of step time that systems wait for batches."""
    from tastemaker.data import read, split
    from tastemaker.train import fit
    from tastemaker.types import quiet

    folder = data_folder("ml-100k")
    assert folder is not None
    parts, found = split(read(folder), "leave-one-out"), {}
    for name in TRAINED:
        with quiet():
            bundle = fit(name, parts, {"epochs": 3, "every": 3})
        told = bundle.about["training"][0]
        found[name] = told["waiting_share"]
    return found


if __name__ == "__main__":
    main()
