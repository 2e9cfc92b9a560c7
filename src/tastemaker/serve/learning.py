"""Systems that learn while they serve: feedback becomes a delta, a delta a new snapshot that takes the old one's place.

One task does this for all systems, a system at a time, so snapshots follow each other. What arrives while a delta is
computed goes into the next. Feedback is in the log before it is here: what a crash loses of the learning, a refresh
brings back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from copy import copy

import numpy as np

from tastemaker.contracts import Updates
from tastemaker.serve.entry import Entry
from tastemaker.serve.log import Event
from tastemaker.serve.questions import Question
from tastemaker.serve.runtime import Runtime
from tastemaker.types import Columns, Feedback, Jagged

log = logging.getLogger("tastemaker.server")
MOST = 4096  # events of one delta
WAITING = 100_000  # events that may wait; beyond, the oldest are left to the next refresh


class Learning:
    """Gathers events, and hands them to the systems that update.

    every: seconds between two snapshots of a system
    """

    def __init__(self, runtime: Runtime, every: float = 1.0) -> None:
        self.runtime, self.every = runtime, every
        self.waiting: list[Event] = []

    def learners(self) -> list[Entry]:
        """Entries whose systems learn while they serve."""
        return [entry for entry in self.runtime.shelf.values() if isinstance(entry.system, Updates)]

    def tell(self, events: Sequence[Event]) -> None:
        """These happened, and are in the log."""
        if self.learners():
            self.waiting = [*self.waiting, *events][-WAITING:]

    async def go_on(self) -> None:
        """Make snapshots for as long as the server runs."""
        while True:
            await asyncio.sleep(self.every)
            events, self.waiting = self.waiting[:MOST], self.waiting[MOST:]
            if not events:
                continue
            for entry in self.learners():
                try:
                    await self.runtime.slowly(self.learn, entry, events)
                except Exception:
                    self.runtime.metrics.failed.inc()
                    log.exception("%s could not learn from %d events", entry.name, len(events))

    def learn(self, entry: Entry, events: Sequence[Event]) -> Entry | None:
        """Put an entry that has learnt from these events in the place of an entry; None: they say nothing to it."""
        feedback = feedback_of(entry, events)
        if feedback is None:
            return None
        bundle = copy(entry.bundle)
        bundle.__dict__.pop("retriever", None)  # it holds the old system
        bundle.system = entry.system.apply(entry.system.update(feedback))
        count = int(entry.snapshot.partition("+")[2] or 0) + 1
        fresh = Entry(entry.name, bundle, snapshot=f"{entry.snapshot.partition('+')[0]}+{count}")
        fresh.warm()
        if self.runtime.shelf.get(entry.name) is not entry:
            return None  # somebody put another bundle there meanwhile: it is the newer one
        self.runtime.put(fresh, keep_before="+" not in entry.snapshot)
        return fresh


def feedback_of(entry: Entry, events: Sequence[Event]) -> Feedback | None:
    """Events on items the entry knows, a row a user, oldest first."""
    numbers = entry.bundle.items.numbers([event.item or "" for event in events])
    kept = [(event, int(number)) for event, number in zip(events, numbers.tolist(), strict=True) if number >= 0]
    if not kept:
        return None
    users = list(dict.fromkeys(event.user for event, _ in kept))
    place = {user: row for row, user in enumerate(users)}
    columns = Columns(
        item=np.array([number for _, number in kept], dtype=np.int32),
        position=np.array([-1 if event.position is None else event.position for event, _ in kept], dtype=np.int32),
        kind=np.array([event.kind for event, _ in kept], dtype=object),
        value=np.array([1.0 if event.value is None else event.value for event, _ in kept], dtype=np.float32),
        time=np.array([event.time for event, _ in kept], dtype=np.int64),
    )
    rows = np.array([place[event.user] for event, _ in kept])
    order = np.argsort(rows, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))])
    requests = entry.requests([Question(user=user) for user in users])
    return Feedback(requests, events=Jagged(columns.take(order), offsets))
