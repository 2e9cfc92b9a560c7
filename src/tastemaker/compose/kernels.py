"""The loops of a pipeline, compiled: each works through B lists one by one and never looks at another row.

So a request is answered the same alone and in any batch. B lists, P places of the widest, C retrievers, D width.
Lists come as items [B, P] int32, -1 after the last one; relevance never rises along a list.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Items = NDArray[np.int32]
Floats = NDArray[np.float64]
Offsets = NDArray[np.int64]


@njit(cache=True, nogil=True)
def length_of(row: Items) -> int:
    """Number of items of a list."""
    n = 0
    while n < len(row) and row[n] >= 0:
        n += 1
    return n


@njit(cache=True, nogil=True)
def keep_rest(row: Items, taken: NDArray[np.bool_], n: int, out: Items, at: int) -> None:
    """Write the items that are not taken behind what stands in `out`, in their order."""
    for j in range(n):
        if not taken[j]:
            out[at] = row[j]
            at += 1


@njit(cache=True, nogil=True)
def alike(a: int, b: int, vectors: NDArray[np.float32], values: Items, offsets: Offsets) -> float:
    """Cosine of the vectors, at least 0; or, without vectors, shared categories / all categories of the two."""
    if vectors.shape[1] > 0:
        total = 0.0
        for d in range(vectors.shape[1]):
            total += vectors[a, d] * vectors[b, d]
        return max(0.0, total)
    i, j, both = offsets[a], offsets[b], 0
    while i < offsets[a + 1] and j < offsets[b + 1]:
        if values[i] == values[j]:
            both += 1
            i += 1
            j += 1
        elif values[i] < values[j]:
            i += 1
        else:
            j += 1
    either = offsets[a + 1] - offsets[a] + offsets[b + 1] - offsets[b] - both
    return both / either if either > 0 else 0.0


@njit(cache=True, nogil=True)
def mmr(
    items: Items,
    relevance: Floats,
    weight: float,
    first: int,
    vectors: NDArray[np.float32],
    values: Items,
    offsets: Offsets,
    out: Items,
) -> None:
    """Each of the first places to the item of the highest (1 - w) relevance - w (likeness to the most alike above)."""
    for r in range(len(items)):
        n = length_of(items[r])
        nearest = np.zeros(n)
        taken = np.zeros(n, dtype=np.bool_)
        last = min(first, n)
        for place in range(last):
            best, highest = -1, -np.inf
            for j in range(n):
                if not taken[j]:
                    value = (1 - weight) * relevance[r, j] - weight * nearest[j]
                    if value > highest:  # of equals the one that stood higher
                        best, highest = j, value
            taken[best] = True
            out[r, place] = items[r, best]
            if place + 1 < last and weight > 0:
                for j in range(n):
                    if not taken[j]:
                        nearest[j] = max(nearest[j], alike(items[r, best], items[r, j], vectors, values, offsets))
        keep_rest(items[r], taken, n, out[r], last)


@njit(cache=True, nogil=True)
def calibrated(
    items: Items,
    relevance: Floats,
    weight: float,
    smoothing: float,
    first: int,
    values: Items,
    offsets: Offsets,
    n_categories: int,
    chosen: Items,  # [N], items of the histories
    ends: Offsets,  # [B + 1]
    out: Items,
) -> None:
    """Each of the first places to the item of the highest (1 - w) relevance - w KL(history's mix || list's mix).

    An item shares a mass of 1 among its categories; one without any leaves the mix as it is.
    """
    wanted, counts = np.zeros(n_categories), np.zeros(n_categories)
    active = np.empty(n_categories, dtype=np.int64)  # the categories of the history; the first n_active are in use
    for r in range(len(items)):
        n = length_of(items[r])
        total, n_active = 0.0, 0
        for c in range(n_categories):
            wanted[c] = counts[c] = 0.0
        for e in range(ends[r], ends[r + 1]):
            if 0 <= chosen[e] < len(offsets) - 1:
                low, high = offsets[chosen[e]], offsets[chosen[e] + 1]
                for c in range(low, high):
                    wanted[values[c]] += 1.0 / (high - low)
                total += 1.0 if high > low else 0.0
        for c in range(n_categories):
            if wanted[c] > 0:
                wanted[c] /= total
                active[n_active] = c
                n_active += 1
        filled = 0
        taken = np.zeros(n, dtype=np.bool_)
        last = min(first, n) if total > 0 else 0  # without a history there is nothing to come close to
        for place in range(last):
            same, more = 0.0, 0.0  # divergence as the mix is, and when another item joins that shares nothing
            for a in range(n_active):
                c = active[a]
                mixed = (1 - smoothing) * counts[c] / filled if filled > 0 else 0.0
                same += wanted[c] * np.log(wanted[c] / (mixed + smoothing * wanted[c]))
                mixed = (1 - smoothing) * counts[c] / (filled + 1)
                more += wanted[c] * np.log(wanted[c] / (mixed + smoothing * wanted[c]))
            best, highest = -1, -np.inf
            for j in range(n):
                if taken[j]:
                    continue
                low, high = offsets[items[r, j]], offsets[items[r, j] + 1]
                divergence = same if high == low else more
                for at in range(low, high):
                    c = values[at]
                    if wanted[c] > 0:
                        before = (1 - smoothing) * counts[c] / (filled + 1) + smoothing * wanted[c]
                        after = before + (1 - smoothing) / (high - low) / (filled + 1)
                        divergence += wanted[c] * np.log(before / after)
                value = (1 - weight) * relevance[r, j] - weight * divergence
                if value > highest:
                    best, highest = j, value
            taken[best] = True
            out[r, place] = items[r, best]
            low, high = offsets[items[r, best]], offsets[items[r, best] + 1]
            filled += 1 if high > low else 0
            for at in range(low, high):
                counts[values[at]] += 1.0 / (high - low)
        keep_rest(items[r], taken, n, out[r], last)


@njit(cache=True, nogil=True)
def _asked_for(group: int, asked: Offsets, placed: Offsets) -> bool:
    """Whether more of this group are asked for than are placed."""
    return group >= 0 and asked[group] > placed[group]


@njit(cache=True, nogil=True)
def fair(items: Items, groups: Items, shares: Floats, first: int, out: Items) -> None:
    """The best order in which group g holds at least floor(shares[g] t) of every prefix t, or all it has in the list.

    An item that a floor asks for is a job with a deadline. Slack at t is how many places up to t may still go to
    whomever: while it is above 0 everywhere, the best item left is taken; at the first t where it is 0, only an item
    of a group that t still asks for may be. So no place departs from relevance unless every later choice would fail.
    """
    n_groups = len(shares)
    for r in range(len(items)):
        n = length_of(items[r])
        last = min(first, n)
        there, placed = np.zeros(n_groups, dtype=np.int64), np.zeros(n_groups, dtype=np.int64)
        for j in range(n):
            if groups[items[r, j]] >= 0:
                there[groups[items[r, j]]] += 1
        asked = np.zeros((last + 1, n_groups), dtype=np.int64)
        slack = np.arange(last + 1)
        for t in range(last + 1):
            for g in range(n_groups):
                asked[t, g] = min(int(np.floor(shares[g] * t + 1e-9)), there[g])
                slack[t] -= asked[t, g]
        taken = np.zeros(n, dtype=np.bool_)
        for place in range(last):
            tight = place + 1
            while tight <= last and slack[tight] > 0:
                tight += 1
            chosen = 0
            while taken[chosen] or (tight <= last and not _asked_for(groups[items[r, chosen]], asked[tight], placed)):
                chosen += 1
            group = groups[items[r, chosen]]
            for t in range(place + 1, last + 1):
                slack[t] -= 0 if _asked_for(group, asked[t], placed) else 1
            if group >= 0:
                placed[group] += 1
            taken[chosen] = True
            out[r, place] = items[r, chosen]
        keep_rest(items[r], taken, n, out[r], last)


@njit(cache=True, nogil=True)
def cap(
    items: Items, values: Items, offsets: Offsets, n_values: int, most: int, first: int, drop: bool, out: Items
) -> None:
    """At most `most` items of one value in the first places; what is over it comes below them, or nowhere."""
    counts = np.zeros(n_values, dtype=np.int64)
    for r in range(len(items)):
        n = length_of(items[r])
        for c in range(n_values):
            counts[c] = 0
        taken = np.zeros(n, dtype=np.bool_)
        at = 0
        for j in range(n):
            if at == first:
                break
            low, high = offsets[items[r, j]], offsets[items[r, j] + 1]
            full = False
            for c in range(low, high):
                full |= counts[values[c]] >= most
            if full:
                taken[j] = drop
                continue
            for c in range(low, high):
                counts[values[c]] += 1
            taken[j] = True
            out[r, at] = items[r, j]
            at += 1
        keep_rest(items[r], taken, n, out[r], at)


@njit(cache=True, nogil=True)
def nearest_chosen(
    items: Items,
    chosen: Items,  # [N], items of the histories, oldest first
    ends: Offsets,  # [B + 1]
    vectors: NDArray[np.float32],
    values: Items,
    offsets: Offsets,
    near: Items,  # [B, P], written: the item of the history that is most like each one shown, -1: none is like it
    how: NDArray[np.float32],  # [B, P], written: how alike the two are
) -> None:
    """Of items of the history that are equally alike, the latest; the item itself is no reason for itself."""
    known = max(len(vectors), len(offsets) - 1)
    for r in range(len(items)):
        for j in range(length_of(items[r])):
            for e in range(ends[r + 1] - 1, ends[r] - 1, -1):
                if 0 <= chosen[e] < known and chosen[e] != items[r, j]:
                    value = np.float32(alike(items[r, j], chosen[e], vectors, values, offsets))
                    if value > how[r, j]:
                        how[r, j] = value
                        near[r, j] = chosen[e]


@njit(cache=True, nogil=True)
def merge(
    items: Items,  # [B, S], the retrievers' lists beside one another
    scores: NDArray[np.float32],
    starts: Offsets,  # [C + 1], where each retriever's list begins
    out: Items,  # [B, S], written: distinct items in the order they are met, -1 after the last
    rank: Items,  # [B, S, C], written: place of the item in each list, from 1; 0: not there
    score: NDArray[np.float32],  # [B, S, C], written
) -> None:
    """Put the lists of C retrievers side by side, a row an item; of an item that a list repeats the first counts."""
    size = 4
    while size < 2 * items.shape[1]:
        size *= 2
    table = np.empty(size, dtype=np.int32)  # places of items in `out`, by hash; open addressing
    for r in range(len(items)):
        table[:] = -1
        n = 0
        for c in range(len(starts) - 1):
            for at in range(starts[c], starts[c + 1]):
                item = items[r, at]
                if item < 0:
                    continue
                slot = (np.uint64(item) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % np.uint64(size)
                while table[slot] >= 0 and out[r, table[slot]] != item:
                    slot = (slot + np.uint64(1)) % np.uint64(size)
                if table[slot] < 0:
                    table[slot] = n
                    out[r, n] = item
                    n += 1
                if rank[r, table[slot], c] == 0:
                    rank[r, table[slot], c] = at - starts[c] + 1
                    score[r, table[slot], c] = scores[r, at]


@njit(cache=True, nogil=True)
def fuse(rank: Items, score: NDArray[np.float32], weights: Floats, how: int, constant: float, out: Floats) -> None:
    """The blended score of each item [B, S]: 0 reciprocal ranks, 1 ranks, 2 z-scores, 3 from 0 to 1; see `blend`."""
    n_rows, n_places, n_lists = rank.shape
    for r in range(n_rows):
        for c in range(n_lists):
            low, high, total, squares, n = np.inf, -np.inf, 0.0, 0.0, 0
            for j in range(n_places):
                if rank[r, j, c] > 0:
                    value = np.float64(score[r, j, c])
                    low, high, n = min(low, value), max(high, value), n + 1
                    total += value
            mean = total / n if n else 0.0
            for j in range(n_places):
                if rank[r, j, c] > 0:
                    squares += (np.float64(score[r, j, c]) - mean) ** 2
            spread = np.sqrt(squares / n) if n else 0.0
            for j in range(n_places):
                if rank[r, j, c] == 0:
                    continue
                if how == 0:
                    part = 1.0 / (constant + rank[r, j, c])
                elif how == 1:
                    part = (n - rank[r, j, c] + 1.0) / n
                elif how == 2:
                    part = (score[r, j, c] - low) / spread if spread > 0 else 0.0
                else:
                    part = (score[r, j, c] - low) / (high - low) if high > low else 1.0
                out[r, j] += weights[c] * part


@njit(cache=True, nogil=True)
def interleave(rank: Items, weights: Floats, out: Floats) -> None:
    """Scores [B, S] that put items in the order in which retrievers, taking turns, name them: 1, 1/2, 1/3, ...

    The next turn is that of the retriever which has had the fewest for its weight; of equals the first.
    """
    n_rows, n_places, n_lists = rank.shape
    at = np.empty((n_lists, n_places + 1), dtype=np.int64)  # which item stands at each rank of each list
    for r in range(n_rows):
        at[:] = -1
        n = 0
        for j in range(n_places):
            found = False
            for c in range(n_lists):
                if rank[r, j, c] > 0:
                    at[c, rank[r, j, c] - 1] = j
                    found = True
            n += found
        next_rank = np.zeros(n_lists, dtype=np.int64)
        turns = np.zeros(n_lists)
        for place in range(n):
            turn, fewest = -1, np.inf
            for c in range(n_lists):
                while next_rank[c] < n_places and (at[c, next_rank[c]] < 0 or out[r, at[c, next_rank[c]]] > 0):
                    next_rank[c] += 1
                if next_rank[c] < n_places and weights[c] > 0 and (turns[c] + 1) / weights[c] < fewest:
                    turn, fewest = c, (turns[c] + 1) / weights[c]
            if turn < 0:  # what is left was found by retrievers without weight alone
                break
            turns[turn] += 1
            out[r, at[turn, next_rank[turn]]] = 1.0 / (place + 1)


@njit(cache=True, nogil=True)
def rank_by_network(
    features: NDArray[np.float32],  # [N, F]
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    clip: float,
    linear: NDArray[np.float32],  # [F]
    inner: NDArray[np.float32],  # [H, F]
    bias: NDArray[np.float32],  # [H]
    outer: NDArray[np.float32],  # [H]
    out: NDArray[np.float32],  # [N], written
) -> None:
    """A linear ranker plus one hidden layer, added up in one fixed order, so that no batch changes a score."""
    row = np.empty(features.shape[1])
    for i in range(len(features)):
        total = 0.0
        for f in range(features.shape[1]):
            row[f] = min(clip, max(-clip, (features[i, f] - mean[f]) * scale[f]))
            total += linear[f] * row[f]
        for h in range(len(bias)):
            inside = np.float64(bias[h])
            for f in range(features.shape[1]):
                inside += inner[h, f] * row[f]
            if inside > 0:
                total += outer[h] * inside
        out[i] = total
