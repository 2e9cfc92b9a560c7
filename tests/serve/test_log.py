"""The event log: what is acknowledged is there once, in order, whoever else writes; bad records harm nobody else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.serve import tables
from tastemaker.serve.log import Event, EventLog, Full, Served, StoreError, open_log
from tastemaker.serve.records import event_of, event_row, slate_row
from tastemaker.types import ConfigError, DataError, NotFound, UsageError, generator


def event(key: object, user: str | None = "u", **more: Any) -> Event:
    return Event(**{"key": f"k{key}", "time": 1, "kind": "like", "user": user, "item": f"i{key}", **more})


def served(name: object, user: str | None = "u", items: tuple[str, ...] = ("a", "b"), **more: Any) -> Served:
    told: dict[str, Any] = {"propensities": None, "query": None, "trace": {}, "experiment": None, "arm": None, **more}
    scores = tuple(1 / (1 + place) for place in range(len(items)))
    return Served(slate=f"s{name}", time=2, user=user, session=None, system="x", snapshot="y", items=items,
                  scores=scores, **told)  # fmt: skip


@pytest.fixture
def log(database: str) -> Iterator[EventLog]:
    with open_log(database) as opened:
        yield opened


@contextmanager
def held_up(log: EventLog) -> Iterator[None]:
    """No writer gets its turn."""
    with tables.writer(log.engine).connect() as connection, tables.exclusive(connection):
        yield


def everything(frames: Iterator[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(list(frames))


# -- what goes in comes out


def test_records_come_back_as_they_were_given(log: EventLog) -> None:
    full = Event(
        "k", 2**62, "watch", "ü'\"\\%", "i\n\t", -0.1, 7, "s1", "visit", "two words", "ex", "b", "sys", "snap",
        {"a": [1, 2.5, None, {"b": "\u20ac"}], "flag": True},
    )  # fmt: skip
    least = Event("bare", -1, "search")
    assert log.append([full, least]).stored == 2
    assert log.recent(full.user or "", 5) == [full]
    [frame] = log.events()
    assert frame["key"].to_list() == ["k", "bare"] and frame["id"].is_sorted()
    assert [event_of(row[1:]) for row in frame.rows()] == [full, least]
    shown = served(1, propensities=(0.1, 1e-300), items=('x"y', "ö"), query="q", trace={"n": [1]})
    log.append(served=[shown, served(2, None, ())])
    [frame] = log.slates()
    first, second = frame.drop("id").to_dicts()
    assert first == {name: list(v) if isinstance(v, tuple) else v for name, v in as_dict(shown).items()} | {
        "trace": '{"n":[1]}'
    }
    assert (second["items"], second["scores"], second["propensities"], second["user"]) == ([], [], None, None)
    assert frame.schema["scores"] == pl.List(pl.Float64) and frame.schema["items"] == pl.List(pl.String)
    assert (log.count_events(), log.count_served()) == (2, 2)


def as_dict(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def test_columns_are_the_fields_in_their_order() -> None:
    assert [*event_row(event(1))] == [f.name for f in fields(Event)] == list(tables.events.c.keys())[1:]
    assert [*slate_row(served(1))] == [f.name for f in fields(Served)] == list(tables.slates.c.keys())[1:]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
EVENTS = st.builds(
    Event,
    key=TEXT,
    time=st.integers(-(2**63), 2**63 - 1),
    kind=TEXT,
    user=st.none() | TEXT,
    value=st.none() | FINITE,
    position=st.none() | st.integers(0, 2**31 - 1),
    context=st.dictionaries(TEXT, st.none() | TEXT | FINITE | st.integers(-(2**63), 2**63 - 1), max_size=2),
)


@settings(max_examples=15, deadline=None)
@given(batches=st.lists(st.lists(EVENTS, max_size=4), max_size=5))
def test_any_sequence_of_appends_is_the_first_of_each_key_in_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Event]]
) -> None:
    first: dict[str, Event] = {}
    with open_log(tmp_path_factory.mktemp("any") / "log.db") as log:
        for batch in batches:
            fresh = {e.key: e for e in reversed(batch) if e.key not in first}
            done = log.append(batch)
            assert (done.stored, done.doubled) == (len(fresh), len(batch) - len(fresh))
            for one in batch:
                first.setdefault(one.key, one)
        rows = [event_of(row[1:]) for frame in log.events(rows=3) for row in frame.rows()]
        assert rows == list(first.values())
        for user in {e.user for e in rows if e.user is not None}:
            assert log.recent(user, 2) == [e for e in rows if e.user == user][-2:]


def test_blocks_cover_everything_once_and_an_experiment_alone(log: EventLog) -> None:
    log.append([event(n, experiment="ex" if n % 3 else None) for n in range(20)], [served(1, experiment="ex")])
    assert [frame.height for frame in log.events(rows=8)] == [8, 8, 4]
    whole = everything(log.events(rows=7))
    assert whole["key"].to_list() == [f"k{n}" for n in range(20)]
    assert everything(log.events(after=whole["id"][11]))["key"].to_list() == [f"k{n}" for n in range(12, 20)]
    assert everything(log.events(rows=2, experiment="ex")).equals(whole.filter(experiment="ex"))
    assert list(log.events(experiment="none")) == [] and len(list(log.slates(experiment="ex"))) == 1
    with pytest.raises(UsageError, match="rows = 0"):
        next(log.events(rows=0))


def test_the_last_events_of_many_users_in_one_query(log: EventLog) -> None:
    rng = generator(0, "users")
    users = [f"u{n}" for n in rng.integers(0, 9, 200)]
    log.append([event(n, user) for n, user in enumerate(users)])
    asked = [f"u{n}" for n in range(7)] + ["nobody", "x' OR 1=1"]
    queries: list[tuple[str, Any]] = []
    sa.event.listen(log.engine, "before_cursor_execute", lambda *given: queries.append(given[2:4]))
    found = log.recent_of(asked, 4)
    assert len(queries) == 1 and list(found) == asked
    for user in asked:
        assert [e.key for e in found[user]] == [f"k{n}" for n, one in enumerate(users) if one == user][-4:]
    assert log.recent_of([], 4) == {} and log.recent("u1", 0) == []
    with log.engine.connect() as connection:
        if tables.is_sqlite(connection):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {queries[0][0]}", queries[0][1]).all()
            assert not any("SCAN tastemaker_events" in row[-1] for row in plan), plan


def test_another_process_learns_whose_events_changed(log: EventLog) -> None:
    assert log.changed_since(None) == ([], 0)
    log.append([event(1, "a"), event(2, None), event(3, "b"), event(4, None)])
    users, last = log.changed_since(0)
    assert sorted(users) == ["a", "b"] and last == log.changed_since(None)[1] == 4
    assert log.changed_since(last) == ([], last)
    log.append([event(1, "a"), event(5, "c")])
    assert log.changed_since(last)[0] == ["c"], "a second arrival is no change"


# -- second arrivals


def test_events_are_read_on_from_a_place(log: EventLog) -> None:
    log.append([event(n) for n in range(7)])
    ids = everything(log.events())["id"].to_list()
    at, first = log.next_events(0, ids[5], 3)
    assert at == ids[2] and [one.key for one in first] == ["k0", "k1", "k2"]
    at, rest = log.next_events(at, ids[5], 10)
    assert at == ids[5] and [one.key for one in rest] == ["k3", "k4", "k5"], "not what is not yet to be read"
    assert log.next_events(at, at, 10) == (at, [])


def test_a_number_is_kept_for_all_processes(database: str) -> None:
    with open_log(database) as one, open_log(database) as two:
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda n: (one, two)[n % 2].remembered("place", n), range(8)))
        assert len(found) == 1, "who comes first says which"
        two.remember("place", 99)
        assert one.remembered("place", 1) == 99 and one.remembered("another", 1) == 1


def test_traces_are_those_of_a_fit_and_of_what_it_became(log: EventLog) -> None:
    told = {"a": "y", "b": "y+12", "c": "y1", "d": "z", "e": "y%"}
    log.append(served=[replace(served(n), snapshot=snapshot, trace={"n": n}) for n, snapshot in told.items()])
    names = [f"s{n}" for n in told]
    assert log.traces("x", "y", names) == {"sa": {"n": "a"}, "sb": {"n": "b"}}
    assert log.traces("x", "y%", names) == {"se": {"n": "e"}} and log.traces("another", "y", names) == {}


def test_a_key_counts_once(log: EventLog) -> None:
    first = log.append([event(1), event(2), event(1, "other")], [served(1), served(1)])
    assert (first.stored, first.doubled) == (3, 2)
    again = log.append([event(1, "other", value=9.0), event(3)], [served(1, "other")])
    assert (again.stored, again.doubled) == (1, 2)
    assert log.recent("u", 9) == [event(1), event(2), event(3)] and log.recent("other", 9) == []
    assert (log.append().stored, log.append([], []).doubled) == (0, 0)


def test_of_two_callers_in_one_commit_the_first_counts(log: EventLog) -> None:
    with held_up(log):
        futures = [log.submit([event(1, f"u{n}")]) for n in range(3)]
    assert [f.result(30).stored for f in futures] == [1, 0, 0] and [f.result().doubled for f in futures] == [0, 1, 1]
    assert [e.key for e in log.recent("u0", 5)] == ["k1"]


def test_logs_of_two_processes_share_a_database(database: str) -> None:
    with open_log(database) as one, open_log(database) as two, ThreadPoolExecutor(8) as pool:

        def write(n: int) -> int:
            return (one if n % 2 else two).append([event(n // 2), event(f"own{n}")]).stored

        assert sum(pool.map(write, range(200))) == 300
        assert one.count_events() == two.count_events() == 300


def test_what_is_seen_is_never_overtaken(database: str) -> None:
    """A reader that goes on from the last number it saw misses nothing, whoever writes beside whom."""
    stop = threading.Event()
    seen: list[str] = []
    with open_log(database) as one, open_log(database) as two, open_log(database) as reader:

        def read() -> None:
            last = 0
            while True:
                over = stop.is_set()
                for frame in reader.events(after=last):
                    seen.extend(frame["key"])
                    last = frame["id"][-1]
                if over:
                    return

        looking = threading.Thread(target=read)
        looking.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: (one, two)[n % 2].append([event(n)]), range(300)))
        stop.set()
        looking.join()
    assert sorted(seen) == sorted(f"k{n}" for n in range(300))


# -- group commit


def commits(log: EventLog) -> list[int]:
    """Grows by one with each commit."""
    counted: list[int] = []
    sa.event.listen(log.engine, "commit", lambda _: counted.append(1))
    return counted


def test_those_who_wait_share_a_commit_and_each_gets_its_own_count(log: EventLog) -> None:
    counted = commits(log)
    with held_up(log):
        futures = [log.submit([event((n, j)) for j in range(n % 4)], [served(n)]) for n in range(100)]
    assert [f.result(30).stored for f in futures] == [n % 4 + 1 for n in range(100)]
    assert len(counted) <= 3, "the turn that was held, at most one record that was taken before, and all the others"
    keys = everything(log.events())["key"].to_list()
    assert keys == [f"k{(n, j)}" for n in range(100) for j in range(n % 4)], "in the order of their arrival"


def test_batches_are_bounded(database: str) -> None:
    with EventLog(tables.open_engine(database), most=10) as log:
        counted = commits(log)
        with held_up(log):
            futures = [log.submit([event((n, j)) for j in range(4)]) for n in range(30)]
        assert all(f.result(30).stored == 4 for f in futures)
        assert len(counted) >= 10


def test_a_thread_that_appends_in_turn_is_in_order(log: EventLog) -> None:
    def write(who: int) -> None:
        for n in range(25):
            assert log.append([event((who, n), f"w{who}", time=n)]).stored == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for who in range(8):
        assert [e.time for e in log.recent(f"w{who}", 100)] == list(range(25))


def test_an_asyncio_server_awaits_and_one_who_hangs_up_changes_nothing(log: EventLog) -> None:
    async def serve() -> None:
        with held_up(log):
            gone = asyncio.ensure_future(asyncio.wrap_future(log.submit([event("gone")])))
            await asyncio.sleep(0.01)
            gone.cancel()
            waiting = asyncio.wrap_future(log.submit([event("there")]))
        assert (await waiting).stored == 1
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(serve())
    assert log.append([event("gone"), event("there")]).doubled == 2


def test_a_full_queue_refuses_at_once_and_append_waits_for_room(database: str) -> None:
    with open_log(database, capacity=10) as log, ThreadPoolExecutor(1) as pool:
        with held_up(log):
            futures = [log.submit([event("first")])]
            while log.health()["waiting"]:  # until the writer has taken it, and waits for its turn
                pass
            futures += [log.submit([event((n, j)) for j in range(5)]) for n in range(2)]
            with pytest.raises(Full, match="10 records wait"):
                log.submit([event("more")])
            patient = pool.submit(log.append, [event("patient")])
            with pytest.raises(TimeoutError):
                patient.result(0.05)
            assert log.health()["waiting"] == 10 and not any(f.done() for f in futures)
        assert patient.result(30).stored == 1
        assert sum(f.result(30).stored for f in futures) == 11
        assert log.append([event(n) for n in range(50)]).stored == 50, "a call larger than the queue is taken alone"


# -- what goes wrong


def forbid(log: EventLog, kind: str, how: str = "ABORT") -> None:
    """The database refuses events of this kind. SQLite can be told to undo the whole transaction then."""
    with tables.writer(log.engine).begin() as connection:
        if tables.is_sqlite(connection):
            connection.exec_driver_sql(
                f"CREATE TRIGGER forbid_{kind} BEFORE INSERT ON tastemaker_events WHEN NEW.kind = '{kind}' "
                f"BEGIN SELECT RAISE({how}, 'no {kind} here'); END"
            )
        else:
            connection.exec_driver_sql(
                f"ALTER TABLE tastemaker_events ADD CONSTRAINT no_{kind} CHECK (kind <> '{kind}')"
            )


def test_a_bad_record_harms_nobody_elses(log: EventLog) -> None:
    forbid(log, "poison")
    with held_up(log):
        good = [log.submit([event(n), event("shared")]) for n in range(3)]
        bad = log.submit([event("mine"), event("bad", kind="poison"), event("first-here")])
        late = log.submit([event("first-here"), event("late")])
    with pytest.raises(StoreError, match=r"no.poison") as caught:
        bad.result(30)
    assert "kbad" not in str(caught.value).splitlines()[0].split("DETAIL")[0]
    assert [f.result(30).stored for f in good] == [2, 1, 1]
    assert late.result(30).stored == 2, "the record that was refused with its caller's others is nobody's second"
    assert {e.key for e in log.recent("u", 99)} == {"k0", "k1", "k2", "kshared", "kfirst-here", "klate"}
    assert log.append([event("bad")]).stored == 1, "the log goes on"


def test_nothing_is_called_stored_that_a_broken_transaction_undid(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.db") as log:
        forbid(log, "fatal", "ROLLBACK")  # as a full disk does
        with held_up(log):
            first = log.submit([event("first")])
            while log.health()["waiting"]:  # until the writer has it, so that the next three go together
                time.sleep(0.001)
            futures = [log.submit([event(n, kind="fatal" if n == 1 else "like")]) for n in range(3)]
        outcomes = [f.exception(30) for f in futures]
        assert first.result(30).stored == 1
        assert all(isinstance(error, StoreError) for error in outcomes) and log.count_events() == 1
        assert log.append([event(0), event(2)]).stored == 2


def test_a_lost_connection_is_made_anew(log: EventLog) -> None:
    assert log.append([event(1)]).stored == 1
    writing: Any = log._connection.connection.driver_connection  # type: ignore[union-attr]
    if tables.is_sqlite(log.engine):
        writing.close()
    else:
        with log.engine.connect() as connection:
            connection.execute(sa.select(sa.func.pg_terminate_backend(writing.info.backend_pid)))
    assert log.append([event(2), event(1)]).doubled == 1
    assert log.health()["waiting"] == 0


def test_close_writes_what_waits(database: str) -> None:
    log = open_log(database)
    futures = [log.submit([event(n)]) for n in range(100)]
    log.close()
    assert all(f.done() and f.result().stored == 1 for f in futures)
    for use in (lambda: log.append([event("late")]), lambda: log.submit([event("late")])):
        with pytest.raises(UsageError, match="closed"):
            use()
    with pytest.raises(StoreError, match="closed"):
        log.health()
    log.close()
    with open_log(database) as again:
        assert again.count_events() == 100


BAD: list[tuple[str, Callable[[], Any]]] = [
    ("key of an event is empty", lambda: replace(event(1), key="")),
    ("kind of an event is text, got NoneType", lambda: replace(event(1), kind=None)),
    ("at most 512 characters, got 513", lambda: replace(event(1), user="x" * 513)),
    ("zero byte", lambda: replace(event(1), item="a\0b")),
    ("surrogate", lambda: replace(event(1), query="\ud800")),
    ("whole number, got float", lambda: replace(event(1), time=1.5)),
    ("lies between", lambda: replace(event(1), time=2**63)),
    ("lies between 0 and 2147483647, got -1", lambda: replace(event(1), position=-1)),
    ("finite number, got nan", lambda: replace(event(1), value=float("nan"))),
    ("is a number, got str", lambda: replace(event(1), value="many")),
    ("context of an event is no JSON", lambda: replace(event(1), context={"a": object()})),
    ("at most 1,000,000 bytes", lambda: replace(event(1), context={"a": "x" * 1_000_000})),
    ("from 0 to 1, got -0.5", lambda: served(1, propensities=(-0.5, 0.2))),
    ("2 items, 2 scores, 1 propensities", lambda: served(1, propensities=(0.5,))),
    ("finite number, got inf", lambda: replace(served(1), scores=(1.0, float("inf")))),
    ("item of a list is text, got int", lambda: replace(served(1), items=(1, 2))),
]


@pytest.mark.parametrize(("message", "make"), BAD, ids=[message for message, _ in BAD])
def test_what_no_database_takes_is_refused_before_it_waits(tmp_path: Path, message: str, make: Any) -> None:
    record = make()
    with open_log(tmp_path / "log.db") as log:
        more = {"events": [record]} if isinstance(record, Event) else {"served": [record]}
        with pytest.raises(UsageError, match=message):
            log.submit(**more)
        assert log.count_events() == log.count_served() == 0


def test_numbers_of_numpy_are_numbers(log: EventLog) -> None:
    log.append([event(1, time=np.int64(5), position=np.int32(3), value=np.float32(0.5))])
    assert log.recent("u", 1)[0] == event(1, time=5, position=3, value=0.5)


# -- the database


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("mysql://me:secret@host/db", ConfigError, "'mysql'"),
        ("sqlite://", ConfigError, "in memory"),
        ("sqlite:///:memory:", ConfigError, "in memory"),
        ("postgresql+psycopg://me:secret@host:port/x", ConfigError, "cannot be read"),
        ("postgresql://me:secret@127.0.0.1:1/x", StoreError, "cannot be opened"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_their_password(
    url: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        open_log(url)
    assert "secret" not in str(caught.value)


def test_files_that_are_no_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no database"):
        open_log(tmp_path / "nowhere.db", create=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.db").write_text("this is not a database " * 100)
    with pytest.raises(DataError, match="is not a database"):
        open_log(tmp_path / "text.db")
    with open_log(tmp_path / "deep" / "er" / "log.db"):
        assert (tmp_path / "deep" / "er" / "log.db").is_file()


def test_a_commit_is_on_the_disk(log: EventLog) -> None:
    with tables.writer(log.engine).connect() as connection:
        if tables.is_sqlite(connection):
            names = ("synchronous", "journal_mode", "secure_delete")
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
            assert found == {"synchronous": 2, "journal_mode": "wal", "secure_delete": 1}
        else:
            connection.exec_driver_sql("SET synchronous_commit = off")
            connection.commit()
            connection.invalidate()
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def differences(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        return compare_metadata(context, tables.metadata)


def fresh_engine(database: str) -> sa.Engine:
    engine = sa.create_engine(database)
    if tables.is_sqlite(engine):
        tables._set_up_sqlite(engine, "FULL")
    return engine


def test_migrations_make_the_tables_that_the_code_has(database: str) -> None:
    with open_log(database) as log:
        assert differences(log.engine) == []


def test_an_older_database_is_brought_up_to_date_with_its_rows(database: str) -> None:
    engine = fresh_engine(database)
    tables.upgrade(engine, to="0001")
    assert differences(engine) != [] and not sa.inspect(engine).has_table("tastemaker_sessions")
    with tables.writer(engine).begin() as connection:
        connection.execute(sa.insert(tables.events), [event_row(event(n)) for n in range(3)])
        connection.execute(sa.insert(tables.slates), [slate_row(served(1))])
    engine.dispose()
    with open_log(database) as log:
        assert differences(log.engine) == []
        assert log.recent("u", 9) == [event(n) for n in range(3)] and log.count_served() == 1
        assert log.append([event(2), event(3)]).doubled == 1


def test_many_processes_may_open_a_new_database_at_once(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(open_log, [database] * 4))
    assert differences(logs[0].engine) == []
    for log in logs:
        log.close()


def test_a_newer_database_is_refused_and_left_alone(database: str) -> None:
    with open_log(database) as log, tables.writer(log.engine).begin() as connection:
        connection.exec_driver_sql(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(DataError, match=r"newer version of tastemaker.*'9999'.*'0002'"):
        open_log(database)
    engine = fresh_engine(database)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT version_num FROM {tables.VERSION_TABLE}").scalar() == "9999"
    engine.dispose()


def test_the_database_may_hold_other_things(database: str) -> None:
    engine = fresh_engine(database)
    with tables.writer(engine).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")
    with open_log(database) as log:
        assert log.append([event(1)]).stored == 1
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "theirs"
    engine.dispose()
