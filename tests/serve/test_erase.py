"""Erasing: afterwards no byte of any file holds the id, everybody else is as before, and no retry brings it back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner

from tastemaker.cli.store import erase as erase_command
from tastemaker.data.build import build
from tastemaker.serve import tables
from tastemaker.serve.erase import TOMBSTONE, Unfinished, erase
from tastemaker.serve.log import Event, EventLog, Served, StoreError, open_log
from tastemaker.serve.sessions import Session, open_sessions
from tastemaker.train import Bundle, fit
from tastemaker.types import Dataset, NotFound, UsageError, quiet

ID = "person-57c1-Ümlaut"
FAR = 2**52


def event(n: int, user: str | None, **more: Any) -> Event:
    return Event(**{"key": f"{user}/event/{n}", "time": n, "kind": "like", "user": user, "item": f"i{n % 7}", **more})


def served(n: int, user: str | None) -> Served:
    return Served(
        f"{user}/list/{n}", n, user, "visit", "sys", "snap", None, None, ("i1",), (1.0,), None, None, {"of": user}
    )


def history(user: str, n: int = 40) -> tuple[list[Event], list[Served]]:
    told = [event(i, user, context={"name": user}, query=f"find {user}") for i in range(n)]
    nameless = Event(f"{user}/nameless", n, "like", slate=f"{user}/list/0", context={"by": user})
    return [*told, nameless], [served(i, user) for i in range(n // 4)]


def holds(folder: Path, text: str = ID) -> list[str]:
    """Files that have the text in their bytes."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


@pytest.fixture(scope="module")
def data() -> Dataset:
    rng = np.random.default_rng(0)
    people = [ID, *(f"u{n}" for n in range(30))]
    rows = [(u, f"i{i}", t) for t, u in enumerate(people * 8) for i in rng.integers(0, 25, 1)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").unique(
        ["user", "item"], maintain_order=True
    )
    friends = pl.DataFrame({"head": [ID, "u1", "u2"], "relation": ["knows"] * 3, "tail": ["u1", ID, "u3"]})
    users = pl.DataFrame({"user": people, "city": [f"home of {p}" for p in people]})
    items = pl.DataFrame({"item": [f"i{i}" for i in range(25)], "title": [f"Film {i}" for i in range(25)]})
    return build("d", frame, users=users, items=items, edges={"social": friends}, time_unit="us")


@pytest.fixture(scope="module")
def bundle(data: Dataset) -> Bundle:
    with quiet():
        return fit("itemknn", data)


@pytest.fixture
def log(database: str) -> Iterator[EventLog]:
    with open_log(database) as opened:
        yield opened


def test_no_file_holds_the_id_and_everybody_else_is_as_before(tmp_path: Path, data: Dataset, bundle: Bundle) -> None:
    log, sessions = open_log(tmp_path / "log.db"), open_sessions(tmp_path / "sessions.db")
    for user in ("u1", ID, "u2"):
        for _ in range(3):  # pages that fill up, split and are written again
            log.append(*history(user, 200))
        for n in range(3):
            state = json.dumps({"said": user}).encode()
            sessions.put(Session(f"{user}/{n}", user, "s", "s", state, 0, FAR))
    with log.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)")
    log.append([event(n, "u1", key=f"more/{n}") for n in range(2000)], [served(999, ID)])
    bundle.save(tmp_path / "bundle")
    data.save(tmp_path / "data")
    before = {u: log.recent(u, 3000) for u in ("u1", "u2")}
    assert {"log.db", "log.db-wal", "sessions.db-wal", "bundle/users.parquet", "data/users.parquet"} <= set(
        holds(tmp_path)
    )

    done = erase(ID, log=log, sessions=sessions, bundles=[tmp_path / "bundle"], datasets=[tmp_path / "data"])
    n_events = data.events.filter(user=data.user_ids.number(ID)).height
    assert {(Path(p.where).name, p.what): p.count for p in done.places} == {
        ("sessions", "sessions"): 3, ("log", "events"): 201, ("log", "lists"): 51,
        ("bundle", "id"): 1, ("bundle", "history"): n_events, ("data", "row"): 1, ("data", "events"): n_events,
    }  # fmt: skip
    assert holds(tmp_path) == [] and holds(tmp_path, ID[:11]) == []

    assert {u: log.recent(u, 3000) for u in ("u1", "u2")} == before
    assert log.count_events() == 2 * 201 + 2000 and log.count_served() == 100
    assert sessions.get(f"{ID}/0") is None and sessions.get("u1/0") is not None
    log.close()
    sessions.close()
    assert holds(tmp_path) == []

    left = Bundle.load(tmp_path / "bundle")
    number = bundle.users.number(ID)
    others = [u for u in bundle.users.series.to_list() if u != ID]
    assert left.recommend(others, k=5).equals(bundle.recommend(others, k=5))
    assert left.users.series[number].startswith(TOMBSTONE) and len(left.users) == len(bundle.users)
    assert left.histories is not None and bundle.histories is not None and left.histories.lengths[number] == 0
    assert left.histories.lengths.sum() == bundle.histories.lengths.sum() - n_events
    assert left.about["erased"]["users"] == 1 and "fitted again" in left.about["erased"]["remains"]
    assert any("tastemaker refresh" in sentence for sentence in done.remains)

    kept = Dataset.load(tmp_path / "data")
    assert kept.n_users == data.n_users and kept.n_events == data.n_events - n_events
    assert kept.users["city"][number] is None
    assert kept.edges["social"].rows() == [("u2", "knows", "u3")]
    rest = data.users.filter(pl.col("user") != ID)
    assert kept.users.filter(pl.int_range(pl.len()) != number).equals(rest)

    again = erase(ID, bundles=[tmp_path / "bundle"], datasets=[tmp_path / "data"])
    assert again.total == 0 and again.remains == ()


def test_a_retry_brings_nobody_back_but_a_new_event_may_come(log: EventLog) -> None:
    events, lists = history(ID)
    log.append(events, lists)
    log.append(*history("u1"))
    gone = log.erase(ID)
    assert (gone.events, gone.slates) == (41, 10)
    again = log.append([*events, event(1, "u1"), event(999, "u1")], lists)
    assert (again.stored, again.doubled) == (1, 41 + 10 + 1), "all that was acknowledged is acknowledged again"
    assert log.recent(ID, 99) == [] and log.count_events() == 42 and log.count_served() == 10
    fresh = event(1000, ID)
    assert log.append([fresh, events[0]]).stored == 1 and log.recent(ID, 9) == [fresh]
    assert (log.erase(ID).events, log.append([fresh]).doubled) == (1, 1)
    assert log.erase("nobody") == type(gone)(0, 0)
    assert log.erasures() == 3 and log.changed_since(None)[1] >= 84, "numbers are never given again"


def test_hashes_say_nothing_of_the_keys_without_the_databases_own(tmp_path: Path) -> None:
    hashes = []
    for name in "ab":
        with open_log(tmp_path / name) as log:
            log.append([event(1, ID)])
            log.erase(ID)
            with log.engine.connect() as connection:
                [(hashed, _)] = connection.execute(sa.select(tables.erased)).all()
                hashes.append(hashed)
    assert hashes[0] != hashes[1] and all(len(h) == 32 for h in hashes)


def test_other_processes_keep_to_it(database: str) -> None:
    with open_log(database) as one, open_log(database) as two:
        events, lists = history(ID)
        one.append(events, lists)
        two.append([event(1, "u1")])
        assert two.erasures() == 0
        one.erase(ID)
        assert two.append(events, lists).stored == 0 and two.erasures() == 1 and two.count_events() == 1


def test_what_was_submitted_before_is_erased_too(log: EventLog) -> None:
    with ThreadPoolExecutor(1) as pool:
        with tables.writer(log.engine).connect() as connection, tables.exclusive(connection):
            waiting = [log.submit([event(n, ID)], [served(n, ID)]) for n in range(20)]
            erasing = pool.submit(log.erase, ID)
        assert erasing.result(60).events == 20
    assert all(f.result().stored == 2 for f in waiting) and log.count_events() == log.count_served() == 0


def test_rows_stay_hidden_until_the_file_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PATIENCE_S", 0.2)
    with open_log(tmp_path / "log.db") as log:
        log.append(*history(ID))
        reader = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tastemaker_events").fetchone()
        with pytest.raises(StoreError, match=r"reads the database|locked"):
            log.erase(ID)
        assert holds(tmp_path) != [] and log.count_events() == 0
        reader.close()
        assert log.erase(ID).events == 0 and holds(tmp_path) == []
        assert log.append([event(1, ID)]).doubled == 1


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": np.repeat(np.arange(20) + 7_000_000, 3), "item": np.arange(60) % 9, "time": np.arange(60)}
    )
    data = build("n", frame, time_unit="us")
    with quiet():
        fit("popularity", data).save(tmp_path / "bundle")
    assert erase("7000003", bundles=[tmp_path / "bundle"]).total == 4
    ids = Bundle.load(tmp_path / "bundle").users.series
    assert ids.dtype == pl.Int64 and ids[3] <= -(2**62) and 7_000_003 not in ids.to_list()


def test_one_damaged_place_does_not_keep_the_others(tmp_path: Path, bundle: Bundle) -> None:
    for name in ("good", "bad"):
        bundle.save(tmp_path / name)
    (tmp_path / "bad" / "users.parquet").write_bytes(b"damaged")
    with pytest.raises(Unfinished, match=r"bad.*not the file that the manifest describes") as caught:
        erase(ID, bundles=[tmp_path / "bad", tmp_path / "good", tmp_path / "none"])
    assert {p.count for p in caught.value.erased.places if "good" in p.where} != {0}
    assert "none" in str(caught.value) and holds(tmp_path / "good") == []
    with pytest.raises(UsageError, match="nothing to erase from"):
        erase(ID)
    with pytest.raises(UsageError, match="is empty"):
        erase("", bundles=[tmp_path / "good"])


@pytest.mark.services
def test_postgresql_says_what_it_cannot_reach(postgres_schema: str) -> None:
    with open_log(postgres_schema) as log:
        log.append(*history(ID))
        [sentence] = erase(ID, log=log).remains
    assert "VACUUM FULL" in sentence


@pytest.mark.services
def test_redis_holds_nothing(tmp_path: Path, redis_url: str) -> None:
    redis = pytest.importorskip("redis")
    sessions, client = open_sessions(redis_url), redis.Redis.from_url(redis_url)
    sessions.put(Session("erase-me", ID, "s", "s", b"{}", 0, FAR))
    assert [key for key in client.keys("*") if ID.encode() in key]
    done = erase(ID, sessions=sessions)
    assert done.total == 1 and "BGREWRITEAOF" in done.remains[0]
    assert not [key for key in client.keys("*") if ID.encode() in key] and sessions.get("erase-me") is None
    client.close()
    sessions.close()


# -- the command


@pytest.fixture
def command() -> Callable[..., Any]:
    app = typer.Typer()
    app.command()(erase_command)
    return lambda *arguments, **more: CliRunner().invoke(app, list(map(str, arguments)), **more)


def test_the_command_asks_first(tmp_path: Path, bundle: Bundle, command: Callable[..., Any]) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    with open_log(url) as log:
        log.append(*history(ID))
    sessions = open_sessions(url)
    sessions.put(Session("s", ID, "s", "s", b"{}", 0, FAR))
    sessions.close()
    bundle.save(tmp_path / "bundle")
    arguments = [ID, "--log", url, "--bundle", tmp_path / "bundle"]
    for answer in ("n\n", ""):
        refused = command(*arguments, input=answer)
        assert isinstance(refused.exception, UsageError) and "nothing was erased" in str(refused.exception)
    assert holds(tmp_path) != []
    done = command(*arguments, input="y\n", env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "history" in done.stdout and "41" in done.stdout and "lists" in done.stdout
    assert holds(tmp_path) == []
    again = command(*arguments, "--yes", "--json")
    assert again.exit_code == 0 and all(place["count"] == 0 for place in json.loads(again.stdout)["places"])


def test_the_command_makes_no_file_and_says_what_failed(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert isinstance(command(ID, "--log", tmp_path / "none.db", "--yes").exception, NotFound)
    assert isinstance(command(ID, "--yes").exception, UsageError)
    failed = command(ID, "--bundle", tmp_path / "none", "--yes")
    assert isinstance(failed.exception, Unfinished) and list(tmp_path.iterdir()) == []
