"""What the server counts, for Prometheus: requests by route and status, seconds, batches, the queue, snapshots."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": registry}
        self.requests = Counter("tastemaker_requests", "Requests.", ["route", "status"], **common)
        self.seconds = Histogram(
            "tastemaker_request_seconds", "Seconds a request took.", ["route"], buckets=SECONDS, **common
        )
        self.batches = Histogram(
            "tastemaker_batch_size", "Questions answered at once.", ["system"], buckets=SIZES, **common
        )
        self.batch_seconds = Histogram(
            "tastemaker_batch_seconds", "Seconds a batch took.", ["system"], buckets=SECONDS, **common
        )
        self.waiting = Gauge("tastemaker_waiting", "Questions that wait for a system.", **common)
        self.events = Counter("tastemaker_events", "Events acknowledged.", **common)
        self.lost = Counter("tastemaker_slates_lost", "Lists the log had no room for.", **common)
        self.failed = Counter("tastemaker_background_failures", "Jobs beside the answers that failed.", **common)
        self.opened = Gauge(
            "tastemaker_snapshot_opened_seconds", "When a snapshot was put in place.", ["system"], **common
        )
        self.fitted_events = Gauge(
            "tastemaker_snapshot_events", "Events a snapshot was fitted on.", ["system"], **common
        )

    def batch(self, system: str, size: int, seconds: float) -> None:
        self.batches.labels(system).observe(size)
        self.batch_seconds.labels(system).observe(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def snapshot(self, name: str, snapshot: str, bundle: Any) -> None:
        self.opened.labels(name).set(time.time())
        about = getattr(bundle, "about", {}) or {}
        self.fitted_events.labels(name).set(float(about.get("data", {}).get("events", 0) or 0))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
