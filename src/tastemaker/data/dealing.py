"""Kernels that deal events out to parts: by place in a history, by chance, and by what stands beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
UNSET = -2


def shuffle_keys(
    users: NDArray[Any], items: NDArray[Any], times: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.uint64]:
    """A random key an event [N], made of who, what and when, so that the order of rows decides nothing.

    `times` may be empty. Events that agree in all three share a key.
    """
    return _keys(users, items, times, np.uint64(rng.integers(2**63)))  # type: ignore[no-any-return]


def deal(
    counts: NDArray[np.int64], n_test: NDArray[np.int64], n_valid: NDArray[np.int64], keys: NDArray[np.uint64]
) -> NDArray[np.int8]:
    """Parts of events that lie owner by owner: the last `n_test` of each owner are 2, those before them 1, the rest 0.

    With `keys` [N] each owner's events are taken in the order of their keys instead of their own.

    Shapes: counts, n_test, n_valid [U], where n_test + n_valid never exceed counts; returns [N] int8.
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return _deal(starts, n_test, n_valid, keys)  # type: ignore[no-any-return]


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


@njit(cache=True, nogil=True)
def _mix(z):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64, as `tastemaker.types.mix`."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, parallel=True)
def _keys(users, items, times, seed):  # type: ignore[no-untyped-def]
    keys = np.empty(len(users), np.uint64)
    for r in prange(len(users)):
        key = _mix(seed + GOLDEN * np.uint64(users[r] + 1))
        key = _mix(key + GOLDEN * np.uint64(items[r] + 1))
        keys[r] = _mix(key + GOLDEN * np.uint64(times[r] if len(times) else 0))
    return keys


@njit(cache=True, nogil=True, parallel=True)
def _deal(starts, n_test, n_valid, keys):  # type: ignore[no-untyped-def]
    part = np.zeros(starts[-1], np.int8)
    for user in prange(len(starts) - 1):
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
    return part


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


@njit(cache=True, nogil=True, parallel=True)
def _shown_later(starts, times, shown, asked):  # type: ignore[no-untyped-def]
    total = 0
    for user in prange(len(starts) - 1):
        last = -1
        for r in range(starts[user + 1] - 1, starts[user] - 1, -1):
            if shown[r]:
                last = r
                break
        for r in range(starts[user], last):
            if asked[r] and times[r] < times[last]:
                total += 1
    return total
