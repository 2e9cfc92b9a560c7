"""Which items a request may be answered with: all, some drawn at random, or lists given."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.evaluate.statistics import GOLDEN, below
from tastemaker.types import Cases, Jagged, Requests, UsageError, mix

Candidates = Literal["all"] | int | Jagged[NDArray[np.int32]]


def describe(candidates: Candidates, n_cases: int, seed: int) -> dict[str, Any]:
    """The choice of candidates as the report records it."""
    if isinstance(candidates, Jagged):
        if len(candidates) != n_cases:
            raise UsageError(f"{n_cases} cases need {n_cases} rows of candidates, got {len(candidates)}")
        return {"kind": "given", "fingerprint": fingerprint(candidates.offsets, candidates.values)}
    if candidates == "all":
        return {"kind": "all"}
    if isinstance(candidates, bool) or not isinstance(candidates, int | np.integer) or candidates < 1:
        hint = "'all', a number of negatives to draw, or rows of item numbers"
        raise UsageError(f"candidates cannot be {candidates!r}", hint=hint)
    return {"kind": "sampled", "negatives": int(candidates), "seed": seed}


def in_words(about: Any) -> str:
    """What the lists were ranked from, for a title."""
    if about["kind"] == "sampled":
        return f"SAMPLED CANDIDATES: the targets and {about['negatives']:,} random items a request"
    return "candidates as given" if about["kind"] == "given" else "full catalogue"


def with_candidates(
    part: Cases, requests: Requests, candidates: Candidates, start: int, n_items: int, seed: int
) -> Requests:
    """The block of requests that begins at case `start`, with its candidates."""
    if isinstance(candidates, Jagged):
        return requests.with_(candidates=candidates.take(slice(start, start + len(part))))
    if candidates == "all":
        return requests
    excluded = requests.exclude if requests.exclude is not None else Jagged.empty(len(part))
    drawn = np.full((len(part), candidates), -1, dtype=np.int32)
    seeds = mix(np.arange(start, start + len(part)), seed)
    _draw(seeds, part.targets.offsets, part.targets.values, excluded.offsets, excluded.values, n_items, drawn)
    known = part.targets.values < n_items
    row, place = np.nonzero(drawn >= 0)
    rows = np.concatenate([part.targets.rows[known], row])
    items = np.concatenate([part.targets.values[known], drawn[row, place]])
    return requests.with_(candidates=Jagged.from_rows(rows, items, len(part)))


def fingerprint(*arrays: NDArray[Any]) -> str:
    """A hash of arrays: equal on every machine where the arrays are equal."""
    total = hashlib.blake2b(digest_size=16)
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(
    seeds: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    excluded_offsets: NDArray[np.int64],
    excluded: NDArray[np.int32],
    n_items: int,
    drawn: NDArray[np.int32],  # [B, C], written; what the catalogue cannot fill stays -1
) -> None:
    """Distinct items that are neither targets nor excluded, uniformly, one random stream a request."""
    n_rows, wanted = drawn.shape
    owner = np.full(n_items, -1, np.int32)
    for row in range(n_rows):
        free = n_items
        for n in range(offsets[row], offsets[row + 1]):
            if 0 <= targets[n] < n_items and owner[targets[n]] != row:
                owner[targets[n]] = row
                free -= 1
        for n in range(excluded_offsets[row], excluded_offsets[row + 1]):
            if 0 <= excluded[n] < n_items and owner[excluded[n]] != row:
                owner[excluded[n]] = row
                free -= 1
        state, found, left = seeds[row], 0, min(wanted, free)
        if left * 2 <= free:  # enough room: draw until it is new
            while left > 0:
                state += GOLDEN
                item = np.int64(below(state, np.uint64(n_items)))
                if owner[item] != row:
                    owner[item] = row
                    drawn[row, found] = item
                    found += 1
                    left -= 1
            continue
        for free_item in range(n_items):  # selection sampling: each free item with chance left / free
            if owner[free_item] == row:
                continue
            if left == 0:
                break
            state += GOLDEN
            if np.int64(below(state, np.uint64(free))) < left:
                drawn[row, found] = free_item
                found += 1
                left -= 1
            free -= 1
