"""A turn of a session, whoever keeps the session: bodies become feedback, actions become plain values.

A system that narrates is heard step by step, and can be left between two steps; of any other the steps are what its
action tells of them, once it is over. Words of steps are other people's text, cut to a length that can be shown.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.contracts import Acts, Narrates, Profiles
from tastemaker.serve import models
from tastemaker.serve.desk import listed
from tastemaker.serve.entry import Entry
from tastemaker.serve.names import new_id
from tastemaker.serve.questions import Answer, Question
from tastemaker.serve.runtime import Given
from tastemaker.types import CapabilityError, Columns, Feedback, Jagged, Requests, UsageError

REPLIES = {"yes": 1, "no": 0, "unknown": -1}
LONGEST, MOST_STEPS = 2000, 200  # characters of a step's input or output, steps that are told
Plain = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A turn that is over.

    state: the session after it
    text, ask, items, profile: what is told; None, or no items: there is none
    given: the list as it goes to the log
    """

    state: Any
    text: str | None
    ask: Plain | None
    items: list[Plain]
    given: Given | None
    profile: dict[str, list[str]] | None

    def told(self) -> Iterator[tuple[str, Plain]]:
        """What is told of it after its steps, in this order, as far as there is such."""
        if self.text is not None:
            yield "words", {"text": self.text}
        if self.ask is not None:
            yield "ask", self.ask
        if self.given is not None:
            yield "items", {"slate": self.given.slate, "items": self.items}
        if self.profile is not None:
            yield "profile", self.profile


def actor(shelf: Mapping[str, Entry], name: str | None = None) -> str:
    """The name of the entry that acts: the one that is named, or the first that can.

    Raises:
        CapabilityError: it cannot, or none can.
    """
    if name is None:
        name = next((n for n, entry in shelf.items() if isinstance(entry.system, Acts)), None)
        if name is None:
            raise CapabilityError("no system that is served holds sessions")
    elif name in shelf and not isinstance(shelf[name].system, Acts):
        raise CapabilityError(f"{name} holds no sessions: it answers with lists alone", hint="ask /recommend")
    return name


def begun(entry: Entry, question: Question, body: models.TurnBody) -> Any:
    """A new session. The text is part of what is asked; events and answers, of a list shown elsewhere, come after."""
    state = entry.system.begin(entry.requests([question]))[0]
    return observed(entry, state, question.user, body.events, body.replies, None)


def observed(
    entry: Entry,
    state: Any,
    user: Any,
    events: Sequence[models.EventBody],
    replies: Sequence[models.Reply],
    text: str | None,
) -> Any:
    """The session after what the person did and said; of several answers each is heard by itself, the text last."""
    answers: list[models.Reply | None] = list(replies)
    answers = answers or [None]
    for place, reply in enumerate(answers):
        last = place == len(answers) - 1
        given = feedback(entry, events if place == 0 else (), reply, text if last else None, user)
        if given is not None:
            state = entry.system.observe([state], given)[0]
    return state


def feedback(
    entry: Entry, done: Sequence[models.EventBody], reply: models.Reply | None, text: str | None, user: Any
) -> Feedback | None:
    """What the person said and did, or None: nothing."""
    if not done and reply is None and text is None:
        return None
    numbers: list[int] = entry.bundle.items.numbers(["" if e.item is None else e.item for e in done]).tolist()
    rows = [(number, event) for event, number in zip(done, numbers, strict=True) if number >= 0]
    events = Columns(
        item=np.array([number for number, _ in rows], dtype=np.int32),
        position=np.array([(event.position or 1) - 1 for _, event in rows], dtype=np.int32),
        kind=np.array([event.kind for _, event in rows], dtype=object),
        value=np.array([1.0 if event.value is None else event.value for _, event in rows], dtype=np.float32),
        time=np.array([event.time or int(time.time() * 1e6) for _, event in rows], dtype=np.int64),
    )
    answers = None
    if reply is not None:
        one = {"attribute": reply.attribute, "value": reply.value, "reply": REPLIES[reply.reply]}
        answers = Columns({name: np.array([value], dtype=object) for name, value in one.items()})
    number = -1 if user is None else int(entry.bundle.users.numbers([user])[0])
    return Feedback(
        Requests.of_users([number]),
        events=Jagged(events, np.array([0, len(rows)], dtype=np.int64)),
        answers=answers,
        text=None if text is None else np.array([text], dtype=object),
    )


def acted(entry: Entry, state: Any) -> Generator[Plain, None, Done]:
    """What the system does: its steps, as they are done where it narrates, and then all the rest."""
    system = entry.system
    if isinstance(system, Narrates):
        actions, states = yield from _heard(system, state)
    else:
        actions, states = system.act([state])
    content = None if actions.content is None else actions.content[0]
    told: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    if not isinstance(system, Narrates):
        yield from map(stepped, list(told.get("trace") or ())[:MOST_STEPS])
    ask = None
    if actions.ask is not None and actions.ask["attribute"][0]:
        values = actions.ask["values"][0]
        values = () if values is None else values
        ask = {"attribute": str(actions.ask["attribute"][0]), "values": [str(value) for value in values]}
    text = None if actions.text is None or actions.text[0] is None else str(actions.text[0])
    given = _given(entry, actions)
    items = [] if given is None else listed(entry, given.answer, 0)
    kept = profile(entry, states[0]) if isinstance(system, Profiles) else _lists(told.get("profile"))
    return Done(states[0], text, ask, items, given, kept)


def _heard(system: Narrates[Any], state: Any) -> Generator[Plain, None, Any]:
    """Steps of one session; closing this closes the system's own generator, between two steps of it."""
    telling = system.narrate([state])
    try:
        for n in itertools.count():
            try:
                _, step = next(telling)
            except StopIteration as over:
                return over.value
            if n < MOST_STEPS:
                yield stepped(step)
    finally:
        telling.close()


def stepped(step: Mapping[str, Any]) -> Plain:
    """A step as it is told."""
    words = {name: _words(step.get(name)) for name in ("tool", "input", "output")}
    return {**words, "failed": bool(step.get("failed", False))}


def _words(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
    text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be sent
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _given(entry: Entry, actions: Any) -> Given | None:
    if actions.slates is None or not (numbers := [n for n in actions.slates.items[0].tolist() if n >= 0]):
        return None
    scores = actions.slates.scores[0].tolist()[: len(numbers)]
    logp = None if actions.slates.logp is None else actions.slates.logp[0].tolist()[: len(numbers)]
    return Given(new_id(), entry, Answer([entry.ids[n] for n in numbers], scores, logp))


# -- profiles


def keeper(entry: Entry) -> Profiles[Any]:
    """The system of an entry, as what keeps profiles.

    Raises:
        CapabilityError: it keeps none.
    """
    if not isinstance(entry.system, Profiles):
        raise CapabilityError(f"{entry.name} keeps no profile of the people it talks to")
    return entry.system


def profile(entry: Entry, state: Any) -> dict[str, list[str]]:
    """What a session knows of a person."""
    return _lists(keeper(entry).profile(state)) or {}


def corrected(entry: Entry, state: Any, lists: Mapping[str, Sequence[str]]) -> Any:
    """The session with these lists for its profile.

    Raises:
        UsageError: the profile has no list of such a name.
    """
    known = profile(entry, state)
    if unknown := [name for name in lists if name not in known]:
        raise UsageError(f"the profile has no list {unknown[0]!r}", hint=f"there are: {', '.join(known) or 'none'}")
    return keeper(entry).with_profile(state, {name: list(lists.get(name, ())) for name in known})


def _lists(found: Any) -> dict[str, list[str]] | None:
    if not isinstance(found, Mapping):
        return None
    return {str(name): [_words(line) for line in lines] for name, lines in found.items()}


class Talk:
    """A conversation in this process: the same turns, and the state kept here."""

    def __init__(self, entry: Entry, user: Any = None, history: Sequence[Any] = ()) -> None:
        self.entry, self.user, self.history = entry, user, tuple(history)
        self.state: Any = None

    def say(self, text: str | None = None, **more: Any) -> Iterator[tuple[str, Plain]]:
        """A turn, told as over HTTP; one that fails, or that nobody hears to its end, leaves the state as it was.

        more: `answers` and `events`, as in the body of /chat
        """
        body = models.ChatBody(text=text, **more)
        if self.state is None:
            state = begun(self.entry, Question(user=self.user, history=self.history, text=text), body)
        else:
            state = observed(self.entry, self.state, self.user, body.events, body.replies, body.text)
        working = acted(self.entry, state)
        try:
            while True:
                try:
                    step = next(working)
                except StopIteration as over:
                    done: Done = over.value
                    break
                yield "step", step
        finally:
            working.close()
        self.state = done.state
        yield from done.told()

    def profile(self) -> dict[str, list[str]]:
        """What is known of the person; nothing before the first turn."""
        return {} if self.state is None else profile(self.entry, self.state)

    def correct(self, lists: Mapping[str, Sequence[str]]) -> None:
        """Put a profile in the place of what is known."""
        if self.state is not None:
            self.state = corrected(self.entry, self.state, lists)
