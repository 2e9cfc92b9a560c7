"""The event log: acknowledged events a second, beside what the disk allows a commit at a time.

python benchmarks/log.py               writes benchmarks/results/log.json

Callers are threads; each appends one event, waits until it is on the disk, and appends the next. "Plain" is the same
event in bare sqlite3 (or psycopg), one commit each, in one thread; "sync" is a file that grows by a page and is synced.
SQLite lies in a temporary folder, so choose a real disk: TMPDIR. For PostgreSQL name a server to write to:
TASTEMAKER_TEST_POSTGRES=postgresql+psycopg://user@host:port/database.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import page_table, write

CALLERS = (1, 16, 64)
ROW = ("like", "u42", "item-7", 1.0, '{"page":"home"}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for which each way is run")
    given = parser.parse_args()
    found: dict[str, Any] = {"seconds": given.seconds, "databases": {}}
    with tempfile.TemporaryDirectory() as folder:
        found["sync"] = round(sync_rate(Path(folder) / "file", given.seconds))
        places: dict[str, tuple[str, Callable[[], Any]]] = {
            "SQLite": (f"sqlite:///{folder}/log.db", lambda: plain_sqlite(Path(folder) / "plain.db", given.seconds))
        }
        with schema() as url:
            if url is not None:
                places["PostgreSQL"] = (url, lambda: plain_postgres(str(url), given.seconds))
            for name, (place, plain) in places.items():
                told = {f"{n} callers": log_rate(place, n, given.seconds) for n in CALLERS}
                found["databases"][name] = {"plain": round(plain()), **told}
    write("log", found, tables(found))
    for table in tables(found):
        print(*table["rows"], sep="\n")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, told in found["databases"].items():
        rows.append({"database": name, "way": "plain, a commit each", "events a second": told["plain"]})
        rows[-1] |= {"events a commit": 1, "median wait (ms)": None, "99 of 100 within (ms)": None}
        for way, rate in told.items():
            if way != "plain":
                waits = {"median wait (ms)": rate["median_ms"], "99 of 100 within (ms)": rate["p99_ms"]}
                counts = {"events a second": rate["rate"], "events a commit": rate["per_commit"]}
                rows.append({"database": name, "way": f"the log, {way}", **counts, **waits})
    note = f"The disk syncs {found['sync']:,} times a second."
    return [page_table("Acknowledged events", rows, note)]


def log_rate(url: str, callers: int, seconds: float) -> dict[str, Any]:
    """Events a second that so many callers get acknowledged, and how long each waited."""
    import sqlalchemy as sa

    from tastemaker.serve.log import Event, open_log

    waits: list[list[float]] = [[] for _ in range(callers)]
    commits: list[int] = []
    with open_log(url) as log:
        log.append([Event(uuid.uuid4().hex, 0, "first")])
        sa.event.listen(log.engine, "commit", lambda _: commits.append(1))
        start, stop = threading.Barrier(callers + 1), threading.Event()

        def call(who: int) -> None:
            start.wait()
            while not stop.is_set():
                began = time.perf_counter()
                kind, user, item, value, _ = ROW
                log.append([Event(uuid.uuid4().hex, 1, kind, user, item, value, context={"page": "home"})])
                waits[who].append(time.perf_counter() - began)

        threads = [threading.Thread(target=call, args=(who,)) for who in range(callers)]
        for thread in threads:
            thread.start()
        start.wait()
        began = time.perf_counter()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
    every = sorted(wait for own in waits for wait in own)
    return {
        "rate": round(len(every) / took),
        "per_commit": round(len(every) / len(commits), 1),
        "median_ms": round(1000 * every[len(every) // 2], 2),
        "p99_ms": round(1000 * every[int(len(every) * 0.99)], 2),
    }


def rate(step: Callable[[], Any], seconds: float) -> float:
    step()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        done += 1
    return done / (time.perf_counter() - began)


def sync_rate(file: Path, seconds: float) -> float:
    """How often a second a file can grow by a page and be synced."""
    with file.open("wb", buffering=0) as stream:
        page = bytes(4096)

        def step() -> None:
            stream.write(page)
            os.fsync(stream.fileno())

        return rate(step, seconds)


def plain_sqlite(file: Path, seconds: float) -> float:
    """Commits of one event a second, in bare sqlite3 with the same settings and indexes."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE e (id INTEGER PRIMARY KEY, key TEXT UNIQUE, kind, user, item, value, context)")
    connection.execute("CREATE INDEX e_user ON e (user, id)")
    insert = "INSERT INTO e (key, kind, user, item, value, context) VALUES (?, ?, ?, ?, ?, ?)"
    found = rate(lambda: connection.execute(insert, (uuid.uuid4().hex, *ROW)), seconds)
    connection.close()
    return found


def plain_postgres(url: str, seconds: float) -> float:
    """The same through bare psycopg."""
    import psycopg
    import sqlalchemy as sa

    where = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE e (id BIGSERIAL PRIMARY KEY, key TEXT UNIQUE, kind TEXT, who TEXT, item TEXT, value FLOAT8, "
            "context TEXT)"
        )
        connection.execute("CREATE INDEX e_who ON e (who, id)")
        insert = "INSERT INTO e (key, kind, who, item, value, context) VALUES (%s, %s, %s, %s, %s, %s)"
        return rate(lambda: connection.execute(insert, (uuid.uuid4().hex, *ROW)), seconds)


@contextmanager
def schema() -> Iterator[str | None]:
    """A schema of its own in the PostgreSQL database that is named, or None."""
    import sqlalchemy as sa

    url = os.environ.get("TASTEMAKER_TEST_POSTGRES")
    if not url:
        yield None
        return
    name = f"tastemaker_bench_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    try:
        yield f"{url}?options=-csearch_path%3D{name}"
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()


if __name__ == "__main__":
    main()
