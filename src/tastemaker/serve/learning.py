"""Systems that learn while they serve: feedback becomes a delta, a delta a new snapshot that takes the old one's place.

One task does this for all systems, a system at a time, so snapshots follow each other. What arrives while a delta is
computed goes into the next. Feedback is in the log before it is here: what a crash loses of the learning, a refresh
brings back. An event that names a list comes with the list's trace, as it was served, though another snapshot may
answer by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from copy import copy
from functools import reduce
from typing import Any

import numpy as np

from tastemaker.contracts import Updates
from tastemaker.serve.entry import Entry
from tastemaker.serve.log import Event
from tastemaker.serve.questions import Question
from tastemaker.serve.runtime import Runtime
from tastemaker.types import Columns, Feedback, Jagged, Slates

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
        named = {event.slate for event in events if event.slate is not None}
        parts = feedback_of(entry, events, self.runtime.log.traces(entry.name, named) if named else {})
        if not parts:
            return None
        bundle = copy(entry.bundle)
        bundle.__dict__.pop("retriever", None)  # it holds the old system
        delta = reduce(entry.system.merge, [entry.system.update(part) for part in parts])
        bundle.system = entry.system.apply(delta)
        count = int(entry.snapshot.partition("+")[2] or 0) + 1
        fresh = Entry(entry.name, bundle, snapshot=f"{entry.snapshot.partition('+')[0]}+{count}")
        fresh.warm()
        if self.runtime.shelf.get(entry.name) is not entry:
            return None  # somebody put another bundle there meanwhile: it is the newer one
        self.runtime.put(fresh, keep_before="+" not in entry.snapshot)
        return fresh


def feedback_of(
    entry: Entry, events: Sequence[Event], traces: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Feedback]:
    """Events on items the entry knows, oldest first: a row a user and list, in one part for each kind of trace.

    traces: of lists, by name; events of other lists, or of none, have a row a user, and no trace
    """
    numbers = entry.bundle.items.numbers([event.item or "" for event in events])
    known = [(event, int(number)) for event, number in zip(events, numbers.tolist(), strict=True) if number >= 0]
    parts: dict[Any, list[tuple[Event, int, Any]]] = {}
    for event, number in known:
        trace = (traces or {}).get(event.slate or "", {})
        arrays = {name: np.asarray(value) for name, value in trace.items()}
        kind = tuple(sorted((name, a.shape, a.dtype.kind) for name, a in arrays.items() if a.dtype.kind in "biuf"))
        parts.setdefault(kind, []).append((event, number, arrays))
    return [_part(entry, kept, [name for name, *_ in kind]) for kind, kept in parts.items()]


def _part(entry: Entry, kept: Sequence[tuple[Event, int, Any]], names: Sequence[str]) -> Feedback:
    """Feedback whose lists all have these columns of numbers in their trace."""
    keys = [(event.user, event.slate if names else None) for event, *_ in kept]
    first = {key: at for at, key in reversed(list(enumerate(keys)))}
    askers = list(dict.fromkeys(keys))
    place = {key: row for row, key in enumerate(askers)}
    events = [event for event, *_ in kept]
    columns = Columns(
        item=np.array([number for _, number, _ in kept], dtype=np.int32),
        position=np.array([-1 if event.position is None else event.position for event in events], dtype=np.int32),
        kind=np.array([event.kind for event in events], dtype=object),
        value=np.array([1.0 if event.value is None else event.value for event in events], dtype=np.float32),
        time=np.array([event.time for event in events], dtype=np.int64),
    )
    slates = None
    if names:
        trace = {name: np.stack([kept[first[key]][2][name] for key in askers]) for name in names}
        none = np.empty((len(askers), 0), dtype=np.int32)
        slates = Slates(none, none.astype(np.float32), trace=Columns(trace))
    requests = entry.requests([Question(user=user) for user, _ in askers])
    rows = np.array([place[key] for key in keys])
    return Feedback(requests, events=Jagged.from_rows(rows, columns, len(askers)), slates=slates)
