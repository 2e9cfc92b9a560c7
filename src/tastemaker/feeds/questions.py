"""Choices in the middle of a conversation: who chose what, which attributes had been confirmed, and what is wrong.

Each choice is held against an item the user never chose, and against one that has all confirmed attributes too. What
has been confirmed comes from a conversation about the chosen item that begins with one of its attributes, drawn at
random, and asks each time what tells most of the items that are left; it is stopped after a confirmation drawn at
random.

Ref: Lei et al., "Estimation-Action-Reflection", WSDM 2020, arXiv:2002.09102, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.feeds.negatives import _has, _nth_absent, _share, uniform
from tastemaker.types import Attributes


@dataclass(frozen=True, eq=False)
class Confirmed:
    """B choices.

    Shapes:
        users, items: [B] int64
        known: [B, A] float32, 1 for what had been confirmed of the item
        others: [B] int64, items the user never chose
        near: [B] int64, items the user never chose which have what is known; -1: there is none
        wanted, unwanted: [B] int64, an attribute of the item that is not known yet, and one that it has not; -1: none
    """

    users: Any
    items: Any
    known: Any
    others: Any
    near: Any
    wanted: Any
    unwanted: Any

    def __len__(self) -> int:
        return len(self.users)

    @property
    def owners(self) -> Any:
        """The user of each choice [B]."""
        return self.users

    def take(self, rows: slice) -> Confirmed:
        parts = self.users, self.items, self.known, self.others, self.near, self.wanted, self.unwanted
        return Confirmed(*(part[rows] for part in parts))


def confirmed(
    matrix: sp.csr_array,
    attributes: Attributes,
    batch_size: int,
    *,
    turns: int,
    facet: NDArray[np.int64],
    n_facets: int,
) -> RowFeed[Confirmed]:
    """Every choice of an item with attributes once an epoch, in random order, each time in another conversation.

    Args:
        matrix: who chose what [U, I], as `interaction_matrix` gives it.
        turns: questions of a whole conversation.
        facet: what is asked about together with each attribute, numbers below `n_facets` [A or more].
    """
    sampler, owned = uniform(matrix, 1), attributes.owned
    user_of = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    rows_of = np.flatnonzero(owned.lengths[matrix.indices] > 0)
    by = attributes.matrix.tocsc()
    has = by.indptr.astype(np.int64), by.indices.astype(np.int32), attributes.bits
    single = np.isin(np.array(attributes.columns), list(attributes.single))[attributes.column]
    told = facet[: len(attributes)], single & (n_facets < len(attributes)), n_facets
    talks = _Talks.of(np.unique(matrix.indices[rows_of]), owned.lengths)
    _converse(*talks, owned.offsets, owned.values, *has, *told, turns)

    def make(rows: Rows, rng: np.random.Generator) -> Confirmed:
        users, items = user_of[rows_of[rows]], matrix.indices[rows_of[rows]].astype(np.int64)
        known = np.zeros((len(rows), len(facet)), dtype=np.float32)
        near, wanted, unwanted = (np.full(len(rows), -1, dtype=np.int64) for _ in range(3))
        others = sampler(users, rng)[:, 0]
        seed, own = np.uint64(rng.integers(2**63)), (matrix.indptr, matrix.indices)
        _stop(
            users, items, *talks, owned.offsets, owned.values, *has, *own, len(attributes), seed,
            known, near, wanted, unwanted,
        )  # fmt: skip
        return Confirmed(users, items, known, others, near, wanted, unwanted)

    return RowFeed(len(rows_of), batch_size, make)


class _Talks(NamedTuple):
    """Whole conversations about items: one for each attribute that an item has, as the first. What is asked depends on
    nothing but the item and the first attribute, so each is held once.

    Shapes:
        items: those there are conversations about; starts: [I] where an item's conversations begin, each as long as the
            item has attributes
        order: attributes in the order of their confirmation
        ends: after each confirmation how many are known, 0 after the last
    """

    items: NDArray[np.int64]
    starts: NDArray[np.int64]
    order: NDArray[np.int32]
    ends: NDArray[np.int32]

    @classmethod
    def of(cls, items: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> _Talks:
        sizes = np.zeros(len(lengths), dtype=np.int64)
        sizes[items] = lengths[items] ** 2
        n = int(sizes.sum())
        empty = np.zeros(n, dtype=np.int32)
        return cls(items.astype(np.int64), np.cumsum(sizes) - sizes, empty, empty.copy())


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _converse(
    items: Any, starts: Any, order: Any, ends: Any, offsets: Any, owned: Any, by_offsets: Any, by_items: Any,
    bits: Any, facet: Any, single: Any, n_facets: int, turns: int,
) -> None:  # fmt: skip
    """Hold all conversations: fill `order` and `ends`."""
    n_attributes = len(facet)
    left, counts = np.empty(len(offsets) - 1, dtype=np.int64), np.zeros(n_attributes, dtype=np.int64)
    tells, asked = np.zeros(n_facets), np.zeros(n_facets, dtype=np.bool_)
    begins = np.zeros((n_attributes, n_facets))
    for one in range(n_attributes):
        begun = by_items[by_offsets[one] : by_offsets[one + 1]]
        _tell(begun, len(begun), offsets, owned, facet, single, counts, begins[one])
    for item in items:
        start, stop = offsets[item], offsets[item + 1]
        for nth in range(stop - start):
            base, first = starts[item] + nth * (stop - start), owned[start + nth]
            asked[:] = False
            asked[facet[first]] = True
            order[base], ends[base] = first, 1
            n_known, n_ends, n_left = 1, 1, -1  # -1: the items of the first attribute are not listed yet
            tells[:] = begins[first]
            for _ in range(turns):
                best = -1
                for one in range(n_facets):
                    if not asked[one] and tells[one] > 0 and (best < 0 or tells[one] > tells[best]):
                        best = one
                if best < 0:
                    break
                asked[best] = True
                before = n_known
                for place in range(start, stop):
                    if facet[owned[place]] == best and owned[place] != first:
                        order[base + n_known] = owned[place]
                        n_known += 1
                if n_known > before:
                    ends[base + n_ends] = n_known
                    n_ends += 1
                    if n_left < 0:
                        n_left = _list(left, first, by_offsets, by_items)
                    n_left = _keep(left, n_left, order, base + before, base + n_known, bits)
                    _tell(left, n_left, offsets, owned, facet, single, counts, tells)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _stop(
    users: Any, items: Any, _: Any, starts: Any, order: Any, ends: Any, offsets: Any, owned: Any, by_offsets: Any,
    by_items: Any, bits: Any, indptr: Any, indices: Any, n_attributes: int, seed: Any, known: Any, near: Any,
    wanted: Any, unwanted: Any,
) -> None:  # fmt: skip
    """Stop a conversation about each item after a confirmation; see `Confirmed` for what it fills in."""
    left = np.empty(len(offsets) - 1, dtype=np.int64)
    for row in range(len(users)):
        counter = seed + np.uint64(row) * np.uint64(0x9E3779B97F4A7C15)
        user, item = users[row], items[row]
        start, stop = offsets[item], offsets[item + 1]
        base = starts[item] + int(_share(counter) * (stop - start)) * (stop - start)
        n_ends = 0
        while n_ends < stop - start and ends[base + n_ends] > 0:
            n_ends += 1
        n_known = ends[base + int(_share(counter + np.uint64(1)) * n_ends)]
        for place in range(n_known):
            known[row, order[base + place]] = 1.0
        n_left = _list(left, order[base], by_offsets, by_items)
        n_left = _keep(left, n_left, order, base + 1, base + n_known, bits)
        n_near = 0
        for place in range(n_left):
            if not _has(indices, indptr[user], indptr[user + 1], left[place]):
                left[n_near] = left[place]
                n_near += 1
        if n_near:
            near[row] = left[int(_share(counter + np.uint64(2)) * n_near)]
        n_open = stop - start - n_known
        if n_open:
            nth = int(_share(counter + np.uint64(3)) * n_open)
            for place in range(start, stop):
                if known[row, owned[place]] == 0.0:
                    if nth == 0:
                        wanted[row] = owned[place]
                    nth -= 1
        n_absent = n_attributes - (stop - start)
        if n_absent:
            nth = int(_share(counter + np.uint64(4)) * n_absent)
            unwanted[row] = _nth_absent(owned, start, stop, nth)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tell(left: Any, n_left: int, offsets: Any, owned: Any, facet: Any, single: Any, counts: Any, tells: Any) -> None:
    """The entropy of each facet over the items that are left."""
    counts[:] = 0
    for place in range(n_left):
        for at in range(offsets[left[place]], offsets[left[place] + 1]):
            counts[owned[at]] += 1
    tells[:] = 0.0
    for one in range(len(facet)):
        share = counts[one] / n_left
        if share > 0.0:
            tells[facet[one]] -= share * np.log(share)
        if share < 1.0 and not single[one]:
            tells[facet[one]] -= (1.0 - share) * np.log(1.0 - share)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _list(left: Any, attribute: int, by_offsets: Any, by_items: Any) -> int:
    """List the items of an attribute; how many they are."""
    n_left = by_offsets[attribute + 1] - by_offsets[attribute]
    for place in range(n_left):
        left[place] = by_items[by_offsets[attribute] + place]
    return int(n_left)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep(left: Any, n_left: int, order: Any, start: int, stop: int, bits: Any) -> int:
    """Keep the items that have all attributes order[start:stop]; how many they are."""
    for at in range(start, stop):
        row, kept = bits[order[at]], 0
        for place in range(n_left):
            item = left[place]
            left[kept] = item
            kept += (row[item >> 3] >> (7 - (item & 7))) & 1
        n_left = kept
    return n_left
