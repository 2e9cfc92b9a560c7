"""Turns of a session: what the person did is observed, the system acts, and the state goes back to its store.

The server keeps nothing in memory between turns, so any of several processes can take the next one. Two turns of one
session at the same time cannot both count: the store takes a state only from whoever read the one before it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from tastemaker.contracts import Acts
from tastemaker.serve import models
from tastemaker.serve.desk import Desk, event_of, listed
from tastemaker.serve.entry import Entry
from tastemaker.serve.names import new_id, now
from tastemaker.serve.questions import Answer, Question
from tastemaker.serve.runtime import Given, Runtime
from tastemaker.serve.sessions import Conflict, Session, SessionStore
from tastemaker.serve.states import decoded, encoded
from tastemaker.types import CapabilityError, Columns, Feedback, Jagged, NotFound, Requests

REPLIES = {"yes": 1, "no": 0, "unknown": -1}


class Acting:
    """Takes turns for the systems of a runtime that act."""

    def __init__(self, desk: Desk, store: SessionStore) -> None:
        self.desk, self.store = desk, store
        self.runtime: Runtime = desk.runtime

    async def sweep(self, every: float = 60.0) -> None:
        """Remove what has expired, again and again."""
        while True:
            await asyncio.sleep(every)
            await self.runtime.slowly(self.store.sweep)

    async def act(self, body: models.ActBody) -> dict[str, Any]:
        """One turn."""
        if body.events:
            await self.runtime.feedback([event_of(event) for event in body.events])
        turn, given, question = await self.runtime.apart(self._turn, body)
        if given is not None:
            self.runtime.note(given, question, session=turn["session"])
        return turn

    def _turn(self, body: models.ActBody) -> tuple[dict[str, Any], Given | None, Question]:
        """On a thread: read the state, observe, act, put the state back."""
        if body.session is None:
            entry, number = self._actor(body.system), 0
            asked = self.runtime.complete(Question(user=body.user, history=tuple(body.history), text=body.text))
            session = new_id()
            state = entry.system.begin(entry.requests([asked]))[0]
            user = None if body.user is None else str(body.user)
        else:
            kept = self.store.get(body.session)
            if kept is None or (body.user is not None and kept.user not in (None, str(body.user))):
                raise NotFound("there is no such session, or its time is over", hint="begin without a session")
            entry, number, session, user = self._actor(kept.system), kept.version, kept.id, kept.user
            if kept.snapshot != entry.snapshot:
                raise Conflict("the system was renewed since this session began", hint="begin a new session")
            state = decoded(kept.state, entry.system.State)
            asked = Question(user=user, text=body.text)
            if feedback := self._feedback(entry, body, user):
                state = entry.system.observe([state], feedback)[0]
        actions, states = entry.system.act([state])
        self.store.put(
            Session(
                id=session,
                user=user,
                system=entry.name,
                snapshot=entry.snapshot,
                state=encoded(states[0]),
                version=number,
                expires=now() + 1_000_000 * self.runtime.settings.session_seconds,
            )
        )
        turn: dict[str, Any] = {"session": session, "turn": number + 1, "system": entry.name}
        turn |= {"snapshot": entry.snapshot, "text": None, "ask": None, "slate": None, "items": []}
        if actions.text is not None and actions.text[0] is not None:
            turn["text"] = str(actions.text[0])
        if actions.ask is not None and actions.ask["attribute"][0]:
            values = actions.ask["values"][0]
            turn["ask"] = {"attribute": str(actions.ask["attribute"][0]), "values": [str(value) for value in values]}
        given = self._given(entry, actions)
        if given is not None:
            turn |= {"slate": given.slate, "items": listed(entry, given.answer, 0)}
        return turn, given, asked

    def _actor(self, name: str | None) -> Entry:
        """The entry that acts.

        Raises:
            CapabilityError: it cannot, or none can.
        """
        if name is None:
            name = next((n for n, entry in self.runtime.shelf.items() if isinstance(entry.system, Acts)), None)
            if name is None:
                raise CapabilityError("no system that is served holds sessions")
        entry = self.runtime.entry(name)
        if not isinstance(entry.system, Acts):
            raise CapabilityError(f"{name} holds no sessions: it answers with lists alone", hint="ask /recommend")
        return entry

    def _given(self, entry: Entry, actions: Any) -> Given | None:
        if actions.slates is None or not (numbers := [n for n in actions.slates.items[0].tolist() if n >= 0]):
            return None
        scores = actions.slates.scores[0].tolist()[: len(numbers)]
        logp = None if actions.slates.logp is None else actions.slates.logp[0].tolist()[: len(numbers)]
        return Given(new_id(), entry, Answer([entry.ids[n] for n in numbers], scores, logp))

    def _feedback(self, entry: Entry, body: models.ActBody, user: str | None) -> Feedback | None:
        """What the person said and did, or None: nothing."""
        if not body.events and body.answer is None and body.text is None:
            return None
        rows = [
            (number, event) for event, number in zip(body.events, _numbers(entry, body), strict=True) if number >= 0
        ]
        events = Columns(
            item=np.array([number for number, _ in rows], dtype=np.int32),
            position=np.array([(event.position or 1) - 1 for _, event in rows], dtype=np.int32),
            kind=np.array([event.kind for _, event in rows], dtype=object),
            value=np.array([1.0 if event.value is None else event.value for _, event in rows], dtype=np.float32),
            time=np.array([event.time or int(time.time() * 1e6) for _, event in rows], dtype=np.int64),
        )
        answers = None
        if (said := body.answer) is not None:
            one = {"attribute": said.attribute, "value": said.value, "reply": REPLIES[said.reply]}
            answers = Columns({name: np.array([value], dtype=object) for name, value in one.items()})
        number = -1 if user is None else int(entry.bundle.users.numbers([user])[0])
        return Feedback(
            Requests.of_users([number]),
            events=Jagged(events, np.array([0, len(rows)], dtype=np.int64)),
            answers=answers,
            text=None if body.text is None else np.array([body.text], dtype=object),
        )


def _numbers(entry: Entry, body: models.ActBody) -> list[int]:
    numbers: list[int] = entry.bundle.items.numbers(["" if e.item is None else e.item for e in body.events]).tolist()
    return numbers
