"""What is read of the event log: users' last events, traces, what learners have not seen yet, exports; and the numbers
that these keep there (`remember`).

Every method has a connection of its own: nothing here waits for the thread that writes events.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import orjson
import polars as pl
import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql

from tastemaker.serve import tables
from tastemaker.serve.records import JSON, Event, event_of
from tastemaker.serve.tables import exclusive, is_sqlite, telling
from tastemaker.types import UsageError

CHUNK = 10_000  # values of one IN
ERASURES, IDENTITY = "erasures", "identity"  # rows of the table `about`
WRITING, READING = "the log could not be written to", "the log could not be read"
LISTS = {"items": pl.List(pl.String), "scores": pl.List(pl.Float64), "propensities": pl.List(pl.Float64)}
DTYPES = {"id": pl.Int64, "time": pl.Int64, "position": pl.Int32, "value": pl.Float64}  # all else is text


class LogReader:
    """Reads a log's database. All methods may be called from any thread."""

    engine: Engine

    def recent(self, user: str, limit: int) -> list[Event]:
        """The last events of a user, newest last."""
        return self.recent_of([user], limit)[user]

    def recent_of(self, users: Collection[str], limit: int) -> dict[str, list[Event]]:
        """The last events of each of several users, newest last, in one query; an empty list for who has none."""
        found: dict[str, list[Event]] = {user: [] for user in users}
        if not found or limit < 1:
            return found
        events = tables.events
        with telling(READING), self.engine.connect() as connection:
            if is_sqlite(connection):
                wanted: Any = sa.func.json_each(orjson.dumps(list(found)).decode()).table_valued("value")
                inner = events.alias()
                last = sa.select(inner.c.id).where(inner.c.user == wanted.c.value).order_by(inner.c.id.desc())
                join = wanted.join(events, events.c.id.in_(last.limit(limit).correlate(wanted)))
                query = sa.select(*events.c).select_from(join)
            else:
                array = sa.cast(list(found), postgresql.ARRAY(sa.Text))
                wanted = sa.func.unnest(array).table_valued("value").render_derived()
                own = sa.select(*events.c).where(events.c.user == wanted.c.value).order_by(events.c.id.desc())
                lateral = own.limit(limit).lateral()
                query = sa.select(*lateral.c).select_from(wanted.join(lateral, sa.true()))
            for row in sorted(connection.execute(query).all()):  # by number, which is unique
                found[row.user].append(event_of(row[1:]))
        return found

    def traces(self, system: str, snapshot: str, slates: Iterable[str]) -> dict[str, dict[str, JSON]]:
        """The traces of lists that `system` answered with, by the lists' names; of others there is none.

        snapshot: which fit of it, as it was opened or as it has learnt since (its name, "+", and more)
        """
        table, names = tables.slates, sorted(set(slates))
        own = (table.c.snapshot == snapshot) | table.c.snapshot.startswith(f"{snapshot}+", autoescape=True)
        found: dict[str, dict[str, JSON]] = {}
        with telling(READING), self.engine.connect() as connection:
            for start in range(0, len(names), CHUNK):
                wanted = table.c.slate.in_(names[start : start + CHUNK]) & (table.c.system == system) & own
                for slate, trace in connection.execute(sa.select(table.c.slate, table.c.trace).where(wanted)):
                    found[slate] = orjson.loads(trace)
        return found

    def next_events(self, after: int, until: int, most: int) -> tuple[int, list[Event]]:
        """At most so many events after number `after` and up to `until`, in order, and up to which number they go."""
        table = tables.events
        query = sa.select(*table.c).where(table.c.id > after, table.c.id <= until).order_by(table.c.id).limit(most)
        with telling(READING), self.engine.connect() as connection:
            rows = connection.execute(query).all()
        return (rows[-1].id if len(rows) == most else until), [event_of(row[1:]) for row in rows]

    def remembered(self, name: str, otherwise: int) -> int:
        """The number that is kept under a name; where there is none, `otherwise`, which is kept from now on."""
        with telling(READING), self.engine.connect() as connection:
            known = about(connection, name)
        if known is None:
            with telling(WRITING), tables.writer(self.engine).connect() as connection, exclusive(connection):
                if (known := about(connection, name)) is None:  # else another process was quicker
                    known = str(otherwise)
                    connection.execute(sa.insert(tables.about), {"name": name, "value": known})
        return int(known)

    @cached_property
    def identity(self) -> int:
        """A number that tells this log from every other; made up when a process first asks."""
        return self.remembered(IDENTITY, secrets.randbits(62))

    def remember(self, name: str, number: int) -> None:
        """Keep a number under a name in the place of the one before."""
        change = sa.update(tables.about).where(tables.about.c.name == name)
        with telling(WRITING), tables.writer(self.engine).connect() as connection, exclusive(connection):
            connection.execute(change, {"value": str(number)})

    def changed_since(self, last: int | None) -> tuple[list[str], int]:
        """The users of events that came after the event of number `last`, and the last number now; None: that alone.

        What is erased is no event: see `erasures`.
        """
        events = tables.events
        with telling(READING), self.engine.connect() as connection:
            if last is None:
                return [], connection.execute(sa.select(sa.func.max(events.c.id))).scalar() or 0
            newest = sa.select(events.c.user, sa.func.max(events.c.id)).where(events.c.id > last)
            rows = connection.execute(newest.group_by(events.c.user)).all()
        return [user for user, _ in rows if user is not None], max([last, *(number for _, number in rows)])

    def erasures(self) -> int:
        """How often a user was erased. When it has grown, whoever keeps users' events in memory must forget them."""
        with telling(READING), self.engine.connect() as connection:
            return int(about(connection, ERASURES) or 0)

    def count_events(self) -> int:
        """All events there are."""
        return self._count(tables.events)

    def count_served(self) -> int:
        """All served lists there are."""
        return self._count(tables.slates)

    def _count(self, table: Table) -> int:
        with telling(READING), self.engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

    def events(self, after: int = 0, rows: int = 50_000, *, experiment: str | None = None) -> Iterator[pl.DataFrame]:
        """Everything that happened, in the order it was written, in tables of at most `rows`.

        Columns are those of `Event`, with the number "id" before them; "context" is JSON. Each table is a query of its
        own, so that a long export holds nobody up.
        """
        return self._blocks(tables.events, after, rows, experiment)

    def slates(self, after: int = 0, rows: int = 50_000, *, experiment: str | None = None) -> Iterator[pl.DataFrame]:
        """Every list that went out, likewise: columns of `Served`, with "id"; "trace" is JSON."""
        return self._blocks(tables.slates, after, rows, experiment)

    def _blocks(self, table: Table, after: int, rows: int, experiment: str | None) -> Iterator[pl.DataFrame]:
        if rows < 1:
            raise UsageError(f"a table has at least one row, got rows = {rows}")
        query = sa.select(*table.c).order_by(table.c.id).limit(rows)
        if experiment is not None:
            query = query.where(table.c.experiment == experiment)
        schema = {name: DTYPES.get(name, pl.String) for name in table.c.keys()}  # noqa: SIM118 (columns, not a dict)
        lists = [pl.col(name).str.json_decode(dtype) for name, dtype in LISTS.items() if name in schema]
        while True:
            with telling(READING), self.engine.connect() as connection:
                found = connection.execute(query.where(table.c.id > after)).all()
            if not found:
                return
            columns = zip(schema.items(), zip(*found, strict=True), strict=True)
            frame = pl.DataFrame([pl.Series(name, values, dtype) for (name, dtype), values in columns])
            yield frame.with_columns(lists)
            if len(found) < rows:
                return
            after = found[-1].id


def about(connection: Connection, name: str) -> str | None:
    """What the log keeps of itself under a name."""
    return connection.execute(sa.select(tables.about.c.value).where(tables.about.c.name == name)).scalar()
