"""What saves work to those who learn from the log: snapshots in files, deltas in Redis. Without them it is only slower.

A file holds what a system keeps, and which events it has learnt from. It is replaced in one step, now and then and when
a server ends; a process that starts goes on from there, if the file is of its bundle and of the place in the log where
that began to learn.

In Redis stands, for a minute, what comes after a place in the log: the number of the last event of a part, and its
delta. Of several processes at a place one comes first, and the others take what it found; so the log is read once for
all of them, and they go through the same parts. The deltas are sums, and name no user.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import time
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tastemaker.contracts import Keeps
from tastemaker.serve.log import EventLog
from tastemaker.serve.settings import Settings
from tastemaker.serve.tables import is_sqlite
from tastemaker.train.bundle import export_state, restore_state
from tastemaker.types import BundleError, ConfigError, UsageError, optional, replace_file

log = logging.getLogger("tastemaker.server")
FORMAT = "tastemaker learnt 1"
DELTA_KEY = "tastemaker:delta:"
LIVES = 60  # seconds that a delta lies in Redis
LARGEST = 1 << 20  # bytes of one; a larger one is quicker computed anew
Of = tuple[str, str]  # the name lists are served by, and the snapshot that learning began with


class Checkpoints:
    """Snapshots in a folder, a file for each name.

    log: whose events they have learnt from
    every: seconds between two files of a name
    """

    def __init__(self, folder: Path, log: EventLog, every: float) -> None:
        self.folder, self.log, self.every = folder, log, every
        self._last: dict[Of, tuple[float, int]] = {}

    def now_and_then(self, of: Of, origin: int, at: int, system: Any) -> None:
        """Write a snapshot if the last one is old enough, and something came since."""
        when, before = self._last.setdefault(of, (time.monotonic(), origin))
        if at > before and time.monotonic() - when >= self.every:
            self.write(of, origin, at, system)

    def write(self, of: Of, origin: int, at: int, system: Any) -> None:
        """Keep a system that has learnt from the events after `origin` up to `at`."""
        if not isinstance(system, Keeps) or at == origin:
            return
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(array) for name, array in export_state(system).items()}
        about = {**self._about(of, origin), "at": str(at)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_file(self._file(of)) as fresh:
            save_file(arrays, fresh, metadata=about)
        self._last[of] = time.monotonic(), at

    def read(self, of: Of, origin: int, bundle: Any) -> tuple[int, Any] | None:
        """How far the kept snapshot has learnt, and its system; None: there is none of this bundle and origin."""
        from safetensors import SafetensorError, safe_open

        file = self._file(of)
        if not file.is_file() or not isinstance(bundle.system, Keeps):
            return None
        try:
            with safe_open(file, framework="np") as stored:
                about = stored.metadata() or {}
                if {**about, **self._about(of, origin)} != about:
                    return None
                state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no mapping)
            kind: Any = type(bundle.system)
            system = kind(bundle.config, bundle.schema)
            restore_state(system, state)
            return int(about["at"]), system
        except (BundleError, SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("%s cannot be used, so %s learns anew from the log: %s", file, of[0], error)
            return None

    def _about(self, of: Of, origin: int) -> dict[str, str]:
        return {"format": FORMAT, "log": str(self.log.identity), "snapshot": of[1], "origin": str(origin)}

    def _file(self, of: Of) -> Path:
        short = hashlib.sha256(of[0].encode()).hexdigest()[:8]
        return self.folder / f"{quote(of[0], safe='')[:80]}-{short}.safetensors"


class SharedDeltas:
    """Deltas in Redis, by the place in the log after which they come."""

    def __init__(self, url: str) -> None:
        redis = optional("redis", extra="stores", why="sharing what systems learn")
        self.error: type[Exception] = redis.exceptions.RedisError
        try:
            self.client: Any = redis.Redis.from_url(url)
        except ValueError as error:
            raise ConfigError("the address of Redis cannot be read", hint="redis://HOST:PORT/NUMBER") from error

    def get(self, key: Sequence[str | int], kind: type) -> tuple[int, Any] | None:
        """The part of the log after a place, if some process has read it: its last event's number, and its delta."""
        try:
            raw = self.client.get(_key(key))
        except self.error as error:
            log.warning("Redis fails, so each process reads the log by itself: %s", error)
            return None
        try:
            return None if raw is None else decoded(raw, kind)
        except (BundleError, TypeError, ValueError) as error:
            log.warning("a delta in Redis cannot be read: %s", error)
            return None

    def first(self, key: Sequence[str | int], at: int, delta: Any, kind: type) -> tuple[int, Any]:
        """Offer a part to the others; returns the one that all go on with, which is that of who came first."""
        raw = encoded(at, delta)
        if len(raw) > LARGEST:
            return at, delta
        try:
            if self.client.set(_key(key), raw, nx=True, ex=LIVES):
                return at, delta
        except self.error as error:
            log.warning("Redis fails, so each process reads the log by itself: %s", error)
            return at, delta
        return self.get(key, kind) or (at, delta)


def encoded(at: int, delta: Any) -> bytes:
    """The last event's number and the arrays of a delta, or of none, as bytes.

    Raises:
        UsageError: a delta is no dataclass of arrays.
    """
    from safetensors.numpy import save

    if delta is None:
        return struct.pack("<q", at)
    if not is_dataclass(delta) or isinstance(delta, type):
        raise UsageError(f"a delta that is shared is a dataclass of arrays, got {type(delta).__name__}")
    arrays = {part.name: np.ascontiguousarray(getattr(delta, part.name)) for part in fields(delta)}
    return struct.pack("<q", at) + save(arrays)


def decoded(raw: bytes, kind: type) -> tuple[int, Any]:
    """What `encoded` wrote, the delta as an instance of `kind`. Raises BundleError where it is no such thing."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(raw) < 8:
        raise BundleError("the number of an event is missing")
    [at] = struct.unpack("<q", raw[:8])
    if len(raw) == 8:
        return at, None
    try:
        return at, kind(**load(raw[8:]))
    except SafetensorError as error:
        raise BundleError(f"it holds no arrays: {error}") from error


def _key(parts: Sequence[str | int]) -> str:
    return DELTA_KEY + ":".join(quote(str(part), safe="") for part in parts)


def checkpoints(settings: Settings, of: EventLog) -> Checkpoints | None:
    """Where a server keeps snapshots: where its settings say, else beside the log, if that is a file."""
    folder = settings.learnt_dir
    if folder is None and is_sqlite(of.engine):
        folder = Path(f"{of.engine.url.database}.learnt")
    return None if folder is None else Checkpoints(folder, of, settings.keep_every)


def shared_deltas(settings: Settings) -> SharedDeltas | None:
    """The Redis in which server processes share what they learn, if the settings name one."""
    return None if settings.learning_url is None else SharedDeltas(settings.learning_url)
