"""Numbering: dense, by availability then id, whatever the order of rows; and nothing later moves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import build
from tastemaker.data.numbering import BLOCK, Codes, encode, encode_all, first_seen, order_events
from tastemaker.types import DataError

IDS = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60),
    st.lists(st.sampled_from(["", "a", "b", "ab", "a longer id that is not kept inline", "é", "0", "00"]), min_size=1),
)


@st.composite
def logs(draw: st.DrawFn) -> pl.DataFrame:
    """Events at distinct times."""
    n = draw(st.integers(1, 60))
    text = draw(st.booleans())
    user = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    item = draw(st.lists(st.one_of(st.none(), st.integers(0, 8)), min_size=n, max_size=n))
    times = draw(st.lists(st.integers(-1000, 1000), min_size=n, max_size=n, unique=True))
    frame = pl.DataFrame(
        {"user": user, "item": item, "time": times, "value": times}, schema_overrides={"item": pl.Int64}
    )
    return frame.with_columns(pl.col("user", "item").cast(pl.String)) if text else frame


@settings(max_examples=80, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(events: pl.DataFrame, random: Any) -> None:
    rows = list(range(events.height))
    random.shuffle(rows)
    one = build("x", events, time_unit="us")
    other = build("x", events[rows], time_unit="us")
    assert one.fingerprint == other.fingerprint


@settings(max_examples=80, deadline=None)
@given(logs(), st.integers(-1000, 1000))
def test_what_comes_later_moves_no_number(events: pl.DataFrame, time: int) -> None:
    whole = build("x", events, time_unit="us").asof(time)
    early = build("x", events.filter(pl.col("time") < time), time_unit="us")
    assert whole.fingerprint == early.fingerprint


@settings(max_examples=80, deadline=None)
@given(logs())
def test_events_say_what_the_table_said(events: pl.DataFrame) -> None:
    data = build("x", events, time_unit="us")
    back = data.events.with_columns(
        data.users["user"].gather(data.events["user"]).alias("user"),
        data.items["item"].gather(data.events["item"]).alias("item"),
    )
    assert back.sort("time").equals(events.with_columns(value=pl.col("value").cast(pl.Float32)).sort("time"))
    for table, key in ((data.users, "user"), (data.items, "item")):
        first = events.filter(pl.col(key).is_not_null()).group_by(key).agg(available=pl.col("time").min())
        assert table.equals(first.sort("available", key).cast({key: table[key].dtype}))


def test_without_times_ids_are_in_order() -> None:
    data = build("x", pl.DataFrame({"user": ["b", "a", "b"], "item": [3, 1, 2], "value": [1.0, 2.0, 3.0]}))
    assert data.users["user"].to_list() == ["a", "b"] and data.items["item"].to_list() == [1, 2, 3]
    assert data.events.rows() == [(0, 0, 2.0), (1, 2, 1.0), (1, 1, 3.0)]  # rows of one user keep their order


def test_those_who_come_at_one_time_are_in_order_of_their_ids() -> None:
    events = pl.DataFrame({"user": ["c", "a", "b", "a"], "item": [10, 9, 9, 2], "time": [5, 5, 5, 1]})
    for rows in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        data = build("x", events[rows], time_unit="us")
        assert data.users["user"].to_list() == ["a", "b", "c"] and data.items["item"].to_list() == [2, 9, 10]


def test_tables_add_rows_and_attributes() -> None:
    events = pl.DataFrame({"user": [1, 2], "item": ["x", "y"], "time": [20, 10]})
    items = pl.DataFrame({"name": ["Z", "Y"], "item": ["z", "y"], "available": [15, 30]})
    data = build("x", events, pl.DataFrame({"user": ["2", "9"], "age": [5, 6]}), items, time_unit="step")
    assert data.users.rows() == [("2", 5, 10), ("1", None, 20), ("9", 6, None)]
    assert data.items.rows() == [("y", "Y", 10), ("z", "Z", 15), ("x", None, 20)]  # an event shows that y was there


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"users": pl.DataFrame({"user": [1, 1]})}, "must be distinct"),
        ({"users": pl.DataFrame({"user": [1, None]})}, "must not be missing"),
        ({"items": pl.DataFrame({"name": [1]})}, "needs the column 'item'"),
        ({"time_unit": None}, "say its unit"),
        ({"time_unit": "s"}, "one of us, step"),
        ({"events": pl.DataFrame({"user": [1, None], "item": [1, 2], "time": [1, 2]})}, "every event needs a user"),
        ({"events": pl.DataFrame({"user": [1, 2], "item": [1, 2], "time": [1, None]})}, "every event needs one"),
        ({"events": pl.DataFrame({"user": [1.5, 2], "item": [1, 2], "time": [1, 3]})}, "whole numbers or strings"),
        ({"events": pl.DataFrame({"user": [1.5, 2]})}, "need the column 'item'"),
    ],
)
def test_what_cannot_be_built(change: dict[str, Any], words: str) -> None:
    events = pl.DataFrame({"user": [1, 2], "item": [1, 2], "time": [1, 2]})
    with pytest.raises(DataError, match=words):
        build("x", **{"events": events, "time_unit": "us", **change})


def test_empty_events() -> None:
    data = build("x", pl.DataFrame({"user": [], "item": [], "time": []}), time_unit="us")
    assert (data.n_users, data.n_items, data.n_events) == (0, 0, 0)


# -- the kernels


@settings(max_examples=150, deadline=None)
@given(IDS, st.data())
def test_codes_name_their_ids(ids: list[Any], data: st.DataObject) -> None:
    gone = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    values = pl.Series("id", [None if g else v for v, g in zip(ids, gone, strict=True)], dtype=pl.Series(ids).dtype)
    codes = encode(values)
    distinct = list(dict.fromkeys(v for v in values.to_list() if v is not None))
    assert codes.ids.to_list() == distinct
    assert codes.codes.tolist() == [-1 if v is None else distinct.index(v) for v in values.to_list()]
    if values.dtype == pl.String:
        named = encode(values.cast(pl.Categorical))
        assert named.ids.to_list() == distinct and np.array_equal(named.codes, codes.codes)


def test_tables_of_hashes_grow_and_blocks_join() -> None:
    rng = np.random.default_rng(0)
    n = BLOCK + 1000
    wide = pl.Series("id", rng.integers(0, 2**62, 60_000)[rng.integers(0, 60_000, n)])
    close = pl.Series("id", np.concatenate([np.full(BLOCK, 5), rng.integers(-9, 900, 1000)]))
    for values in (wide, wide.cast(pl.String), pl.concat([wide[:7], wide[7:]], rechunk=False), close):
        codes = encode(values)
        assert codes.ids.gather(codes.codes).equals(values) and codes.ids.n_unique() == len(codes.ids)


def test_codes_under_other_names() -> None:
    codes = encode(pl.Series("id", ["1", "1.0", "x", "2", "1"]))
    renamed = codes.renamed(pl.Series("id", [1, 1, None, 2]))
    assert renamed.codes.tolist() == [0, 0, -1, 1, 0] and renamed.ids.to_list() == [1, 2]
    assert isinstance(encode_all([pl.Series([1]), pl.Series(["a"])])[1], Codes)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), max_size=400), st.booleans())
def test_order_is_that_of_a_stable_sort(rows: list[tuple[int, int]], timed: bool) -> None:
    users = np.array([u for u, _ in rows], np.int32)
    times = np.array([t for _, t in rows], np.int64) if timed else None
    found = order_events(users, times, 7)
    wanted = np.lexsort((np.zeros(len(rows)) if times is None else times, users))
    if found is None:
        assert np.array_equal(wanted, np.arange(len(rows)))
        return
    order, starts, sorted_times = found
    assert np.array_equal(order, wanted)
    assert np.array_equal(np.diff(starts), np.bincount(users, minlength=7))
    assert sorted_times is None if times is None else np.array_equal(sorted_times, times[wanted])


def test_long_histories_sort_too() -> None:
    rng = np.random.default_rng(1)
    users, times = rng.integers(0, 3, 5000).astype(np.int32), rng.integers(0, 50, 5000)
    found = order_events(users, times, 3)
    assert found is not None and np.array_equal(found[0], np.lexsort((times, users)))
    first = first_seen(users, times, 4)
    assert first.tolist() == [*(times[users == u].min() for u in range(3)), np.iinfo(np.int64).max]
