"""Users who have one item in mind and say truly which attributes it has.

A session is a user, a hidden target, and one attribute of it that is told at the outset (context columns "attribute"
and "value" of each request). A turn asks, or shows a list, or both:

    one value of a column       yes, where the target has it, else no
    several values of a column  yes with those of them that the target has, else no
    a list                      taken, where the target is in it, which ends the session; else turned down

The seed of a session decides target and first attribute, so policies that are compared with the same seeds meet the
same people.

Ref: the protocol of Sun, Zhang, "Conversational recommender system" (CRM), SIGIR 2018, arXiv:1806.03277, for several
rounds as in Lei et al., "Estimation-Action-Reflection" (EAR), WSDM 2020, arXiv:2002.09102, section 5.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import (
    IMPRESSION,
    Actions,
    Attributes,
    Columns,
    Feedback,
    Jagged,
    Part,
    Requests,
    Slates,
    Split,
    UsageError,
    askable,
    mix,
)

ACCEPT = "accept"  # kind of the event in which a target is taken
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AttributeState:
    """Where sessions stand.

    Shapes: seeds [B] uint64; pairs [B] who wants what; turn: how many turns have passed
    """

    seeds: NDArray[np.uint64]
    pairs: Ints
    turn: int


@dataclass(frozen=True, eq=False)
class AttributeUsers:
    """An environment of users who answer questions about the attributes of the item they want.

    asked: who may ask, a request each, with what is known of them
    horizon: turns of a session

    Shapes: askers [N] rows of `asked`; targets [N] items that have attributes: a session is one of these N pairs
    """

    attributes: Attributes
    asked: Requests
    askers: Ints
    targets: NDArray[np.int32]
    horizon: int = 15

    def __post_init__(self) -> None:
        if self.askers.shape != self.targets.shape or not len(self.targets):
            raise UsageError(f"there are as many askers as targets, and some, got {self.askers.shape}")
        if self.horizon < 1 or (self.attributes.owned.lengths[self.targets] == 0).any():
            raise UsageError("a session has at least one turn, and each target at least one attribute")

    @classmethod
    def of(
        cls,
        parts: Split,
        part: Part = "test",
        *,
        columns: Sequence[str] = (),
        attributes: Attributes | None = None,
        horizon: int = 15,
        unseen: bool = True,
        people: tuple[float, float] = (0.0, 1.0),
    ) -> AttributeUsers:
        """Users who want what they chose in a part of a split, and had not chosen before.

        Args:
            columns: whose values are the attributes; default: `askable` columns.
            attributes: the same, made already.
            unseen: requests exclude what a user chose before.
            people: which users, as a stretch of [0, 1) in which a hash of their number lies.
        """
        schema = parts.data.schema
        attributes = attributes or Attributes.of(parts.data.items, columns or askable(schema))
        cases = parts.cases(part)
        rows, targets = cases.targets.rows, cases.targets.values
        users = cases.requests.users
        assert users is not None
        place = mix(users[rows], 77).astype(np.float64) * 2.0**-64
        kept = (attributes.owned.lengths[targets] > 0) & (place >= people[0]) & (place < people[1])
        requests = cases.requests if unseen else cases.requests.with_(exclude=None)
        return cls(attributes, requests, rows[kept], targets[kept].astype(np.int32), horizon)

    def __len__(self) -> int:
        """How many pairs of a user and a target there are."""
        return len(self.targets)

    @cached_property
    def identity(self) -> str:
        """A hash of all that makes this world what it is."""
        total = hashlib.blake2b(digest_size=16)
        users = self.askers if self.asked.users is None else self.asked.users[self.askers]
        for array in (users, self.targets, self.attributes.owned.values, self.attributes.owned.offsets):
            total.update(np.ascontiguousarray(array).tobytes())
        total.update(repr((self.attributes.names, self.horizon, self.asked.exclude is None)).encode())
        return f"attribute users {total.hexdigest()}"

    # -- the environment

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, AttributeState]:
        seeds = np.asarray(seeds, dtype=np.uint64)
        return self.start((mix(seeds, 1) % np.uint64(len(self))).astype(np.int64), seeds)

    def start(self, pairs: Ints, seeds: NDArray[np.uint64]) -> tuple[Requests, AttributeState]:
        """As `reset`, with the pairs named [B]."""
        state = AttributeState(np.asarray(seeds, dtype=np.uint64), np.asarray(pairs, dtype=np.int64), 0)
        return self._requests(state), state

    def step(
        self, state: AttributeState, actions: Actions
    ) -> tuple[Feedback, Requests, NDArray[np.bool_], AttributeState]:
        """Reward 1 where the target is in the list, else 0. Each item shown is an event: "accept" or "impression"."""
        n, targets = len(state.pairs), self.targets[state.pairs]
        if actions.n != n:
            raise UsageError(f"{n} users ask, and {actions.n} are answered")
        events, hit = None, np.zeros(n, dtype=np.bool_)
        if actions.slates is not None:
            events, hit = shown_events(actions.slates, targets, state.turn)
        done = hit | (state.turn + 1 >= self.horizon)
        feedback = Feedback(
            self._requests(state),
            events=events,
            answers=None if actions.ask is None else self._answers(actions.ask, targets),
            reward=hit.astype(np.float32),
            done=done,
            slates=actions.slates,
        )
        after = AttributeState(state.seeds[~done], state.pairs[~done], state.turn + 1)
        return feedback, self._requests(after), done, after

    # -- parts

    def first(self, state: AttributeState) -> Ints:
        """The attribute that each session tells at the outset [B]."""
        owned, targets = self.attributes.owned, self.targets[state.pairs]
        drawn = (mix(state.seeds, 2) % owned.lengths[targets].astype(np.uint64)).astype(np.int64)
        found: Ints = owned.values[owned.offsets[targets] + drawn].astype(np.int64)
        return found

    def _answers(self, ask: Columns, targets: NDArray[np.int32]) -> Columns:
        """What each session says to the values it was asked about: the ones that are true, and yes, no or unknown."""
        has, number = self.attributes.of_items(targets), self.attributes.number
        names, values, replies = ask["attribute"], ask["values"], np.full(len(targets), -1, dtype=np.int8)
        told = np.empty(len(targets), dtype=object)
        for row, (name, asked) in enumerate(zip(names, values, strict=True)):  # names are text: a look-up each
            if not name:
                told[row] = ""
                continue
            known = [value for value in asked if (name, value) in number]
            true = tuple(value for value in known if has[row, number[name, value]])
            replies[row] = int(bool(true)) if known else -1
            told[row] = asked[0] if len(asked) == 1 else true
        return Columns(attribute=names, value=told, reply=replies)

    def _requests(self, state: AttributeState) -> Requests:
        first = self.first(state)
        pairs = np.array(self.attributes.names, dtype=object)[first].reshape(-1, 2)
        context = Columns(attribute=pairs[:, 0], value=pairs[:, 1])
        return self.asked.take(self.askers[state.pairs]).with_(context=context, seeds=mix(state.seeds, 3))


def shown_events(slates: Slates, targets: NDArray[np.int32], turn: int) -> tuple[Jagged[Columns], NDArray[np.bool_]]:
    """The lists as events, and in which the target was."""
    shown, found = slates.items >= 0, slates.items == targets[:, None]
    rows, slots = np.nonzero(shown)
    taken = found[shown]
    kinds = np.full(len(taken), IMPRESSION, dtype=object)
    kinds[taken] = ACCEPT
    columns = Columns(
        item=slates.items[shown],
        position=slots.astype(np.int32),
        kind=kinds,
        value=taken.astype(np.float32),
        time=np.full(len(taken), turn, dtype=np.int64),
    )
    return Jagged.from_rows(rows, columns, len(targets)), found.any(axis=1)
