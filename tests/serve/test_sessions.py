"""Sessions, the same in every store: of two writers the second is refused; what has expired or is erased is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tastemaker.serve.sessions import LARGEST_STATE, Conflict, Session, SessionStore, open_sessions
from tastemaker.serve.tables import StoreError
from tastemaker.types import ConfigError, UsageError

HOUR = 3_600_000_000


def now() -> int:
    return time.time_ns() // 1000


def session(name: str = "s", user: str | None = "u", **more: Any) -> Session:
    told = {"system": "sys", "snapshot": "snap", "state": b'{"turn":1}', "version": 0, "expires": now() + HOUR, **more}
    return Session(id=name, user=user, **told)


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.services),
        pytest.param("redis", marks=pytest.mark.services),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'sessions.db'}"
    else:
        url = request.getfixturevalue("postgres_schema" if request.param == "postgresql" else "redis_url")
    opened = open_sessions(url)
    if request.param == "redis":  # shared by the tests: each has names of its own
        opened = Renamed(opened, uuid4().hex)
    yield opened
    opened.close()


class Renamed:
    """A store in which the names of sessions and users begin with a mark, which nobody outside sees."""

    def __init__(self, inner: Any, mark: str) -> None:
        self.inner, self.mark = inner, mark

    def get(self, name: str) -> Session | None:
        return self._out(self.inner.get(self.mark + name))

    def put(self, one: Session) -> Session:
        user = None if one.user is None else self.mark + one.user
        done = self._out(self.inner.put(replace(one, id=self.mark + one.id, user=user)))
        assert done is not None
        return done

    def erase(self, user: str) -> int:
        return int(self.inner.erase(self.mark + user))

    def remove(self, name: str) -> bool:
        return bool(self.inner.remove(self.mark + name))

    def _out(self, one: Session | None) -> Session | None:
        if one is None:
            return None
        user = None if one.user is None else one.user.removeprefix(self.mark)
        return replace(one, id=one.id.removeprefix(self.mark), user=user)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("user", ["ü'\"", None])
def test_what_is_put_is_got(store: SessionStore, user: str | None) -> None:
    assert store.get("s") is None
    one = session(user=user, state='{"said": "\u20ac\\n"}'.encode(), snapshot="ß")
    assert store.put(one) == replace(one, version=1) == store.get("s")
    later = replace(one, version=1, state=b"[]", expires=one.expires + 1, system="other")
    assert store.put(later) == replace(later, version=2) == store.get("s")
    assert store.get("other") is None


def test_a_write_that_read_an_older_version_is_refused(store: SessionStore) -> None:
    first = store.put(session())
    second = store.put(replace(first, state=b'"mine"'))
    for stale in (first, session(), replace(first, version=7)):
        with pytest.raises(Conflict):
            store.put(replace(stale, state=b'"theirs"'))
    assert store.get("s") == second
    with pytest.raises(Conflict, match="read it again"):
        store.put(replace(second, id="never stored"))


def test_of_many_writers_at_once_one_wins_each_version(store: SessionStore) -> None:
    store.put(session(state=b"[]"))
    wins: list[int] = []
    start = threading.Barrier(6)

    def turn(who: int) -> None:
        start.wait()
        for _ in range(5):
            read = store.get("s")
            assert read is not None
            try:
                wins.append(store.put(replace(read, state=str(who).encode())).version)
            except Conflict:
                continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(turn, range(6)))
    last = store.get("s")
    assert last is not None and sorted(wins) == list(range(2, last.version + 1))
    creating = threading.Barrier(4)

    def create(_: int) -> bool:
        creating.wait()
        try:
            return store.put(session("new")).version == 1
        except Conflict:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(create, range(4))) == 1


def test_what_has_expired_is_gone_and_makes_room(store: SessionStore) -> None:
    soon = store.put(session(expires=now() + 300_000))
    kept = store.put(session("kept"))
    assert store.get("s") == soon
    while now() <= soon.expires:
        time.sleep(0.02)
    assert store.get("s") is None
    with pytest.raises(Conflict):
        store.put(replace(soon, expires=now() + HOUR))
    again = store.put(session(user="other"))
    assert again.version == 1 and store.get("s") == again
    store.put(session("past", expires=now() - 1))
    assert store.get("past") is None
    store.sweep()
    assert store.sweep() == 0 and store.get("s") == again and store.get("kept") == kept


def test_erasing_a_user_takes_all_sessions_and_no_others(store: SessionStore) -> None:
    for n in range(3):
        store.put(session(f"a{n}", "a"))
    mine = store.put(session("b", "b"))
    nobodys = store.put(session("none", None))
    moved = store.put(session("moved", "a"))
    moved = store.put(replace(moved, user="b"))  # somebody else logged in
    taken = store.put(session("taken", None))
    store.put(replace(taken, user="a"))  # and somebody for the first time
    assert store.erase("a") == 4 and store.erase("a") == 0
    assert all(store.get(name) is None for name in ("a0", "a1", "a2", "taken"))
    assert store.get("b") == mine and store.get("none") == nobodys and store.get("moved") == moved
    assert store.erase("b") == 2


def test_one_session_is_removed_and_its_users_others_stay(store: SessionStore) -> None:
    first, other = store.put(session("one", "a")), store.put(session("other", "a"))
    store.put(session("nobodys", None))
    assert store.remove("one") and not store.remove("one") and store.remove("nobodys")
    assert store.get("one") is None and store.get("nobodys") is None and store.get("other") == other
    with pytest.raises(Conflict):
        store.put(first)  # whoever was at work on it does not bring it back
    assert store.erase("a") == 1


@pytest.mark.services
def test_redis_forgets_by_itself(redis_url: str) -> None:
    redis = pytest.importorskip("redis")
    store, client, mark = open_sessions(redis_url), redis.Redis.from_url(redis_url), uuid4().hex
    one = store.put(session(mark, mark, expires=now() + 200_000))
    store.put(session(f"{mark}2", mark, expires=now() + 400_000))
    assert len(client.keys(f"*{mark}*")) == 3
    while client.keys(f"*{mark}*") and now() < one.expires + 30_000_000:
        time.sleep(0.05)
    assert client.keys(f"*{mark}*") == []
    client.close()
    store.close()


def test_sessions_lie_beside_the_log(tmp_path: Path) -> None:
    from tastemaker.serve.log import Event, open_log

    with open_log(tmp_path / "one.db") as log:
        store = open_sessions(tmp_path / "one.db")
        with ThreadPoolExecutor(4) as pool:
            puts = [pool.submit(store.put, session(f"s{n}")) for n in range(20)]
            appends = [pool.submit(log.append, [Event(f"k{n}", n, "like")]) for n in range(20)]
            assert all(p.result().version == 1 for p in puts) and sum(a.result().stored for a in appends) == 20
        store.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": b" " * (LARGEST_STATE - 1) + b"[]"}, "at most 1,000,000 bytes, got 1,000,001"),
        ({"state": b"{not json"}, "is JSON"),
        ({"state": b"\xff"}, "is JSON"),
        ({"id": ""}, "id of a session is empty"),
        ({"user": "x" * 513}, "user of a session has at most 512"),
        ({"version": -1}, "begin at 0"),
    ],
)
def test_what_is_no_session_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(session(), **change)
    assert replace(session(), state=b" " * (LARGEST_STATE - 2) + b"[]").version == 0


def test_stores_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'mysql'"):
        open_sessions("mysql://host/db")
    with pytest.raises(ConfigError, match="address of Redis"):
        open_sessions("redis://host:port/0")
    with pytest.raises(StoreError, match="the session store failed") as caught:
        open_sessions("redis://:secret@127.0.0.1:1/0")
    assert "secret" not in str(caught.value)
