"""Policies: whatever acts in an environment. Any system is one, through `policy(system)`.

A policy's state goes in and comes out. Of a system that holds sessions it is the list of its sessions; of one that
gives lists it is the snapshot that answers, which after feedback is another one where the system learns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Acts, Updates
from tastemaker.evaluate.subject import unpacked
from tastemaker.index import Retriever, retriever
from tastemaker.types import Actions, Feedback, Requests, UsageError

S = TypeVar("S")


class Policy(Protocol[S]):
    """What acts for all sessions of an environment at once.

    learns: whether what is observed in one session moves what is done in another
    """

    @property
    def learns(self) -> bool: ...

    def begin(self, requests: Requests) -> S:
        """The state before the first turn."""
        ...

    def act(self, state: S, requests: Requests) -> tuple[Actions, S]:
        """What is done for those who ask now, in their order."""
        ...

    def observe(self, state: S, feedback: Feedback, done: NDArray[np.bool_]) -> S:
        """The state after what came back; sessions that are done [B] ask no more."""
        ...


def policy(system: Any, k: int = 10, *, learn: bool = True, push: int = 1) -> Policy[Any]:
    """A bundle or system as a policy: it holds sessions where it can, else it answers each turn with a list.

    Args:
        k: length of the lists.
        learn: whether a system that learns while it serves does so here.
        push: turns between two snapshots of one that does; what came meanwhile is merged.

    Raises:
        CapabilityError: the system can neither act nor give lists.
    """
    inner = unpacked(system)[1]
    if isinstance(inner, Acts):
        return Sessions(inner)
    if push < 1:
        raise UsageError(f"snapshots are at least one turn apart, got {push}")
    return Lists(inner, k, learn and isinstance(inner, Updates), push)


@dataclass(frozen=True, eq=False)
class Sessions:
    """A system that holds sessions."""

    system: Any
    learns: bool = False

    def begin(self, requests: Requests) -> list[Any]:
        sessions: list[Any] = self.system.begin(requests)
        return sessions

    def act(self, state: list[Any], requests: Requests) -> tuple[Actions, list[Any]]:
        done: tuple[Actions, list[Any]] = self.system.act(state)
        return done

    def observe(self, state: list[Any], feedback: Feedback, done: NDArray[np.bool_]) -> list[Any]:
        sessions = self.system.observe(state, feedback)
        return [session for session, over in zip(sessions, done.tolist(), strict=True) if not over]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A system that gives lists, as it stands; what it has been told since is in `pending`.

    turns: how many turns the feedback in `pending` is of
    """

    system: Any
    retriever: Retriever
    pending: Any = None
    turns: int = 0


@dataclass(frozen=True, eq=False)
class Lists:
    """A system that answers with lists, and learns from what they bring where `learns`."""

    system: Any
    k: int
    learns: bool
    push: int = 1

    def begin(self, requests: Requests) -> Snapshot:
        return Snapshot(self.system, retriever(self.system))

    def act(self, state: Snapshot, requests: Requests) -> tuple[Actions, Snapshot]:
        slates = state.retriever.retrieve(requests, self.k)
        return Actions(requests.n, slates=slates), state

    def observe(self, state: Snapshot, feedback: Feedback, done: NDArray[np.bool_]) -> Snapshot:
        if not self.learns:
            return state
        delta = state.system.update(feedback)
        pending = delta if state.pending is None else state.system.merge(state.pending, delta)
        if state.turns + 1 < self.push:
            return replace(state, pending=pending, turns=state.turns + 1)
        system = state.system.apply(pending)
        return Snapshot(system, retriever(system))
