"""Lists of several systems for the same requests: dealt into one list, credited with its clicks, and compared unseen.

Team-draft interleaving shows every user a list to which all systems contribute. In each round the arms pick in an order
drawn at random, each the best of its list that is not there yet; who picked an item gets the credit for its clicks.
Taste and patience of the user are the same for both sides, so far fewer lists are needed than by splitting users. With
more than two arms it is team-draft multileaving.

What is exact here: if clicks do not depend on who picked, no arm has an advantage. So the order of every round is fair,
of the last one too that the list has no room for. And where an arm might run out of items within a round, the rest is
filled without a draw and credited to nobody: an arm would otherwise get credit for the length of its list. Whether that
may happen does not depend on the order drawn.

The draw of a request depends on its seed alone, so a request gets the same list alone and in a batch. `logp` says how
likely each slot was given those before it, which off-policy estimates need; the arms' own lists count as given.

Ref: Radlinski, Kurup, Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008 (team draft);
Schuth, Sietsma, Whiteson, Lefortier, de Rijke, "Multileaved comparisons for fast online evaluation", CIKM 2014.

B requests, A arms, K slots, L length of the arms' lists.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.evaluate.statistics import GOLDEN, below
from tastemaker.serve.experiments import MOST_ARMS
from tastemaker.types import NO_ITEM, Slates, UsageError, mix

Teams = NDArray[np.int8]
Floats = NDArray[np.float64]

NO_TEAM = -1
STREAM = 0x7465616D  # keeps the draw apart from what the arms draw with the same seeds


def team_draft(lists: Sequence[Slates], k: int, seeds: NDArray[np.uint64]) -> tuple[Slates, Teams]:
    """One list a request from the lists of all arms, and who picked what.

    Args:
        lists: of each arm, for the same B requests and in the same numbering of items
        k: slots to fill; a list is shorter where all arms together have fewer items
        seeds: [B], as `Requests.seeds`

    Shapes:
        returns slates [B, k], each slot with the score its arm gave it, and teams [B, k]: the arm's place in `lists`,
        -1 for a slot credited to nobody and after the end of a short list
    """
    _check(len(lists), k)
    b, width = len(lists[0]), max(1, *(slates.k for slates in lists))
    seeds = np.asarray(seeds, dtype=np.uint64)
    if any(len(slates) != b for slates in lists) or seeds.shape != (b,):
        rows = ", ".join(str(len(slates)) for slates in lists)
        raise UsageError(f"all arms answer the same requests: got {rows} lists and seeds of shape {list(seeds.shape)}")
    items = np.full((len(lists), b, width), NO_ITEM, dtype=np.int32)
    scores = np.full((len(lists), b, width), -np.inf, dtype=np.float32)
    for arm, slates in enumerate(lists):
        items[arm, :, : slates.k], scores[arm, :, : slates.k] = slates.items, slates.scores
    dealt, teams, source, place, logp = _dealt(items, k, seeds)
    own = scores[source, np.arange(b)[:, None], place]
    return Slates(dealt, np.where(dealt >= 0, own, np.float32(-np.inf)), logp), teams


def interleaved(
    lists: Sequence[Sequence[Hashable]], k: int, seed: int
) -> tuple[list[Any], list[int], list[tuple[int, int]], list[float]]:
    """`team_draft` of one request whose arms name items by id: items, teams, where each came from, and logp.

    Where an item came from: (arm, place in the arm's list), to look up its score or reason. Items are the same where
    their ids are equal, so the arms' catalogues may differ.
    """
    _check(len(lists), k)
    numbers: dict[Hashable, int] = {}
    items = np.full((len(lists), 1, max(1, *map(len, lists))), NO_ITEM, dtype=np.int32)
    for arm, ids in enumerate(lists):
        items[arm, 0, : len(ids)] = [numbers.setdefault(item, len(numbers)) for item in ids]
    found = _dealt(items, k, np.array([seed % 2**64], dtype=np.uint64))
    dealt, teams, source, place, logp = (part[0, : int((found[0] >= 0).sum())].tolist() for part in found)
    known = list(numbers)
    return [known[item] for item in dealt], teams, list(zip(source, place, strict=True)), logp


def _check(n_arms: int, k: int) -> None:
    if not 2 <= n_arms <= MOST_ARMS:
        raise UsageError(f"lists of 2 to {MOST_ARMS} arms can be interleaved, got {n_arms}")
    if k < 1:
        raise UsageError(f"a list has at least one slot, got k = {k}")


def _dealt(items: NDArray[np.int32], k: int, seeds: NDArray[np.uint64]) -> tuple[Any, ...]:
    """Of items [A, B, L] the list dealt, teams, and each slot's arm, place in that arm's list, and logp, all [B, k]."""
    shape = (items.shape[1], k)
    dealt = np.full(shape, NO_ITEM, dtype=np.int32)
    teams = np.full(shape, NO_TEAM, dtype=np.int8)
    source, place, logp = np.zeros(shape, np.int8), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    orders = np.array(list(permutations(range(len(items)))), dtype=np.int64)
    _deal(items, orders, mix(seeds, STREAM), dealt, teams, source, place, logp)
    return dealt, teams, source, place, logp


def credit(teams: Teams, clicks: NDArray[Any], n_arms: int) -> Floats:
    """What each arm's items earned: teams [B, K], clicks [B, K] (yes or no, counts or values) -> [B, A]."""
    clicks = np.asarray(clicks, dtype=np.float64)
    if clicks.shape != teams.shape:
        raise UsageError(f"clicks are [B, K] as teams are, got {list(clicks.shape)} and {list(teams.shape)}")
    return np.stack([np.where(teams == arm, clicks, 0.0).sum(axis=1) for arm in range(n_arms)], axis=1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _next(own: NDArray[np.int32], dealt: NDArray[np.int32], n: int, round_: NDArray[np.int32], j: int) -> int:
    """Place of the arm's best item that is neither among the n dealt nor the j picked in this round; -1: none."""
    for place in range(len(own)):
        item = own[place]
        if item < 0:
            break
        free = True
        for i in range(n):
            if dealt[i] == item:
                free = False
                break
        for i in range(j):
            if round_[i] == item:
                free = False
        if free:
            return place
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _deal(
    items: NDArray[np.int32],
    orders: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    dealt: NDArray[np.int32],
    teams: Teams,
    source: NDArray[np.int8],
    place: NDArray[np.int32],
    logp: NDArray[np.float32],
) -> None:
    """All orders of a round are played through: that tells whether one runs dry, and how likely each slot is."""
    n_orders, n_arms = orders.shape
    k = dealt.shape[1]
    picks = np.empty((n_orders, n_arms), dtype=np.int32)
    places = np.empty((n_orders, n_arms), dtype=np.int32)
    for b in range(len(dealt)):
        state = seeds[b]
        n = 0
        while n < k:
            room = min(n_arms, k - n)
            dry = False
            for p in range(n_orders):
                for j in range(room):
                    found = _next(items[orders[p, j], b], dealt[b], n, picks[p], j)
                    if found < 0:
                        dry = True
                        break
                    picks[p, j], places[p, j] = items[orders[p, j], b, found], found
                if dry:
                    break
            if dry:
                break
            state += GOLDEN
            drawn = below(state, np.uint64(n_orders))
            alike = n_orders
            for j in range(room):
                agreeing = 0
                for p in range(n_orders):
                    same = True
                    for i in range(j + 1):
                        same = same and picks[p, i] == picks[drawn, i]
                    agreeing += same
                dealt[b, n + j], place[b, n + j] = picks[drawn, j], places[drawn, j]
                teams[b, n + j] = source[b, n + j] = orders[drawn, j]
                logp[b, n + j] = np.log(agreeing / alike)
                alike = agreeing
            n += room
        more = True
        while n < k and more:
            more = False
            for arm in range(n_arms):
                found = _next(items[arm, b], dealt[b], n, picks[0], 0)
                if found >= 0 and n < k:
                    dealt[b, n], source[b, n], place[b, n] = items[arm, b, found], arm, found
                    n += 1
                    more = True


# -- lists that nobody saw


@dataclass(frozen=True, eq=False)
class Overlap:
    """How alike two lists of each request are; 1: the same, 0: nothing in common, NaN: both are empty.

    Shapes: each [B]
        rbo: rank-biased overlap, extrapolated: agreement at every depth, the top counting most
        jaccard: shared items among the first k, over all of them
        first: whether the first item is the same
    """

    rbo: Floats
    jaccard: Floats
    first: Floats


def overlap(left: NDArray[np.int32], right: NDArray[np.int32], *, k: int = 10, persistence: float = 0.9) -> Overlap:
    """How alike the lists [B, L] and [B, R] are, without duplicates and padded with -1.

    persistence: chance that a reader goes on to the next item; at 0.9 the first ten make up 86 % of the weight.

    Ref: Webber, Moffat, Zobel, "A similarity measure for indefinite rankings", TOIS 2010, eq. 32 (RBO_EXT).
    """
    if len(left) != len(right):
        raise UsageError(f"two lists a request are compared, got {len(left)} and {len(right)} lists")
    if not 0 < persistence < 1 or k < 1:
        raise UsageError(f"persistence lies between 0 and 1 and k is at least 1, got {persistence} and {k}")
    out = np.empty((3, len(left)))
    _overlap(np.asarray(left, dtype=np.int32), np.asarray(right, dtype=np.int32), k, persistence, out)
    return Overlap(*out)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _overlap(left: NDArray[np.int32], right: NDArray[np.int32], k: int, p: float, out: Floats) -> None:
    met = np.empty(max(left.shape[1], right.shape[1]), dtype=np.int64)
    for b in range(len(left)):
        n_left = (left[b] >= 0).sum()
        n_right = (right[b] >= 0).sum()
        short, long = min(n_left, n_right), max(n_left, n_right)
        if short == 0:
            out[:, b] = 0.0 if long else np.nan
            continue
        met[:] = 0
        common = 0
        for i in range(n_left):
            for j in range(n_right):
                if left[b, i] == right[b, j]:
                    met[max(i, j)] += 1
                    common += i < k and j < k
        at_short = met[:short].sum()
        shared, total, weight = 0, 0.0, 1.0
        for d in range(1, long + 1):
            weight *= p
            shared += met[d - 1]
            total += shared / d * weight
            if d > short:
                total += at_short * (d - short) / (short * d) * weight
        out[0, b] = (1 - p) / p * total + ((shared - at_short) / long + at_short / short) * weight
        out[1, b] = common / (min(n_left, k) + min(n_right, k) - common)
        out[2, b] = left[b, 0] == right[b, 0]
