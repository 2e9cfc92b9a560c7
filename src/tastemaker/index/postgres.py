"""What `PgVectorIndex` keeps in PostgreSQL, and how it talks to it.

One table, the registry, names every generation of every index; a generation's vectors are in a table of its own
that is called by the generation's number alone, so that no name given by a user is ever part of a statement.
Tables are declared through SQLAlchemy. Vectors, queries, lists of items and answers travel in PostgreSQL's binary
formats, made and read by NumPy whole: a text of numbers would cost more than the search.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import (
    ConfigError,
    DataError,
    NotFound,
    TastemakerError,
    UsageError,
    mix,
    nearest,
    optional,
)

EXTRA = {"extra": "stores", "why": "an index in PostgreSQL"}
REGISTRY = "tastemaker_vector_indexes"
INLINE = 1900  # dimensions up to which a vector is kept in its row: a detour through the side table costs more
INT4, FLOAT4 = ">i4", ">f4"  # as they travel
INT4_OID = 23  # the number of the type, the same in every PostgreSQL


@dataclass(frozen=True)
class Generation:
    """One build of an index, as the registry describes it."""

    id: int
    name: str
    kind: str
    size: int
    dim: int
    radius: float  # the length that vectors were lifted to
    longest: float  # the length of the longest vector
    width: int
    half: bool

    @property
    def table(self) -> str:
        return _table_name(self.id)

    @property
    def stored(self) -> int:
        """Dimensions of a stored vector."""
        return self.dim + (self.kind == "hnsw")


class Database:
    """Connections to one database, the registry in it, and its errors in this project's words.

    Args:
        url: as SQLAlchemy writes it: postgresql://user@host/database; the password appears in no message

    Raises:
        ConfigError: the database cannot be reached, or its extension not be used.
    """

    def __init__(self, url: str) -> None:
        alchemy = _alchemy()
        optional("psycopg", **EXTRA)
        try:
            address = alchemy.make_url(url)
        except alchemy.exc.ArgumentError as error:
            raise UsageError("the database's address is not of the form postgresql://user@host/name") from error
        if address.drivername not in ("postgresql", "postgresql+psycopg"):
            raise UsageError(f"the database's address begins with postgresql://, got {address.drivername}://")
        _adapt()
        self.where = address.render_as_string(hide_password=True)
        self.engine = alchemy.create_engine(address.set(drivername="postgresql+psycopg"), pool_use_lifo=True)
        self.reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.registry = _registry()
        self.process = os.getpid()
        self.version, self.vector_oid, self.ready = self._look()

    def close(self) -> None:
        self.engine.dispose()

    @property
    def goes_on(self) -> bool:
        """Whether a graph can be searched on until enough items have passed the filter."""
        return self.version >= (0, 8)

    def _look(self) -> tuple[tuple[int, ...], int, bool]:
        """The version of the extension, the number of its type, and whether there is a registry."""
        ask = _alchemy().text(
            "select (select extversion from pg_extension where extname = 'vector'),"
            " to_regtype('vector')::oid::bigint, to_regclass(:registry) is not null"
        )
        with self._connected(self.reading, "it cannot be used") as connection:
            version, oid, ready = connection.execute(ask, {"registry": REGISTRY}).one()
        if version is not None and oid is None:
            raise ConfigError(
                f"{self.where}: the extension vector is in a schema that is not searched",
                hint="add it to the address: ?options=-csearch_path%3Dpublic,SCHEMA",
            )
        return tuple(map(int, re.findall(r"\d+", version or ""))), oid or 0, ready

    def prepare(self) -> None:
        """Make the extension and the registry where they are missing."""
        if self.vector_oid and self.ready:
            return
        with self.begin("the extension vector cannot be used") as connection:
            self.lock(connection, REGISTRY)
            if not self.vector_oid:
                connection.execute(_alchemy().text("create extension if not exists vector"))
            self.registry.create(connection, checkfirst=True)
        self.version, self.vector_oid, self.ready = self._look()

    # -- the registry

    def current(self, name: str) -> Generation | None:
        """The newest generation of an index."""
        columns = self.registry.c
        return self._found(self.registry.select().where(columns.name == name).order_by(columns.id.desc()).limit(1))

    def one(self, number: int, connection: Any = None) -> Generation | None:
        """A generation by its number; within a transaction it is held until that ends."""
        ask = self.registry.select().where(self.registry.c.id == number)
        return self._found(ask if connection is None else ask.with_for_update(), connection)

    def _found(self, ask: Any, connection: Any = None) -> Generation | None:
        if not self.ready:
            return None
        if connection is None:
            with self._connected(self.reading, "its indexes cannot be looked up") as reading:
                row = reading.execute(ask).mappings().one_or_none()
        else:
            row = connection.execute(ask).mappings().one_or_none()
        return None if row is None else Generation(**{field.name: row[field.name] for field in fields(Generation)})

    def names(self) -> list[str]:
        if not self.ready:
            return []
        with self._connected(self.reading, "its indexes cannot be looked up") as connection:
            return list(connection.execute(_alchemy().select(self.registry.c.name).distinct()).scalars())

    def add(self, connection: Any, described: Mapping[str, Any]) -> Generation:
        inserted = connection.execute(self.registry.insert().returning(self.registry.c.id), dict(described))
        return Generation(id=inserted.scalar_one(), **described)

    def resize(self, connection: Any, grown: Generation) -> None:
        row = self.registry.update().where(self.registry.c.id == grown.id)
        connection.execute(row.values(size=grown.size, longest=grown.longest))

    def prune(self, name: str, keep: int) -> int:
        """Remove all generations of an index but the `keep` newest; returns how many. Waits for who reads one."""
        if not self.ready:
            return 0
        alchemy, columns = _alchemy(), self.registry.c
        old = self.registry.select().where(columns.name == name).order_by(columns.id.desc()).offset(keep)
        with self.begin(f"old generations of index {name!r} were not removed") as connection:
            self.lock(connection, name)
            gone = list(connection.execute(old).scalars())
            for number in gone:
                alchemy.Table(_table_name(number), alchemy.MetaData()).drop(connection, checkfirst=True)
            connection.execute(self.registry.delete().where(columns.id.in_(gone)))
        return len(gone)

    # -- statements

    def lock(self, connection: Any, name: str) -> None:
        """Wait until no other transaction holds the lock of an index; it is held until this one ends."""
        statement = _alchemy().text("select pg_advisory_xact_lock(hashtextextended(:what, 0))")
        connection.execute(statement, {"what": f"tastemaker index {name}"})

    def value(
        self, about: Generation, statement: str, parameters: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> bytes:
        """The one value a statement about {table} reads, b"" for null; `settings` hold for this statement only.

        Settings and statement travel together and without a transaction around them are one to the server, which
        forgets the settings at its end: no other user of the connection meets them, not even behind a pooler.
        """
        import psycopg
        from psycopg.sql import SQL, Identifier

        asked = SQL(statement).format(table=Identifier(about.table))  # type: ignore[arg-type]
        given = [list(settings), [str(value) for value in settings.values()]]
        for again in (True, False):
            with self._connected(self.reading, f"index {about.name!r} cannot be read") as connection:
                raw = connection.connection.driver_connection
                try:
                    with raw.pipeline():
                        raw.execute("select set_config(k, v, true) from unnest(%s::text[], %s::text[]) s (k, v)", given)
                        row = raw.cursor(binary=True).execute(asked, parameters).fetchone()
                    return bytes(row[0] or b"")
                except psycopg.errors.UndefinedTable as error:
                    raise gone(about) from error
                except psycopg.OperationalError:
                    if not (again and raw.closed):
                        raise
                    connection.invalidate()
            self.engine.dispose()  # the server was started anew: no connection of the pool will do
        raise AssertionError("the second attempt answers or raises")

    @contextmanager
    def begin(self, failing: str) -> Iterator[Any]:
        """A transaction; `failing` says what has not happened if it fails."""
        with self._connected(self.engine, failing) as connection, connection.begin():
            yield connection

    @contextmanager
    def _connected(self, engine: Any, failing: str) -> Iterator[Any]:
        import psycopg

        if self.process != os.getpid():  # after a fork the connections are the parent's
            self.engine.dispose(close=False)
            self.process = os.getpid()
        try:
            with engine.connect() as connection:
                yield connection
        except (_alchemy().exc.SQLAlchemyError, psycopg.Error) as error:
            raise _in_words(self.where, failing, getattr(error, "orig", None) or error) from error


def no_index(database: Database, name: str) -> NotFound:
    return NotFound(f"{database.where} has no index {name!r}", hint=nearest(name, database.names()))


def gone(about: Generation) -> NotFound:
    return NotFound(
        f"generation {about.id} of index {about.name!r} has been removed",
        hint="a newer one may be current: PgVectorIndex.open",
    )


def _in_words(where: str, failing: str, error: BaseException) -> TastemakerError:
    """An error of the database, its first line, with what to do where that is known."""
    import psycopg

    state = getattr(error, "sqlstate", None) or ""
    message = f"{where}: {failing}: {str(error).partition(chr(10))[0]}"
    if state in ("58P01", "0A000") and "extension" in message:
        return ConfigError(message, hint="install pgvector on the server: package postgresql-NN-pgvector")
    if state == "42501":
        return ConfigError(message, hint="grant it, or let an administrator run: create extension vector")
    if isinstance(error, psycopg.OperationalError) and state[:2] in ("", "08", "28", "3D"):
        return ConfigError(message, hint="check the address and that the server runs")
    return DataError(message) if state[:2] in ("22", "23") else TastemakerError(message)


# -- tables


def _alchemy() -> Any:
    return optional("sqlalchemy", **EXTRA)


@cache
def _registry() -> Any:
    alchemy = _alchemy()
    column = alchemy.Column
    return alchemy.Table(
        REGISTRY,
        alchemy.MetaData(),
        column("id", alchemy.BigInteger, alchemy.Identity(always=True), primary_key=True),
        column("name", alchemy.Text, nullable=False, index=True),
        column("kind", alchemy.Text, nullable=False),
        column("size", alchemy.BigInteger, nullable=False),
        column("dim", alchemy.Integer, nullable=False),
        column("radius", alchemy.Double, nullable=False),
        column("longest", alchemy.Double, nullable=False),
        column("width", alchemy.Integer, nullable=False),
        column("half", alchemy.Boolean, nullable=False),
        column("built", alchemy.DateTime(timezone=True), nullable=False, server_default=alchemy.func.now()),
    )


def _table_name(number: int) -> str:
    return f"tastemaker_vectors_{number}"


def make_table(connection: Any, about: Generation) -> Any:
    """An empty table for a generation: the items' numbers, the place of each among equals, their vectors."""
    from psycopg.sql import SQL, Identifier

    alchemy, vectors = _alchemy(), optional("pgvector.sqlalchemy", **EXTRA)
    table = alchemy.Table(
        about.table,
        alchemy.MetaData(),
        alchemy.Column("number", alchemy.Integer, primary_key=True, autoincrement=False),
        alchemy.Column("tie", alchemy.BigInteger, nullable=False),
        alchemy.Column("vector", vectors.VECTOR(about.stored), nullable=False),
        comment=f"vectors of the index {about.name}",
    )
    table.create(connection)
    if about.stored <= INLINE:
        inline = SQL("alter table {} alter column vector set storage plain").format(Identifier(about.table))
        connection.connection.driver_connection.execute(inline)
    return table


def make_graph(connection: Any, about: Generation, table: Any, links: int, width: int, memory_mb: int | None) -> None:
    """The graph over a table that has its vectors; to add them one by one to a graph takes many times longer."""
    alchemy, vectors = _alchemy(), optional("pgvector.sqlalchemy", **EXTRA)
    column = table.c.vector
    if about.half:
        column = alchemy.cast(column, vectors.HALFVEC(about.stored)).label("vector")
    if memory_mb is not None:
        setting = alchemy.text("select set_config('maintenance_work_mem', :value, true)")
        connection.execute(setting, {"value": f"{memory_mb}MB"})
    alchemy.Index(
        f"tastemaker_graph_{about.id}",
        column,
        postgresql_using="hnsw",
        postgresql_with={"m": links, "ef_construction": width},
        postgresql_ops={"vector": "halfvec_l2_ops" if about.half else "vector_l2_ops"},
    ).create(connection)


def analyse(connection: Any, about: Generation) -> None:
    """Let the planner know how many items there are now rather than when its daemon comes by."""
    from psycopg.sql import SQL, Identifier

    connection.connection.driver_connection.execute(SQL("analyze {} (number)").format(Identifier(about.table)))


def copy(connection: Any, about: Generation, blocks: Iterator[NDArray[np.float32]], first: int) -> None:
    """Append blocks of vectors [n, stored] to a generation's table, numbered from `first`."""
    from psycopg.sql import SQL, Identifier

    statement = SQL("copy {} (number, tie, vector) from stdin (format binary)").format(Identifier(about.table))
    head = [("columns", ">i2"), ("four", INT4), ("number", INT4), ("eight", INT4), ("tie", ">i8"), ("bytes", INT4)]
    cells = np.dtype([*head, *vector_cells(about.stored)])
    with connection.connection.driver_connection.cursor() as cursor, cursor.copy(statement) as stream:
        stream.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for block in blocks:
            numbers = np.arange(first, first + len(block))
            rows = np.zeros(len(block), dtype=cells)
            rows["columns"], rows["four"], rows["eight"], rows["bytes"] = 3, 4, 8, 4 + 4 * about.stored
            rows["number"], rows["dim"], rows["vector"] = numbers, about.stored, block
            rows["tie"] = (mix(numbers) ^ np.uint64(1 << 63)).view(np.int64)  # signed numbers in the hash's order
            stream.write(rows.tobytes())
            first += len(block)
        stream.write(b"\xff\xff")


# -- formats


@dataclass(frozen=True)
class Packed:
    """A parameter in PostgreSQL's binary form; the statement says of what type it is."""

    data: bytes


def vector_cells(dim: int) -> list[Any]:
    """The fields of a vector as the extension sends and receives it."""
    return [("dim", ">i2"), ("unused", ">i2"), ("vector", FLOAT4, (dim,))]


def vector_array(oid: int, vectors: NDArray[np.float32]) -> Packed:
    """Vectors [n, D] as an array of the type of that number."""
    n, dim = vectors.shape
    cells = np.zeros(n, dtype=[("bytes", INT4), *vector_cells(dim)])
    cells["bytes"], cells["dim"], cells["vector"] = 4 + 4 * dim, dim, vectors
    return _array(oid, cells)


def int_array(numbers: NDArray[Any]) -> Packed:
    cells = np.empty(len(numbers), dtype=[("bytes", INT4), ("number", INT4)])
    cells["bytes"], cells["number"] = 4, numbers
    return _array(INT4_OID, cells)


def _array(oid: int, cells: NDArray[Any]) -> Packed:
    """An array of one dimension, counted from 1, each cell behind its own length."""
    return Packed(np.array([1, 0, oid, len(cells), 1], dtype=">u4").tobytes() + cells.tobytes())


@cache
def _adapt() -> None:
    """Tell psycopg how to send `Packed`: as it is."""
    import psycopg
    from psycopg.adapt import Dumper

    class AsItIs(Dumper):
        format = psycopg.pq.Format.BINARY

        def dump(self, obj: Packed) -> bytes:
            return obj.data

    psycopg.adapters.register_dumper(Packed, AsItIs)
