"""Steps that reorder lists. Each gives the same items in another order; only `cap` may leave some out.

Relevance is what came out of blending and scoring, scaled from 0 to 1 list by list, so a weight means the same whatever
the scores are. After a step the scores are dealt out again along the new order, the highest first: what one step
decided is what the next one takes for relevance, and an answer's scores never rise. All steps choose greedily from the
top, so their first places do not depend on how many are asked for, and a step that decides nothing (weight 0, factor 1,
a share of 0) gives the list back as it was.

`fair` takes the floors of Geyik, Ambler, Kenthapadi ("Fairness-aware ranking in search and recommendation systems with
application to LinkedIn talent search", KDD 2019, arXiv:1905.01989: at least floor(p k) of every first k) rather than
the significance test of Zehlike et al. (FA*IR, CIKM 2017): floors hold for any number of groups at once, hold exactly,
and can be checked by eye, where a test at 10 places lets through what it was to prevent. They are met by scheduling
with deadlines instead of the paper's greedy rule, which can run into a corner with four groups or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.compose import kernels, spec
from tastemaker.compose.columns import Likeness, Sets, Shelves
from tastemaker.data import allowed_by
from tastemaker.index.select import row_slices
from tastemaker.index.threads import share
from tastemaker.types import NotFound, Requests, Vocabulary, nearest

Items = NDArray[np.int32]
Scores = NDArray[np.float32]
Floats = NDArray[np.float64]


class Step(Protocol):
    """One reranking step."""

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        """The items [B, P] in the new order, of which the first n places are all that anybody will look at."""
        ...


def make_step(step: Any, shelves: Shelves, ids: Vocabulary, likeness: Callable[[Any], Likeness]) -> Step:
    """A step ready to run: its columns read, its predicates resolved, its items found.

    likeness: by what items are alike, for steps that ask.
    """
    match step:
        case spec.MMR():
            return ByVariety(likeness(step), step.weight, step.first)
        case spec.Calibrated():
            return ByMix(shelves.sets(step.column), step.weight, step.smoothing, step.first, step.last)
        case spec.Fair():
            return _by_floors(step, shelves)
        case spec.Boost():
            return ByFactor(allowed_by(step.where, shelves.catalogue), step.factor)
        case spec.Pin():
            return AtPlace(_known_items(step.items, ids), step.place - 1)
        case spec.Cap():
            return AtMost(shelves.sets(step.column), step.most, step.first, step.surplus == "drop")
    raise NotFound(f"there is no reranking step {step!r}")


def depths(steps: Sequence[Step], n: int, width: int) -> list[int]:
    """How many first places of each step's answer count, where the first n of the last one's are what is wanted.

    All steps look at whole lists but `pin`: its first n places come from as many, and those it moves down from them.
    """
    found: list[int] = []
    for step in reversed(steps):
        found.append(min(n, width))
        n = n + len(step.pinned) if isinstance(step, AtPlace) else width
    return found[::-1]


def relevance(items: Items, scores: Scores) -> Floats:
    """Scores from 0, the lowest of a list, to 1, the highest [B, P]; 1 where all are equal."""
    there = items >= 0
    whole = scores.astype(np.float64)
    low = np.where(there, whole, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    high = np.where(there, whole, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    apart = np.where(high > low, high - low, 1.0)
    scaled = (np.where(there, whole, 0.0) - np.where(np.isfinite(low), low, 0.0)) / apart
    return np.where(there, np.where(high > low, scaled, 1.0), 0.0)


def dealt(items: Items, scores: Scores) -> Scores:
    """The scores of the lists as they were, dealt out along lists in another order, which may be shorter."""
    return np.where(items >= 0, scores, np.float32(-np.inf))


@dataclass(frozen=True, eq=False)
class ByVariety:
    """Maximal marginal relevance (Carbonell, Goldstein, SIGIR 1998)."""

    likeness: Likeness
    weight: float
    first: int

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        first = min(self.first, n)
        worth = relevance(items, scores)

        def work(part: slice, out: Items) -> None:
            kernels.mmr(items[part], worth[part], self.weight, first, *self.likeness.arrays, out)

        return _in_parts(items, work, first * max(1, self.likeness.vectors.shape[1]))


@dataclass(frozen=True, eq=False)
class ByMix:
    """The mix of categories of the user's history (Steck, RecSys 2018), every event and every place counting alike."""

    sets: Sets
    weight: float
    smoothing: float
    first: int
    last: int

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        if requests.history is None:
            return items
        chosen = requests.items().last(self.last)
        worth, first = relevance(items, scores), min(self.first, n)
        values, offsets, size = self.sets.values, self.sets.offsets, len(self.sets.names)

        def work(part: slice, out: Items) -> None:
            ends = chosen.offsets[part.start : part.stop + 1]
            past = chosen.values.astype(np.int32, copy=False)
            settings = self.weight, self.smoothing, first
            kernels.calibrated(items[part], worth[part], *settings, values, offsets, size, past, ends, out)

        return _in_parts(items, work, 16 * first)


@dataclass(frozen=True, eq=False)
class ByFloors:
    """At least floor(share t) of each group in every first t (Geyik et al., KDD 2019)."""

    groups: Items
    shares: Floats
    first: int

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        first = min(self.first, n)

        def work(part: slice, out: Items) -> None:
            kernels.fair(items[part], self.groups, self.shares, first, out)

        return _in_parts(items, work, first)


@dataclass(frozen=True, eq=False)
class ByFactor:
    """Items of a rule count for more or for less."""

    which: NDArray[np.bool_]
    factor: float

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        worth = np.where(self.which[items] & (items >= 0), self.factor, 1.0) * relevance(items, scores)
        key = np.where(items >= 0, -worth, np.inf)
        return np.take_along_axis(items, np.argsort(key, axis=1, kind="stable"), axis=1)


@dataclass(frozen=True, eq=False)
class AtPlace:
    """Named items, as far as they are in the list, stand together at a place, in the order they are named."""

    pinned: Items
    place: int

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        which = (items[:, :, None] == self.pinned).argmax(axis=2)
        pinned = np.isin(items, self.pinned)
        there = items >= 0
        many = pinned.sum(axis=1, keepdims=True)
        begin = np.minimum(self.place, there.sum(axis=1, keepdims=True) - many)
        order = np.cumsum(~pinned, axis=1) - 1
        among = np.take_along_axis(
            np.cumsum((items[:, :, None] == self.pinned).any(axis=1), axis=1), which, axis=1
        )  # how many of the named ones up to this one are there
        target = np.where(pinned, begin + among - 1, np.where(order < begin, order, order + many))
        out = np.full_like(items, -1)
        rows, columns = np.nonzero(there)
        out[rows, target[rows, columns]] = items[rows, columns]
        return out


@dataclass(frozen=True, eq=False)
class AtMost:
    """At most so many items of one value in the first places."""

    sets: Sets
    most: int
    first: int
    drop: bool

    def order(self, requests: Requests, items: Items, scores: Scores, n: int) -> Items:
        def work(part: slice, out: Items) -> None:
            sets = self.sets.values, self.sets.offsets, len(self.sets.names)
            kernels.cap(items[part], *sets, self.most, self.first, self.drop, out)

        return _in_parts(items, work, 1)


def _in_parts(items: Items, work: Callable[[slice, Items], None], cost: int) -> Items:
    """The lists that `work(rows, out)` writes, on several threads where that pays; `cost`: work an item of a list."""
    out = np.full_like(items, -1)

    def each(parts: Iterator[slice]) -> None:
        for part in parts:
            work(part, out[part])

    share(row_slices(len(items), cost * max(1, items.shape[1])), each)
    return out


def _by_floors(step: spec.Fair, shelves: Shelves) -> ByFloors:
    codes, names = shelves.groups(step.column)
    if strange := [name for name in step.shares if name not in names]:
        raise NotFound(f"no item has {strange[0]!r} in the column {step.column!r}", hint=nearest(strange[0], names))
    places = np.full(len(names) + 1, -1, dtype=np.int32)  # the last one for items without a value
    for at, name in enumerate(step.shares):
        places[names.index(name)] = at
    return ByFloors(places[codes], np.array(list(step.shares.values()), dtype=np.float64), step.first)


def _known_items(wanted: tuple[str | int, ...], ids: Vocabulary) -> Items:
    numbers = ids.numbers(list(wanted))
    if (numbers < 0).any():
        unknown = wanted[int(np.flatnonzero(numbers < 0)[0])]
        raise NotFound(f"no item has the id {unknown!r}", hint=ids.like(unknown))
    return numbers
