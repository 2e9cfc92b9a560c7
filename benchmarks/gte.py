"""GTE on its authors' matrices, beside the figures their metric gives.

git clone https://github.com/HKUDS/GTE
python benchmarks/gte.py GTE/data                         writes benchmarks/results/gte.json

Their files are pickles, so they are read by a loader that knows arrays and sparse matrices and nothing else. Their
script averages over batches of 256 users, then over batches, and leaves out users without right answers only inside
a batch; "batches" is that mean, "users" the mean over users.
"""

from __future__ import annotations

import argparse
import io
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import page_table, write

KS = (20, 40)
SETS = ("amazon_beauty", "tmall", "sparse_tmall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("matrices", type=Path, help="the folder data/ of a checkout of github.com/HKUDS/GTE")
    asked = parser.parse_args()
    found = {
        name: judged(asked.matrices / name) for name in SETS if (asked.matrices / name / "train_mat.pkl").is_file()
    }
    if not found:
        raise SystemExit(f"{asked.matrices} has none of {', '.join(SETS)}")
    write("gte", {"sets": found}, tables({"sets": found}))
    for table in tables({"sets": found}):
        print(*table["rows"], sep="\n")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"data": name, "system": system, "mean over": mean, **figures}
        for name, told in found["sets"].items()
        for system, means in told["systems"].items()
        for mean, figures in means.items()
    ]
    return [page_table("GTE on its authors' matrices", rows)]


def judged(folder: Path) -> dict[str, Any]:
    """Figures of GTE and of popularity on one pair of matrices."""
    import polars as pl

    from tastemaker.data import build, split
    from tastemaker.evaluate import evaluate
    from tastemaker.train import fit

    parts = {part: load(folder / f"{part}_mat.pkl") for part in ("train", "test")}
    tables = [
        pl.DataFrame({"user": matrix.row, "item": matrix.col}).with_columns(split=pl.lit(part))
        for part, matrix in parts.items()
    ]
    data = build(folder.name, pl.concat(tables))
    held = split(data, "column:split")
    told: dict[str, Any] = {"users": data.n_users, "items": data.n_items, "train": parts["train"].nnz}
    told["systems"] = {}
    order = data.users["user"].to_numpy()
    for name in ("gte", "popularity"):
        began = time.perf_counter()
        report = evaluate(fit(name, held), held, ks=KS, metrics=["recall", "ndcg"])
        told[f"{name}_seconds"] = round(time.perf_counter() - began, 2)
        users = order[held.cases("test").requests.users]
        batches = {}
        for metric in report.values():
            values = np.zeros(parts["test"].shape[0])
            there = np.zeros(len(values), dtype=bool)
            values[users], there[users] = report.rows[metric], True
            cuts = range(0, len(values), 256)
            batches[metric] = float(np.mean([values[c : c + 256][there[c : c + 256]].mean() for c in cuts]))
        told["systems"][name] = {
            "users": {metric: round(value, 4) for metric, value in report.values().items()},
            "batches": {metric: round(value, 4) for metric, value in batches.items()},
        }
    return told


class Parts:
    """What a pickled sparse matrix kept, whatever its library calls it today."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.kept = state


class Arrays(pickle.Unpickler):
    """Reads arrays and the parts of sparse matrices; refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
            ("scipy.sparse.coo", "coo_matrix"): Parts,
            ("scipy.sparse._coo", "coo_matrix"): Parts,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"a matrix has no need of {module}.{name}")
        return known[module, name]


def load(path: Path) -> Any:
    import scipy.sparse as sp

    kept = Arrays(io.BytesIO(path.read_bytes())).load().kept
    return sp.coo_matrix((np.ones(len(kept["row"])), (kept["row"], kept["col"])), shape=kept["_shape"])


if __name__ == "__main__":
    main()
