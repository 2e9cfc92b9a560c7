"""Filters: each takes a dataset and gives a smaller one.

Users and items of which no event is left leave the tables, those that stay keep their order, and edges to what left
go too; with `shrink=False` the tables stay whole. The note "filters" of a dataset lists what was applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from tastemaker.data.dealing import deal, shuffle_keys
from tastemaker.data.duplicates import deduplicate as merge
from tastemaker.data.times import to_times
from tastemaker.types import DataError, Dataset, NotFound, UsageError, generator, nearest
from tastemaker.types.edges import without

Flags = NDArray[np.bool_]
Numbers = NDArray[Any]
Policy = Literal["first", "last", "sum", "max"]
Kept = Literal["last", "first", "random"]
Moment = int | str | datetime

NOTE = "filters"


def k_core(
    data: Dataset, k: int = 5, *, users: int | None = None, items: int | None = None, shrink: bool = True
) -> Dataset:
    """The largest part in which every user and every item has at least `k` choices.

    `users` and `items` set a number of their own for one side; 0 sets no limit there. A choice made twice counts
    twice: `deduplicate` first where it should not. Events that are no choice stay with the users and items they name.
    """
    of_users, of_items = (_whole("k_core", k if least is None else least, 0) for least in (users, items))
    chosen = data.choices()
    user, item = _numbers(data)
    rows = slice(None) if chosen is None else chosen
    user_counts, item_counts = _peel(user[rows], item[rows], data.n_users, data.n_items, of_users, of_items)
    users_in, items_in = user_counts >= max(of_users, 1), item_counts >= max(of_items, 1)
    keep = users_in[user] & (items_in[item] | (item < 0))
    return _kept(data, keep, f"k_core(users={of_users}, items={of_items})", shrink)


def at_least(data: Dataset, n: int, *, of: Literal["user", "item"] = "user", shrink: bool = True) -> Dataset:
    """Users (or items) with at least `n` choices, counted once: what that leaves of the other side may have fewer."""
    if of not in ("user", "item"):
        raise UsageError(f"at_least counts the choices of a user or an item, got {of!r}")
    numbers = _numbers(data)[of == "item"]
    chosen = data.choices()
    counted = numbers if chosen is None else numbers[chosen]
    enough = np.bincount(counted, minlength=data.n_users if of == "user" else data.n_items) >= _whole("at_least", n, 1)
    return _kept(data, enough[numbers] | (numbers < 0), f"at_least({n}, of={of})", shrink)


def at_most(data: Dataset, n: int, *, keep: Kept = "last", seed: int = 0, shrink: bool = True) -> Dataset:
    """At most `n` choices a user: the last, the first, or random ones; other events stay."""
    if keep not in get_args(Kept):
        raise UsageError(f"at_most keeps the {', '.join(get_args(Kept))}, got {keep!r}")
    chosen = data.choices()
    user, item = _numbers(data)
    rows = np.arange(data.n_events) if chosen is None else np.flatnonzero(chosen)
    counts = np.bincount(user[rows], minlength=data.n_users)
    most = np.minimum(counts, _whole("at_most", n, 0))
    keys = np.empty(0, np.uint64)
    if keep == "random":
        times = data.events["time"].to_numpy()[rows] if data.has_time else np.empty(0, np.int64)
        keys = shuffle_keys(user[rows], item[rows], times, generator(seed, "at_most"))
    # dealt from the end: the last ones, or, after as many as go, what comes before those
    dealt = deal(counts, counts - most if keep == "first" else most, np.zeros_like(most), keys)
    stays = np.ones(data.n_events, dtype=np.bool_)
    stays[rows] = dealt == (0 if keep == "first" else 2)
    return _kept(data, stays, f"at_most({n}, keep={keep})", shrink)


def rating_at_least(data: Dataset, value: float, *, shrink: bool = True) -> Dataset:
    """Choices worth at least `value`; a choice without a value goes, events that are no choice stay."""
    if "value" not in data.events.columns:
        raise NotFound(f"the events of {data.name} have no values", hint=nearest("value", data.events.columns))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"rating_at_least takes a number, got {value!r}")
    keep = (data.events["value"] >= value).fill_null(False).to_numpy()
    chosen = data.choices()
    return _kept(data, keep if chosen is None else keep | ~chosen, f"rating_at_least({value:g})", shrink)


def of_kinds(data: Dataset, kinds: str | Iterable[str], *, shrink: bool = True) -> Dataset:
    """Events of these kinds."""
    if "kind" not in data.events.columns:
        raise NotFound(f"the events of {data.name} have no kinds", hint=nearest("kind", data.events.columns))
    wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    known = data.events["kind"].drop_nulls().unique().to_list()
    for kind in wanted:
        if kind not in known:
            raise NotFound(f"{data.name} has no events of the kind {kind!r}", hint=nearest(str(kind), known))
    keep = data.events["kind"].is_in(wanted).fill_null(False).to_numpy()
    return _kept(data, keep, f"of_kinds({', '.join(wanted)})", shrink)


def having(data: Dataset, column: str, *, shrink: bool = True) -> Dataset:
    """Events that have a value in `column`, as those of a published split have in its column."""
    if column not in data.events.columns:
        hint = nearest(column, data.events.columns)
        raise NotFound(f"the events of {data.name} have no column {column!r}", hint=hint)
    return _kept(data, data.events[column].is_not_null().to_numpy(), f"having({column})", shrink)


def between(data: Dataset, start: Moment | None = None, end: Moment | None = None, *, shrink: bool = True) -> Dataset:
    """Events from `start` on and before `end`: dates as text, datetimes, or numbers in the dataset's time unit."""
    low, high = (None if at is None else moment(data, at) for at in (start, end))
    times = data.events["time"].to_numpy() if data.has_time else None
    if times is None:
        raise UsageError(f"{data.name} has no times, so no event lies between two")
    keep = np.ones(len(times), dtype=np.bool_)
    if low is not None:
        keep &= times >= low
    if high is not None:
        keep &= times < high
    return _kept(data, keep, f"between({start}, {end})", shrink)


def deduplicate(data: Dataset, keep: Policy = "first") -> Dataset:
    """One event of a kind for a user and an item: the first, the last, the "sum" of their values, or the "max"."""
    if keep not in (policies := ("first", "last", "sum", "max")):
        raise UsageError(f"of duplicates is kept the {', '.join(policies)}, got {keep!r}")
    left = merge(data, keep)
    return replace(left, notes=_noted(data, f"deduplicate({keep})", left.n_events))


def sample_users(data: Dataset, n: int | float, *, seed: int = 0, shrink: bool = True) -> Dataset:
    """A random sample of `n` users (a whole number) or of a share of them (a number below 1), and their events."""
    size = round(n * data.n_users) if isinstance(n, float) and 0 < n < 1 else _whole("sample_users", n, 1)
    picked = generator(seed, "sample_users").permutation(data.n_users)[:size]
    users = np.zeros(data.n_users, dtype=np.bool_)
    users[picked] = True
    keep = users[_numbers(data)[0]]
    items = _present(_numbers(data)[1][keep], data.n_items) if shrink else None
    return _trimmed(data, keep, users if shrink else None, items, f"sample_users({n}, seed={seed})")


def select(data: Dataset, *, users: Any = None, items: Any = None) -> Dataset:
    """These users and items, by numbers or by flags, in the order they had, and the events and edges among them."""
    users = None if users is None else _mask("user", users, data.n_users)
    items = None if items is None else _mask("item", items, data.n_items)
    keep = np.ones(data.n_events, dtype=np.bool_)
    said = []
    for of, mask, numbers in zip(("user", "item"), (users, items), _numbers(data), strict=True):
        if mask is not None:
            keep &= mask[numbers] | (numbers < 0)
            said.append(f"{of}s={np.count_nonzero(mask)}")
    return _trimmed(data, keep, users, items, f"select({', '.join(said)})")


FILTERS: Mapping[str, Callable[..., Dataset]] = {
    f.__name__: f
    for f in (k_core, at_least, at_most, rating_at_least, of_kinds, having, between, deduplicate, sample_users, select)
}
"""Filters by name, as recipes call them."""


def moment(data: Dataset, at: Moment) -> int:
    """A point in time in the dataset's unit; a date without a zone is in UTC."""
    if isinstance(at, int):
        return at
    if data.time_unit != "us":
        raise UsageError(f"a point in time of {data.name} is a whole number, got {at!r}")
    times = to_times(pl.Series([at]))
    if times.unit != "us" or times.values[0] is None:
        raise UsageError(f"a point in time is a date as 2015-01-31, or microseconds since 1970, got {at!r}")
    return int(times.values[0])


def _kept(data: Dataset, keep: Flags, what: str, shrink: bool) -> Dataset:
    """These events, and the users and items that have one."""
    if not shrink:
        return _trimmed(data, keep, None, None, what)
    user, item = _numbers(data)
    return _trimmed(data, keep, _present(user[keep], data.n_users), _present(item[keep], data.n_items), what)


def _trimmed(data: Dataset, keep: Flags, users: Flags | None, items: Flags | None, what: str) -> Dataset:
    """These events, users and items (None: all), numbered anew in their old order."""
    users, items = (None if mask is None or mask.all() else mask for mask in (users, items))
    if not keep.any():
        raise DataError(f"{what} leaves none of the {data.n_events:,} events of {data.name}", hint="ask for less")
    events = data.events if keep.all() else data.events.filter(pl.Series(keep))
    tables: dict[str, pl.DataFrame] = {}
    gone: dict[str, pl.DataFrame] = {}
    for key, table, mask in (("user", data.users, users), ("item", data.items, items)):
        gone[key] = table.clear() if mask is None else table.filter(pl.Series(~mask))
        tables[key] = table if mask is None else table.filter(pl.Series(mask))
        if mask is not None:
            number = pl.Series(np.cumsum(mask, dtype=np.int32) - np.int32(1))
            events = events.with_columns(number.gather(events[key].cast(pl.UInt32)).alias(key))
    return replace(
        data,
        users=tables["user"],
        items=tables["item"],
        events=events,
        edges=without(data.edges, gone["user"], gone["item"]),
        notes=_noted(data, what, events.height),
    )


def _noted(data: Dataset, what: str, n_events: int) -> dict[str, str]:
    said = f"{what}: {n_events:,} of {data.n_events:,} events stay"
    return {**data.notes, NOTE: f"{data.notes[NOTE]}; {said}" if NOTE in data.notes else said}


def _numbers(data: Dataset) -> tuple[Numbers, Numbers]:
    """User and item of every event, item -1 where there is none."""
    return data.events["user"].to_numpy(), data.events["item"].fill_null(-1).to_numpy()


def _present(numbers: Numbers, n: int) -> Flags:
    found = np.zeros(n + 1, dtype=np.bool_)  # the last place is for -1
    found[numbers] = True
    return found[:n]


def _mask(of: str, given: Any, size: int) -> Flags:
    array = np.asarray(given)
    if array.dtype == np.bool_ and array.shape == (size,):
        return array
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
        raise UsageError(f"{of}s are chosen by numbers, or by {size} flags, got {array.dtype} {list(array.shape)}")
    if array.size and not 0 <= array.min() <= array.max() < size:
        raise UsageError(f"{of} numbers run from 0 to {size - 1}, got {array.min()} to {array.max()}")
    return _present(array.astype(np.int64), size)


def _whole(of: str, n: Any, least: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < least:
        raise UsageError(f"{of} takes a whole number of at least {least}, got {n!r}")
    return n


@njit(cache=True, nogil=True)
def _peel(users, items, n_users, n_items, of_users, of_items):  # type: ignore[no-untyped-def]
    """Take choices of users and items that have too few until none has; returns how many each has then."""
    user_counts, item_counts = np.zeros(n_users, np.int64), np.zeros(n_items, np.int64)
    alive = np.ones(len(users), np.bool_)
    for r in range(len(users)):
        user_counts[users[r]] += 1
        item_counts[items[r]] += 1
    changed = True
    while changed:
        changed = False
        for r in range(len(users)):
            if alive[r] and (user_counts[users[r]] < of_users or item_counts[items[r]] < of_items):
                alive[r] = False
                user_counts[users[r]] -= 1
                item_counts[items[r]] -= 1
                changed = True
    return user_counts, item_counts
