"""The event log: what was served and what came back, on the disk before anybody is told that it is.

Group commit. What makes a commit slow is the wait for the disk, and it is the same for one row and for a thousand. So
one thread writes: while it waits for the disk, callers queue up; then it takes all of them into the next commit, and
tells each its own outcome. Nobody waits for others to arrive: an idle writer takes what there is at once. (DeWitt et
al., "Implementation techniques for main memory database systems", SIGMOD 1984, section 5.)

Every record has a key that its sender chose, so a request that is sent again after a failure changes nothing: the
second arrival is counted as doubled. A commit that the database refuses is tried again caller by caller, each behind a
savepoint, so that one bad record harms nobody else's. Rows are only ever added; `erase` alone takes any away, and
leaves keyed hashes of their keys behind, so that a late second arrival does not bring them back: see
`tastemaker.serve.erase`.
"""

from __future__ import annotations

import atexit
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from tastemaker.serve import tables
from tastemaker.serve.log_reader import CHUNK, ERASURES, WRITING, LogReader, about
from tastemaker.serve.records import JSON, Event, Row, Served, event_row, slate_row
from tastemaker.serve.tables import StoreError, exclusive, is_sqlite, store_error, telling
from tastemaker.types import TastemakerError, UsageError

__all__ = ["JSON", "Appended", "Event", "EventLog", "Full", "Gone", "Served", "StoreError", "open_log"]

CAPACITY = 20_000  # records that may wait
MOST = 2_000  # records of one commit, about
ATTEMPTS = 3  # at a commit that a lost connection or a deadlock undid
PASSING = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})  # SQLSTATEs that another try may not meet
SECRET = "erased key"  # a row of the table `about`


class Full(TastemakerError):
    """More waits to be written than the log holds in memory; nothing of what was given has been taken."""

    exit_code = 9


@dataclass(frozen=True, slots=True)
class Appended:
    """How many records were new, and how many had been there before (or twice in the same call)."""

    stored: int = 0
    doubled: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """How much `EventLog.erase` took away."""

    events: int
    slates: int


@dataclass(slots=True)
class _Group:
    """What one caller wants written, or a job to be done between commits, and where the outcome goes."""

    events: list[Row]
    slates: list[Row]
    done: Future[Any]
    job: Callable[[], Any] | None = None

    def __len__(self) -> int:
        return len(self.events) + len(self.slates)


def open_log(url: str | Path, *, create: bool = True, capacity: int = CAPACITY) -> EventLog:
    """The log in a database: `sqlite:///PATH`, a plain path, or `postgresql+psycopg://user@host:port/database`.

    Raises:
        ConfigError: the address is none of these.
        NotFound: there is no such file, and `create` is False.
        DataError: it was written by a newer version, or is no database.
    """
    return EventLog(tables.open_engine(url, create=create), capacity=capacity)


class EventLog(LogReader):
    """Events and served lists in a database. All methods may be called from any thread.

    Args:
        engine: of `tables.open_engine`.
        capacity: records that may wait to be written.
        most: records of one commit, about: a caller's are never parted.
    """

    def __init__(self, engine: Engine, *, capacity: int = CAPACITY, most: int = MOST) -> None:
        self.engine, self.capacity, self.most = engine, capacity, most
        self.remains = tables.remains(engine)  # what `erase` cannot reach, in a sentence
        self._queue: deque[_Group] = deque()
        self._waiting = 0
        self._closed = False
        self._lock = threading.Lock()
        self._work, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None  # the writer's own
        atexit.register(self.close)  # what was submitted and not waited for is written all the same

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EventLog({self.engine.url.render_as_string(hide_password=True)})"

    # -- writing

    def append(self, events: Iterable[Event] = (), served: Iterable[Served] = ()) -> Appended:
        """Write records; they are on the disk when this returns. Waits for room where the queue is full.

        Raises:
            UsageError: a record cannot be written; nothing of this call is.
            StoreError: the database failed. The records may or may not be there: sending them again is safe.
        """
        done: Appended = self._put(_group(events, served), wait=True).result()
        return done

    def submit(self, events: Iterable[Event] = (), served: Iterable[Served] = ()) -> Future[Appended]:
        """`append` without waiting: its outcome comes later. What is submitted earlier is never committed later.

        The outcome is told on the writer's thread, which a callback must not hold up.

        Raises:
            Full: too much waits already.
            UsageError: a record cannot be written.
        """
        return self._put(_group(events, served), wait=False)

    def erase(self, user: str) -> Gone:
        """Take away the events and lists of a user, once all that was given before is written; see `serve.erase`.

        Events that name no user but belong to a list of this one go too. Keyed hashes of the keys stay.

        Raises:
            StoreError: the rows are still there, or are deleted but not yet cleared from the file: run it again.
        """
        group = _Group([], [], Future(), partial(self._erase, user))
        gone: Gone = self._put(group, wait=True).result()
        return gone

    def _put(self, group: _Group, *, wait: bool) -> Future[Any]:
        group.done.set_running_or_notify_cancel()  # from here on who hangs up takes nothing back
        if not len(group) and group.job is None:
            group.done.set_result(Appended())
            return group.done
        with self._lock:
            while not self._closed and self._waiting and self._waiting + len(group) > self.capacity:
                if not wait:
                    raise Full(
                        f"{self._waiting:,} records wait to be written, and {self.capacity:,} may",
                        hint="send them again in a moment",
                    )
                self._room.wait()
            if self._closed:
                raise UsageError("the log is closed")
            self._queue.append(group)
            self._waiting += len(group)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event log", daemon=True)
                self._thread.start()
            self._work.notify()
        return group.done

    def close(self) -> None:
        """Write what waits, then let go of the database."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            self._room.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self.engine.dispose()
        atexit.unregister(self.close)

    # -- the writer's thread

    def _run(self) -> None:
        while groups := self._next():
            outcomes: Sequence[object]
            try:
                outcomes = self._write(groups) if groups[0].job is None else [groups[0].job()]
            except Exception as error:  # whatever it is, a caller must not wait for ever
                outcomes = [error] * len(groups)
            for group, outcome in zip(groups, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    group.done.set_exception(outcome)
                else:
                    group.done.set_result(outcome)
        self._disconnect()

    def _next(self) -> list[_Group]:
        """What goes into the next commit: all that waits, within bounds. Nothing: the log is closed and written."""
        with self._lock:
            while not self._queue:
                if self._closed:
                    return []
                self._work.wait()
            groups = [self._queue.popleft()]
            size = len(groups[0])
            while groups[0].job is None and self._queue and self._queue[0].job is None and size < self.most:
                groups.append(self._queue.popleft())
                size += len(groups[-1])
            self._waiting -= size
            self._room.notify_all()
            return groups

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = tables.writer(self.engine).connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _write(self, groups: Sequence[_Group]) -> Sequence[Appended | Exception]:
        """Each group's outcome, after one commit of them all."""
        for attempt in range(ATTEMPTS):
            try:
                return self._together(groups)
            except DBAPIError as error:
                self._disconnect()
                if not _passing(error):
                    break
                failure = error
                time.sleep(0.05 * 4**attempt)
            except Exception:
                self._disconnect()
                break
        else:
            return [store_error(WRITING, failure) for _ in groups]
        try:
            return self._apart(groups)
        except DBAPIError as error:
            self._disconnect()
            return [store_error(WRITING, error) for _ in groups]

    def _together(self, groups: Sequence[_Group]) -> list[Appended]:
        with exclusive(self._connected()) as connection:
            return _stored(connection, groups)

    def _apart(self, groups: Sequence[_Group]) -> list[Appended | Exception]:
        """One commit again, of those groups that the database takes."""
        outcomes: list[Appended | Exception] = []
        with exclusive(self._connected()) as connection:
            for group in groups:
                try:
                    with connection.begin_nested():
                        outcomes += _stored(connection, [group])
                except DBAPIError as error:
                    if _passing(error) or not _inside(connection):  # then nothing that came before is there either
                        raise
                    outcomes.append(store_error(WRITING, error))
                except Exception as error:
                    outcomes.append(error)
        return outcomes

    def _erase(self, user: str) -> Gone:
        events, slates = tables.events, tables.slates
        served = sa.select(slates.c.slate).where(slates.c.user == user)
        own = (events.c.user == user) | (events.c.user.is_(None) & events.c.slate.in_(served))
        try:
            with telling("the user could not be erased from the log"), exclusive(self._connected()) as connection:
                keys = [*_keys(connection, events, sa.select(events.c.key).where(own))]
                keys += _keys(connection, slates, served)
                if keys:
                    row = {"time": time.time_ns() // 1000}
                    _insert(connection, tables.erased, "hash", [{"hash": key, **row} for key in keys])
                n_events = connection.execute(sa.delete(events).where(own)).rowcount
                n_slates = connection.execute(sa.delete(slates).where(slates.c.user == user)).rowcount
                _count_erasure(connection)
        finally:
            self._disconnect()  # the writer's connection must not stand in the way of clearing the file
        tables.purge(self.engine)
        return Gone(n_events, n_slates)

    def health(self) -> dict[str, Any]:
        """Whether the log can be asked, and how much waits to be written.

        Raises:
            StoreError: it cannot.
        """
        with telling("the log cannot be reached"), self.engine.connect() as connection:
            connection.execute(sa.select(1))
        with self._lock:
            thread, waiting, closed = self._thread, self._waiting, self._closed
        if closed or (thread is not None and not thread.is_alive()):
            raise StoreError("the log is closed" if closed else "the log's writer has stopped")
        return {"database": self.engine.dialect.name, "waiting": waiting}


# -- what happens in a transaction


def _group(events: Iterable[Event], served: Iterable[Served]) -> _Group:
    return _Group([event_row(event) for event in events], [slate_row(one) for one in served], Future())


def _stored(connection: Connection, groups: Sequence[_Group]) -> list[Appended]:
    """Write the groups' records, and tell each group how many were new. Of equal keys the first arrival is the one."""
    secret = about(connection, SECRET)
    parts = (tables.slates, "slate", [g.slates for g in groups]), (tables.events, "key", [g.events for g in groups])
    stored = [0] * len(groups)
    for table, key, rows in parts:
        first: dict[str, tuple[int, Row]] = {}
        for place, each in enumerate(rows):
            for row in each:
                first.setdefault(row[key], (place, row))
        if secret is not None and first:
            hashes = {_hash(secret, table, one): one for one in first}
            for gone in _present(connection, list(hashes)):
                del first[hashes[gone]]
        if first:
            for name in _insert(connection, table, key, [row for _, row in first.values()]):
                stored[first[name][0]] += 1
    return [Appended(n, len(group) - n) for n, group in zip(stored, groups, strict=True)]


def _insert(connection: Connection, table: Table, key: str, rows: list[Row]) -> Sequence[Any]:
    """Add rows in their order, and return the keys of those that were not there."""
    insert: Any = sqlite.insert if is_sqlite(connection) else postgresql.insert
    statement = insert(table).on_conflict_do_nothing(index_elements=[key]).returning(table.c[key])
    return connection.execute(statement, rows).scalars().all()


def _hash(secret: str, table: Table, key: str) -> str:
    return hmac.digest(bytes.fromhex(secret), f"{table.name}\0{key}".encode(), "sha256")[:16].hex()


def _present(connection: Connection, hashes: Sequence[str]) -> Iterator[str]:
    """Those of these hashes whose records were erased."""
    column = tables.erased.c.hash
    for start in range(0, len(hashes), CHUNK):
        chunk = hashes[start : start + CHUNK]
        yield from connection.execute(sa.select(column).where(column.in_(chunk))).scalars().all()


def _keys(connection: Connection, table: Table, query: Any) -> list[str]:
    """Hashes of the keys that a query finds."""
    if (secret := about(connection, SECRET)) is None:
        secret = secrets.token_hex(32)
        connection.execute(sa.insert(tables.about), {"name": SECRET, "value": secret})
    return [_hash(secret, table, key) for key in connection.execute(query).scalars()]


def _count_erasure(connection: Connection) -> None:
    number = about(connection, ERASURES)
    if number is None:
        connection.execute(sa.insert(tables.about), {"name": ERASURES, "value": "1"})
    else:
        changed = {"value": str(int(number) + 1)}
        connection.execute(sa.update(tables.about).where(tables.about.c.name == ERASURES), changed)


# -- what went wrong


def _passing(error: DBAPIError) -> bool:
    """Whether another try, perhaps on a new connection, may go better."""
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state in PASSING or "database is locked" in str(error.orig)


def _inside(connection: Connection) -> bool:
    """Whether the transaction goes on: SQLite ends it by itself after some errors, a full disk for one."""
    return not is_sqlite(connection) or bool(connection.connection.driver_connection.in_transaction)  # type: ignore[union-attr]
