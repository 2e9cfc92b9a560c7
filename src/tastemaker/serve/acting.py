"""Turns of sessions: what the person did is observed, the system acts, and the state goes back to its store.

The server keeps nothing in memory between turns, so any of several processes can take the next one. Two turns of one
session at the same time cannot both count: the store takes a state only from whoever read the one before it.

A turn works on a thread of its own kind, since a system that asks a language model waits for most of it, and lists for
others must not wait along. What it finds out is told while it works. Whoever goes away, or waits longer than a turn may
take, leaves the session as it was: a turn counts once its state is stored, and only then its words are told.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tastemaker.serve import models, turns
from tastemaker.serve.batching import Overloaded, TimedOut
from tastemaker.serve.desk import Desk, event_of
from tastemaker.serve.entry import Entry
from tastemaker.serve.names import new_id, now
from tastemaker.serve.problems import placeless
from tastemaker.serve.questions import Question
from tastemaker.serve.runtime import Runtime, alone
from tastemaker.serve.sessions import Conflict, Session, SessionStore
from tastemaker.serve.states import decoded, encoded
from tastemaker.serve.turns import Plain
from tastemaker.types import BundleError, CapabilityError, NotFound

log = logging.getLogger("tastemaker.server")
AGAIN = 2  # seconds after which a turn that found no room is tried again
READY, ERROR, OVER = "ready", "error", ""
Told = tuple[str, Any]


class Underway:
    """A turn at work: its events, until it is over or left.

    work: told how to tell; it does the turn
    """

    def __init__(self, work: Callable[[Underway], None], seconds: float) -> None:
        self.loop, self.told = asyncio.get_running_loop(), asyncio.Queue[Told]()
        self.until, self.seconds = self.loop.time() + seconds, seconds
        self.work = work
        self.left = threading.Event()

    def run(self) -> None:
        """On a thread: the turn, its error as its last event."""
        try:
            self.work(self)
        except Exception as error:
            self.tell(ERROR, error)
        self.tell(OVER)

    def tell(self, kind: str, what: Any = None) -> None:
        self.call(self.told.put_nowait, (kind, what))

    def call(self, work: Callable[..., Any], *given: Any) -> None:
        """Do something in the event loop; where that is gone, nobody needs it any more."""
        try:
            self.loop.call_soon_threadsafe(work, *given)
        except RuntimeError:
            self.left.set()

    def leave(self) -> None:
        """Nobody listens any more: the turn stops where it can."""
        self.left.set()

    async def next(self, patience: float | None = None) -> Told | None:
        """What is told next; None: nothing for as long as the patience lasts.

        Raises:
            TimedOut: the turn has taken too long; it is left.
        """
        rest = self.until - self.loop.time()
        try:
            return await asyncio.wait_for(self.told.get(), rest if patience is None else min(rest, patience))
        except TimeoutError:
            if self.loop.time() < self.until:
                return None
            self.leave()
            raise TimedOut(f"no answer within {self.seconds:g} s", hint="ask for less, or again later") from None

    async def events(self, patience: float) -> AsyncIterator[Told | None]:
        """All that is told; None now and then, while nothing is; an error that ends it is the last event."""
        while True:
            try:
                one = await self.next(patience)
            except TimedOut as error:
                one = ERROR, error
            if one is not None and one[0] == OVER:
                return
            yield one
            if one is not None and one[0] == ERROR:
                return


class Acting:
    """Takes turns for the systems of a runtime that act."""

    def __init__(self, desk: Desk, store: SessionStore) -> None:
        self.desk, self.store = desk, store
        self.runtime: Runtime = desk.runtime
        self.most = self.runtime.settings.turns
        self._pool = ThreadPoolExecutor(self.most, thread_name_prefix="turns", initializer=alone)
        self._working: set[Underway] = set()

    async def sweep(self, every: float = 60.0) -> None:
        """Remove what has expired, again and again."""
        while True:
            await asyncio.sleep(every)
            await self.runtime.slowly(self.store.sweep)

    def close(self) -> None:
        """Leave what is at work, and wait until it has noticed."""
        for turn in list(self._working):
            turn.leave()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- turns

    async def act(self, body: models.ActBody) -> Plain:
        """One turn, told when it is over."""
        turn = await self.begin(body)
        told: Plain = {"text": None, "ask": None, "slate": None, "items": []}
        try:
            async for one in turn.events(self.runtime.settings.turn_seconds):
                if one is None:
                    continue
                kind, what = one
                if kind == ERROR:
                    raise what
                if kind == "ask":
                    told["ask"] = what
                elif kind in ("words", "items", "turn"):
                    told |= what
        finally:
            turn.leave()
        return told

    async def begin(self, body: models.TurnBody) -> Underway:
        """A turn at work, its session read: what is wrong with the question is raised here.

        Raises:
            Overloaded: as many turns are at work as may be.
        """
        if len(self._working) >= self.most:
            raise Overloaded(AGAIN)
        turn = Underway(lambda turn: self._turn(body, turn), self.runtime.settings.turn_seconds)
        self._working.add(turn)
        try:
            if body.events:
                await self.runtime.feedback([event_of(_named(one, body)) for one in body.events])
            work: Future[None] = self._pool.submit(turn.run)
        except BaseException:
            self._working.discard(turn)
            raise
        work.add_done_callback(lambda _: turn.call(self._working.discard, turn))
        try:
            first = await turn.next()
        except BaseException:  # the caller went away, or it took too long
            turn.leave()
            raise
        if first is not None and first[0] == ERROR:
            raise first[1]
        return turn

    def _turn(self, body: models.TurnBody, turn: Underway) -> None:
        """On a thread: read the state, observe, act, put the state back, tell."""
        if body.session is None:
            entry, number = self.runtime.entry(turns.actor(self.runtime.shelf, body.system)), 0
            asked = self.runtime.complete(Question(user=body.user, history=tuple(body.history), text=body.text))
            session, user = new_id(), None if body.user is None else str(body.user)
            turn.tell(READY)
            state = turns.begun(entry, asked, body)
        else:
            kept, entry, state = self._open(body.session, body.user)
            number, session, user = kept.version, kept.id, kept.user
            asked = Question(user=user, text=body.text)
            turn.tell(READY)
            state = turns.observed(entry, state, user, body.events, body.replies, body.text)
        working = turns.acted(entry, state)
        try:
            while not turn.left.is_set():
                try:
                    turn.tell("step", _shown(next(working)))
                except StopIteration as over:
                    done: turns.Done = over.value
                    break
            if turn.left.is_set():
                return
        finally:
            working.close()
        self._put(session, user, entry, done.state, number)
        if (given := done.given) is not None:
            turn.call(lambda: self.runtime.note(given, asked, session=session))
        for kind, what in done.told():
            turn.tell(kind, what)
        about = {"session": session, "turn": number + 1, "system": entry.name, "snapshot": entry.snapshot}
        turn.tell("turn", about)

    # -- profiles

    async def profile(self, session: str, user: Any) -> Plain:
        """What a session knows of its person."""

        def work() -> Plain:
            kept, entry, state = self._open(session, user)
            return _profile(kept, turns.profile(entry, state))

        return await self.runtime.apart(work)

    async def correct(self, session: str, body: models.ProfileBody) -> Plain:
        """Put a profile in the place of what a session knows."""

        def work() -> Plain:
            kept, entry, state = self._open(session, body.user)
            if body.turn is not None and body.turn != kept.version:
                raise Conflict("the session went on since the profile was read", hint="read it again")
            state = turns.corrected(entry, state, body.profile)
            return _profile(self._put(kept.id, kept.user, entry, state, kept.version), turns.profile(entry, state))

        return await self.runtime.apart(work)

    async def forget(self, session: str, user: Any) -> Plain:
        """Empty the profile of a session; where it cannot be opened any more, all of the session goes."""

        def work(tries: int = 3) -> Plain:
            kept = self._kept(session, user)
            try:
                kept, entry, state = self._open(session, user)
            except (Conflict, NotFound, CapabilityError):
                self.store.remove(kept.id)
                return {**_profile(kept, {}), "ended": True}
            state = turns.corrected(entry, state, {})
            try:
                kept = self._put(kept.id, kept.user, entry, state, kept.version)
            except Conflict:  # a turn came between: what it has learnt goes as well
                if not tries:
                    raise
                return work(tries - 1)
            return _profile(kept, turns.profile(entry, state))

        return await self.runtime.apart(work)

    async def end(self, session: str, user: Any) -> Plain:
        """Remove a session, and all that it knows."""

        def work() -> Plain:
            self.store.remove(self._kept(session, user).id)
            return {"session": session}

        return await self.runtime.apart(work)

    # -- the store

    def _kept(self, session: str, user: Any) -> Session:
        """A session, for whoever knows its name, and names no other user than its own.

        Raises:
            NotFound: there is none for this user.
        """
        kept = self.store.get(session)
        if kept is None or (user is not None and kept.user not in (None, str(user))):
            raise NotFound("there is no such session, or its time is over", hint="begin without a session")
        return kept

    def _open(self, session: str, user: Any) -> tuple[Session, Entry, Any]:
        """A session, who acts in it, and its state.

        Raises:
            Conflict: the system is another by now.
        """
        kept = self._kept(session, user)
        entry = self.runtime.entry(turns.actor(self.runtime.shelf, kept.system))
        if _fit(kept.snapshot) != _fit(entry.snapshot):
            raise Conflict("the system was renewed since this session began", hint="begin a new session")
        try:
            return kept, entry, decoded(kept.state, entry.system.State)
        except BundleError as error:
            raise Conflict(error.message, hint=error.hint) from error

    def _put(self, session: str, user: str | None, entry: Entry, state: Any, number: int) -> Session:
        return self.store.put(
            Session(
                id=session,
                user=user,
                system=entry.name,
                snapshot=entry.snapshot,
                state=encoded(state),
                version=number,
                expires=now() + 1_000_000 * self.runtime.settings.session_seconds,
            )
        )


def _named(event: models.EventBody, body: models.TurnBody) -> models.EventBody:
    """An event of whoever takes the turn, where it does not say whose it is."""
    about = {"user": body.user, "session": body.session}
    return event.model_copy(update={name: value for name, value in about.items() if getattr(event, name) is None})


def _shown(step: Plain) -> Plain:
    """A step as it goes out: one that failed may name what it could not reach, and that is the server's own affair."""
    return {**step, "output": placeless(step["output"])} if step["failed"] else step


def _fit(snapshot: str) -> str:
    """Which fit a snapshot is of: what it has learnt since does not change what a state means."""
    return snapshot.partition("+")[0]


def _profile(kept: Session, lists: dict[str, list[str]]) -> Plain:
    return {"session": kept.id, "turn": kept.version, "profile": lists, "ended": False}
