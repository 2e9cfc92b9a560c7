"""Cursors: where the next page begins, sealed, so that a caller can keep one and cannot make one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any

import orjson

from tastemaker.types import UsageError

SEAL = 12  # bytes of the seal


class Cursors:
    """Seals with a secret of this process: a cursor lives as long as the server does."""

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret = secret or secrets.token_bytes(32)

    def seal(self, *parts: Any) -> str:
        """A cursor that holds these parts."""
        body = orjson.dumps(parts)
        return base64.urlsafe_b64encode(self._mark(body) + body).decode()

    def open(self, cursor: str, n: int) -> list[Any]:
        """The n parts of a cursor.

        Raises:
            UsageError: it is not one of ours.
        """
        try:
            raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        mark, body = raw[:SEAL], raw[SEAL:]
        if not hmac.compare_digest(mark, self._mark(body)):
            raise UsageError("this cursor is not one of this server's", hint="begin without a cursor")
        parts = orjson.loads(body)
        if len(parts) != n:
            raise UsageError("this cursor belongs to another kind of list", hint="begin without a cursor")
        return list(parts)

    def _mark(self, body: bytes) -> bytes:
        return hmac.new(self.secret, body, hashlib.sha256).digest()[:SEAL]
