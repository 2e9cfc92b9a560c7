"""From tables with outside ids to a Dataset with inside numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.numbering import NEVER, Codes, encode, encode_all, first_seen, mapped, order_events
from tastemaker.types import AVAILABLE, EVENT_COLUMNS, DataError, Dataset, Kind, Problem, TimeUnit
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
    they became available (their column "available" or their first event, whichever is earlier), then by
    id, so that everything known at a time is a prefix. Ids in events that a table lacks get a row there.
    """
    if missing := [key for key in ("user", "item") if key not in events.columns]:
        raise DataError(f"events need the column {missing[0]!r}, they have {events.columns}")
    if time_unit is None and "time" in events.columns:
        raise DataError("events have a time, so say its unit: 'us' (microseconds since 1970) or 'step'")
    user, item = encode_all([events["user"], events["item"]])
    rest = events.drop("user", "item")
    return assemble(name, user, item, rest, users, items, edges=edges, time_unit=time_unit, kinds=kinds, notes=notes)


def assemble(
    name: str,
    user: Codes,
    item: Codes,
    rest: pl.DataFrame,
    users: pl.DataFrame | None = None,
    items: pl.DataFrame | None = None,
    *,
    edges: Mapping[str, pl.DataFrame] | None = None,
    time_unit: TimeUnit | None = None,
    kinds: Mapping[Table, Mapping[str, Kind]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Dataset:
    """`build` for ids that are encoded already; `rest` has the other columns of the events, row by row."""
    rest = rest.with_columns(pl.col(c).cast(EVENT_COLUMNS[c]) for c in rest.columns if c in EVENT_COLUMNS).rechunk()
    if len(user.codes) and user.codes.min() < 0:
        raise DataError(f"every event needs a user, {np.count_nonzero(user.codes < 0):,} have none")
    times = None
    if "time" in rest.columns:
        if rest["time"].null_count():
            raise DataError(f"where events have times, every event needs one; {rest['time'].null_count():,} have none")
        times = rest["time"].to_numpy()
    tables, numbers = {}, {}
    for key, column, given in (("user", user, users), ("item", item, items)):
        tables[key], places = _number(key, column, times, given)
        numbers[key] = mapped(column.codes, places)
    sort = order_events(numbers["user"], times, tables["user"].height)
    if sort is not None:
        order, starts, sorted_times = sort
        rows = pl.Series(order)
        numbers["user"] = np.repeat(np.arange(tables["user"].height, dtype=np.int32), np.diff(starts))
        numbers["item"] = mapped(order, numbers["item"])
        if sorted_times is not None:
            rest = rest.with_columns(pl.Series("time", sorted_times))
        rest = rest.select(pl.col(c) if c == "time" else pl.col(c).gather(rows) for c in rest.columns)
    encoded = [pl.Series(key, numbers[key]) for key in ("user", "item")]
    if len(item.codes) and item.codes.min() < 0:
        encoded[1] = encoded[1].set(encoded[1] < 0, None)
    return Dataset(
        name,
        tables["user"],
        tables["item"],
        pl.DataFrame(encoded).hstack(rest),
        edges=dict(edges or {}),
        kinds=dict(kinds or {}),
        time_unit=time_unit,
        notes=dict(notes or {}),
    )


def _number(
    key: str, column: Codes, times: NDArray[np.int64] | None, given: pl.DataFrame | None
) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """The table of users or of items in the order of its numbers, and the number of each code."""
    first = first_seen(column.codes, times, len(column.ids))
    seen = pl.DataFrame({key: column.ids, "_code": np.arange(len(first), dtype=np.int32), "_first": first})
    seen = seen.filter(pl.col("_first") != NEVER)
    if given is None:
        table = seen
    else:
        given = _checked(key, given)
        if given[key].dtype != seen[key].dtype:
            given, seen = given.cast({key: pl.String}), seen.cast({key: pl.String})
        table = given.join(seen, on=key, how="full", coalesce=True)
    if times is not None:
        declared = [pl.col(AVAILABLE).cast(pl.Int64)] if AVAILABLE in table.columns else []
        table = table.with_columns(pl.min_horizontal(*declared, "_first").alias(AVAILABLE))
    order = [AVAILABLE, key] if AVAILABLE in table.columns else [key]
    table = table.drop("_first").sort(order, nulls_last=True)
    places = np.full(len(first), -1, np.int32)
    codes = table["_code"]
    places[codes.drop_nulls().to_numpy()] = np.flatnonzero(codes.is_not_null().to_numpy())
    return table.select(key, pl.exclude(key, "_code")).rechunk(), places


def _checked(key: str, given: pl.DataFrame) -> pl.DataFrame:
    """A given table whose ids are there and distinct, whole numbers being Int64."""
    if key not in given.columns:
        raise DataError(f"the table of {key}s needs the column {key!r}, it has {given.columns}")
    ids = given[key]
    if ids.dtype in (pl.Categorical, pl.Enum):
        ids = ids.cast(pl.String)
    if ids.null_count():
        raise DataError(f"ids of {key}s must not be missing, got {ids.null_count():,} missing")
    if len(distinct := encode(ids).ids) != len(ids):
        twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
        shown = [Problem("the same id twice", column=key, value=str(v)) for v in twice.head(5)]
        raise DataError(f"ids of {key}s must be distinct", shown, total=len(ids) - len(distinct))
    return given.with_columns(ids.cast(pl.Int64) if ids.dtype.is_integer() else ids)
