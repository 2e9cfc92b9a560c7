"""What every request passes: its name, its size, its key, its rate; and what is written down of it afterwards."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import Response

from tastemaker.serve.keys import Keyring, Rates, Scope
from tastemaker.serve.names import hidden
from tastemaker.serve.problems import problem, told
from tastemaker.serve.runtime import Runtime
from tastemaker.serve.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("tastemaker.server")
FREE = ("/health/", "/static/")  # answered to everybody
FREE_EXACT = frozenset({"/", "/openapi.json", "/favicon.ico"})
ADMIN = ("/admin/", "/metrics", "/traffic")
SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"content-security-policy": (
        b"default-src 'self'; img-src 'self' data: https:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'self'"
    ),
}


def scope_of(method: str, path: str) -> Scope | None:
    """What a key must be allowed to do for this path; None: nothing."""
    if path in FREE_EXACT or path.startswith(FREE):
        return None
    if path.startswith(ADMIN):
        return "admin"
    return "feedback" if path.startswith("/feedback") else "read"


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: Any, settings: Settings, runtime: Runtime, keyring: Keyring) -> None:
        self.app, self.settings, self.keyring = app, settings, keyring
        self.metrics, self.traffic = runtime.metrics, runtime.traffic
        self.rates = Rates(settings.rate, settings.burst)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, name, status = time.perf_counter(), hidden(8), 500
        scope.setdefault("state", {})["request"] = name
        started = finished = False

        async def answer(message: Message) -> None:
            nonlocal status, started, finished
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", name.encode()), *SECURITY.items()]
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            refused = self._refused(scope, name)
            body: Receive | None = receive
            if refused is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                body = await _bounded(receive, self.settings.body_bytes)
                if body is None:
                    refused = problem(413, f"a body has at most {self.settings.body_bytes:,} bytes", request=name)
            await (self.app if refused is None else refused)(scope, body or receive, answer)
        except Exception as error:
            log.exception("request %s failed", name)
            if started and not finished:
                raise
            if not finished:
                await told(error, name)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(route, status, seconds)
            self.traffic.request(seconds, status)
            if log.isEnabledFor(logging.INFO):
                line = {"request": name, "method": scope["method"], "route": route, "status": status}
                log.info(json.dumps({**line, "ms": round(1000 * seconds, 2), "key": scope["state"].get("key")}))

    def _refused(self, scope: MutableMapping[str, Any], name: str) -> Response | None:
        """Why a request may not go on."""
        headers = dict(scope["headers"])
        wanted = scope_of(scope["method"], scope["path"])
        if int_of(headers.get(b"content-length")) > self.settings.body_bytes:
            return problem(413, f"a body has at most {self.settings.body_bytes:,} bytes", request=name)
        if wanted is None or scope["method"] == "OPTIONS":
            return None
        caller = (scope.get("client") or ("?",))[0]
        rate = None
        if not self.keyring.open:
            key = self.keyring.find(secret_of(headers))
            if key is None:
                needed = {"WWW-Authenticate": "Bearer"}
                return problem(
                    401,
                    "this server asks for a key",
                    hint="send Authorization: Bearer KEY",
                    headers=needed,
                    request=name,
                )
            if wanted not in key.scopes and "admin" not in key.scopes:
                return problem(403, f"the key {key.name!r} may not do this: it lacks the scope {wanted}", request=name)
            scope["state"] |= {"key": key.name, "scopes": key.scopes}
            caller, rate = "key:" + key.name, key.rate
        if wait := self.rates.wait(caller, rate):
            again = {"Retry-After": str(math.ceil(wait))}
            return problem(
                429, "this caller asks faster than it may", hint="ask more slowly", headers=again, request=name
            )
        return None


async def _bounded(receive: Receive, most: int) -> Receive | None:
    """The whole body, read now, to be received once more; None: it is too large."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        more = message.get("more_body", False)
    held: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

    async def again() -> Message:
        return held.pop() if held else await receive()

    return again


def secret_of(headers: MutableMapping[bytes, bytes]) -> str:
    """The key a request brings, in either of two headers."""
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    found = value if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    return found.strip().decode("latin-1")


def int_of(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else 0
