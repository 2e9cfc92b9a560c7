"""Which of the events asked for are new to the one who is asked: the kernel behind `Split.cases`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.types.jagged import Jagged


def unseen(
    asked: Jagged[NDArray[np.int64]],
    beside: Jagged[NDArray[np.int64]],
    seen: NDArray[np.bool_],
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    n_items: int,
) -> NDArray[np.bool_]:
    """Flags of the asked events: the first of its item in its case, which is neither seen by the user nor beside.

    Shapes:
        asked, beside: rows of events, a row a case; cases of a user stand together
        seen [E] bool, users, items [E] int32, of all events, sorted by user; returns [N], N events being asked for
    """
    keep = np.zeros(len(asked.values), np.bool_)
    _unseen(asked.values, asked.offsets, beside.values, beside.offsets, seen, users, items, n_items, keep)
    return keep


@njit(cache=True, nogil=True)
def _unseen(  # type: ignore[no-untyped-def]
    asked: Any,
    offsets: Any,
    beside: Any,
    beside_offsets: Any,
    seen: Any,
    users: Any,
    items: Any,
    n_items: int,
    keep: Any,
):
    of_user, of_case = np.full(n_items, -1, np.int32), np.full(n_items, -1, np.int64)
    last = -1
    for case in range(len(offsets) - 1):
        if offsets[case] == offsets[case + 1]:
            continue
        row = asked[offsets[case]]
        user = users[row]
        if user != last:
            last = user
            while row > 0 and users[row - 1] == user:
                row -= 1
            while row < len(users) and users[row] == user:
                if seen[row]:
                    of_user[items[row]] = user
                row += 1
        for n in range(beside_offsets[case], beside_offsets[case + 1]):
            of_case[items[beside[n]]] = case
        for n in range(offsets[case], offsets[case + 1]):
            item = items[asked[n]]
            if of_user[item] != user and of_case[item] != case:
                of_case[item] = case
                keep[n] = True
