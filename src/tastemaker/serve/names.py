"""Names for lists, sessions, requests and events: none twice, and none that can be guessed from another.

A call to the system's source of chance for each would cost more than the rest of a small request. So a process takes a
secret once, and its names are a keyed hash of a counter.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time

_count = itertools.count()  # `next` of it is atomic
_secret, _process = os.urandom(32), 0


def hidden(n_bytes: int) -> str:
    """So many bytes that nobody can foretell, in hexadecimal."""
    global _secret, _process
    if _process != os.getpid():  # a forked process must not repeat its parent's
        _secret, _process = os.urandom(32), os.getpid()
    return hashlib.blake2b(next(_count).to_bytes(8, "little"), key=_secret, digest_size=n_bytes).hexdigest()


def new_id() -> str:
    """A name for a list or a session: it sorts by time, and cannot be guessed."""
    return f"{now():x}-{hidden(9)}"


def new_key() -> str:
    """An idempotency key for an event that brought none."""
    return hidden(16)


def new_seed() -> int:
    """Where chance begins for a question that does not say: 62 bits."""
    return int(hidden(8), 16) >> 2


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
