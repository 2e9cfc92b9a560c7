"""How many requests a second a server answers, and how long they take: clients that ask again once they are told.

Each client is one connection and one request at a time (a closed loop), so the load is given by their number. It
speaks just enough HTTP/1.1 for that, since a general client costs more than the server does. Where it runs on the
server's own machine it takes a part of its processors, and the figures are lower bounds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tastemaker.types import UsageError, generator, progress


@dataclass(frozen=True)
class Load:
    """What a number of clients saw. Times in milliseconds, of answers of any status."""

    clients: int
    seconds: float
    answered: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    statuses: dict[str, int]

    def row(self) -> dict[str, Any]:
        wrong = sum(n for status, n in self.statuses.items() if status != "200")
        return {
            "clients": self.clients,
            "requests/s": round(self.per_second, 1),
            "p50 ms": round(self.p50_ms, 2),
            "p90 ms": round(self.p90_ms, 2),
            "p99 ms": round(self.p99_ms, 2),
            "worst ms": round(self.worst_ms, 1),
            "not 200": wrong,
        }


def loadtest(
    url: str,
    bodies: Sequence[dict[str, Any]] | None,
    *,
    clients: int,
    seconds: float,
    warm_up: float = 1.0,
    key: str | None = None,
    seed: int = 0,
) -> Load:
    """Ask one address for so many seconds with so many clients.

    Args:
        url: where to ask, as http://127.0.0.1:8000/recommend.
        bodies: JSON to send, drawn at random; None: GET.
        warm_up: seconds before it counts.

    Raises:
        UsageError: the address is none, or nobody answers there.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"a load test asks http://HOST:PORT/PATH, got {url!r}")
    raw = _requests(parts, bodies, key)
    return asyncio.run(_run(parts.hostname, parts.port or 80, raw, clients, seconds, warm_up, seed))


def _requests(parts: Any, bodies: Sequence[dict[str, Any]] | None, key: str | None) -> list[bytes]:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f"{'GET' if bodies is None else 'POST'} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    if bodies is None:
        return [(head + "\r\n").encode()]
    written = [json.dumps(body).encode() for body in bodies]
    return [
        (head + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        for body in written
    ]


async def _run(host: str, port: int, raw: list[bytes], clients: int, seconds: float, warm_up: float, seed: int) -> Load:
    begin = time.perf_counter() + warm_up
    end = begin + seconds
    took: list[float] = []
    statuses: Counter[str] = Counter()

    async def client(number: int) -> None:
        order = generator(seed, "loadtest", number).integers(len(raw), size=4096).tolist()
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            raise UsageError(f"nobody answers at {host}:{port}: {error}", hint="start it: tastemaker serve") from error
        try:
            place = 0
            while (asked := time.perf_counter()) < end:
                writer.write(raw[order[place % len(order)]])
                place += 1
                status = await _answer(reader)
                now = time.perf_counter()
                if asked >= begin:
                    took.append(now - asked)
                    statuses[status] += 1
        finally:
            writer.close()

    async def bar() -> None:
        with progress(f"{clients} clients", warm_up + seconds) as advance:
            while time.perf_counter() < end:
                await asyncio.sleep(0.2)
                advance(0.2)

    await asyncio.gather(bar(), *map(client, range(clients)))
    if not took:
        raise UsageError("no answer came while it counted", hint="give it more seconds")
    ms = 1000 * np.array(took)
    p50, p90, p99 = (float(np.percentile(ms, q)) for q in (50, 90, 99))
    return Load(clients, seconds, len(ms), len(ms) / seconds, p50, p90, p99, float(ms.max()), dict(statuses))


async def _answer(reader: asyncio.StreamReader) -> str:
    """Read one answer to its end; returns its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = 0
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
        elif name.lower() == "transfer-encoding":
            raise UsageError("the load test reads answers that state their length")
    await reader.readexactly(length)
    return head.split(" ", 2)[1]
