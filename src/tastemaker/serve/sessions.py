"""Sessions: what a conversation remembers between turns, in a SQL database or in Redis.

A state is small, belongs to one conversation, and is gone when nobody came back for a while. Two turns of one
conversation may arrive at once, at two server processes even; each reads the session, thinks, and writes it back. So a
write names the version it has read, and the one that comes second is refused instead of wiping out the first.

In Redis a session is a hash that expires by itself, and each user has a sorted set of session ids, scored by when they
expire, so that a person's sessions can be found and erased. A write is a script, which Redis runs as one step; it
touches the key of a session and those of two users, so all have to lie on one server (no Redis Cluster). A SQL database
syncs sessions to the disk lazily: a loss of power may cost the last turns of a conversation, never the log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.dialects import postgresql, sqlite

from tastemaker.serve import tables
from tastemaker.serve.records import checked_name
from tastemaker.serve.tables import StoreError, is_sqlite, telling
from tastemaker.types import ConfigError, TastemakerError, UsageError, optional

LARGEST_STATE = 1_000_000  # bytes
FAILED = "the session store failed"
SESSION_KEY, USER_KEY = "tastemaker:session:", "tastemaker:sessions-of:"


class Conflict(TastemakerError):
    """A session was changed, or expired, since it was read; nothing has been written."""


@dataclass(frozen=True, slots=True)
class Session:
    """What is kept of one conversation.

    user: whose it is; None: somebody without an id
    system, snapshot: what it talks to, and which fit of it; a state is no use to another
    state: JSON, at most `LARGEST_STATE` bytes
    version: 0 until it is stored; each write adds one
    expires: microseconds since 1970
    """

    id: str
    user: str | None
    system: str
    snapshot: str
    state: bytes
    version: int
    expires: int

    def __post_init__(self) -> None:
        for name in ("id", "user", "system", "snapshot"):
            if name != "user" or self.user is not None:
                checked_name(f"the {name} of a session", getattr(self, name))
        if len(self.state) > LARGEST_STATE:
            raise UsageError(f"the state of a session has at most {LARGEST_STATE:,} bytes, got {len(self.state):,}")
        try:
            orjson.loads(self.state)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"the state of a session is JSON: {error}") from error
        if self.version < 0:
            raise UsageError(f"versions begin at 0, got {self.version}")


class SessionStore(Protocol):
    """Where sessions are kept. Methods may be called from any thread."""

    @property
    def remains(self) -> str | None:
        """What `erase` cannot reach, in a sentence."""

    def get(self, id: str) -> Session | None:  # noqa: A002 - the session's own word
        """The session of this id; None where there is none, or none any longer."""

    def put(self, session: Session) -> Session:
        """Store a session if its version is still the stored one (0: there is none), and return it as stored.

        Raises:
            Conflict: it is not.
        """

    def erase(self, user: str) -> int:
        """Forget all sessions of a user; how many there were."""

    def remove(self, id: str) -> bool:  # noqa: A002
        """Forget one session; whether there was one."""

    def sweep(self) -> int:
        """Remove what has expired; how many there were. Redis does this by itself."""

    def close(self) -> None:
        """Let go of the database."""


def open_sessions(url: str | Path, *, create: bool = True) -> SessionStore:
    """The store at `redis://HOST:PORT/NUMBER`, or in a database that `open_log` opens too.

    Raises:
        ConfigError: the address is none of these.
        NotFound: there is no such file, and `create` is False.
        StoreError: the store cannot be reached.
    """
    if str(url).startswith(("redis://", "rediss://", "unix://")):
        return RedisSessions(str(url))
    return SqlSessions(tables.open_engine(url, create=create, sync="NORMAL"))


def _now() -> int:
    return time.time_ns() // 1000


def _conflict(session: Session) -> Conflict:
    if session.version == 0:
        return Conflict("a session of this id is there already", hint="read it, or choose another id")
    return Conflict("the session was changed or has expired since it was read", hint="read it again")


class SqlSessions:
    """Sessions as rows of a table."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.writer = engine, tables.writer(engine)
        self.remains = tables.remains(engine)

    def get(self, id: str) -> Session | None:  # noqa: A002
        table = tables.sessions
        query = sa.select(*table.c).where(table.c.id == id, table.c.expires > _now())
        with telling(FAILED), self.engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Session(*row)

    def put(self, session: Session) -> Session:
        table, now = tables.sessions, _now()
        stored = replace(session, version=session.version + 1)
        values = {name: getattr(stored, name) for name in table.c.keys()}  # noqa: SIM118 (columns, not a dict)
        statement: Any
        if session.version:
            statement = sa.update(table).values(values)
            statement = statement.where(
                table.c.id == session.id, table.c.version == session.version, table.c.expires > now
            )
        else:  # what has expired there makes room
            insert: Any = sqlite.insert if is_sqlite(self.engine) else postgresql.insert
            statement = insert(table).values(values)
            statement = statement.on_conflict_do_update(
                index_elements=["id"], set_=values, where=table.c.expires <= now
            )
        with telling(FAILED), self.writer.begin() as connection:
            if connection.execute(statement.returning(table.c.id)).first() is None:
                raise _conflict(session)
        return stored

    def erase(self, user: str) -> int:
        count = self._delete(tables.sessions.c.user == user)
        tables.purge(self.engine)
        return count

    def remove(self, id: str) -> bool:  # noqa: A002
        return self._delete(tables.sessions.c.id == id) > 0

    def sweep(self) -> int:
        return self._delete(tables.sessions.c.expires <= _now())

    def _delete(self, condition: Any) -> int:
        with telling(FAILED), self.writer.begin() as connection:
            return connection.execute(sa.delete(tables.sessions).where(condition)).rowcount

    def close(self) -> None:
        self.engine.dispose()


PUT = """
local own, expected, expires = KEYS[1], ARGV[1], tonumber(ARGV[2])
local found = redis.call('HMGET', own, 'version', 'expires', 'user')
local alive = found[1] and tonumber(found[2]) > tonumber(ARGV[3])
if expected == '0' and alive or expected ~= '0' and not (alive and found[1] == expected) then return 0 end
if found[3] then redis.call('ZREM', ARGV[4] .. found[3], ARGV[5]) end
redis.call('DEL', own)
redis.call('HSET', own, unpack(ARGV, 7))
redis.call('PEXPIREAT', own, ARGV[6])
local user = redis.call('HGET', own, 'user')
if user then
  local all = ARGV[4] .. user
  redis.call('ZREMRANGEBYSCORE', all, '-inf', ARGV[3])
  redis.call('ZADD', all, ARGV[2], ARGV[5])
  local last = redis.call('ZREVRANGE', all, 0, 0, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', all, string.format('%.0f', math.ceil(tonumber(last[2]) / 1000))) end
end
return 1
"""
ERASE = """
local count = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.call('HGET', ARGV[1] .. id, 'user') == ARGV[2] then count = count + redis.call('DEL', ARGV[1] .. id) end
end
redis.call('DEL', KEYS[1])
return count
"""
"""A session's name may have become another user's after it expired, so each is asked whose it is."""
REMOVE = """
local user = redis.call('HGET', KEYS[1], 'user')
if user then redis.call('ZREM', ARGV[1] .. user, ARGV[2]) end
return redis.call('DEL', KEYS[1])
"""


class RedisSessions:
    """Sessions as hashes in Redis."""

    remains = "Redis: its append-only file and snapshots hold old values until they are next rewritten (BGREWRITEAOF)"

    def __init__(self, url: str) -> None:
        redis = optional("redis", extra="stores", why="keeping sessions in Redis")
        self.error: type[Exception] = redis.exceptions.RedisError
        try:
            self.client: Any = redis.Redis.from_url(url)
        except ValueError as error:
            raise ConfigError("the address of Redis cannot be read", hint="redis://HOST:PORT/NUMBER") from error
        self._put, self._erase = self.client.register_script(PUT), self.client.register_script(ERASE)
        self._remove = self.client.register_script(REMOVE)
        self._do(self.client.ping)

    def _do(self, command: Any, *given: Any, **more: Any) -> Any:
        try:
            return command(*given, **more)
        except self.error as error:
            raise StoreError(f"{FAILED}: {error}", hint="see that Redis is up") from error

    def get(self, id: str) -> Session | None:  # noqa: A002
        found = {name.decode(): value for name, value in self._do(self.client.hgetall, SESSION_KEY + id).items()}
        if not found or int(found["expires"]) <= _now():
            return None
        user = found.get("user")
        return Session(
            id,
            None if user is None else user.decode(),
            found["system"].decode(),
            found["snapshot"].decode(),
            found["state"],
            int(found["version"]),
            int(found["expires"]),
        )

    def put(self, session: Session) -> Session:
        stored = replace(session, version=session.version + 1)
        values: list[Any] = []
        for name in ("user", "system", "snapshot", "state", "version", "expires"):
            if (value := getattr(stored, name)) is not None:
                values += [name, value]
        until = -(-stored.expires // 1000)
        given = [session.version, stored.expires, _now(), USER_KEY, stored.id, until, *values]
        if not self._do(self._put, keys=[SESSION_KEY + stored.id], args=given):
            raise _conflict(session)
        return stored

    def erase(self, user: str) -> int:
        return int(self._do(self._erase, keys=[USER_KEY + user], args=[SESSION_KEY, user]))

    def remove(self, id: str) -> bool:  # noqa: A002
        return bool(self._do(self._remove, keys=[SESSION_KEY + id], args=[USER_KEY, id]))

    def sweep(self) -> int:
        return 0

    def close(self) -> None:
        self.client.close()
