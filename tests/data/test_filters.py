"""Filters keep what they say, number what stays in the old order, and drop what leads nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import filters
from tastemaker.data.build import build
from tastemaker.types import DataError, Dataset, NotFound, UsageError

Row = tuple[str, str | None, int, str, float | None]
PASSIVE = ("impression", "search")

rows = st.lists(
    st.tuples(
        st.integers(0, 6).map(lambda u: f"u{u}"),
        st.integers(0, 6).map(lambda i: f"i{i}"),
        st.integers(0, 30),
        st.sampled_from(["view", "view", "buy", "impression", "search"]),
        st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0])),
    ).map(lambda r: (r[0], None, *r[2:]) if r[3] == "search" else r),
    min_size=1,
    max_size=50,
)


def log(events: list[Row]) -> Dataset:
    names = ("user", "item", "time", "kind", "value")
    frame = pl.DataFrame(events, schema=names, orient="row", schema_overrides={"item": pl.String, "value": pl.Float64})
    shelf = [f"i{n}" for n in range(9)]
    return build(
        "log",
        frame,
        users=pl.DataFrame({"user": [f"u{n}" for n in range(8)], "age": range(8)}),
        items=pl.DataFrame({"item": shelf, "title": [f"title of {i}" for i in shelf]}),
        edges={
            "kg": pl.DataFrame({"head": shelf, "relation": "made_by", "tail": ["someone"] * 8 + ["i0"]}),
            "social": pl.DataFrame({"head": ["u0", "u1", "u7"], "relation": "follows", "tail": ["u1", "u0", "u1"]}),
        },
        time_unit="step",
    )


def outside(data: Dataset) -> list[Row]:
    """Events with outside ids, in the order they have inside."""
    users = data.user_ids.ids(data.events["user"].to_numpy())
    items = data.item_ids.ids(data.events["item"].fill_null(-1).to_numpy())
    return list(zip(users, items, *(data.events[c] for c in ("time", "kind", "value")), strict=True))


def chosen(row: Row) -> bool:
    return row[3] not in PASSIVE


def check(data: Dataset, left: Dataset, expected: list[Row], *, shrunk: bool = True) -> None:
    """The filtered dataset holds these events of `data`, and is whole in every other way."""
    assert outside(left) == expected
    for old, new, key, at in ((data.users, left.users, "user", 0), (data.items, left.items, "item", 1)):
        named = {row[at] for row in expected}
        wanted = old.filter(pl.col(key).is_in(list(named - {None}))) if shrunk else old
        assert new.equals(wanted), f"the table of {key}s is not what remains, in its order"
    items, users = set(left.items["item"]), set(left.users["user"])
    assert left.edges["kg"]["head"].to_list() == [h for h in data.edges["kg"]["head"]
                                                 if h in items and (h != "i8" or "i0" in items)]  # fmt: skip
    assert all({head, tail} <= users for head, _, tail in left.edges["social"].rows())
    assert f"{len(expected):,} of {data.n_events:,} events stay" in left.notes["filters"]


def check_filter(data: Dataset, function: Callable[..., Dataset], keep: Callable[[Row], bool], *given: Any) -> None:
    expected = [row for row in outside(data) if keep(row)]
    if not expected:
        with pytest.raises(DataError, match="leaves none of the"):
            function(data, *given)
        return
    check(data, function(data, *given), expected)
    check(data, function(data, *given, shrink=False), expected, shrunk=False)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 4), st.integers(0, 3))
def test_a_core_is_what_peeling_leaves(events: list[Row], of_users: int, of_items: int) -> None:
    data = log(events)
    core = [row for row in outside(data) if chosen(row)]
    while True:
        users, items = Counter(r[0] for r in core), Counter(r[1] for r in core)
        less = [r for r in core if users[r[0]] >= of_users and items[r[1]] >= of_items]
        if len(less) == len(core):
            break
        core = less
    inside = {r[0] for r in core}, {r[1] for r in core}
    check_filter(
        data,
        lambda data, **how: filters.k_core(data, users=of_users, items=of_items, **how),
        lambda r: r[0] in inside[0] and (r[1] in inside[1] or r[1] is None),
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 5), st.integers(0, 30), st.integers(0, 30))
def test_what_each_filter_keeps(events: list[Row], n: int, start: int, end: int) -> None:
    data = log(events)
    everything = outside(data)
    kinds = sorted({row[3] for row in everything})[:2]
    of_user = Counter(r[0] for r in everything if chosen(r))
    of_item = Counter(r[1] for r in everything if chosen(r))
    check_filter(data, filters.of_kinds, lambda r: r[3] in kinds, kinds)
    check_filter(data, filters.between, lambda r: start <= r[2] < end, start, end)
    check_filter(data, filters.between, lambda r: r[2] >= start, start)
    check_filter(data, filters.rating_at_least, lambda r: not chosen(r) or (r[4] is not None and r[4] >= n), n)
    check_filter(data, filters.at_least, lambda r: of_user[r[0]] >= n, n)
    check_filter(
        data,
        lambda d, n, **how: filters.at_least(d, n, of="item", **how),
        lambda r: r[1] is None or of_item[r[1]] >= n,
        n,
    )


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(1, 4))
def test_at_most_cuts_histories(events: list[Row], n: int) -> None:
    data = log(events)
    everything = outside(data)
    place, back = [0] * len(everything), [0] * len(everything)
    for numbers, order in ((place, range(len(everything))), (back, reversed(range(len(everything))))):
        counts: Counter[str] = Counter()
        for at in order:
            numbers[at] = counts[everything[at][0]]
            counts[everything[at][0]] += chosen(everything[at])
    for keep, numbers in (("last", back), ("first", place)):
        expected = [row for row, at in zip(everything, numbers, strict=True) if not chosen(row) or at < n]
        check(data, filters.at_most(data, n, keep=keep), expected)  # type: ignore[arg-type]
    drawn = Counter(r[0] for r in outside(filters.at_most(data, n, keep="random", seed=1)) if chosen(r))
    assert drawn == {u: min(n, c) for u, c in Counter(r[0] for r in everything if chosen(r)).items()}


def test_random_ones_are_not_the_last_ones_and_hang_on_the_seed() -> None:
    data = log([(f"u{n % 3}", f"i{n % 7}", n, "view", None) for n in range(60)])
    drawn = [outside(filters.at_most(data, 5, keep="random", seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] != outside(filters.at_most(data, 5))


def test_duplicates_become_one_of_a_kind() -> None:
    data = log([("u0", "i0", t, kind, v) for t, kind, v in
                [(1, "view", 2.0), (2, "view", 5.0), (3, "buy", 1.0), (4, "view", 3.0)]])  # fmt: skip
    kept = {
        keep: [(r[2], r[4]) for r in outside(filters.deduplicate(data, keep))]
        for keep in ("first", "last", "max", "sum")
    }  # type: ignore[arg-type]
    assert kept["first"] == [(1, 2.0), (3, 1.0)] and kept["last"] == [(3, 1.0), (4, 3.0)]
    assert kept["max"] == [(2, 5.0), (3, 1.0)] and kept["sum"] == [(3, 1.0), (4, 10.0)]
    assert "2 of 4 events stay" in filters.deduplicate(data).notes["filters"]


@settings(max_examples=30, deadline=None)
@given(rows, st.lists(st.integers(0, 7), min_size=1), st.lists(st.integers(0, 8), min_size=1))
def test_select_keeps_exactly_these(events: list[Row], users: list[int], items: list[int]) -> None:
    data = log(events)
    names = set(data.user_ids.ids(users)), set(data.item_ids.ids(items))
    expected = [r for r in outside(data) if r[0] in names[0] and (r[1] in names[1] or r[1] is None)]
    if not expected:
        return
    left = filters.select(data, users=users, items=np.isin(np.arange(9), items))
    assert outside(left) == expected
    assert left.users.equals(data.users[sorted(set(users))]) and left.items.equals(data.items[sorted(set(items))])


def test_a_sample_of_users() -> None:
    data = log([(f"u{n % 8}", f"i{n % 7}", n, "view", None) for n in range(60)])
    few = filters.sample_users(data, 3, seed=1)
    assert few.n_users == 3 and filters.sample_users(data, 0.5, seed=1).n_users == 4
    names = set(few.users["user"])
    check(data, few, [r for r in outside(data) if r[0] in names])
    assert few.users.equals(filters.sample_users(data, 3, seed=1).users)
    assert len({tuple(filters.sample_users(data, 3, seed=s).users["user"]) for s in range(9)}) > 3
    assert filters.sample_users(data, 3, seed=1, shrink=False).n_users == 8


def test_dates_bound_a_window() -> None:
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 3], "time": [0, 86_400_000_000, 2 * 86_400_000_000]})
    data = build("days", frame, time_unit="us")
    assert filters.between(data, "1970-01-02", "1970-01-03").item_ids.series.to_list() == [2]
    assert filters.between(data, end=datetime(1970, 1, 2, 0, 0, 1, tzinfo=UTC)).n_events == 2
    assert filters.moment(data, "1970-01-01 00:00:01") == 1_000_000


def test_notes_list_what_was_applied_in_order() -> None:
    data = log([(f"u{n % 3}", f"i{n % 4}", n, "view", float(n % 5 + 1)) for n in range(60)])
    left = filters.k_core(filters.rating_at_least(data, 3), 2)
    assert left.notes["filters"] == (
        "rating_at_least(3): 36 of 60 events stay; k_core(users=2, items=2): 36 of 36 events stay"
    )
    assert left.kind("items", "title") == data.kind("items", "title") and left.time_unit == "step"


def test_a_dataset_without_items_in_some_events_keeps_its_types() -> None:
    data = log([("u0", None, 0, "search", None), ("u1", "i3", 1, "view", 5.0), ("u1", None, 2, "search", None)])
    left = filters.at_least(data, 1)
    assert left.events["item"].to_list() == [0, None] and left.events["item"].dtype == pl.Int32


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda d: filters.k_core(d, -1), UsageError, "at least 0, got -1"),
        (lambda d: filters.k_core(d, 2.5), UsageError, "whole number"),
        (lambda d: filters.k_core(d, 50), DataError, "leaves none of the 4 events"),
        (lambda d: filters.at_least(d, 1, of="session"), UsageError, "user or an item"),
        (lambda d: filters.at_most(d, 1, keep="best"), UsageError, "last, first, random"),
        (lambda d: filters.rating_at_least(d, "4"), UsageError, "takes a number"),
        (lambda d: filters.of_kinds(d, "veiw"), NotFound, "'view'"),
        (lambda d: filters.between(d, "2020-01-01"), UsageError, "whole number"),
        (lambda d: filters.deduplicate(d, "any"), UsageError, "first, last, sum, max"),
        (lambda d: filters.sample_users(d, 0), UsageError, "at least 1"),
        (lambda d: filters.select(d, users=[9]), UsageError, "run from 0 to 7, got 9"),
        (lambda d: filters.select(d, items=[0.5]), UsageError, "numbers, or by 9 flags"),
    ],
)
def test_what_cannot_be_filtered_so_is_told(
    call: Callable[[Dataset], Dataset], error: type[Exception], match: str
) -> None:
    data = log(
        [
            ("u0", "i0", 1, "view", 1.0),
            ("u0", "i1", 2, "view", 2.0),
            ("u1", "i1", 3, "buy", 3.0),
            ("u2", "i2", 4, "view", None),
        ]
    )
    with pytest.raises(error, match=match):
        call(data)


def test_columns_that_are_needed_are_named() -> None:
    bare = build("bare", pl.DataFrame({"user": [1], "item": [1]}))
    for call, match in (
        (lambda d: filters.rating_at_least(d, 1), "no values"),
        (lambda d: filters.of_kinds(d, ["view"]), "no kinds"),
        (lambda d: filters.between(d, 1, 2), "no times"),
    ):
        with pytest.raises(UsageError, match=match):
            call(bare)


def test_every_filter_is_found_by_name() -> None:
    assert all(getattr(filters, name) is function for name, function in filters.FILTERS.items())
    assert {"k_core", "rating_at_least", "of_kinds", "between", "deduplicate"} < set(filters.FILTERS)


def test_deduplicating_leaves_shown_lists_and_searches_as_they_were() -> None:
    events = pl.DataFrame(
        {
            "user": [1] * 6,
            "item": ["a", "a", "a", "a", None, None],
            "kind": ["view", "view", "impression", "impression", "search", "search"],
        }
    )
    kept = filters.deduplicate(build("log", events), "first")
    assert sorted(kept.events["kind"]) == ["impression", "impression", "search", "search", "view"]


def test_having_keeps_what_a_published_split_names() -> None:
    events = pl.DataFrame({"user": [1, 1, 2], "item": ["a", "b", "c"], "split": ["train", None, "test"]})
    kept = filters.having(build("log", events), "split")
    assert kept.n_events == 2 and kept.item_ids.series.to_list() == ["a", "c"]
    with pytest.raises(NotFound, match="did you mean 'split'"):
        filters.having(build("log", events), "splt")
