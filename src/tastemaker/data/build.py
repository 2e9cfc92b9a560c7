"""From tables with outside ids to a Dataset with inside numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tastemaker.types import AVAILABLE, EVENT_COLUMNS, DataError, Dataset, Kind, TimeUnit, Vocabulary
from tastemaker.types.dataset import Table


def build(
    name: str,
    events: pl.DataFrame,
    users: pl.DataFrame | None = None,
    items: pl.DataFrame | None = None,
    *,
    edges: Mapping[str, pl.DataFrame] | None = None,
    time_unit: TimeUnit | None = None,
    kinds: Mapping[Table, Mapping[str, Kind]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Dataset:
    """Number users and items and encode the events.

    `events` has outside ids in "user" and "item" ("item" may be missing in a row) and columns named as in
    `EVENT_COLUMNS`; `users` and `items` have outside ids in "user" and "item". Rows are numbered by when
    they became available (their column "available" where there is one, else their first event), then by
    id, so that everything known at a time is a prefix. Ids in events that a table lacks get a row there.
    """
    if time_unit is None and "time" in events.columns:
        raise DataError("events have a time, so say its unit: 'us' (microseconds since 1970) or 'step'")
    tables: dict[str, pl.DataFrame] = {}
    for key, given in (("user", users), ("item", items)):
        tables[key] = _number(key, events, given)
    encoded: dict[str, Any] = {}
    for key in ("user", "item"):
        numbers = pl.Series(key, Vocabulary(tables[key][key], of=key).numbers(events[key]))
        encoded[key] = numbers.set(numbers < 0, None)
    rest = [c for c in events.columns if c not in encoded]
    casts = [pl.col(c).cast(EVENT_COLUMNS[c]) for c in rest if c in EVENT_COLUMNS]
    frame = pl.DataFrame(list(encoded.values())).hstack(events.select(rest).with_columns(casts))
    return Dataset(
        name,
        tables["user"],
        tables["item"],
        frame,
        edges=dict(edges or {}),
        kinds=dict(kinds or {}),
        time_unit=time_unit,
        notes=dict(notes or {}),
    )


def _number(key: str, events: pl.DataFrame, given: pl.DataFrame | None) -> pl.DataFrame:
    """The table of users or of items, in the order of its numbers."""
    has_time = "time" in events.columns
    first = pl.col("time").min() if has_time else pl.lit(None, dtype=pl.Int64)
    seen = events.filter(pl.col(key).is_not_null()).group_by(key).agg(first.alias("_first"))
    if given is None:
        table = seen
    else:
        if key not in given.columns:
            raise DataError(f"the table of {key}s needs the column {key!r}, it has {given.columns}")
        if given[key].dtype != seen[key].dtype:
            seen = seen.cast({key: given[key].dtype})
        table = given.join(seen, on=key, how="full", coalesce=True)
    if has_time:
        declared = pl.col(AVAILABLE) if AVAILABLE in table.columns else pl.lit(None, dtype=pl.Int64)
        since = pl.coalesce(declared.cast(pl.Int64), pl.col("_first")).alias(AVAILABLE)
        table = table.with_columns(since)
    order = [AVAILABLE, key] if AVAILABLE in table.columns else [key]
    table = table.drop("_first").sort(order, nulls_last=True)
    return table.select(key, pl.exclude(key))
