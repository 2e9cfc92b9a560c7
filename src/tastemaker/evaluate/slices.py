"""Slices: the same metrics for some requests only, or for some of the targets only.

"users.<column>"   requests of the users with each value
"history"          requests by the length of the history, in quarters
"items.<column>"   targets with each value: lists stay as they are, the other targets are no right answers there
"popularity"       targets by their training popularity, in quarters

Numbers are cut at their quartiles; of categories the most frequent stand alone and the rest together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from tastemaker.evaluate.beyond import Popularity
from tastemaker.evaluate.metrics import FUNCTIONS, Floats, Hits
from tastemaker.evaluate.report import SLICE_COLUMNS
from tastemaker.types import Cases, Dataset, NotFound, UsageError, nearest

SHOWN_VALUES = 8
Groups = list[tuple[str, NDArray[np.bool_]]]


def slice_table(
    names: Sequence[str],
    cases: Cases,
    places: NDArray[np.int32],
    rows: Mapping[str, NDArray[np.float32]],
    *,
    data: Dataset | None,
    popularity: Popularity | None,
    level: float,
) -> pl.DataFrame:
    """One row a slice value and metric. Intervals are mean +- t * standard error: a slice may be small.

    Shapes: places [N]; rows name -> [B].
    """
    found: list[dict[str, Any]] = []
    for name in names:
        if _is_of_targets(name):
            for label, keep in _target_groups(name, cases, data, popularity):
                hits = Hits.of(places, cases.targets, cases.gains, keep)
                for metric in rows:
                    kind, _, k = metric.partition("@")
                    if kind in FUNCTIONS:
                        found.append(_row(name, label, metric, FUNCTIONS[kind](hits, int(k)), level))
        else:
            for label, keep in _request_groups(name, cases, data):
                found += [_row(name, label, metric, values[keep], level) for metric, values in rows.items()]
    return pl.DataFrame(found, schema=SLICE_COLUMNS)


def history_lengths(cases: Cases) -> NDArray[np.int64]:
    """Events of each request's history [B]; without histories, the items it excludes."""
    given = cases.requests.history if cases.requests.history is not None else cases.requests.exclude
    return np.zeros(len(cases), dtype=np.int64) if given is None else given.lengths


def _is_of_targets(name: str) -> bool:
    return name == "popularity" or name.startswith("items.")


def _target_groups(
    name: str, cases: Cases, data: Dataset | None, popularity: Popularity | None
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    targets = cases.targets.values
    if name == "popularity":
        if popularity is None:
            raise UsageError("slices by popularity need the training events", hint="pass a Split, or train=")
        known = targets < len(popularity.counts)
        counts = np.where(known, popularity.counts[np.where(known, targets, 0)], 0)
        yield from _quarters(counts)
        return
    if data is None:
        raise UsageError(f"the slice {name!r} needs the table of items", hint="pass a Split")
    yield from _column_groups(data, "items", name, targets)


def _request_groups(name: str, cases: Cases, data: Dataset | None) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    if name == "history":
        yield from _quarters(history_lengths(cases))
        return
    if not name.startswith("users."):
        hint = "slices are 'history', 'popularity', 'users.<column>' and 'items.<column>'"
        raise UsageError(f"there is no slice {name!r}", hint=hint)
    if data is None or cases.requests.users is None:
        raise UsageError(f"the slice {name!r} needs users and their table", hint="pass a Split")
    yield from _column_groups(data, "users", name, cases.requests.users)


def _column_groups(data: Dataset, table: Any, name: str, numbers: NDArray[np.int32]) -> Groups:
    """Which of `numbers` (users or items) have each value of a column."""
    frame: pl.DataFrame = getattr(data, table)
    column = name.partition(".")[2]
    if column not in frame.columns[1:]:
        raise NotFound(f"{table} have no column {column!r}", hint=nearest(column, frame.columns[1:]))
    kind = data.kind(table, column)
    if kind in ("text", "image", "vector"):
        raise UsageError(f"{name} holds {kind}: slices go by numbers, flags and categories")
    inside = (numbers >= 0) & (numbers < frame.height)
    values = frame[column].gather(np.where(inside, numbers, 0).astype(np.int64))
    missing = values.is_null().to_numpy() | ~inside
    if kind == "number":
        whole = np.where(missing, np.nan, values.to_physical().cast(pl.Float64).fill_null(np.nan).to_numpy())
        groups = _quarters(whole)
    else:
        groups = _categories(values, ~missing)
    return [*groups, ("missing", missing)] if missing.any() else groups


def _categories(values: pl.Series, there: NDArray[np.bool_]) -> Groups:
    frame = pl.DataFrame({"row": np.arange(len(values)), "value": values}).filter(pl.Series(there))
    if isinstance(values.dtype, pl.List | pl.Array):
        frame = frame.with_columns(pl.col("value").cast(pl.List(pl.String))).explode("value").drop_nulls("value")
    frame = frame.with_columns(pl.col("value").cast(pl.String))
    counts = frame["value"].value_counts().sort(["count", "value"], descending=[True, False])
    shown = counts["value"].head(SHOWN_VALUES).to_list()
    groups: Groups = []
    for label in shown:
        groups.append((label, _mask(frame.filter(pl.col("value") == label), len(values))))
    if counts.height > SHOWN_VALUES:
        rest = frame.filter(~pl.col("value").is_in(shown))
        groups.append((f"{counts.height - SHOWN_VALUES} others", _mask(rest, len(values))))
    return groups


def _mask(frame: pl.DataFrame, n: int) -> NDArray[np.bool_]:
    mask = np.zeros(n, np.bool_)
    mask[frame["row"].to_numpy()] = True
    return mask


def _quarters(values: NDArray[Any]) -> Groups:
    """Groups between the quartiles; fewer where many values are equal. NaN belongs to none."""
    there = values[~np.isnan(values)]
    if len(there) == 0:
        return []
    edges = np.unique(np.quantile(there, [0.25, 0.5, 0.75], method="inverted_cdf"))
    edges = edges[edges < there.max()]
    bounds = [-np.inf, *edges.tolist(), np.inf]
    groups: Groups = []
    for low, high in pairwise(bounds):
        inside = (values > low) & (values <= high)
        if inside.any():
            least, most = values[inside].min(), values[inside].max()
            groups.append((f"{least:,.6g}" if least == most else f"{least:,.6g} to {most:,.6g}", inside))
    return groups


def _row(name: str, label: str, metric: str, values: NDArray[Any] | Floats, level: float) -> dict[str, Any]:
    there = np.asarray(values, dtype=np.float64)
    there = there[~np.isnan(there)]
    n = len(there)
    row = {"slice": name, "value": label, "n": n, "metric": metric, "mean": float(there.mean()) if n else None}
    if n < 2:
        return {**row, "low": None, "high": None}
    reach = special.stdtrit(n - 1, (1 + level) / 2) * there.std(ddof=1) / np.sqrt(n)
    low, high = there.mean() - reach, there.mean() + reach  # not beyond what the metric was ever seen to give
    return {**row, "low": float(max(low, there.min())), "high": float(min(high, there.max()))}
