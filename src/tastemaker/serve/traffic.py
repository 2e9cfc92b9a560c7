"""The last hour of this process at a glance: requests and their times by minute, what each system did, the last lists.

Times go into bins that grow by a tenth, so a quantile is right to a tenth and a minute costs a few hundred numbers.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

MINUTES, RECENT = 60, 50
SMALLEST_MS, GROWTH, BINS = 0.05, 1.1, 160  # the last bin begins at 190 s
SHOWN = 5  # items of a list that are told


@dataclass
class Minute:
    """Counts of one minute; bins: of milliseconds."""

    time: int
    requests: int = 0
    errors: int = 0
    bins: list[int] = field(default_factory=lambda: [0] * BINS)

    def quantile(self, share: float) -> float | None:
        """Milliseconds that this share of the requests stayed within."""
        wanted, seen = share * sum(self.bins), 0
        for place, n in enumerate(self.bins):
            seen += n
            if n and seen >= wanted:
                return float(f"{SMALLEST_MS * GROWTH**place:.3g}")
        return None


class Traffic:
    """What happened of late; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self._systems: dict[str, Counter[str]] = {}
        self._kinds: Counter[str] = Counter()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)

    def request(self, seconds: float, status: int, now: float | None = None) -> None:
        """A request was answered."""
        at = int(time.time() if now is None else now) // 60 * 60
        ms = max(1000 * seconds, SMALLEST_MS)
        place = min(BINS - 1, int(math.log(ms / SMALLEST_MS, GROWTH)))
        with self._lock:
            if not self._minutes or self._minutes[-1].time != at:
                self._minutes.append(Minute(at))
            minute = self._minutes[-1]
            minute.requests += 1
            minute.errors += status >= 500
            minute.bins[place] += 1

    def batch(self, system: str, size: int) -> None:
        """A system answered a batch."""
        with self._lock:
            counts = self._systems.setdefault(system, Counter())
            counts["requests"] += size
            counts["batches"] += 1

    def told(self, what: str, user: Any, system: str | None, items: Any) -> None:
        """A list went out, or an event came in."""
        row = {"time": time.time(), "what": what, "user": user, "system": system, "items": list(items)[:SHOWN]}
        with self._lock:
            self._recent.append(row)
            if system is None:
                self._kinds[what] += 1

    def forget(self) -> None:
        """Somebody was erased: nothing is kept that names a user."""
        with self._lock:
            self._recent.clear()

    def shown(self, shelf: Any) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        with self._lock:
            minutes = [
                {
                    "time": one.time,
                    "requests": one.requests,
                    "errors": one.errors,
                    "p50_ms": one.quantile(0.5),
                    "p99_ms": one.quantile(0.99),
                }
                for one in self._minutes
            ]
            systems = {}
            for name, entry in shelf.items():
                counts = self._systems.get(name, Counter())
                mean = counts["requests"] / counts["batches"] if counts["batches"] else None
                systems[name] = {
                    "requests": counts["requests"],
                    "mean_batch": mean,
                    "snapshot": entry.snapshot,
                    "opened": entry.opened,
                }
            return {
                "minutes": minutes,
                "systems": systems,
                "events": dict(self._kinds),
                "recent": list(self._recent)[::-1],
            }
