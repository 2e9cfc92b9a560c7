"""Lists that nobody saw, beside those that were shown: how alike they are, and how long they took.

A shadow answers real requests without a risk: before a new system is shown to anybody, one sees whether it answers at
all, how fast, and whether its lists differ from what is shown enough to be worth an experiment.

What the log is to hold of an unseen list is a row among the lists like any other, with the experiment's name, the arm,
and a trace as `shadow_trace` makes it; the shown list's row has the control as its arm, and `latency_ms` in its trace.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.serve.experiments import Experiment
from tastemaker.serve.interleave import overlap
from tastemaker.serve.verdicts import Result, Shadow, SplitCheck


def shadow_trace(of: str, latency_ms: float) -> dict[str, Any]:
    """What the trace of an unseen list says: that it is one, beside which list, and how long it took."""
    return {"shadow": True, "of": of, "latency_ms": round(float(latency_ms), 3)}


def shadow_result(experiment: Experiment, own: pl.DataFrame, now: int) -> Result:
    """Unseen lists beside the shown ones: their trace says "shadow": true and "of": the list that was shown."""
    path = {name: pl.col("trace").str.json_path_match(f"$.{name}") for name in ("shadow", "of", "latency_ms")}
    own = own.with_columns(**path).with_columns(pl.col("latency_ms").cast(pl.Float64, strict=False))
    unseen = pl.col("shadow").fill_null("") == "true"
    shown = own.filter(~unseen).unique("slate", keep="first").select("slate", "items", "latency_ms")
    found = []
    for arm in experiment.others:
        beside = own.filter(unseen & (pl.col("arm") == arm)).unique("of", keep="first")
        pairs = shown.join(beside.select("of", other="items", theirs="latency_ms"), left_on="slate", right_on="of")
        alike = overlap(*_numbered(pairs["items"], pairs["other"]))
        means = [float(np.nanmean(one)) if np.isfinite(one).any() else math.nan for one in
                 (alike.rbo, alike.jaccard, alike.first)]  # fmt: skip
        latencies = [_quantile(pairs[name], q) for name in ("theirs", "latency_ms") for q in (0.5, 0.95)]
        found.append(Shadow(arm, pairs.height, shown.height - pairs.height, *means, *latencies))
    planned = tuple(map(float, experiment.shares))
    split = SplitCheck((0,) * len(planned), planned, 1.0, True)
    return Result(
        experiment.name, experiment.kind, now, experiment.alpha, experiment.control, experiment.primary.name, (), (),
        (), split, tuple(found), "none", None, {}, (), pl.DataFrame(),
    )  # fmt: skip


def _numbered(left: pl.Series, right: pl.Series) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lists of item ids as numbers in one numbering, padded with -1."""
    flat = pl.concat([one.filter(one.list.len() > 0).explode() for one in (left, right)])
    numbers = flat.rank("dense").cast(pl.Int32).to_numpy() - 1
    padded, start = [], 0
    for one in (left, right):
        lengths = one.list.len().to_numpy().astype(np.int64)
        out = np.full((len(one), int(lengths.max(initial=1))), -1, dtype=np.int32)
        rows = np.repeat(np.arange(len(one)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        out[rows, within] = numbers[start : start + len(rows)]
        start += len(rows)
        padded.append(out)
    return padded[0], padded[1]


def _quantile(values: pl.Series, q: float) -> float:
    found = values.quantile(q)
    return math.nan if found is None else float(found)
