"""The k best of many scores, row by row: exact, in a fixed order, never an item that is not allowed.

Order: higher score first; among equal scores the item with the smaller hash (`tastemaker.types.mix` of its
number) first, because the order of item numbers often tells how popular an item is.

How: a row keeps its k best so far, and scores are compared with the worst of them, 64 at a time in vector
registers. Few scores of a row ever pass, and only those are looked at one by one (is the item excluded, is it
allowed, where does it go). A row that has no list yet is first split into lanes, strided over the row: at
least k scores reach the k-th highest of the lanes' maxima, so that is where the comparison starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.index.threads import n_workers, share
from tastemaker.types import NO_ITEM, Jagged, Requests, UsageError

Items = NDArray[np.int32]
Scores = NDArray[np.float32]

CHUNK = 64  # scores compared at once
SMALL = 1 << 19  # scores below which a second thread does not pay


@dataclass(frozen=True, eq=False)
class Rules:
    """What each of b rows must not be answered with, in the form the kernels read.

    Shapes:
        excluded: [N] item numbers, row r's are excluded[offsets[r]:offsets[r + 1]]; numbers beyond the
            catalogue are allowed and mean nothing
        allowed: [F, W] bool over items; which: [b], row of `allowed` that holds, -1 for no restriction
    """

    excluded: Items
    offsets: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    which: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        b: int,
        n_items: int,
        exclude: Jagged[Items] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        which: NDArray[np.int32] | None = None,
    ) -> Rules:
        """Rules for b rows over items 0 to n_items - 1, their shapes checked."""
        rows = Jagged.empty(b) if exclude is None else exclude
        free = allowed is None
        bitmap = np.zeros((1, 0), dtype=np.bool_) if allowed is None else np.atleast_2d(allowed)
        rule = np.full(b, -1 if free else 0, dtype=np.int32) if which is None else np.asarray(which, dtype=np.int32)
        if len(rows) != b or len(rule) != b:
            raise UsageError(
                f"{b} rows of scores need {b} rows of exclusions and filters, got {len(rows)}, {len(rule)}"
            )
        if not free and bitmap.shape[1] < n_items:
            raise UsageError(
                f"a filter must say of all {n_items} items whether they are allowed, got {bitmap.shape[1]}"
            )
        if b and not -1 <= rule.min() <= rule.max() < (0 if free else len(bitmap)):
            raise UsageError(f"rows of the filter run from -1 to {-1 if free else len(bitmap) - 1}")
        return cls(
            np.ascontiguousarray(rows.values, dtype=np.int32),
            rows.offsets,
            np.ascontiguousarray(bitmap, dtype=np.bool_),
            np.ascontiguousarray(rule),
        )

    @classmethod
    def from_requests(cls, requests: Requests, n_items: int) -> Rules:
        """What `requests` exclude and filter."""
        rules = requests.filter
        pair = (None, None) if rules is None else (rules.allowed, rules.which)
        return cls.of(requests.n, n_items, requests.exclude, *pair)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Rules:
        """The rules of some rows."""
        if isinstance(rows, slice):  # no copy of what is excluded: offsets need not start at 0
            return Rules(self.excluded, self.offsets[rows.start : rows.stop + 1], self.allowed, self.which[rows])
        picked = Jagged(self.excluded, self.offsets).take(rows)
        return Rules(picked.values, picked.offsets, self.allowed, self.which[rows])


def select(
    scores: Scores,
    k: int,
    *,
    exclude: Jagged[Items] | None = None,
    allowed: NDArray[np.bool_] | None = None,
    which: NDArray[np.int32] | None = None,
    first_item: int = 0,
) -> tuple[Items, Scores]:
    """The k best items of each row of scores, best first; ties go by a fixed hash of the item.

    Shapes:
        scores: [b, n], of items first_item to first_item + n - 1; -inf: never; left as they are
        exclude: Jagged of b rows of item numbers
        allowed: [F, I] bool over all items; which: [b], the row of `allowed` that holds, -1 for none
        returns items [b, k] int32 and scores [b, k] float32; -1 and -inf after the end of a short list

    Raises:
        UsageError: a score is NaN or +inf.
    """
    scores = np.ascontiguousarray(scores, dtype=np.float32)
    if scores.ndim != 2:
        raise UsageError(f"scores are [rows, items], got shape {list(scores.shape)}")
    b, n = scores.shape
    rules = Rules.of(b, first_item + n, exclude, allowed, which)
    items, best = empty_lists(b, k)

    def work(parts: Any) -> None:
        for part in parts:
            fold(scores[part], first_item, rules.take(part), items[part], best[part])

    share(row_slices(b, n), work)
    return items, best


def select_listed(listed: Jagged[Items], scores: Scores, k: int, rules: Rules, n_items: int) -> tuple[Items, Scores]:
    """The k best of the items that each row lists, scores [N] given in the order of `listed`.

    An item listed twice counts once, -1 is no item.
    """
    values = np.ascontiguousarray(listed.values, dtype=np.int32)
    check_numbers(values, n_items)
    items, best = empty_lists(len(listed), k)

    def work(parts: Any) -> None:
        for part in parts:
            ends, own = listed.offsets[part.start : part.stop + 1], rules.take(part)
            rows = own.excluded, own.offsets, own.allowed, own.which
            bad = _fold_listed(values, ends, scores, rows, n_items, items[part], best[part])
            if bad >= 0:
                refuse(scores[bad], int(values[bad]))

    share(row_slices(len(listed), 8 * len(values) // max(len(listed), 1)), work)
    return items, best


def empty_lists(b: int, k: int) -> tuple[Items, Scores]:
    """Lists [b, k] that hold nothing yet."""
    if k < 1:
        raise UsageError(f"a list holds at least one item, got k = {k}")
    return np.full((b, k), NO_ITEM, dtype=np.int32), np.full((b, k), -np.inf, dtype=np.float32)


def row_slices(b: int, n: int) -> list[slice]:
    """b rows, each the work of n scores to compare, cut into a piece a thread; left whole where that is little."""
    parts = 1 if b * n < SMALL else min(b, n_workers())
    return [slice(int(start), int(stop)) for start, stop in pairwise(np.linspace(0, b, parts + 1).astype(int))]


def fold(scores: Scores, first_item: int, rules: Rules, items: Items, best: Scores) -> None:
    """Take scores [b, n] of items from `first_item` on into the lists `items` and `best` [b, k], in place."""
    rows = rules.excluded, rules.offsets, rules.allowed, rules.which
    bad = take_in(scores, first_item, rows, items, best)
    if bad >= 0:
        row, column = divmod(bad, scores.shape[1])
        refuse(scores[row, column], first_item + column)


def check_numbers(items: Items, n_items: int) -> None:
    """Refuse item numbers that the catalogue does not have."""
    if len(items) and items.max() >= n_items:
        raise UsageError(f"candidates run from 0 to {n_items - 1}, got {items.max()}")


def refuse(score: Any, item: int) -> None:
    """Say which score is none."""
    raise UsageError(
        f"the score of item {item} is {score}, scores are finite (or -inf for never)",
        hint="the system that gave it divides by zero, or its training did not converge",
    )


@njit(cache=True, nogil=True)
def _hash(item: int) -> Any:
    """`tastemaker.types.mix` of one number."""
    z = np.uint64(item) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def insert(items: Items, best: Scores, item: int, score: Any) -> None:
    """Put an item into a sorted list where it belongs, or nowhere; -inf is no score."""
    at = len(best) - 1
    if not (score > best[at] or (score == best[at] and score > -np.inf and _hash(item) < _hash(items[at]))):
        return
    while at > 0 and score >= best[at - 1]:
        if score == best[at - 1] and _hash(item) > _hash(items[at - 1]):
            break
        best[at] = best[at - 1]
        items[at] = items[at - 1]
        at -= 1
    best[at] = score
    items[at] = item


@njit(cache=True, nogil=True)
def _kth(values: Scores, k: int) -> Any:
    """The k-th highest value; reorders them (Hoare's quickselect)."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot, i, j = values[(low + high) >> 1], low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return values[k - 1]


@njit(cache=True, nogil=True)
def _floor(row: Scores, k: int, lanes: Scores) -> Any:
    """A score that at least k scores of the row reach; NaN counts as the lowest."""
    n = len(lanes)
    for j in range(n):
        lanes[j] = -np.inf
    for start in range(0, len(row) - n + 1, n):
        part = row[start : start + n]
        for j in range(n):
            lanes[j] = part[j] if part[j] > lanes[j] else lanes[j]
    return _kth(lanes, k)


@njit(cache=True, nogil=True)
def _admit(
    row: Scores,
    start: int,
    stop: int,
    worst: Any,
    first: int,
    barred: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    rule: int,
    items: Items,
    best: Scores,
) -> tuple[Any, int]:
    """Look at a stretch of a row one by one; the new score to beat, and -1 or where a score is NaN or +inf."""
    for j in range(start, stop):
        if not (row[j] < worst):
            if barred[j] or (rule >= 0 and not allowed[rule, first + j]):
                continue
            if not (row[j] < np.inf):
                return worst, j
            insert(items, best, first + j, row[j])
            worst = max(worst, best[-1])
    return worst, -1


@njit(cache=True, nogil=True)
def take_in(
    scores: Scores,
    first: int,
    rules: Any,
    items: Items,
    best: Scores,
) -> Any:
    """`fold` within a kernel; returns -1, or the flat index of a score that is NaN or +inf."""
    excluded, offsets, allowed, which = rules
    b, n = scores.shape
    k = items.shape[1]
    whole = n // CHUNK * CHUNK
    barred = np.zeros(n, dtype=np.bool_)
    for r in range(b):
        row, rule = scores[r], which[r]
        n_barred = 0
        for e in range(offsets[r], offsets[r + 1]):
            at = excluded[e] - first
            if 0 <= at < n:
                barred[at] = True
                n_barred += 1
        worst = best[r, k - 1]
        n_lanes = 2 * (k + n_barred)
        if worst == -np.inf and rule < 0 and 4 * n_lanes <= n:
            worst = _floor(row, k + n_barred, np.empty(n_lanes, dtype=np.float32))
        for start in range(0, whole, CHUNK):
            passed = np.uint8(0)
            for j in range(CHUNK):
                passed |= np.uint8(not (row[start + j] < worst))  # "not <" lets NaN pass, to be refused
            if passed:
                worst, bad = _admit(row, start, start + CHUNK, worst, first, barred, allowed, rule, items[r], best[r])
                if bad >= 0:
                    return r * n + bad
        worst, bad = _admit(row, whole, n, worst, first, barred, allowed, rule, items[r], best[r])
        if bad >= 0:
            return r * n + bad
        for e in range(offsets[r], offsets[r + 1]):
            at = excluded[e] - first
            if 0 <= at < n:
                barred[at] = False
    return -1


@njit(cache=True, nogil=True)
def _fold_listed(
    listed: Items,
    ends: NDArray[np.int64],
    scores: Scores,
    rules: Any,
    n_items: int,
    items: Items,
    best: Scores,
) -> Any:
    """`select_listed`; returns -1, or the index of a score that is NaN or +inf."""
    excluded, offsets, allowed, which = rules
    barred = np.zeros(n_items, dtype=np.bool_)
    for r in range(len(items)):
        rule = which[r]
        for e in range(offsets[r], offsets[r + 1]):
            if 0 <= excluded[e] < n_items:
                barred[excluded[e]] = True
        for p in range(ends[r], ends[r + 1]):
            item = listed[p]
            if item < 0 or barred[item] or (rule >= 0 and not allowed[rule, item]):
                continue
            if not (scores[p] < np.inf):
                return p
            barred[item] = True  # not twice
            insert(items[r], best[r], item, scores[p])
        for e in range(offsets[r], offsets[r + 1]):
            if 0 <= excluded[e] < n_items:
                barred[excluded[e]] = False
        for p in range(ends[r], ends[r + 1]):
            if listed[p] >= 0:
                barred[listed[p]] = False
    return -1


@njit(cache=True, nogil=True)
def merge(items: Items, best: Scores, more_items: Items, more: Scores) -> None:
    """Take other lists [b, k] of other items into the lists `items` and `best`, in place."""
    for r in range(items.shape[0]):
        for j in range(more_items.shape[1]):
            if more_items[r, j] < 0:
                break
            insert(items[r], best[r], more_items[r, j], more[r, j])
