"""Kernels that deal events out to parts: by place in a history, by chance, and by what stands beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
UNSET = -2
ALONE = 1 << 18  # rows up to which one thread is quicker than several


def shuffle_keys(
    users: NDArray[Any], items: NDArray[Any], times: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.uint64]:
    """A random key an event [N], made of who, what and when, so that the order of rows decides nothing.

    `times` may be empty. Events that agree in all three share a key.
    """
    seed, keys = np.uint64(rng.integers(2**63)), np.empty(len(users), np.uint64)
    bounds = np.linspace(0, len(users), _threads(len(users)) + 1).astype(np.int64)
    _in_threads(lambda low, high: _keys(users, items, times, seed, low, high, keys), bounds)
    return keys


def deal(
    counts: NDArray[np.int64], n_test: NDArray[np.int64], n_valid: NDArray[np.int64], keys: NDArray[np.uint64]
) -> NDArray[np.int8]:
    """Parts of events that lie owner by owner: the last `n_test` of each owner are 2, those before them 1, the rest 0.

    With `keys` [N] each owner's events are taken in the order of their keys instead of their own.

    Shapes: counts, n_test, n_valid [U], where n_test + n_valid never exceed counts; returns [N] int8.
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    part = np.zeros(starts[-1], np.int8)
    cuts = np.linspace(0, len(part), _threads(len(part)) + 1)[1:-1]
    bounds = np.array([0, *np.searchsorted(starts, cuts), len(counts)])
    _in_threads(lambda low, high: _deal(starts, n_test, n_valid, keys, low, high, part), bounds)
    return part


def deal_all(keys: NDArray[np.uint64], bounds: NDArray[np.int64]) -> NDArray[np.int8]:
    """Groups of all events by the order of their keys: `bounds` [G - 1] says where groups 1, 2, ... begin.

    Events that share a key are never parted, so sizes may differ from what was asked by a few.
    """
    inside = bounds[bounds < len(keys)]
    group = np.zeros(len(keys), np.int8)
    if len(inside):
        for threshold in np.partition(keys, inside)[inside]:
            group += keys >= threshold
    return group


def follow(part: NDArray[np.int8], chosen: NDArray[np.bool_], users: NDArray[Any]) -> None:
    """Give each event that is no choice the part of its user's next choice, else of the last one, else 0; in place."""
    _follow(part, chosen, users)


def shown_later(
    counts: NDArray[np.int64], times: NDArray[np.int64], shown: NDArray[np.bool_], asked: NDArray[np.bool_]
) -> int:
    """How many events that are asked for are older than an event of the same user that is shown.

    Shapes: counts [U] events of each user; times, shown, asked [N], user by user, oldest first.
    """
    return int(_shown_later(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), times, shown, asked))


def _threads(n_rows: int) -> int:
    return os.cpu_count() or 1 if n_rows > ALONE else 1


def _in_threads(work: Callable[[int, int], None], bounds: NDArray[np.int64]) -> None:
    """Call `work` on each range between two bounds."""
    if len(bounds) == 2:
        return work(bounds[0], bounds[1])
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))


@njit(cache=True, nogil=True)
def _mix(z):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64, as `tastemaker.types.mix`."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _keys(users, items, times, seed, low, high, keys):  # type: ignore[no-untyped-def]
    for r in range(low, high):
        key = _mix(seed + GOLDEN * np.uint64(users[r] + 1))
        key = _mix(key + GOLDEN * np.uint64(items[r] + 1))
        keys[r] = _mix(key + GOLDEN * np.uint64(times[r] if len(times) else 0))


@njit(cache=True, nogil=True)
def _deal(starts, n_test, n_valid, keys, low, high, part):  # type: ignore[no-untyped-def]
    for user in range(low, high):
        begin, end = starts[user], starts[user + 1]
        test, held = n_test[user], n_test[user] + n_valid[user]
        if held == 0:
            continue
        if len(keys) == 0:
            part[end - held : end - test] = 1
            part[end - test : end] = 2
            continue
        order = np.argsort(keys[begin:end], kind="mergesort")
        for place in range(end - begin - held, end - begin):
            part[begin + order[place]] = 2 if place >= end - begin - test else 1


@njit(cache=True, nogil=True)
def _follow(part, chosen, users):  # type: ignore[no-untyped-def]
    user, last = -1, UNSET
    for r in range(len(part) - 1, -1, -1):
        if users[r] != user:
            user, last = users[r], UNSET
        if chosen[r]:
            last = part[r]
        else:
            part[r] = last
    user, last = -1, 0
    for r in range(len(part)):
        if users[r] != user:
            user, last = users[r], 0
        if part[r] == UNSET:
            part[r] = last
        elif chosen[r]:
            last = part[r]


@njit(cache=True, nogil=True)
def _shown_later(starts, times, shown, asked):  # type: ignore[no-untyped-def]
    total = 0
    for user in range(len(starts) - 1):
        last = -1
        for r in range(starts[user + 1] - 1, starts[user] - 1, -1):
            if shown[r]:
                last = r
                break
        for r in range(starts[user], last):
            if asked[r] and times[r] < times[last]:
                total += 1
    return total
