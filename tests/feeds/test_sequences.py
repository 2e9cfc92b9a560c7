"""Windows of histories and what is told at their places, against loops over events."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.feeds import interaction_matrix, shared, uniform
from tastemaker.feeds.sequences import MINUTE_US, Sequences, Windows, cloze, next_items, recent, windows
from tastemaker.types import EVENT_COLUMNS, CapabilityError, Columns, Dataset, Jagged, Requests, UsageError

N_USERS, N_ITEMS = 5, 7
EVENT = st.tuples(
    st.integers(0, N_USERS - 1),
    st.one_of(st.none(), st.integers(0, N_ITEMS - 1)),
    st.integers(0, 30),
    st.sampled_from(("view", "purchase", "impression", None)),
    st.one_of(st.none(), st.integers(0, 2)),
)
HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=9), min_size=1, max_size=N_USERS)
Rows = list[tuple[Any, ...]]


def dataset(rows: Rows, time_unit: Any = "us") -> Dataset:
    """Rows of user, item, minute, kind, session."""
    names = ("user", "item", "time", "kind", "session")
    schema = {name: EVENT_COLUMNS[name] for name in names}
    events = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("time") * MINUTE_US)
    users, items = pl.DataFrame({"user": range(N_USERS)}), pl.DataFrame({"item": range(N_ITEMS)})
    return Dataset("toy", users, items, events, time_unit=time_unit)


def of_histories(histories: list[list[int]]) -> Dataset:
    rows = [(u, i, t, None, None) for u, history in enumerate(histories) for t, i in enumerate(history)]
    return dataset(rows)


def cut(data: Dataset, by: str) -> list[tuple[int, list[int]]]:
    """(user, items) of every history, or of every session."""
    found: dict[Any, list[int]] = {}
    last: dict[int, tuple[int, int]] = {}  # user: time of the last event, number of the session
    for row in data.events.iter_rows(named=True):
        if row["item"] is None or row["kind"] == "impression":
            continue
        user, time = row["user"], row["time"]
        if by == "column":
            key = (user, -1 if row["session"] is None else row["session"])
        elif by == "gap":
            before, number = last.get(user, (time, 0))
            last[user] = time, number + (time - before > 5 * MINUTE_US)
            key = (user, last[user][1])
        else:
            key = (user,)
        found.setdefault(key, []).append(row["item"])
    return [(key[0], found[key]) for key in sorted(found)]


def listed(seen: Windows) -> list[tuple[int, list[int]]]:
    return [(int(u), seen.items[a:b].tolist()) for u, a, b in zip(seen.users, seen.starts, seen.stops, strict=True)]


def per_row(batch: Sequences) -> list[list[int]]:
    return Jagged(batch.items, batch.offsets).to_lists()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(EVENT, max_size=40),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(("last", "all")),
    st.sampled_from(("history", "column", "gap")),
)
def test_windows_equal_a_loop(rows: Rows, max_len: int, stride: int, which: Any, by: str) -> None:
    data, stride = dataset(rows), min(stride, max_len)
    expected = []
    for user, items in cut(data, by):
        stop = len(items)
        while True:
            expected.append((user, items[max(0, stop - max_len) : stop]))
            if which == "last" or stop <= max_len:
                break
            stop -= stride
    seen = windows(data, max_len, which=which, stride=stride, sessions=by == "column", gap=5.0 if by == "gap" else None)
    assert sorted(listed(seen)) == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 5))
def test_windows_without_overlap_hold_every_choice_once(histories: list[list[int]], max_len: int) -> None:
    seen = windows(of_histories(histories), max_len, which="all")
    places = np.concatenate([np.arange(a, b) for a, b in zip(seen.starts, seen.stops, strict=True)] or [np.empty(0)])
    assert sorted(places) == list(range(sum(map(len, histories))))


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.integers(1, 5), st.booleans())
def test_next_items_equal_a_loop(histories: list[list[int]], max_len: int, started: bool) -> None:
    data = of_histories(histories)
    seen = windows(data, max_len, which="all")
    start = N_ITEMS if started else None
    expected = []
    for user, items in listed(seen):
        whole = [N_ITEMS, *items] if started else items
        if len(whole) > 1:
            expected.append((user, whole[:-1], whole[1:]))
    if not expected:
        with pytest.raises(UsageError, match="nothing to learn"):
            next_items(seen, 2, start=start)
        return
    feed = next_items(seen, 3, start=start)
    found = []
    for batch in feed:
        targets = Jagged(batch.targets, batch.offsets).to_lists()
        found += list(zip(batch.users.tolist(), per_row(batch), targets, strict=True))
        assert batch.places is None and batch.longest == np.diff(batch.offsets).max() and len(batch) <= 3
    assert sorted(found) == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 5), st.booleans(), st.integers(0, 5))
def test_times_stay_with_their_events(histories: list[list[int]], max_len: int, started: bool, first: int) -> None:
    """What is read has the time at which it happened, and what is told that of the event which is told."""
    data = of_histories(histories)
    seen = windows(data, max_len, which="all", times=True).least(1 if started else 2)
    if not len(seen):
        return
    feed = next_items(seen, 100, start=N_ITEMS if started else None)
    batch = feed.make(np.arange(len(seen)), np.random.default_rng(0)).take(slice(first, None))
    assert len(batch.times) == len(batch.asked) == len(batch.items)
    for row, (a, b) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
        whole, minutes = (
            histories[int(batch.users[row])],
            (batch.times[a:b] // MINUTE_US, batch.asked[a:b] // MINUTE_US),
        )
        assert [whole[m] for m in minutes[1]] == batch.targets[a:b].tolist()
        read = batch.items[a + started : b].tolist()
        assert [whole[m] for m in minutes[0][started:]] == read
        assert np.array_equal(minutes[0][1:], minutes[1][:-1]), "what is told at a place is read at the next"
        assert not started or minutes[0][0] == minutes[1][0], "the start is as old as the first event"


def test_times_of_requests() -> None:
    items = Jagged.from_lists([[5, 9, -1, 6, 4], [], [3]], dtype=np.int32)
    history = Jagged(Columns(item=items.values, time=np.array([10, 20, 30, 40, 50, 60])), items.offsets)
    asked = Requests(3, history=history, now=np.array([70, 80, 90]))
    found = recent(asked, N_ITEMS, 2, start=N_ITEMS, times=True)
    assert per_row(found) == [[N_ITEMS, 6, 4], [N_ITEMS], [N_ITEMS, 3]]
    assert found.times.tolist() == [40, 40, 50, 80, 60, 60] and found.asked.tolist() == [40, 50, 70, 80, 60, 90]
    at_once = recent(asked.with_(now=None), N_ITEMS, 3, times=True)
    assert at_once.times.tolist() == [10, 40, 50, 60] and at_once.asked.tolist() == [40, 50, 50, 60]
    unsaid = recent(Requests.of_items([[1, 2]], now=[7]), N_ITEMS, 3, start=N_ITEMS, times=True)
    assert not unsaid.times.any() and not unsaid.asked.any()
    assert recent(asked, N_ITEMS, 2).times is None


def test_one_event_teaches_the_start_and_nothing_else() -> None:
    seen = windows(of_histories([[3], [], [4, 4]]), 10)
    (batch,) = next_items(seen, 8, start=N_ITEMS)
    assert {u: row for u, row in zip(batch.users.tolist(), per_row(batch), strict=True)} == {0: [7], 2: [7, 4]}
    (batch,) = next_items(seen, 8)
    assert batch.users.tolist() == [2] and per_row(batch) == [[4]] and batch.targets.tolist() == [4]


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.integers(1, 6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_cloze_hides_what_it_asks_for(
    histories: list[list[int]], max_len: int, share: float, last: float, seed: int
) -> None:
    seen = windows(of_histories(histories), max_len, which="all")
    if not len(seen):
        return
    feed = cloze(seen, 100, N_ITEMS, share=share, last=last)
    batch = feed.make(np.arange(len(seen)), np.random.default_rng(seed))
    original, _ = seen.gather(np.arange(len(seen)))
    hidden = batch.items == N_ITEMS
    assert np.array_equal(np.flatnonzero(hidden), batch.places), "what is asked for is hidden, and nothing else"
    assert np.array_equal(batch.targets, original[batch.places])
    assert np.array_equal(batch.items[~hidden], original[~hidden])
    assert all(N_ITEMS in row for row in per_row(batch)), "every window teaches something"


def test_cloze_keeps_its_shares() -> None:
    seen = windows(of_histories([[0, 1, 2, 3, 4, 5, 6, 0, 1, 2]] * 5), 10)
    rows = np.zeros(4000, dtype=np.int64)
    make = cloze(seen, 1, N_ITEMS, share=0.3).make
    hidden = make(rows, np.random.default_rng(0)).items.reshape(-1, 10) == N_ITEMS
    assert hidden.mean(axis=0) == pytest.approx(np.full(10, 0.3 + 0.7**10 / 10), abs=0.03)
    make = cloze(seen, 1, N_ITEMS, share=0.3, last=0.25).make
    hidden = make(rows, np.random.default_rng(1)).items.reshape(-1, 10) == N_ITEMS
    alone = hidden[:, -1] & (hidden.sum(axis=1) == 1)
    assert alone.mean() == pytest.approx(0.25 + 0.75 * (0.3 * 0.7**9 + 0.7**10 / 10), abs=0.03)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 5), st.integers(-2, 7), st.integers(-2, 7), st.sampled_from(("next", "cloze")))
def test_take_gives_whole_sequences(histories: list[list[int]], max_len: int, first: int, last: int, kind: str) -> None:
    data = of_histories(histories)
    seen = windows(data, max_len, which="all")
    if not len(seen):
        return
    sampler = uniform(interaction_matrix(data), 2)
    feed = (
        next_items(seen, 100, start=N_ITEMS, negatives=sampler)
        if kind == "next"
        else cloze(seen, 100, N_ITEMS, negatives=sampler)
    )
    batch = feed.batch(0, 0)
    rows = slice(first, last)
    part = batch.take(rows)
    assert per_row(part) == per_row(batch)[rows]
    assert np.array_equal(part.users, batch.users[rows])
    assert part.longest == max(map(len, per_row(part)), default=0)
    places = np.arange(len(batch.items)) if batch.places is None else batch.places
    owner = np.searchsorted(batch.offsets, places, side="right") - 1
    kept = np.isin(owner, np.arange(len(batch))[rows])
    assert np.array_equal(part.targets, batch.targets[kept])
    assert np.array_equal(part.negatives, batch.negatives[kept])
    if batch.places is not None:
        assert np.array_equal(part.items[part.places], batch.items[places[kept]])


def test_negatives_are_drawn_for_each_target_or_for_the_batch() -> None:
    data = of_histories([[0, 1, 2], [3, 4], [5]])
    matrix, seen = interaction_matrix(data), windows(data, 10)
    for feed in (
        next_items(seen, 9, start=N_ITEMS, negatives=uniform(matrix, 3)),
        cloze(seen, 9, N_ITEMS, share=0.9, negatives=uniform(matrix, 3)),
    ):
        batch = feed.batch(0, 0)
        assert batch.negatives.shape == (len(batch.targets), 3)
        places = np.arange(len(batch.items)) if batch.places is None else batch.places
        askers = batch.users[np.searchsorted(batch.offsets, places, side="right") - 1]
        chosen = matrix.toarray() > 0
        assert not chosen[askers[:, None], batch.negatives].any(), "a user's own items are no negatives"
    batch = next_items(seen, 9, start=N_ITEMS, negatives=shared(matrix, 4)).batch(0, 0)
    assert batch.negatives.shape == (4,)
    assert np.array_equal(batch.take(slice(1, 2)).negatives, batch.negatives)


def test_batches_depend_on_seed_epoch_and_number_alone() -> None:
    seen = windows(of_histories([[0, 1, 2, 3], [4, 5, 6], [0, 2, 4]]), 4)
    feeds = [cloze(seen, 2, N_ITEMS) for _ in range(2)]
    for feed in feeds:
        feed.start(5)
    list(feeds[1])
    for epoch in (0, 3):
        one, two = (feed.batch(epoch, 1) for feed in feeds)
        assert np.array_equal(one.items, two.items) and np.array_equal(one.targets, two.targets)
    drawn = [feeds[0].batch(epoch, 0).items.tolist() for epoch in range(9)]
    assert len({tuple(row) for row in drawn}) > 1


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(-1, N_ITEMS + 2), max_size=8), max_size=5),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_recent_equals_a_loop(histories: list[list[int]], max_len: int, started: bool, masked: bool) -> None:
    start, mask = (N_ITEMS if started else None), (N_ITEMS if masked else None)
    batch = recent(Requests.of_items(histories), N_ITEMS, max_len, start=start, mask=mask)
    known = [[i for i in row if 0 <= i < N_ITEMS][-max_len:] for row in histories]
    expected = [[N_ITEMS] * started + row + [N_ITEMS] * masked for row in known]
    assert per_row(batch) == expected
    assert batch.longest == max(map(len, expected), default=0) and len(batch.targets) == 0


def test_what_cannot_be_cut_is_refused() -> None:
    data = of_histories([[0, 1, 2]])
    for max_len, stride in ((0, None), (3, 4), (3, 0)):
        with pytest.raises(UsageError, match="strides"):
            windows(data, max_len, which="all", stride=stride)
    bare = data.with_events(data.events.drop("session"))
    with pytest.raises(CapabilityError, match="no column 'session'"):
        windows(bare, 3, sessions=True)
    with pytest.raises(CapabilityError, match="no times on a clock"):
        windows(dataset([(0, 1, 1, None, None)], time_unit="step"), 3, gap=30.0)
    assert len(windows(dataset([]), 3, which="all")) == 0
