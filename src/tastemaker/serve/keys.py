"""API keys, of which only hashes are kept, and limits of how fast each may ask.

A key is 32 random bytes, so its SHA-256 cannot be turned back by trying words; a slow hash would protect nothing more
and would cost every request. The file is read again when it changes: a key that is taken away stops at once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import OrderedDict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tastemaker.types import ConfigError, NotFound, UsageError, nearest, replace_file

Scope = Literal["read", "feedback", "admin"]
SCOPES: dict[Scope, str] = {
    "read": "ask for lists, scores, reasons, items and users",
    "feedback": "send events",
    "admin": "swap systems, see the log and the metrics",
}
PREFIX = "tm_"
LOOK = 1.0  # seconds between looks at the file
KNOWN = 100_000  # callers whose rate is remembered


class Key(BaseModel):
    """One key as it is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: frozenset[Scope]
    rate: float | None = Field(None, ge=0, description="Requests a second; null: the server's own limit.")
    created: int


class KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    keys: list[Key] = []


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> list[Key]:
    """All keys of a file; none where there is no file."""
    if not path.is_file():
        return []
    try:
        return KeyFile.model_validate_json(path.read_text(encoding="utf-8")).keys
    except (ValidationError, ValueError) as error:
        raise ConfigError(f"{path} is no file of keys: {error}") from error


def _write(path: Path, keys: list[Key]) -> None:
    rows = [{**key.model_dump(mode="json"), "scopes": sorted(key.scopes)} for key in keys]
    with replace_file(path) as fresh:
        fresh.write_text(json.dumps({"keys": rows}, indent=1) + "\n", encoding="utf-8")
        fresh.chmod(0o600)


def add_key(path: Path, name: str, scopes: frozenset[Scope], rate: float | None = None) -> str:
    """Make a key; returns it, which is the only time it can be seen.

    Raises:
        UsageError: the name is taken.
    """
    keys = read_keys(path)
    if name in {key.name for key in keys}:
        raise UsageError(f"there is a key named {name!r} already", hint=f"tastemaker keys remove {name}")
    secret = PREFIX + secrets.token_urlsafe(32)
    _write(path, [*keys, Key(name=name, sha256=hashed(secret), scopes=scopes, rate=rate, created=int(time.time()))])
    return secret


def remove_key(path: Path, name: str) -> None:
    """Take a key away.

    Raises:
        NotFound: there is none of this name.
    """
    keys = read_keys(path)
    if name not in {key.name for key in keys}:
        raise NotFound(f"there is no key named {name!r}", hint=nearest(name, [key.name for key in keys]))
    _write(path, [key for key in keys if key.name != name])


class Keyring:
    """The keys in force. Without a file everybody may do everything."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = -LOOK
        if path is not None:
            self._look()
            if not self._keys:
                raise ConfigError(f"{path} holds no key", hint=f"tastemaker keys add NAME --keys {path}")

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return self.path is None

    def find(self, secret: str) -> Key | None:
        """The key of this secret, or None."""
        if time.monotonic() - self._looked >= LOOK:
            self._look()
        return self._keys.get(hashed(secret))

    def _look(self) -> None:
        assert self.path is not None
        self._looked = time.monotonic()
        try:
            about = self.path.stat()
        except OSError:
            self._keys, self._stamp = {}, None  # taken away: nobody may ask
            return
        stamp = (about.st_mtime_ns, about.st_size)
        if stamp != self._stamp:
            self._keys = {key.sha256: key for key in read_keys(self.path)}
            self._stamp = stamp


class Rates:
    """Token buckets: a caller may ask `burst` times at once, then `rate` times a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str, rate: float | None = None, now: float | None = None) -> float:
        """Seconds until this caller may ask again; 0: now, and it is counted."""
        rate = self.rate if rate is None else rate
        if rate <= 0:
            return 0.0
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(caller, (float(self.burst), now))
        left = min(float(self.burst), left + (now - at) * rate)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        while len(self._buckets) > KNOWN:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / rate
