"""Sessions in which attributes are asked about: what is known, which items are left, and what an answer would tell.

B sessions, A attributes, F facets (what one question is about: an attribute, or all values of a column), I items, T
turns, K items of a list, D width. Items that are left are packed bits, so a session is small enough for any store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tastemaker.nn.draws import seeds_of
from tastemaker.nn.outcomes import NO_REWARD
from tastemaker.types import Actions, Attributes, Columns, Feedback, Jagged, Requests, Slates

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
PAST = 200  # items of a history that a session keeps, the latest
BINS = (10, 50, 100, 200, 300, 500, 1000)
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Talk:
    """One session.

    user: number, -1 for a stranger; turn: how many turns were taken
    last: the facet asked about in the last turn, F where a list was shown, -1 before the first and once answered

    Shapes:
        seed: [1] uint64
        asked: [F] bool; known: [A] bool, attributes that were confirmed
        heard: [T] int8, of each turn: 1 asked and confirmed, 0 asked in vain, -1 shown in vain
        left: [ceil(I / 8)] uint8, packed bits: items that may still be it
        shown: [K] int32, the last list
        past: [n] int32, items of the history
        moved: [m] int64, rising: rows that this session has a version of its own of; rows: [m, D] float32
    """

    VERSION: ClassVar[int] = 1

    user: int
    turn: int
    last: int
    seed: NDArray[np.uint64]
    asked: Flags
    known: Flags
    heard: NDArray[np.int8]
    left: NDArray[np.uint8]
    shown: NDArray[np.int32]
    past: NDArray[np.int32]
    moved: Ints
    rows: Floats


@dataclass(frozen=True, eq=False)
class Talks:
    """B sessions, columnar: each field of `Talk` with a dimension more, those of differing lengths as Jagged."""

    user: Ints
    turn: Ints
    last: Ints
    seed: NDArray[np.uint64]
    asked: Flags
    known: Flags
    heard: NDArray[np.int8]
    left: NDArray[np.uint8]
    shown: NDArray[np.int32]
    past: Jagged[NDArray[np.int32]]
    moved: Jagged[Ints]
    rows: Jagged[Floats]

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(cls, talks: Sequence[Talk]) -> Talks:
        """Sessions, at least one, side by side."""
        found: dict[str, Any] = {}
        for name in FIELDS:
            each = [getattr(talk, name) for talk in talks]
            if name in RAGGED:
                found[name] = Jagged(np.concatenate(each), np.concatenate([[0], np.cumsum([len(one) for one in each])]))
            else:
                found[name] = np.stack(each)
        return cls(**found)

    def apart(self) -> list[Talk]:
        """The sessions, one by one."""
        numbers = {name: getattr(self, name).tolist() for name in ("user", "turn", "last")}
        arrays = {name: list(getattr(self, name)) for name in FIELDS if name not in numbers}
        columns = [*numbers.values(), *arrays.values()]
        return [Talk(*one) for one in zip(*columns, strict=True)]

    def take(self, rows: Any) -> Talks:
        found: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        picked: dict[str, Any] = {k: v.take(rows) if isinstance(v, Jagged) else v[rows] for k, v in found.items()}
        return Talks(**picked)


FIELDS = tuple(field.name for field in fields(Talk))
RAGGED = ("past", "moved", "rows")


@dataclass(frozen=True, eq=False)
class Questions:
    """The rules of such sessions over a catalogue.

    wholes: whether a question is about all values of a column, rather than one
    capacity: A and F of columns' worth at least: attributes beyond those there are, are never asked about
    """

    attributes: Attributes
    turns: int
    k: int
    wholes: bool
    capacity: int

    @property
    def n_attributes(self) -> int:
        return self.capacity

    @property
    def n_facets(self) -> int:
        return len(self.attributes.columns) if self.wholes else self.capacity

    @cached_property
    def facet(self) -> Ints:
        """Which facet each attribute belongs to [A]."""
        known = self.attributes.column if self.wholes else np.arange(len(self.attributes))
        return np.pad(known, (0, self.capacity - len(known)), constant_values=0 if self.wholes else -1)

    @cached_property
    def closed(self) -> Flags:
        """Facets that cannot be asked about, since they stand for nothing [F]."""
        return ~np.isin(np.arange(self.n_facets), self.facet[: len(self.attributes)])

    @cached_property
    def questions(self) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """The column of each facet, and the values it is asked for [F]."""
        columns, values = (np.empty(self.n_facets, dtype=object) for _ in range(2))
        columns[:], values[:] = "", [()] * self.n_facets
        for number, (column, value) in enumerate(self.attributes.names):
            facet = self.facet[number]
            columns[facet], values[facet] = column, (*values[facet], value)
        return columns, values

    # -- turns

    def begin(self, requests: Requests, dim: int) -> Talks:
        """Sessions that know what the context columns "attribute" and "value" say, where there are such."""
        n, n_items = requests.n, self.attributes.n_items
        free = np.ones((n, n_items), dtype=np.bool_)
        if requests.candidates is not None:
            free[:] = False
            free[requests.candidates.rows, requests.candidates.values] = True
        if requests.filter is not None:
            rules = requests.filter
            free &= (rules.which < 0)[:, None] | rules.allowed[np.maximum(rules.which, 0), :n_items]
        if requests.exclude is not None:
            there = (requests.exclude.values >= 0) & (requests.exclude.values < n_items)
            free[requests.exclude.rows[there], requests.exclude.values[there]] = False
        past = Jagged.empty(n) if requests.history is None else requests.items()
        past = past.where(past.values < n_items).last(PAST)
        users = np.full(n, -1) if requests.users is None else requests.users
        talks = Talks(
            user=users.astype(np.int64),
            turn=np.zeros(n, dtype=np.int64),
            last=np.full(n, NOTHING, dtype=np.int64),
            seed=seeds_of(requests)[:, None],
            asked=np.tile(self.closed, (n, 1)),
            known=np.zeros((n, self.n_attributes), dtype=np.bool_),
            heard=np.zeros((n, self.turns), dtype=np.int8),
            left=np.packbits(free, axis=1),
            shown=np.full((n, self.k), -1, dtype=np.int32),
            past=Jagged(past.values.astype(np.int32), past.offsets),
            moved=Jagged.empty(n, np.int64),
            rows=Jagged(np.zeros((0, dim), dtype=np.float32), np.zeros(n + 1, dtype=np.int64)),
        )
        told = requests.context
        if told is None or "attribute" not in told or "value" not in told:
            return talks
        ones = np.ones(n, dtype=np.int8)
        return self._confirmed(talks, *self._answered(told["attribute"], told["value"], ones))

    def acted(self, talks: Talks, actions: Ints, items: NDArray[np.int32], scores: Floats) -> tuple[Actions, Talks]:
        """Facets [B] asked about, or where the action is F, lists [B, K] shown."""
        shows = actions == self.n_facets
        items = np.where(shows[:, None], items, -1)
        columns, values = self.questions
        names, asked = np.full(len(talks), "", dtype=object), np.empty(len(talks), dtype=object)
        asked[:] = [()] * len(talks)
        names[~shows], asked[~shows] = columns[actions[~shows]], values[actions[~shows]]
        marked = talks.asked.copy()
        marked[np.flatnonzero(~shows), actions[~shows]] = True
        after = replace(talks, turn=talks.turn + 1, last=actions, asked=marked, shown=items)
        slates = Slates(items, np.where(items >= 0, scores, -np.inf))
        return Actions(len(talks), slates=slates, ask=Columns(attribute=names, values=asked)), after

    def heard(self, talks: Talks, feedback: Feedback) -> tuple[Talks, Flags]:
        """Sessions after what came back, and in which of them a list was turned down [B]."""
        n = len(talks)
        taken = np.zeros(n, dtype=np.bool_)
        if feedback.events is not None:
            events = feedback.events
            liked = ~np.isin(events.values["kind"], list(NO_REWARD)) & (events.values["value"] > 0)
            taken[events.rows[liked]] = True
        said = np.zeros(n, dtype=np.int8)
        if feedback.answers is not None:
            answers = feedback.answers
            replies = answers["reply"].astype(np.int64)
            gained, about = self._answered(answers["attribute"], answers["value"], replies)
            talks = self._confirmed(talks, gained, about)
            said[gained.any(axis=1)] = 1
        showed = talks.last == self.n_facets
        refused = showed & ~taken
        codes = np.where(refused, -1, np.where(showed, 0, said)).astype(np.int8)
        heard, slots = talks.heard.copy(), talks.turn - 1
        inside = (talks.last >= 0) & (slots < self.turns)
        heard[np.flatnonzero(inside), slots[inside]] = codes[inside]
        left = talks.left
        if (rows := np.flatnonzero(showed)).size:
            free = np.unpackbits(left[rows], axis=1)
            shown = talks.shown[rows]
            there = shown >= 0
            free[np.nonzero(there)[0], shown[there]] = 0
            left = left.copy()
            left[rows] = np.packbits(free, axis=1)
        return replace(talks, heard=heard, left=left, last=np.full(n, NOTHING, dtype=np.int64)), refused

    def _answered(self, names: Any, values: Any, replies: Any) -> tuple[Flags, Flags]:
        """Attributes that were confirmed [B, A], and facets that were spoken of [B, F]."""
        gained = np.zeros((len(names), self.n_attributes), dtype=np.bool_)
        about = np.zeros((len(names), self.n_facets), dtype=np.bool_)
        number, places = self.attributes.number, {name: n for n, name in enumerate(self.attributes.columns)}
        for row, (name, value, reply) in enumerate(zip(names, values, replies, strict=True)):  # text: a look-up each
            each = value if isinstance(value, tuple | list) else (value,)
            found = [number[name, str(one)] for one in each if (name, str(one)) in number]
            about[row, self.facet[found]] = True
            if self.wholes and name in places:
                about[row, places[name]] = True
            if reply == 1:
                gained[row, found] = True
        return gained, about

    def _confirmed(self, talks: Talks, gained: Flags, about: Flags) -> Talks:
        """With further attributes known: only items that have them are left."""
        left = talks.left.copy()
        rows, numbers = np.nonzero(gained)
        np.bitwise_and.at(left, rows, self.attributes.bits[numbers])
        return replace(talks, known=talks.known | gained, asked=talks.asked | about, left=left)

    # -- what a policy looks at

    def free(self, talks: Talks) -> NDArray[np.uint8]:
        """Which items are left [B, I], 0 or 1."""
        return np.unpackbits(talks.left, axis=1, count=self.attributes.n_items)

    def entropies(self, talks: Talks, free: NDArray[np.uint8]) -> tuple[Floats, Ints]:
        """What the answer about each facet would tell, in bits [B, F], and how many items are left [B].

        Of one attribute that a share p of the items has: -p log2 p - (1 - p) log2 (1 - p). Of a column with several
        values an item, their sum; of one with a single value, that of the values' distribution. 0 once asked.
        """
        counts = np.asarray(free.astype(np.float32) @ self.attributes.matrix)
        sizes = free.sum(axis=1, dtype=np.int64)
        shares = counts / np.maximum(sizes, 1)[:, None]
        bits = special.entr(shares) / np.log(2)
        both = bits + special.entr(1 - shares) / np.log(2)
        if self.wholes:
            single = np.isin(self.attributes.columns, list(self.attributes.single))[self.attributes.column]
            each = np.where(single, bits, both)
            member = np.eye(self.n_facets, dtype=np.float32)[self.attributes.column]
            told = each @ member
        else:
            told = np.pad(both, ((0, 0), (0, self.capacity - both.shape[1])))
        return np.where(talks.asked, 0.0, told).astype(np.float32), sizes


def size_bins(sizes: Ints) -> Floats:
    """How many items are left, as one of eight steps [B, 8]."""
    return np.eye(len(BINS) + 1, dtype=np.float32)[np.searchsorted(BINS, sizes)]
