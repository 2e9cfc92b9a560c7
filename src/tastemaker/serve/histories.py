"""What users did since the bundles were fitted, from the log: the last events of each, kept in memory while asked for.

The log is the truth. A user's events are read from it once and then kept up as feedback arrives here. Once a second the
log is asked whether somebody was erased, and then all is forgotten; with several server processes on one database each
also asks whose events changed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tastemaker.serve.questions import Past

UNWANTED = frozenset({"hide", "dislike", "not_interested"})  # the item is not shown again
TAKES_BACK = frozenset({"undo", "unlike"})  # what was said of the item before is forgotten
NEUTRAL = frozenset({"impression", "skip", "search"})  # says nothing of what is liked
STRENGTH = 1.0


@dataclass(frozen=True, slots=True)
class Recent:
    """A user's choices since, oldest first, and what the user does not want to see."""

    chosen: tuple[Past, ...] = ()
    hidden: tuple[str, ...] = ()


class Histories:
    """The last events of users, least recently used ones forgotten.

    Args:
        log: an event log with `recent_of`, `changed_since` and `erasures`, or None: nothing is known.
        limit: events of a user that are kept.
        users: users kept in memory.
        shared: whether other processes write to the log too; then changes are looked for every `every` seconds.
    """

    def __init__(
        self, log: Any = None, *, limit: int = 500, users: int = 200_000, shared: bool = False, every: float = 1.0
    ) -> None:
        self.log, self.limit, self.users, self.shared, self.every = log, limit, users, shared, every
        self._kept: OrderedDict[str, Recent] = OrderedDict()
        self._lock = threading.Lock()
        self._last = 0
        self._looked, self._erasures, self._turn = 0.0, 0, 0
        self.on_erasure: Callable[[], None] = lambda: None
        if log is not None:
            self._last, self._erasures = log.changed_since(None)[1], log.erasures()

    def of(self, users: Iterable[str]) -> dict[str, Recent]:
        """What is known of each user; unknown ones did nothing."""
        wanted = set(users)
        if self.log is None or not wanted:
            return dict.fromkeys(wanted, Recent())
        self._look()
        found: dict[str, Recent] = {}
        with self._lock:
            for user in wanted:
                if (known := self._kept.get(user)) is not None:
                    self._kept.move_to_end(user)
                    found[user] = known
            turn = self._turn
        if missing := sorted(wanted - found.keys()):
            read = self.log.recent_of(missing, self.limit)
            for user in missing:
                found[user] = summed(read.get(user, ()))
            with self._lock:
                if turn == self._turn:  # else something was forgotten while this was read, and it may be of before
                    self._kept.update((user, found[user]) for user in missing)
                while len(self._kept) > self.users:
                    self._kept.popitem(last=False)
        return found

    def forget(self, users: Iterable[str]) -> None:
        """These users have new events, or are erased: read them again when they are asked for."""
        with self._lock:
            self._turn += 1
            for user in users:
                self._kept.pop(user, None)

    def _look(self) -> None:
        """Now and then: was somebody erased, did other processes hear something."""
        if (now := time.monotonic()) - self._looked < self.every:
            return
        self._looked = now
        if (erasures := self.log.erasures()) != self._erasures:
            self._erasures = erasures
            with self._lock:
                self._turn += 1
                self._kept.clear()
            self.on_erasure()
        if self.shared:
            users, self._last = self.log.changed_since(self._last)
            self.forget(users)


def summed(events: Sequence[Any]) -> Recent:
    """Events of one user, oldest first, as choices and unwanted items; a later word on an item overrules an earlier."""
    chosen: list[Past] = []
    hidden: dict[str, None] = {}
    for event in events:
        if event.item is None or event.kind in NEUTRAL:
            continue
        if event.kind in TAKES_BACK or event.kind in UNWANTED:
            chosen = [one for one in chosen if one.item != event.item]
        hidden.pop(event.item, None)
        if event.kind in UNWANTED:
            hidden[event.item] = None
        elif event.kind not in TAKES_BACK:
            chosen.append(Past(event.item, event.time, STRENGTH if event.value is None else float(event.value)))
    return Recent(tuple(chosen), tuple(hidden))
