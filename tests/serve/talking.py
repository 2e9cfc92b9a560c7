"""A system that converses, for tests: says words, asks for a genre, shows a list, keeps a profile, tells its steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tastemaker.contracts import SystemInfo
from tastemaker.serve.entry import Entry
from tastemaker.types import Actions, Columns, Feedback, Requests, Slates, TastemakerError

LISTS = ("liked", "unwanted", "wishes")
SHOWN = 5


class OutOfOrder(TastemakerError):
    """What the double raises where it is told to fail."""


@dataclass(frozen=True)
class Talk:
    """What was said, what is liked (item numbers), what was asked and answered, the profile."""

    said: tuple[str, ...]
    liked: np.ndarray
    genre: str
    known: dict[str, list[str]]
    turns: int = 0


class Talker:
    """Asks for a genre once; then shows the films of it, what is liked left out.

    pause: called before each step but the first, to hold the turn up
    """

    State = Talk

    def __init__(self, genres: Sequence[Sequence[str]], titles: Sequence[str]) -> None:
        self.genres, self.titles = genres, titles
        self.pause: Callable[[], None] = lambda: None
        self.stopped = threading.Event()

    def begin(self, requests: Requests) -> list[Talk]:
        words = [None] * requests.n if requests.text is None else requests.text.tolist()
        none = np.empty(0, dtype=np.int32)
        return [Talk((word,) if word else (), none, "", {name: [] for name in LISTS}) for word in words]

    def observe(self, sessions: list[Talk], feedback: Feedback) -> list[Talk]:
        [talk] = sessions
        if feedback.events is not None:
            events = feedback.events[0]
            liked = events["item"][events["kind"] == "like"]
            titles = [self.titles[number] for number in liked.tolist()]
            talk = replace(talk, liked=np.append(talk.liked, liked), known=_more(talk.known, "liked", titles))
        if feedback.answers is not None:
            value, reply = feedback.answers["value"][0], feedback.answers["reply"][0]
            if reply == 1 and value is not None:
                talk = replace(talk, genre=value)
            elif reply == 0 and value is not None:
                talk = replace(talk, known=_more(talk.known, "unwanted", [value]))
            else:
                talk = replace(talk, genre="drama")
        if feedback.text is not None:
            talk = replace(talk, said=(*talk.said, feedback.text[0]))
        return [talk]

    def act(self, sessions: list[Talk]) -> tuple[Actions, list[Talk]]:
        telling = self._steps(sessions)
        while True:
            try:
                next(telling)
            except StopIteration as over:
                done: tuple[Actions, list[Talk]] = over.value
                return done

    def _steps(
        self, sessions: list[Talk]
    ) -> Generator[tuple[int, Mapping[str, Any]], None, tuple[Actions, list[Talk]]]:
        [talk] = sessions
        last = talk.said[-1] if talk.said else ""
        trace: list[dict[str, Any]] = []
        try:
            for tool in ("look-up", "hard filter", "ranking"):
                if trace:
                    self.pause()
                if "fail" in last and tool == "ranking":
                    raise OutOfOrder("the ranking at http://10.0.0.1:99/v1 is out of order", hint="say it otherwise")
                if "break" in last and tool == "ranking":
                    raise ZeroDivisionError("a fault of the program")
                step = {"tool": tool, "input": last, "output": f"{len(self.titles)} left", "failed": False}
                if "unreachable" in last:
                    step |= {"output": "http://10.0.0.1:99/v1 cannot be reached", "failed": True}
                trace.append(step)
                yield 0, step
        finally:
            self.stopped.set()
        known = _more(talk.known, "wishes", [last] if last else [])
        talk = replace(talk, known=known, turns=talk.turns + 1)
        chosen = [n for n, kinds in enumerate(self.genres) if talk.genre in kinds and n not in talk.liked][:SHOWN]
        items = np.full((1, SHOWN), -1, dtype=np.int32)
        items[0, : len(chosen)] = chosen
        asks = not talk.genre
        ask = Columns(attribute=_one("genres" if asks else ""), values=_one(("comedy", "drama") if asks else ()))
        words = "Which genre?" if asks else f"Some {talk.genre}, since you said: {last}"
        return Actions(
            1,
            slates=Slates(items, np.arange(SHOWN, 0, -1, dtype=np.float32)[None, :]),
            ask=ask,
            text=_one(words),
            content=_one({"trace": trace, "profile": talk.known}),
        ), [talk]

    def profile(self, session: Talk) -> Mapping[str, Sequence[str]]:
        return session.known

    def with_profile(self, session: Talk, profile: Mapping[str, Sequence[str]]) -> Talk:
        said = session.said if profile["wishes"] else ()
        return replace(session, known={name: list(profile.get(name, ())) for name in LISTS}, said=said)


class Narrator(Talker):
    """The same, heard while it works."""

    def narrate(self, sessions: list[Talk]) -> Any:
        return self._steps(sessions)


def _one(value: Any) -> Any:
    """A column of one row."""
    column = np.empty(1, dtype=object)
    column[0] = value
    return column


def _more(known: dict[str, list[str]], name: str, lines: Sequence[str]) -> dict[str, list[str]]:
    return {**known, name: [*known[name], *(one for one in lines if one not in known[name])]}


def entry(bundle: Any, name: str = "talker", *, kind: type[Talker] = Narrator, snapshot: str = "first") -> Entry:
    """The double over the catalogue of a bundle, as it is served."""
    info = SystemInfo(name, "agentic", "Converses about films", "none", kind, frozenset(), frozenset())
    system = kind(bundle.catalogue["genres"].to_list(), bundle.catalogue["title"].to_list())
    return Entry(name, replace(bundle, system=system, info=info, about={}), snapshot=snapshot)
