"""Users who have one item in mind and talk about it, until it is among those that they are shown.

A session is a user and a hidden target. What the user says comes from a speaker, who knows the target and must not
name it; each turn's words are the text of the request. What was shown and refused is excluded from then on, as what
the user chose before is. The seed of a session decides the target and seeds the speaker.

Ref: the user simulator of Huang, Lian, Lei, Yao, Lian, Xie, "Recommender AI Agent: Integrating Large Language Models
for Interactive Recommendations", TOIS 2025, arXiv:2308.16505. A hit is judged by the item here, not by its title in a
text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.simulate.attributes import shown_events
from tastemaker.types import Actions, Feedback, Jagged, Part, Requests, Split, UsageError, mix
from tastemaker.types.jagged import joined

Ints = NDArray[np.int64]


class Speaker(Protocol):
    """Who speaks for the people of a world. What a person has in mind goes in and comes out."""

    @property
    def identity(self) -> str: ...

    def opens(self, target: int, history: Sequence[int], seed: int) -> tuple[str, Any]:
        """The first words of somebody who wants `target` and chose `history` before, oldest first."""

    def hears(self, mind: Any, shown: Sequence[int], text: str) -> tuple[str, Any]:
        """What is said to a list without the target, and to the words beside it."""


@dataclass(frozen=True, eq=False)
class TalkState:
    """Where sessions stand.

    Shapes: seeds [B] uint64; pairs [B] who wants what; turn: how many turns have passed; minds, texts: B of each, what
        the speaker keeps and what was said last; refused: Jagged of B rows, items that were shown
    """

    seeds: NDArray[np.uint64]
    pairs: Ints
    turn: int
    minds: tuple[Any, ...]
    texts: tuple[str, ...]
    refused: Jagged[NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class TalkingUsers:
    """An environment of users who talk.

    asked: who may ask, a request each, with what is known of them
    horizon: turns of a session

    Shapes: askers [N] rows of `asked`; targets [N] items: a session is one of these N pairs
    """

    speaker: Speaker
    asked: Requests
    askers: Ints
    targets: NDArray[np.int32]
    horizon: int = 5

    def __post_init__(self) -> None:
        if self.askers.shape != self.targets.shape or not len(self.targets):
            raise UsageError(f"there are as many askers as targets, and some, got {self.askers.shape}")
        if self.horizon < 1:
            raise UsageError("a session has at least one turn")

    @classmethod
    def of(
        cls, parts: Split, speaker: Speaker, part: Part = "test", *, horizon: int = 5, unseen: bool = True
    ) -> TalkingUsers:
        """Users who want what they chose in a part of a split, and had not chosen before.

        Args:
            unseen: requests exclude what a user chose before.
        """
        cases = parts.cases(part)
        requests = cases.requests if unseen else cases.requests.with_(exclude=None)
        return cls(speaker, requests, cases.targets.rows, cases.targets.values.astype(np.int32), horizon)

    @cached_property
    def identity(self) -> str:
        """A hash of all that makes this world what it is."""
        total = hashlib.blake2b(digest_size=16)
        users = self.askers if self.asked.users is None else self.asked.users[self.askers]
        for array in (users, self.targets):
            total.update(np.ascontiguousarray(array).tobytes())
        total.update(repr((self.speaker.identity, self.horizon, self.asked.exclude is None)).encode())
        return f"talking users {total.hexdigest()}"

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, TalkState]:
        seeds = np.asarray(seeds, dtype=np.uint64)
        pairs = (mix(seeds, 1) % np.uint64(len(self.targets))).astype(np.int64)
        past, minds, texts = self.asked.take(self.askers[pairs]).items(), [], []
        for row, target in enumerate(self.targets[pairs].tolist()):
            said, mind = self.speaker.opens(target, past[row].tolist(), int(mix(seeds[row : row + 1], 2)[0] >> 1))
            texts.append(said)
            minds.append(mind)
        state = TalkState(seeds, pairs, 0, tuple(minds), tuple(texts), Jagged.empty(len(pairs), np.int32))
        return self._requests(state), state

    def step(self, state: TalkState, actions: Actions) -> tuple[Feedback, Requests, NDArray[np.bool_], TalkState]:
        """Reward 1 where the target is in the list, else 0. Each item shown is an event: "accept" or "impression"."""
        n, targets = len(state.pairs), self.targets[state.pairs]
        if actions.n != n:
            raise UsageError(f"{n} users ask, and {actions.n} are answered")
        events, hit = None, np.zeros(n, dtype=np.bool_)
        shown = Jagged.empty(n, np.int32)
        if actions.slates is not None:
            events, hit = shown_events(actions.slates, targets, state.turn)
            there = actions.slates.items >= 0
            shown = Jagged.from_rows(np.nonzero(there)[0], actions.slates.items[there].astype(np.int32), n)
        done = hit | (state.turn + 1 >= self.horizon)
        on = np.flatnonzero(~done)
        words = np.full(n, "", dtype=object) if actions.text is None else actions.text
        minds, texts = list(state.minds), np.full(n, "", dtype=object)
        for row in on.tolist():
            texts[row], minds[row] = self.speaker.hears(minds[row], shown[row].tolist(), str(words[row] or ""))
        feedback = Feedback(
            self._requests(state),
            events=events,
            text=texts,
            reward=hit.astype(np.float32),
            done=done,
            slates=actions.slates,
        )
        after = TalkState(
            state.seeds[on],
            state.pairs[on],
            state.turn + 1,
            tuple(minds[row] for row in on.tolist()),
            tuple(texts[on].tolist()),
            joined(state.refused, shown).take(on),
        )
        return feedback, self._requests(after), done, after

    def _requests(self, state: TalkState) -> Requests:
        asked = self.asked.take(self.askers[state.pairs])
        barred = state.refused if asked.exclude is None else joined(asked.exclude, state.refused)
        text = np.array(state.texts, dtype=object).reshape(-1)
        return asked.with_(text=text, exclude=barred, seeds=mix(state.seeds, 3))
