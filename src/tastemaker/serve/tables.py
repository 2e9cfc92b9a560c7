"""The server's database: its tables, how it is opened, and how an older one is brought up to date.

The same tables lie in a SQLite file (the default) or in PostgreSQL, beside whatever else a database holds: every name
begins with "tastemaker_". Ids are text, since only the vocabulary of a bundle knows what they mean; times are
microseconds since 1970; what is ragged or free (items of a list, a trace, a context) is JSON in a text column, which
reads the same in both databases and is decoded a column at a time.

Writers take turns, across processes too (`exclusive`). In PostgreSQL numbers are drawn before a transaction ends, so
that of two at once the later number can be seen first, and whoever reads on from the last number it saw would never
see the other. Turns make numbers appear in order; they cost little, since a turn carries all that waits for it.

SQLite keeps a write-ahead log and syncs it at each commit (https://www.sqlite.org/pragma.html#pragma_synchronous), and
overwrites what is deleted (secure_delete).
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from tastemaker.types import ConfigError, DataError, MissingExtra, NotFound, TastemakerError

PREFIX = "tastemaker_"
VERSION_TABLE = f"{PREFIX}version"
TURNS = 7_240_611_983_256_049_213  # the advisory lock that writers of a PostgreSQL database take turns by
PATIENCE_S = 60  # that a writer waits for its turn in a SQLite file
MIGRATIONS = "tastemaker.serve:migrations"

metadata = MetaData()
_number = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER numbers rows there


def _texts(*names: str) -> list[Column[Any]]:
    return [Column(name, Text) for name in names]


def _index(table: str, *columns: str, unique: bool = False, where: str | None = None) -> Index:
    condition = None if where is None else sa.text(where)
    name = f"{PREFIX}{table}_{columns[0]}"
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


events = Table(
    f"{PREFIX}events",
    metadata,
    Column("id", _number, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    *_texts("user", "item"),
    Column("value", Double),
    Column("position", Integer),
    *_texts("slate", "session", "query", "experiment", "arm", "system", "snapshot"),
    Column("context", Text, nullable=False),
    _index("events", "key", unique=True),
    _index("events", "user", "id"),
    _index("events", "experiment", "id", where="experiment IS NOT NULL"),
    sqlite_autoincrement=True,  # a number is never given twice, even after the last row is erased
)

slates = Table(
    f"{PREFIX}slates",
    metadata,
    Column("id", _number, primary_key=True, autoincrement=True),
    Column("slate", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    *_texts("user", "session"),
    Column("system", Text, nullable=False),
    Column("snapshot", Text, nullable=False),
    *_texts("experiment", "arm"),
    Column("items", Text, nullable=False),
    Column("scores", Text, nullable=False),
    *_texts("propensities", "query"),
    Column("trace", Text, nullable=False),
    _index("slates", "slate", unique=True),
    _index("slates", "user", "id"),
    _index("slates", "experiment", "id", where="experiment IS NOT NULL"),
    sqlite_autoincrement=True,
)

erased = Table(
    f"{PREFIX}erased",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("time", BigInteger, nullable=False),
)
"""Keyed hashes of the keys of what was erased: see `tastemaker.serve.erase`."""

about = Table(f"{PREFIX}about", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

sessions = Table(
    f"{PREFIX}sessions",
    metadata,
    Column("id", Text, primary_key=True),
    *_texts("user"),
    Column("system", Text, nullable=False),
    Column("snapshot", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    _index("sessions", "user"),
    _index("sessions", "expires"),
)


class StoreError(TastemakerError):
    """The database did not do what was asked of it: it is away, full, locked, or its file is damaged."""


def store_error(what: str, error: SQLAlchemyError) -> StoreError:
    """An error of the database in a sentence that shows neither rows nor passwords."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return StoreError(f"{what}: {first}", hint="see that the database is up, and that its disk has room")


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Errors of the database become `StoreError`: "WHAT: why"."""
    try:
        yield
    except SQLAlchemyError as error:
        raise store_error(what, error) from error


# -- opening


def address(url: str | Path) -> sa.URL:
    """A database's address: `sqlite:///PATH`, a plain path, or `postgresql+psycopg://user@host:port/database`.

    Raises:
        ConfigError: it is none of these.
    """
    if "://" not in str(url):
        parsed = sa.URL.create("sqlite", database=str(url))
    else:
        text = str(url)
        for short in ("postgres://", "postgresql://"):  # as many a host spells it; the driver is ours to name
            if text.startswith(short):
                text = "postgresql+psycopg://" + text.removeprefix(short)
        try:
            parsed = sa.make_url(text)
        except (ArgumentError, ValueError) as error:
            raise ConfigError("the database's address cannot be read", hint=_HINT) from error
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigError(f"a database of the kind {parsed.drivername!r} cannot hold the log", hint=_HINT)
    if is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        raise ConfigError("a database in memory keeps nothing", hint="name a file: sqlite:///log.db")
    return parsed


_HINT = "give a file, as sqlite:///log.db, or postgresql+psycopg://user@host:port/database"


def is_sqlite(of: sa.URL | Engine | Connection) -> bool:
    """Whether the database is a SQLite file."""
    name = of.get_backend_name() if isinstance(of, sa.URL) else of.dialect.name
    return name == "sqlite"


def open_engine(url: str | Path, *, create: bool = True, sync: str = "FULL") -> Engine:
    """Connections to a database that is up to date.

    Args:
        create: whether a SQLite file that is not there is made.
        sync: SQLite's "synchronous": FULL, a commit outlives a loss of power; NORMAL, of the process only.

    Raises:
        NotFound: there is no such file, and none may be made.
        DataError: it was written by a newer version, or is no database.
        StoreError: it cannot be reached.
    """
    where = address(url)
    shown = where.render_as_string(hide_password=True)
    if is_sqlite(where):
        file = Path(str(where.database))
        if not create and not file.is_file():
            raise NotFound(f"there is no database at {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(where, connect_args={"timeout": PATIENCE_S})
        _set_up_sqlite(engine, sync)
    else:
        if importlib.util.find_spec("psycopg") is None:
            raise MissingExtra(
                "a PostgreSQL database needs the package 'psycopg', which is not installed.",
                hint="pip install 'tastemaker[stores]'",
            )
        engine = sa.create_engine(where, isolation_level="READ COMMITTED", pool_pre_ping=True)
        _set_up_postgres(engine)
    try:
        with telling(f"the database {shown} cannot be opened"):
            upgrade(engine, shown)
    except StoreError as error:
        engine.dispose()
        if "not a database" in error.message:
            raise DataError(f"{shown} is not a database") from error
        raise
    except BaseException:
        engine.dispose()
        raise
    return engine


def _set_up_sqlite(engine: Engine, sync: str) -> None:
    """What each new connection is told. Transactions begin only where we say so, and then take the turn at once."""

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigError(
                f"SQLite keeps no write-ahead log here (its journal is {mode!r})",
                hint="put the file on a local disk; over a network use PostgreSQL",
            )
        for pragma in (f"synchronous={sync}", "fullfsync=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _set_up_postgres(engine: Engine) -> None:
    """A commit is on the disk when it returns, whatever the server's default is."""

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
        )
        connection.commit()


def writer(engine: Engine) -> Engine:
    """The same connections, whose transactions write."""
    return engine.execution_options(writes=True)


@contextmanager
def exclusive(connection: Connection) -> Iterator[Connection]:
    """A transaction of a `writer` beside which no other's runs, in this process or elsewhere."""
    with connection.begin():
        if not is_sqlite(connection):
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(TURNS)))
        yield connection


def purge(engine: Engine) -> None:
    """Rid a database's files of what was deleted, as far as that can be done from here: see `remains`.

    SQLite: the file is written anew from what is left, and the write-ahead log is emptied.

    Raises:
        StoreError: another process reads all the time, so the write-ahead log cannot be emptied.
    """
    with telling("what was deleted cannot be cleared away"):
        if not is_sqlite(engine):
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for table in metadata.sorted_tables:
                    connection.execute(sa.text(f"VACUUM {table.name}"))
            return
        raw = engine.raw_connection()
        try:
            cursor: Any = raw.cursor()
            cursor.execute("VACUUM")
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            raw.close()
    if busy:
        raise StoreError(
            "the rows are deleted, but another process reads the database, so its write-ahead log still shows them",
            hint="run the same again when the other is done",
        )


def remains(engine: Engine) -> str | None:
    """Where deleted rows may still be found after `purge`, in a sentence."""
    if is_sqlite(engine):
        return None
    return (
        "PostgreSQL: freed space is overwritten in time (VACUUM FULL does it at once); its write-ahead log, archives, "
        "replicas and backups keep old rows until they expire"
    )


# -- versions

_ALEMBIC = threading.Lock()  # its proxies are global to the process


def upgrade(engine: Engine, shown: str = "the database", to: str = "head") -> None:
    """Bring a database's tables up to date, in one transaction; what is up to date is only looked at.

    Raises:
        DataError: a newer version of tastemaker wrote it.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    with _ALEMBIC:
        script = ScriptDirectory.from_config(config)
        wanted = script.get_current_head() if to == "head" else to
        with engine.connect() as connection:
            if _revision(connection) == wanted:
                return
        with writer(engine).connect() as connection, exclusive(connection):
            current = _revision(connection)  # another process may have been quicker
            try:
                if current is not None:
                    script.get_revision(current)
            except CommandError as error:
                raise DataError(
                    f"{shown} was written by a newer version of tastemaker: its tables are of revision {current!r}, "
                    f"this version knows up to {script.get_current_head()!r}",
                    hint="install the newer version, or open another database",
                ) from error
            config.attributes["connection"] = connection
            command.upgrade(config, to)


def _revision(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
