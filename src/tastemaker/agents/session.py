"""A conversation as it is kept between two turns: plain values, and what becomes of them when somebody speaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tastemaker.agents.tastes import Entry, Tastes
from tastemaker.language.tasks import Turn
from tastemaker.types import Requests

LONGEST = 2000  # characters of what a person says, and of a reply, that are kept
UNREAD = 16  # turns that wait to be read for the profile


@dataclass(frozen=True)
class Session:
    """A conversation, in plain values.

    said: what the person said and was not answered yet; dialogue: (who, what), cut to the budget
    history, liked, unwanted: items by number, wishes in words
    unread: (what was said, what was shown then) that the profile has not been renewed by
    shown: the last list; allowed: bits of the items that may be shown [I / 8]; empty: all
    """

    VERSION: ClassVar[int] = 1
    user: int
    seed: int
    turns: int
    said: str
    dialogue: tuple[tuple[str, str], ...]
    history: tuple[Entry, ...]
    liked: tuple[Entry, ...]
    unwanted: tuple[Entry, ...]
    unread: tuple[tuple[str, tuple[int, ...]], ...]
    shown: tuple[int, ...]
    allowed: NDArray[np.uint8]

    @property
    def tastes(self) -> Tastes:
        return Tastes(self.history, self.liked, self.unwanted)

    def with_tastes(self, tastes: Tastes, **more: Any) -> Session:
        return replace(self, history=tastes.history, liked=tastes.liked, unwanted=tastes.unwanted, **more)


def heard(session: Session, text: Any) -> Session:
    """With what the person says now."""
    if text is None or not (said := str(text)[:LONGEST].strip()):
        return session
    unread = (*session.unread, (said, session.shown))[-UNREAD:]
    return replace(session, said=f"{session.said}\n{said}"[-LONGEST:].strip(), unread=unread)


def turns_of(session: Session) -> tuple[Turn, ...]:
    return tuple(Turn(who="person" if who == "person" else "system", text=text) for who, text in session.dialogue)


def cut(dialogue: tuple[tuple[str, str], ...], most: int) -> tuple[tuple[str, str], ...]:
    """The latest turns that have no more words than the budget, and the last one in any case, cut to it."""
    kept: list[tuple[str, str]] = []
    left = most
    for who, text in reversed(dialogue):
        size = len(text.split())
        if kept and size > left:
            break
        kept.append((who, text if size <= left else " ".join(text.split()[:left])))
        left -= size
    return tuple(reversed(kept))


def dialogue_of(requests: Requests, b: int) -> tuple[tuple[str, str], ...]:
    """The dialogue that a request brings."""
    if requests.dialogue is None:
        return ()
    turns = requests.dialogue[b]
    pairs = zip(turns["speaker"].tolist(), turns["text"].tolist(), strict=True)
    return tuple(("system" if who in ("system", "assistant") else "person", str(text)[:LONGEST]) for who, text in pairs)


def allowed_bits(requests: Requests, b: int, n_items: int) -> NDArray[np.uint8]:
    """Bits of the items that a request may be answered with; none at all where it says nothing of that."""
    flags = np.full(n_items, requests.candidates is None)
    if requests.candidates is not None:
        named = requests.candidates[b]
        flags[named[(named >= 0) & (named < n_items)]] = True
    if requests.exclude is not None:
        barred = requests.exclude[b]
        flags[barred[(barred >= 0) & (barred < n_items)]] = False
    if requests.filter is not None and requests.filter.which[b] >= 0:
        flags &= requests.filter.allowed[requests.filter.which[b]]
    return np.zeros(0, dtype=np.uint8) if flags.all() else np.packbits(flags)
