"""Rows of features: labels as the log says, fields as learnt, the past and nothing later, the same when asked."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tastemaker.data import build, synthetic
from tastemaker.feeds import Labelled, Pasts, Reader, tasks_of
from tastemaker.feeds.fields import Encoder, Fields, learn
from tastemaker.feeds.rows import pairs
from tastemaker.types import BundleError, Columns, Dataset, Jagged, Requests, UsageError


def log(timed: bool = True) -> Dataset:
    """Two lists shown, a choice outside of them, a search; context and attributes."""
    events = pl.DataFrame(
        {
            "user": ["a", "a", "a", "a", "a", "b", "b", "b"],
            "item": ["x", "y", "x", "z", None, "x", "y", "y"],
            "time": [1, 1, 2, 5, 6, 3, 3, 4],
            "kind": ["impression", "impression", "view", "buy", "search", "impression", "impression", "buy"],
            "value": [None, None, 2.0, 5.0, None, None, None, 4.0],
            "slate": [1, 1, 1, None, None, 2, 2, 2],
            "place": ["home", "home", "home", "work", "work", "work", "work", "work"],
            "battery": [10.0, 10.0, 10.0, 30.0, 20.0, None, 20.0, 20.0],
        }
    )
    items = pl.DataFrame({"item": ["x", "y", "z"], "genre": ["p", "q", "p"], "tags": [["s", "t"], [], ["t"]]})
    users = pl.DataFrame({"user": ["a", "b", "c"], "adult": [True, False, None]})
    kinds: dict = {"items": {"genre": "category", "tags": "categories"}, "events": {"place": "category"}}
    data = events if timed else events.drop("time")
    return build("log", data, users, items, kinds=kinds, time_unit="step" if timed else None)


def test_labels_are_what_the_log_says() -> None:
    data = log()
    tasks = tasks_of(["choice", "kind=buy", "value>=4", "value"], data.schema)
    rows = Labelled.of(data, tasks)
    names = data.user_ids.ids(rows.users).to_list(), data.item_ids.ids(rows.items).to_list()
    found = {
        (user, item): labels.tolist()
        for user, item, labels in zip(*names, np.nan_to_num(rows.labels, nan=-1), strict=True)
    }
    assert found == {
        ("a", "x"): [1, 0, 0, 2],
        ("a", "y"): [0, 0, -1, -1],
        ("a", "z"): [1, 1, 1, 5],
        ("b", "x"): [0, 0, -1, -1],
        ("b", "y"): [1, 1, 1, 4],
    }, "shown and chosen in one list is one row; what was not taken has no value; a search is no row"
    assert rows.open.sum() == 1, "only z was chosen outside a list"
    assert [task.binary for task in tasks] == [True, True, True, False]


def test_a_row_whose_events_fall_apart_belongs_to_no_part() -> None:
    data = log()
    within = data.events["kind"].is_in(["impression"]).to_numpy()
    rows = Labelled.of(data, tasks_of(["choice"], data.schema), within)
    assert len(rows) == 2 and (rows.labels == 0).all(), "of three impressions two were not taken; two were, elsewhere"


@pytest.mark.parametrize("name", ["", "likes", "value>=much", "place", "kind>=3"])
def test_a_task_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        tasks_of([name], log().schema)


def test_the_past_ends_before_the_event() -> None:
    data = synthetic(40, n_items=40, seed=1)
    pasts, events = Pasts.of(data), data.events
    chosen = data.choices()
    assert chosen is not None
    users, times = events["user"].to_numpy(), events["time"].to_numpy()
    some = np.arange(0, data.n_events, 97)
    places, offsets = pasts.of_events(some, 5)
    for n, event in enumerate(some):
        earlier = np.flatnonzero((users == users[event]) & (times < times[event]) & chosen)[-5:]
        assert np.array_equal(pasts.rows[places[offsets[n] : offsets[n + 1]]], earlier)
    assert np.array_equal(pasts.items[places], events["item"].to_numpy()[pasts.rows[places]])


def test_fields_are_coded_by_what_was_learnt() -> None:
    data = log()
    tasks = tasks_of(["choice"], data.schema)
    fields = Fields.of(data.schema, ["events.battery", "items.genre", "events.place", "items.tags"], tasks)
    assert (fields.categories, fields.bags) == (("items.genre", "events.place"), ("items.tags",))
    encoder = Encoder(fields, learn(data, fields))
    words = encoder.words
    assert list(words["items.genre"]) == ["p", "q"] and list(words["events.place"]) == ["home", "work"]
    requests = Requests(
        3,
        users=np.array([0, -1, 99]),
        context=Columns(place=np.array(["work", "moon", None], dtype=object), battery=np.array([20.0, np.nan, 1e9])),
    )
    (rows,) = pairs(encoder, requests, np.array([[0], [1], [-1]]))
    genre, place = words["items.genre"], words["events.place"]
    assert rows.users.tolist() == [1, 0, 0] and rows.items.tolist() == [1, 2, 0]
    assert rows.owners.tolist() == [0, -1, -1]
    assert rows.categories.tolist() == [[genre["p"], place["work"]], [genre["q"], 1], [0, 1]], (
        "unknown is the first row"
    )
    assert np.array_equal(np.diff(rows.bag_offsets), [2, 0, 0])
    assert set(rows.bags.tolist()) == set(words["items.tags"].values())
    known = np.array([10.0, 10.0, 10.0, 30.0, 20.0, 20.0, 20.0])
    np.testing.assert_allclose(rows.numbers[:, 0], [(20 - known.mean()) / known.std(), 0.0, 5.0], rtol=1e-5)


def test_users_and_items_without_an_event_are_unknown() -> None:
    data = log()
    encoder = Encoder(*(lambda f: (f, learn(data, f)))(Fields.of(data.schema, [], tasks_of(["choice"], data.schema))))
    stranger = data.user_ids.number("c")
    assert encoder.user_codes[stranger + 1, 0] == 0 and encoder.user_codes[1, 0] == 1


def test_a_vocabulary_only_grows() -> None:
    data = log()
    reader, later = (Reader(data.schema, ["items.genre", "events.place"], ["choice"]) for _ in range(2))
    reader.take(reader.learn(data.with_events(data.events.filter(pl.col("place") == "work"))))
    later.adopt(reader)
    later.take(later.learn(data))
    assert later.words()[: len(reader.words())] == reader.words() and len(later.words()) == len(reader.words()) + 1


def test_state_that_does_not_fit_is_refused() -> None:
    data = log()
    reader = Reader(data.schema, None, ["choice"])
    reader.take(reader.learn(data))
    state = reader.export()
    assert reader.restore({**state, "other": np.zeros(1)}) == {"other": np.zeros(1)}
    for name, change in {
        "reader.items": lambda a: a + 1000,
        "reader.bag_offsets": lambda a: a[:-1],
        "reader.vocabulary": lambda a: a[:-3],
        "reader.users": lambda a: a[1:],
    }.items():
        with pytest.raises(BundleError):
            reader.restore({**state, name: change(state[name])})
    with pytest.raises(BundleError):
        reader.restore({})


def test_batches_hold_what_was_drawn_and_can_be_cut() -> None:
    data = synthetic(60, n_items=50, seed=2)
    reader = Reader(data.schema, None, ["choice", "value>=4"], max_len=6)
    reader.take(reader.learn(data))
    feed = reader.feed(data, 64, negatives=3)
    feed.start(5)
    batch = feed.batch(1, 2)
    assert np.array_equal(batch.items, feed.batch(1, 2).items), "a batch depends on its number alone"
    n, n_drawn = 64, len(batch) - 64
    assert n_drawn > 0 and n_drawn % 3 == 0
    assert (batch.labels[n:, 0] == 0).all() and np.isnan(batch.labels[n:, 1]).all(), "what was drawn has no value"
    chosen = {(u, i) for u, i in data.interactions().select("user", "item").iter_rows()}
    drawn = zip(batch.users[n:] - 1, batch.items[n:] - 1, strict=True)
    assert not chosen & set(drawn), "a chosen item was drawn"
    part, whole = batch.take(slice(10, 30)), batch
    assert len(part) == 20
    width, at = len(reader.fields.bags), whole.offsets
    assert width and np.array_equal(
        part.bags, whole.bags[whole.bag_offsets[10 * width] : whole.bag_offsets[30 * width]]
    )
    assert np.array_equal(part.history, whole.history[at[10] : at[30]])
    assert np.array_equal(np.diff(part.offsets), np.diff(at[10:31]))
    assert part.longest == np.diff(part.offsets).max(initial=0) and whole.longest <= 6


def test_asked_rows_equal_learnt_ones() -> None:
    """A request that shows what was known at an event gives the row that was learnt from at that event."""
    data = synthetic(60, n_items=50, seed=2)
    reader = Reader(data.schema, None, ["choice"], max_len=6)
    reader.take(reader.learn(data))
    feed = reader.feed(data, 40, negatives=0)
    feed.shuffle = False
    batch = feed.batch(0, 1)
    rows = Labelled.of(data, reader.tasks).take(slice(40, 80))
    pasts = Pasts.of(data)
    places, offsets = pasts.of_events(rows.events, 1000)
    history = Jagged(Columns(item=pasts.items[places].astype(np.int32), value=pasts.values[places]), offsets)
    asked = Requests(40, users=rows.users, history=history)
    assert reader.encoder is not None
    (other,) = pairs(reader.encoder, asked, rows.items[:, None], max_len=6)
    for name in ("users", "items", "categories", "numbers", "bags", "bag_offsets", "history", "offsets", "marks"):
        assert np.array_equal(getattr(batch, name), getattr(other, name)), name


def test_without_times_a_row_does_not_see_its_own_choice() -> None:
    data = log(timed=False)
    reader = Reader(data.schema, [], ["choice"], max_len=5)
    reader.take(reader.learn(data))
    batch = reader.feed(data, 100, negatives=0).batch(0, 0)
    owners = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    assert len(owners) and not (batch.history[:, 0] == batch.items[owners]).any()
