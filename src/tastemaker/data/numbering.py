"""Outside ids to dense numbers, and rows into order, at the speed of memory.

Kernels release the interpreter lock and keep no state, so callers may run them in threads of their own.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from tastemaker.types import DataError

BLOCK = 1 << 21  # rows hashed at a time: bounds the memory that hashes take
INSERTION = 48  # longest history sorted by insertion
FIRST_SLOTS = 1 << 14
NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Codes:
    """A column of ids as numbers in the order of first appearance.

    Shapes:
        codes: [N] int32, -1 where the id is missing
        ids: the distinct ids; code c means ids[c]
    """

    codes: NDArray[np.int32]
    ids: pl.Series

    def renamed(self, ids: pl.Series) -> Codes:
        """The same rows under other ids, one a code; equal ids become one code, missing ids become -1."""
        again = encode(ids)
        if len(again.ids) == len(self.ids):
            return Codes(self.codes, ids)
        return Codes(mapped(self.codes, again.codes), again.ids)


def encode(values: pl.Series) -> Codes:
    """Number the distinct values of a column of whole numbers or strings.

    Whole numbers are told apart exactly, strings by 128 bits of hash under random seeds.
    """
    if values.dtype == pl.Null or (values.dtype == pl.UInt64 and (values > NEVER).any()):
        values = values.cast(pl.String)
    if values.dtype in (pl.Categorical, pl.Enum):
        inner, rows = encode(values.to_physical()), np.arange(len(values))
        first = first_seen(inner.codes, rows, len(inner.ids))
        return Codes(inner.codes, values.gather(first).cast(pl.String))
    whole = values.dtype.is_integer()
    if not whole and values.dtype != pl.String:
        raise DataError(f"ids must be whole numbers or strings, {values.name!r} holds {values.dtype}")
    codes = np.empty(len(values), np.int32)
    if whole and len(values) > values.null_count():
        low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
        if high - low < max(4 * len(values), 1 << 16):
            first = _encode_span(values, low, high - low + 1, codes)
            return Codes(codes, values.gather(first).cast(pl.Int64))
    seeds = secrets.randbits(63), secrets.randbits(63)
    table = np.zeros((FIRST_SLOTS, 2), np.uint64), np.full(FIRST_SLOTS, -1, np.int32)
    firsts = np.empty(FIRST_SLOTS // 2, np.int64)
    n = 0
    for start in range(0, len(values), BLOCK):
        block = values.slice(start, BLOCK)
        valid = block.is_not_null().to_numpy() if block.null_count() else np.empty(0, np.bool_)
        if whole:
            left = block.fill_null(0).to_numpy().astype(np.int64).view(np.uint64)
            right = left
        else:
            left, right = (block.hash(seed).to_numpy() for seed in seeds)
        done = 0
        while True:
            done, n = _encode_hashed(left, right, valid, *table, firsts, n, start, codes, done)
            if done == len(block):
                break
            table = _grown(*table)
            firsts = np.concatenate([firsts, np.empty_like(firsts)])
    ids = values.gather(firsts[:n])
    return Codes(codes, ids.cast(pl.Int64) if whole else ids)


def encode_all(columns: list[pl.Series]) -> list[Codes]:
    """`encode` of several columns at once, a thread each."""
    with ThreadPoolExecutor(max(1, len(columns))) as pool:
        return list(pool.map(encode, columns))


def mapped(codes: NDArray[np.int32] | NDArray[np.uint32], table: NDArray[np.int32]) -> NDArray[np.int32]:
    """What `table` says of each code [N]; a missing code stays missing (-1)."""
    out = np.empty(len(codes), np.int32)
    _mapped(codes, table, out)
    return out


def first_seen(codes: NDArray[np.int32], times: NDArray[np.int64] | None, n: int) -> NDArray[np.int64]:
    """The earliest time of each code [n] (0 where there are no times); `NEVER` where the code has no row."""
    first = np.full(n, NEVER, np.int64)
    _first_seen(codes, np.empty(0, np.int64) if times is None else times, first)
    return first


def order_events(
    users: NDArray[np.int32], times: NDArray[np.int64] | None, n_users: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64] | None] | None:
    """What sorts rows by user, then time, equal times in the order given; None where they are sorted.

    Returns the order [N], where each user starts [n_users + 1], and the times in order: a counting sort by user,
    then a stable sort inside each user.
    """
    if _is_sorted(users, np.empty(0, np.int64) if times is None else times):
        return None
    starts = _starts(users, n_users)
    order = np.empty(len(users), np.uint32)
    if times is None:
        _place(users, starts, order)
        return order, starts, None
    sorted_times = np.empty(len(users), np.int64)
    _place_timed(users, times, starts, order, sorted_times)
    n_threads = os.cpu_count() or 1
    cuts = np.searchsorted(starts, np.linspace(0, len(users), n_threads + 1)[1:-1])
    bounds = [0, *map(int, cuts), n_users]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(lambda part: _sort_users(starts, order, sorted_times, *part), pairwise(bounds)))
    return order, starts, sorted_times


def _encode_span(values: pl.Series, low: int, span: int, codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Codes of whole numbers that lie close together, through a table of them all."""
    table = np.full(span, -1, np.int32)
    firsts = np.empty(min(span, len(values)), np.int64)
    n = 0
    for start in range(0, len(values), BLOCK):
        block = values.slice(start, BLOCK)
        valid = block.is_not_null().to_numpy() if block.null_count() else np.empty(0, np.bool_)
        offsets = block.fill_null(low).to_numpy().astype(np.int64) - low
        n = _encode_table(offsets, valid, table, firsts, n, start, codes)
    return firsts[:n]


@njit(cache=True, nogil=True)
def _encode_table(offsets, valid, table, firsts, n, start, codes):  # type: ignore[no-untyped-def]
    for r in range(len(offsets)):
        if len(valid) and not valid[r]:
            codes[start + r] = -1
            continue
        code = table[offsets[r]]
        if code < 0:
            code = n
            table[offsets[r]] = n
            firsts[n] = start + r
            n += 1
        codes[start + r] = code
    return n


@njit(cache=True, nogil=True)
def _slot(key, mask):  # type: ignore[no-untyped-def]
    mixed = (key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(20)) & mask


@njit(cache=True, nogil=True)
def _encode_hashed(left, right, valid, keys, places, firsts, n, start, codes, done):  # type: ignore[no-untyped-def]
    """Open addressing with linear probing. Stops, and says at which row, when the table is half full."""
    mask = np.uint64(len(places) - 1)
    for r in range(done, len(left)):
        if len(valid) and not valid[r]:
            codes[start + r] = -1
            continue
        slot = _slot(left[r], mask)
        while places[slot] >= 0 and (keys[slot, 0] != left[r] or keys[slot, 1] != right[r]):
            slot = (slot + np.uint64(1)) & mask
        if places[slot] < 0:
            if n == len(firsts):
                return r, n
            keys[slot, 0] = left[r]
            keys[slot, 1] = right[r]
            places[slot] = n
            firsts[n] = start + r
            n += 1
        codes[start + r] = places[slot]
    return len(left), n


@njit(cache=True, nogil=True)
def _grown(keys, places):  # type: ignore[no-untyped-def]
    size = 2 * len(places)
    mask = np.uint64(size - 1)
    new_keys = np.zeros((size, 2), np.uint64)
    new_places = np.full(size, -1, np.int32)
    for old in range(len(places)):
        if places[old] >= 0:
            slot = _slot(keys[old, 0], mask)
            while new_places[slot] >= 0:
                slot = (slot + np.uint64(1)) & mask
            new_keys[slot, 0] = keys[old, 0]
            new_keys[slot, 1] = keys[old, 1]
            new_places[slot] = places[old]
    return new_keys, new_places


@njit(cache=True, nogil=True)
def _first_seen(codes, times, first):  # type: ignore[no-untyped-def]
    for r in range(len(codes)):
        code = codes[r]
        if code >= 0:
            time = times[r] if len(times) else 0
            first[code] = min(first[code], time)


@njit(cache=True, nogil=True)
def _mapped(codes, table, out):  # type: ignore[no-untyped-def]
    for r in range(len(codes)):
        out[r] = table[codes[r]] if codes[r] >= 0 else -1


@njit(cache=True, nogil=True)
def _starts(users, n_users):  # type: ignore[no-untyped-def]
    starts = np.zeros(n_users + 1, np.int64)
    for r in range(len(users)):
        starts[users[r] + 1] += 1
    for user in range(n_users):
        starts[user + 1] += starts[user]
    return starts


@njit(cache=True, nogil=True)
def _is_sorted(users, times):  # type: ignore[no-untyped-def]
    for r in range(1, len(users)):
        if users[r] < users[r - 1] or (len(times) and users[r] == users[r - 1] and times[r] < times[r - 1]):
            return False
    return True


@njit(cache=True, nogil=True)
def _place(users, starts, order):  # type: ignore[no-untyped-def]
    free = starts[:-1].copy()
    for r in range(len(users)):
        order[free[users[r]]] = r
        free[users[r]] += 1


@njit(cache=True, nogil=True)
def _place_timed(users, times, starts, order, sorted_times):  # type: ignore[no-untyped-def]
    free = starts[:-1].copy()
    for r in range(len(users)):
        at = free[users[r]]
        free[users[r]] = at + 1
        order[at] = r
        sorted_times[at] = times[r]


@njit(cache=True, nogil=True)
def _sort_users(starts, order, times, low, high):  # type: ignore[no-untyped-def]
    """Sort users low..high - 1 by time, in place: by insertion where the history is short."""
    for user in range(low, high):
        begin, end = starts[user], starts[user + 1]
        if end - begin > INSERTION:
            by_time = np.argsort(times[begin:end], kind="mergesort")
            rows, stamps = order[begin:end][by_time], times[begin:end][by_time]
            order[begin:end] = rows
            times[begin:end] = stamps
            continue
        for i in range(begin + 1, end):
            time, row = times[i], order[i]
            j = i - 1
            while j >= begin and times[j] > time:
                times[j + 1] = times[j]
                order[j + 1] = order[j]
                j -= 1
            times[j + 1] = time
            order[j + 1] = row
