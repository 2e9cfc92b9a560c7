"""The log as a dataset: what was shown and chosen, numbered so that a base keeps its numbers and no future leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from tastemaker.cli.store import export_log
from tastemaker.data.build import build
from tastemaker.serve.export import dataset_of
from tastemaker.serve.histories import summed
from tastemaker.serve.log import Event, EventLog, Served, open_log
from tastemaker.train import fit
from tastemaker.types import DataError, Dataset, UsageError, Vocabulary, quiet


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with open_log(tmp_path / "log.db") as opened:
        yield opened


KEYS = iter(range(10**9))


def event(time: int, user: str | None, item: str | None, kind: str = "like", **more: Any) -> Event:
    return Event(f"k{next(KEYS)}", time, kind, user, item, **more)


def served(
    name: str, user: str | None, time: int, items: str, chances: tuple[float, ...] | None = None, **trace: Any
) -> Served:
    listed = tuple(items.split())
    return Served(
        name, time, user, "visit", "sys", "snap", None, None, listed, (1.0,) * len(listed), chances, None, trace
    )


def rows(data: Dataset, *columns: str) -> list[tuple[Any, ...]]:
    """Events under outside ids."""
    told = data.events.with_columns(
        user=data.user_ids.ids(data.events["user"].to_numpy()),
        item=data.item_ids.ids(data.events["item"].fill_null(-1).to_numpy()),
    )
    return told.select(columns).rows()


def test_what_was_shown_and_what_was_chosen_from_it(log: EventLog) -> None:
    log.append(
        [
            event(10, "u", "a"),
            event(21, None, "c", value=2.0, slate="s1"),  # the list says who, where, and how likely
            event(22, "u", "a", slate="s1", position=5),  # who says where knows better
            event(23, "u", "x", slate="s1"),  # was not in the list
            event(24, "u", "a", slate="gone"),
            event(30, "v", None, "search", query="two words"),
        ],
        [served("s1", "u", 20, "c a", (0.5, 0.25)), served("s2", "v", 40, "b"), served("s3", "v", 50, "")],
    )
    data = dataset_of(log)
    assert data.time_unit == "us" and data.name == "log"
    assert rows(
        data, "user", "item", "time", "kind", "value", "query", "session", "slate", "position", "propensity"
    ) == [
        ("u", "a", 10, "like", None, None, None, None, None, None),
        ("u", "c", 20, "impression", None, None, 0, 0, 0, 0.5),
        ("u", "a", 20, "impression", None, None, 0, 0, 1, 0.25),
        ("u", "c", 21, "like", 2.0, None, 0, 0, 0, 0.5),
        ("u", "a", 22, "like", None, None, 0, 0, 5, 0.25),
        ("u", "x", 23, "like", None, None, 0, 0, None, None),
        ("u", "a", 24, "like", None, None, None, 1, None, None),
        ("v", None, 30, "search", None, "two words", None, None, None, None),
        ("v", "b", 40, "impression", None, None, 0, 2, 0, None),
    ]
    assert data.users.rows() == [("u", 10), ("v", 30)]
    assert data.items.rows() == [("a", 10), ("c", 20), ("x", 23), ("b", 40)]
    assert data.interactions().height == 5
    assert data.notes["log"].startswith("6 events and 3 impressions")


def test_impressions_that_the_client_told_stand_for_the_list(log: EventLog) -> None:
    log.append(
        [event(21, None, "b", "impression", slate="seen"), event(22, "u", "a", "impression")],
        [served("seen", "u", 20, "a b c", (0.5, 0.3, 0.1)), served("ghost", "u", 30, "d", shadow=True)],
    )
    assert rows(dataset_of(log), "item", "time", "position", "propensity") == [
        ("b", 21, 1, pytest.approx(0.3)),
        ("a", 22, None, None),
    ]


def test_what_was_taken_back_is_no_choice(log: EventLog) -> None:
    said = [("a", "like"), ("b", "like"), ("a", "unlike"), ("c", "watch"), ("c", "dislike"), ("d", "skip"),
            ("b", "hide"), ("b", "watch"), ("a", "view"), ("e", "like")]  # fmt: skip
    log.append([event(n, "u", item, kind) for n, (item, kind) in enumerate(said)] + [event(99, "v", "c")])
    data = dataset_of(log)
    assert rows(data, "user", "item", "kind") == [
        *(("u", item, kind) for item, kind in (("b", "watch"), ("a", "view"), ("e", "like"))),
        ("v", "c", "like"),
    ]
    serving = summed(log.recent("u", 99)).chosen
    assert [past.item for past in serving] == [item for user, item in rows(data, "user", "item") if user == "u"]
    assert "3 choices were taken back" in data.notes["log"]


def test_kinds_and_times_that_are_asked_for(log: EventLog) -> None:
    log.append(
        [event(10, "u", "a"), event(20, "u", "b", "view"), event(30, "u", "c", "dislike"), event(40, None, "d")],
        [served("s", "u", 15, "e", (0.5,)), served("t", None, 16, "f")],
    )
    assert {kind for (kind,) in rows(dataset_of(log), "kind")} == {"like", "view", "impression"}
    assert rows(dataset_of(log, kinds=["like", "dislike"]), "item") == [("a",), ("c",)]
    assert rows(dataset_of(log, kinds=["impression"]), "item") == [("e",)]
    assert rows(dataset_of(log, since=15), "item") == [("e",), ("b",)]
    assert "2 rows of users without an id" in dataset_of(log).notes["log"]
    later = dataset_of(log, kinds=["nothing"])
    assert (later.n_events, later.n_users, later.n_items) == (0, 0, 0)


# -- behind a base

BASE = build(
    "base",
    pl.DataFrame({"user": ["u9", "u1", "u1"], "item": ["i1", "i2", "i1"], "time": [1, 2, 3], "value": [5.0, 4.0, 3.0]}),
    items=pl.DataFrame({"item": ["i1", "i2", "i6", "i0"], "title": list("abcd")}),
    time_unit="us",
)


def test_a_base_keeps_its_numbers_and_its_events_come_first(log: EventLog) -> None:
    log.append([event(10, "u1", "i6"), event(12, "new", "i7"), event(11, "u9", "i0", value=2.0)])
    catalogue = pl.DataFrame({"item": ["i7", "i1", "i8"], "title": ["seven", "not this", "eight"], "other": [1, 2, 3]})
    data = dataset_of(log, base=BASE, catalogue=catalogue)
    assert data.name == "base" and data.user_ids.ids(range(BASE.n_users)).equals(BASE.users["user"])
    assert data.items.rows() == [
        ("i1", "a", 1), ("i2", "b", 2), ("i0", "d", 10), ("i6", "c", 10), ("i7", "seven", 12), ("i8", "eight", None),
    ]  # fmt: skip
    assert data.users.rows() == [("u9", 1), ("u1", 2), ("new", 12)]
    known = data.events.filter(pl.col("time") < 10).select(BASE.events.columns)
    assert_frame_equal(known, BASE.events)
    assert rows(data.asof(11), "user", "item") == [("u9", "i1"), ("u1", "i2"), ("u1", "i1"), ("u1", "i6")]
    assert data.asof(12).n_items == 4 and data.asof(13).n_items == 5
    assert dataset_of(log, base=data, since=10**6).fingerprint == data.fingerprint


def test_what_the_base_has_already_is_not_added_again(log: EventLog) -> None:
    log.append(
        [event(10, "u1", "i6"), event(10, "u1", "i6", "view"), event(11, "u9", None, "search", query="q")],
        [served("s", "u9", 12, "i1 i2", (0.5, 0.5))],
    )
    data = dataset_of(log, base=BASE)
    again = dataset_of(log, base=data)
    assert again.fingerprint == data.fingerprint and "5 of them are in base already" in again.notes["log"]
    log.append([event(13, "u9", "i2")])
    assert rows(dataset_of(log, base=data), "item", "time")[-2:] == [("i6", 10), ("i6", 10)]
    assert dataset_of(log, base=data).n_events == data.n_events + 1
    with quiet():
        bundle = fit("popularity", data)
    assert bundle.histories is not None
    users = np.repeat(bundle.users.series.to_numpy(), bundle.histories.lengths)
    told = bundle.histories.values
    remembered = build(
        "remembered",
        pl.DataFrame({"user": users, "item": bundle.items.ids(told["item"]), "time": told["time"]}),
        time_unit="us",
    )
    behind = dataset_of(log, base=remembered)
    assert sorted(behind.interactions()["time"]) == [1, 2, 3, 10, 10, 13]
    assert sorted(behind.events["kind"].drop_nulls()) == ["impression", "impression", "like", "search"]


def test_labels_go_on_after_those_of_the_base(log: EventLog) -> None:
    log.append([event(1, "u", "a", session="x", slate="l"), event(2, "u", "b", session="y")])
    base = dataset_of(log)
    log.append([event(3, "u", "c", session="z", slate="m")])
    data = dataset_of(log, base=base, since=3)
    assert rows(data, "session", "slate") == [(0, 0), (1, None), (2, 1)]


@pytest.mark.parametrize("unit", ["step", None])
def test_a_base_without_a_clock(log: EventLog, unit: Any) -> None:
    log.append([event(500, "u", "b"), event(400, "u", "c"), event(500, "v", "c")])
    columns = {"user": ["u", "u"], "item": ["a", "b"], **({"time": [3, 7]} if unit else {})}
    data = dataset_of(log, base=build("b", pl.DataFrame(columns), time_unit=unit))
    assert data.time_unit == unit
    assert rows(data, "user", "item") == [("u", "a"), ("u", "b"), ("u", "c"), ("u", "b"), ("v", "c")]
    if unit:
        assert data.events["time"].to_list() == [3, 7, 8, 9, 9]


def test_whole_numbers_stay_whole_while_every_id_is_one(log: EventLog) -> None:
    base = build("b", pl.DataFrame({"user": [7, 8], "item": [1, 2], "time": [1, 1]}), time_unit="us")
    log.append([event(5, "7", "3"), event(6, "9", "1")])
    data = dataset_of(log, base=base)
    assert data.users["user"].to_list() == [7, 8, 9] and data.items["item"].to_list() == [1, 2, 3]
    log.append([event(7, "somebody", "1")])
    data = dataset_of(log, base=base)
    assert data.users["user"].to_list() == ["7", "8", "9", "somebody"] and data.items["item"].to_list() == [1, 2, 3]
    assert rows(data, "user", "item")[:2] == [("7", 1), ("7", 3)]


def test_users_and_items_of_a_bundle_keep_their_numbers(log: EventLog) -> None:
    log.append([event(5, "c", "z"), event(4, "new", "x")])
    users, catalogue = Vocabulary(["a", "b", "c"]), pl.DataFrame({"item": ["x", "y", "z"], "title": ["X", "Y", "Z"]})
    data = dataset_of(log, users=users, catalogue=catalogue)
    assert data.users.rows() == [("a", 4), ("b", 4), ("c", 4), ("new", 4)]
    assert data.items.rows() == [("x", "X", 4), ("y", "Y", 4), ("z", "Z", 4)]
    with pytest.raises(UsageError, match="either a base or users"):
        dataset_of(log, users=users, base=BASE)
    typed = build(
        "t", pl.DataFrame({"user": ["a"], "item": ["i"]}), items=pl.DataFrame({"item": ["i"], "year": [1999]})
    )
    with pytest.raises(DataError, match="do not fit"):
        dataset_of(log, base=typed, catalogue=pl.DataFrame({"item": ["z"], "year": ["long ago"]}))


def test_contexts_become_columns_in_the_types_of_the_base(log: EventLog) -> None:
    told = {"device": "phone", "hour": 7, "dark": True, "other": [1], "odd name.x": "y"}
    log.append([event(5, "u", "a", context=told), event(6, "u", "b", context={"hour": "late"})])
    frame = {"user": ["u"], "item": ["a"], "time": [1], "hour": [3], "dark": [False], "device": ["tv"]}
    base = build("b", pl.DataFrame(frame), time_unit="us")
    data = dataset_of(log, base=base, context=["odd name.x"])
    assert rows(data, "hour", "dark", "device", "odd name.x") == [
        (3, False, "tv", None), (7, True, "phone", "y"), (None, None, None, None),
    ]  # fmt: skip
    assert "device" not in dataset_of(log).events.columns
    with pytest.raises(UsageError, match="'item'"):
        dataset_of(log, context=["item"])


STAMPS = st.integers(0, 12)
SAID = st.lists(
    st.tuples(STAMPS, st.sampled_from("abcde"), st.sampled_from("vwxyz"), st.sampled_from(["like", "unlike"])),
    max_size=12,
)
PAST = st.lists(st.tuples(STAMPS, st.sampled_from("abcq"), st.sampled_from("vwp")), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(said=SAID, past=PAST, shift=st.sampled_from([0, 20]), declared=st.booleans())
def test_nothing_is_lost_no_future_leaks_and_numbers_move_only_where_they_must(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[int, str, str, str]],
    past: list[tuple[int, str, str]],
    shift: int,
    declared: bool,
) -> None:
    frame = pl.DataFrame(past, schema=["time", "user", "item"], orient="row")
    items = pl.DataFrame({"item": ["unseen", "v", "z"], "n": [1, 2, 3]})
    base = build("b", frame, items=items if declared else None, time_unit="us")
    with open_log(tmp_path_factory.mktemp("any") / "log.db") as log:
        log.append([event(time + shift, user, item, kind) for time, user, item, kind in said])
        data = dataset_of(log, base=base)
        chosen = [
            (one.time, user, one.item)
            for user, events in log.recent_of("abcde", 99).items()
            for one in summed(events).chosen
        ]
    chosen = [row for row in chosen if row not in past]  # what the base has is not added again
    assert sorted(rows(data, "time", "user", "item")) == sorted([*past, *chosen])
    for time in range(0, 34, 3):
        known = data.asof(time)  # would raise if an event named what is not known yet
        assert known.n_events == sum(row[0] < time for row in [*past, *chosen])
    if shift:
        assert data.items["item"].head(base.n_items).equals(base.items["item"])
        assert data.users["user"].head(base.n_users).equals(base.users["user"])
    if declared:
        assert dict(data.items.select("item", "n").rows()) | {"unseen": 1, "v": 2, "z": 3} == dict(
            data.items.select("item", "n").rows()
        )


def test_a_system_fitted_on_the_log_knows_what_was_chosen(log: EventLog) -> None:
    rng = np.random.default_rng(3)
    log.append([event(n, f"u{u}", f"{'ab'[u % 2]}{i}") for n, (u, i) in enumerate(rng.integers(0, [40, 30], (600, 2)))])
    with quiet():
        bundle = fit("itemknn", dataset_of(log))
    best = bundle.recommend(["u4", "u7"], k=3, columns=["available"])
    assert {item[0] for item in best.filter(user="u4")["item"]} == {"a"}
    assert {item[0] for item in best.filter(user="u7")["item"]} == {"b"}


# -- the command


def command(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(export_log)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_writes_a_dataset(log: EventLog, tmp_path: Path) -> None:
    day = 86_400_000_000
    log.append([event(day, "u1", "i6"), event(2 * day, "new", "i7", "view")])
    BASE.save(tmp_path / "base")
    done = command(tmp_path / "log.db", "--out", tmp_path / "out", "--base", tmp_path / "base", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["events"] == 5
    assert Dataset.load(tmp_path / "out").fingerprint == dataset_of(log, base=BASE).fingerprint
    done = command(tmp_path / "log.db", "-o", tmp_path / "views", "--kind", "view", "--since", "1970-01-02T12:00")
    assert done.exit_code == 0 and rows(Dataset.load(tmp_path / "views"), "user", "item") == [("new", "i7")]
    assert isinstance(command(tmp_path / "log.db", "-o", tmp_path / "x", "--since", "noon").exception, UsageError)
    assert "no database" in str(command(tmp_path / "none.db", "-o", tmp_path / "x").exception)
    assert not (tmp_path / "none.db").exists()


def test_the_command_goes_on_from_a_bundle(log: EventLog, tmp_path: Path) -> None:
    with quiet():
        fit("popularity", BASE).save(tmp_path / "bundle")
    log.append([event(10, "u1", "i6")])
    done = command(tmp_path / "log.db", "-o", tmp_path / "out", "--bundle", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    data = Dataset.load(tmp_path / "out")
    assert data.items["item"].equals(BASE.items["item"]) and "title" in data.items.columns
