"""Purchases of things that come out and go: who bought what when, what a buyer was known by then, what else was out.

A buyer is known by what was bought before a time, as the mean of vectors of the things bought, the recent weighing
more. Nothing after that time is read, so profiles can be made for any moment of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from tastemaker.feeds.matrix import interaction_matrix
from tastemaker.feeds.negatives import Stretches
from tastemaker.types import AVAILABLE, Dataset

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Flags: TypeAlias = NDArray[np.bool_]
ALWAYS = int(np.iinfo(np.int64).max)
FEWEST = 50  # items of a window, where so many came out


@dataclass(frozen=True, eq=False)
class Past:
    """What buyers bought, oldest first, and vectors of the items.

    half_life: time in which a purchase loses half its weight
    max_len: latest purchases that count

    Shapes: items, times [E] int64, offsets [U + 1] int64, vectors [I, P] float32
    """

    items: Ints
    times: Ints
    offsets: Ints
    vectors: Floats
    half_life: float
    max_len: int

    @classmethod
    def of(cls, data: Dataset, vectors: Floats, half_life: float, max_len: int) -> Past:
        rows = data.histories(("item", "time"))
        items, times = (rows.values[name].astype(np.int64) for name in ("item", "time"))
        return cls(items, times, rows.offsets, vectors, half_life, max_len)

    def before(self, users: Ints, until: Ints, now: Ints | None = None) -> tuple[Floats, Floats]:
        """Profiles [B, P] of buyers just before a time each, and habits [B, 2]: log(1 + purchases), recency.

        Recency halves with every half-life between the last purchase and `now`, which is `until` where it is not
        given. Purchases weigh relative to the last one, so a profile stays as it is while nothing is bought.
        """
        profiles = np.zeros((len(users), self.vectors.shape[1]), dtype=np.float32)
        habits = np.zeros((len(users), 2), dtype=np.float32)
        now = until if now is None else now
        log, memory = (self.items, self.times, self.offsets), (self.half_life, self.max_len)
        _read(*log, users, until, now, self.vectors, *memory, profiles, habits)
        return profiles, habits


@dataclass(frozen=True, eq=False)
class PurchaseLog:
    """Purchases to learn from, by buyer and time, and when items came out.

    Shapes: users, items, times [E] int64; release [I] int64, first_seen [U] int64 (no purchase: never); sold [I] bool
    """

    past: Past
    matrix: Any
    users: Ints
    items: Ints
    times: Ints
    release: Ints
    first_seen: Ints
    sold: NDArray[np.bool_]

    @classmethod
    def of(cls, data: Dataset, past: Past) -> PurchaseLog:
        """An item came out when the catalogue says so, else when it was first bought."""
        users = np.repeat(np.arange(data.n_users), np.diff(past.offsets))
        first_seen, release = (np.full(n, ALWAYS) for n in (data.n_users, data.n_items))
        np.minimum.at(first_seen, users, past.times)
        np.minimum.at(release, past.items, past.times)
        sold = release < ALWAYS
        if AVAILABLE in data.items.columns:
            release = data.items[AVAILABLE].fill_null(pl.Series(release)).to_numpy().astype(np.int64)
        return cls(past, interaction_matrix(data), users, past.items, past.times, release, first_seen, sold)

    def newest(self, share: float) -> Flags:
        """Of the items bought, the share that came out last [I]; none where that leaves nothing to learn from."""
        order = np.flatnonzero(self.sold)[np.argsort(self.release[self.sold], kind="stable")]
        n = int(share * len(order))
        chosen = np.zeros(len(self.sold), dtype=np.bool_)
        chosen[order[len(order) - n :]] = 0 < n < len(order)
        return chosen

    def cut(self, rows: Ints, by: Literal["event", "release"]) -> Ints:
        """Until when a buyer is known at a purchase [B]: the purchase, or the item's release if that was before."""
        times = self.times[rows]
        return times if by == "event" else np.minimum(times, self.release[self.items[rows]])

    def offered(self, among: Flags, window: float) -> Stretches:
        """With each item, those `among` these that came out within the window around it; 0: all of them."""
        order = np.flatnonzero(among)[np.argsort(self.release[among], kind="stable")]
        out, least = self.release[order].astype(np.float64), min(len(order), FEWEST)
        if not window:
            starts, stops = np.zeros(len(among), np.int64), np.full(len(among), len(order))
        else:
            starts = np.searchsorted(out, self.release - window, "left")
            stops = np.searchsorted(out, self.release + window, "right")
            lacking = np.maximum(0, least - (stops - starts))
            starts = np.clip(starts - (lacking + 1) // 2, 0, len(order) - least)
            stops = np.maximum(stops, starts + least)
        return Stretches(self.matrix, order, starts, stops)

    def pairs(
        self,
        among: Flags,
        by: Literal["event", "release"],
        rng: np.random.Generator,
        n: int = 20_000,
        others: int = 5,
    ) -> tuple[Ints, Ints, Ints, Floats, Floats]:
        """Buyers, items, times, 1 where it was bought and 0 where not, and weights [K].

        At most `n` purchases of items `among` these, each beside `others` buyers of the time who never bought the
        item, whose weights make them stand for all of those.
        """
        bought = np.flatnonzero(among[self.items])
        bought = np.sort(rng.permutation(bought)[:n])
        until, items = self.cut(bought, by), self.items[bought]
        arrived = np.argsort(self.first_seen, kind="stable")
        there = np.searchsorted(self.first_seen[arrived], until, "left")
        drawn = arrived[(rng.random((len(bought), others)) * there[:, None]).astype(np.int64)]
        absent = ~self.bought(drawn.ravel(), np.repeat(items, others)) & np.repeat(there > 0, others)
        fans = np.bincount(self.matrix.indices, minlength=len(among))[items]
        stands_for = there / (fans * others)  # whoever was there was as likely to be drawn
        return (
            np.concatenate([self.users[bought], drawn.ravel()]),
            np.concatenate([items, np.repeat(items, others)]),
            np.concatenate([until, np.repeat(until, others)]),
            np.repeat([1.0, 0.0], [len(bought), drawn.size]).astype(np.float32),
            np.concatenate([np.ones(len(bought)), np.repeat(stands_for, others) * absent]).astype(np.float32),
        )

    def bought(self, users: Ints, items: Ints) -> NDArray[np.bool_]:
        """Whether buyers bought items [K]."""
        n_users, n_items = self.matrix.shape
        keys = np.repeat(np.arange(n_users), np.diff(self.matrix.indptr)) * n_items + self.matrix.indices
        wanted = users * n_items + items
        return np.asarray(keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _read(
    items: Any,
    times: Any,
    offsets: Any,
    users: Any,
    until: Any,
    now: Any,
    vectors: Any,
    half_life: float,
    max_len: int,
    profiles: Any,
    habits: Any,
) -> None:
    for b in range(len(users)):
        start, stop = offsets[users[b]], offsets[users[b] + 1]
        low, high = start, stop
        while low < high:
            middle = (low + high) // 2
            if times[middle] < until[b]:
                low = middle + 1
            else:
                high = middle
        stop = low
        if stop == start:
            continue
        last, total = times[stop - 1], 0.0
        for place in range(max(start, stop - max_len), stop):
            weight = 0.5 ** ((last - times[place]) / half_life)
            total += weight
            for d in range(vectors.shape[1]):
                profiles[b, d] += weight * vectors[items[place], d]
        for d in range(vectors.shape[1]):
            profiles[b, d] /= total
        habits[b, 0] = np.log1p(stop - start)
        habits[b, 1] = 1.0 if now[b] == ALWAYS else 0.5 ** (max(0.0, now[b] - last) / half_life)
