"""Systems that learn while they serve: the log's events become deltas, a delta a snapshot that takes the old's place.

The log is what is learnt from, not what this process was told. Each event is in it once, with a number, and numbers
appear in order. So a snapshot is the bundle as it was opened and the events of the log from `origin`, where the bundle
was first served, up to a place, which its name tells ("4f0c+1200"). Whoever reads the log gets there, whichever process
an event was sent to, and gets there again after a crash: nothing that was acknowledged is lost, and nothing counts
twice. What is kept beside (`tastemaker.serve.learnt`) only saves work: a file of the latest snapshot, to go on from
after a restart; and in Redis the deltas, each computed by the process that comes first to a place, for all.

A list is written a moment after it went out, perhaps by another process than the one that is told of an event on it. So
an event is read once it has been in the log for `settle` seconds; then its list's trace is there too, and the trial is
credited to who was served, though another snapshot may answer by now.

Taking back what was served before (`Runtime.roll_back`) forgets what was learnt since: `origin` moves to the log's end,
in the log's database, where all processes see it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from tastemaker.contracts import Updates
from tastemaker.serve.entry import Entry
from tastemaker.serve.learnt import Checkpoints, SharedDeltas, checkpoints, shared_deltas
from tastemaker.serve.log import Event
from tastemaker.serve.questions import Question
from tastemaker.serve.runtime import Runtime
from tastemaker.serve.tables import StoreError
from tastemaker.types import Columns, Feedback, Jagged, Slates

log = logging.getLogger("tastemaker.server")
MOST = 4096  # events of one delta
SETTLE = 0.5  # seconds that an event lies in the log before it is read


@dataclass(frozen=True, eq=False)
class Place:
    """How far a system has learnt: `system` is that of `base` with the log's events after `origin` up to `at`.

    entry: what is served of it
    forgotten: the place that was left when the base was taken back
    """

    base: Entry
    entry: Entry
    system: Any
    origin: int
    at: int
    forgotten: Place | None = None

    @property
    def of(self) -> tuple[str, str]:
        """Whose place it is: the name that lists are served by, and the snapshot it began with."""
        return self.base.name, self.base.snapshot


class Learning:
    """Goes through the log for the systems that update.

    every: seconds between two snapshots of a system
    settle: seconds that an event lies in the log before it is read
    """

    def __init__(self, runtime: Runtime, every: float = 1.0, settle: float = SETTLE) -> None:
        self.runtime, self.every, self.settle = runtime, every, settle
        self.log = runtime.log
        self.places: dict[str, Place] = {}
        self.kept: Checkpoints | None = checkpoints(runtime.settings, runtime.log)
        self.shared: SharedDeltas | None = shared_deltas(runtime.settings)
        self._ends: deque[tuple[float, int]] = deque()
        self._lock = threading.RLock()
        for entry in runtime.shelf.values():
            self.serves(entry)
        runtime.on_put.append(self.serves)

    def learners(self) -> list[str]:
        """Names of entries whose systems learn while they serve."""
        return [name for name, entry in self.runtime.shelf.items() if isinstance(entry.system, Updates)]

    async def go_on(self) -> None:
        """Make snapshots for as long as the server runs."""
        while True:
            if self.learners():
                await self.runtime.slowly(self.turn)
            await asyncio.sleep(self.every)

    def turn(self) -> None:
        """Bring every system that learns up to what is settled in the log."""
        try:
            until = self._settled()
        except StoreError as error:
            log.warning("nothing is learnt now: %s", error)
            return
        for name in self.learners():
            try:
                self.learn(name, until)
            except Exception:
                self.runtime.metrics.failed.inc()
                log.exception("%s could not learn", name)

    def close(self) -> None:
        """Keep what was learnt; what cannot be kept is learnt again from the log."""
        if self.kept is None:
            return
        for place in self.places.values():
            try:
                self.kept.write(place.of, place.origin, place.at, place.system)
            except OSError as error:
                log.warning("what %s has learnt is not kept: %s", place.base.name, error)

    def learn(self, name: str, until: int) -> None:
        """Let the entry of this name learn what is in the log up to event `until`, and serve what it has become."""
        began = place = self.places[name]
        if self.log.remembered(_origin(place.base), place.origin) != place.origin:  # another process took the base back
            place = replace(self._begun(place.base), entry=place.entry)
        while place.at < until:
            at, delta = self._delta(place, until)
            system = place.system if delta is None else place.system.apply(delta)
            place = replace(place, system=system, at=at)
        keep_before = place.entry is place.base
        if fresh := place.system is not place.entry.system:
            bundle = copy(place.base.bundle)
            bundle.__dict__.pop("retriever", None)  # it holds the old system
            bundle.system = place.system
            place = replace(place, entry=Entry(name, bundle, snapshot=f"{place.base.snapshot}+{place.at}"))
            place.entry.warm()
        with self._lock:
            if self.places[name] is not began:
                return  # somebody put another bundle there meanwhile: it is the newer one
            self.places[name] = place
            if fresh:
                self.runtime.put(place.entry, keep_before=keep_before)
        if self.kept is not None:
            self.kept.now_and_then(place.of, place.origin, place.at, place.system)

    # -- places

    def serves(self, entry: Entry) -> None:
        """An entry is about to be served: from here on what happens is for it to learn from."""
        if not isinstance(entry.system, Updates):
            return
        with self._lock:
            place = self.places.get(entry.name)
            if place is None or entry not in (place.base, place.entry):
                if place is not None and place.forgotten is not None and entry is place.forgotten.entry:
                    self.log.remember(_origin(place.base), place.forgotten.origin)
                    self.places[entry.name] = place.forgotten  # the base was taken back by mistake
                else:
                    self.places[entry.name] = self._begun(entry)
            elif entry is not place.entry:  # the base is taken back
                end = self.log.changed_since(None)[1]
                self.log.remember(_origin(entry), end)
                self.places[entry.name] = Place(entry, entry, entry.system, end, end, replace(place, forgotten=None))

    def _begun(self, entry: Entry) -> Place:
        """A bundle, perhaps as it had learnt before this process began."""
        end, known = self.log.changed_since(None)[1], entry.snapshot.rpartition("+")[2]
        first = int(known) if "+" in entry.snapshot and known.isdigit() else end
        origin = self.log.remembered(_origin(entry), first)
        place = Place(entry, entry, entry.system, origin, origin)
        if self.kept is None or (found := self.kept.read(place.of, origin, entry.bundle)) is None:
            return place
        at, system = found
        return replace(place, at=at, system=system) if at <= end else place

    def _settled(self) -> int:
        """The last event that has been in the log for long enough, as far as was looked."""
        now, end = time.monotonic(), self.log.changed_since(None)[1]
        self._ends.append((now, end))
        while len(self._ends) > 1 and self._ends[1][0] <= now - self.settle:
            self._ends.popleft()
        first, settled = self._ends[0]
        return settled if first <= now - self.settle else 0

    # -- deltas

    def _delta(self, place: Place, until: int) -> tuple[int, Any]:
        """What comes next in the log, at most up to `until`: its last event's number, and the delta of all of it."""
        key = (self.log.identity, *place.of, place.origin, place.at)
        if self.shared is not None and (found := self.shared.get(key, place.system.Delta)) is not None:
            return found
        at, events = self.log.next_events(place.at, until, MOST)
        named = {event.slate for event in events if event.slate is not None}
        traces = self.log.traces(*place.of, named) if named else {}
        delta = self._summed(place, events, traces)
        return (at, delta) if self.shared is None else self.shared.first(key, at, delta, place.system.Delta)

    def _summed(self, place: Place, events: Sequence[Event], traces: Mapping[str, Mapping[str, Any]]) -> Any:
        """The delta of events; None: they say nothing. What cannot be learnt from is left out, and harms no other."""
        try:
            parts = feedback_of(place.base, events, traces)
            return reduce(place.system.merge, map(place.system.update, parts)) if parts else None
        except Exception:
            if len(events) > 1:
                middle = len(events) // 2
                halves = [self._summed(place, half, traces) for half in (events[:middle], events[middle:])]
                known = [half for half in halves if half is not None]
                return reduce(place.system.merge, known) if known else None
            self.runtime.metrics.failed.inc()
            log.exception("%s cannot learn from the event %s", place.base.name, [event.key for event in events])
            return None


def _origin(base: Entry) -> str:
    """Under which name the database keeps the number of the event after which a bundle learns."""
    return f"learns {base.name} {base.snapshot}"


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
