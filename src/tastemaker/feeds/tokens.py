"""Histories as tokens: each item as its codes, a sign for the user before the first, and the codes of what comes next.

A token is a code, moved behind the codes of the levels before (`Codebook.tokens`). After the codes come the signs:
one for each of a few groups that users are hashed into, and one for a user nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.feeds.sequences import Ints, Windows
from tastemaker.types import Codebook, Dataset, Requests, mix


@dataclass(frozen=True, eq=False)
class Tokens:
    """B rows of N tokens in all, and M items to be told, each after some of its row's tokens.

    longest: length of the longest row; most: the most items told of a row

    Shapes:
        users: [B] int64
        tokens: [N] int64, a user's sign and the codes of items, oldest first in each row
        offsets: [B + 1] int64, row b is tokens[offsets[b]:offsets[b + 1]]
        targets: [M, Q] int64, codes of the items to be told
        told: [B + 1] int64, row b's are targets[told[b]:told[b + 1]]
        sees: [M] int64, how many tokens of its row come before each
    """

    users: Any
    tokens: Any
    offsets: Any
    targets: Any
    told: Any
    sees: Any
    longest: int
    most: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owners(self) -> Any:
        """The user of each item to be told [M]."""
        counts = self.told[1:] - self.told[:-1]
        return np.repeat(self.users, counts) if isinstance(counts, np.ndarray) else self.users.repeat_interleave(counts)

    def take(self, rows: slice) -> Tokens:
        """Whole rows, with what is told of them."""
        first, last, _ = rows.indices(len(self))
        last = max(first, last)
        offsets, told = self.offsets[first : last + 1], self.told[first : last + 1]
        read, asked = (slice(int(ends[0]), int(ends[-1])) for ends in (offsets, told))
        return Tokens(
            self.users[first:last],
            self.tokens[read],
            offsets - offsets[0],
            self.targets[asked],
            told - told[0],
            self.sees[asked],
            int(np.diff(offsets).max(initial=0)),
            int(np.diff(told).max(initial=0)),
        )


def prefixes(data: Dataset, max_len: int) -> Windows:
    """A window for each choice: it, and at most `max_len` of those before it."""
    chosen = data.interactions()
    items, users = (chosen[name].to_numpy().astype(np.int64) for name in ("item", "user"))
    at = np.arange(len(items))
    new = np.ones(len(items), dtype=np.bool_)
    new[1:] = users[1:] != users[:-1]
    begins = np.maximum.accumulate(np.where(new, at, 0))
    return Windows(items, users, np.maximum(begins, at - max_len), at + 1)


def next_codes(
    seen: Windows,
    book: Codebook | Callable[[], Codebook],
    batch_size: int,
    *,
    groups: int = 0,
    anonymous: float = 0.0,
    last: bool = False,
) -> RowFeed[Tokens]:
    """Every window once an epoch; the codes of each of its events are to be told after the events before it.

    Args:
        book: the items' codes, or what gives them as they stand, where they change in the course of training.
        groups: how many groups users are hashed into; 0: no user is known.
        anonymous: the probability with which a window has the sign of an unknown user.
        last: only the last event of a window is to be told.
    """
    live = callable(book)

    def make(rows: Rows, rng: np.random.Generator) -> Tokens:
        now = book() if callable(book) else book
        items, offsets = seen.gather(rows)
        lengths = np.diff(offsets)
        asked = np.ones(len(items), dtype=np.bool_)
        if last:
            asked[:] = False
            asked[offsets[1:] - 1] = True
        places = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        read = np.ones(len(items), dtype=np.bool_)
        read[offsets[1:] - 1] = False
        users = np.where(rng.random(len(rows)) < anonymous, -1, seen.users[rows])
        signs = user_signs(users, groups) + now.n_tokens
        tokens, bounds = _rows(now.tokens[items[read]], lengths - 1, signs)
        told = np.full(len(rows), 1) if last else lengths
        return Tokens(
            seen.users[rows],
            tokens,
            bounds,
            now.codes[items[asked]],
            np.concatenate([[0], np.cumsum(told)]),
            1 + places[asked] * now.depth,
            int(np.diff(bounds).max()),
            int(told.max()),
        )

    return RowFeed(len(seen), batch_size, make, live=live, lengths=seen.lengths)


def asked_codes(requests: Requests, book: Codebook, max_len: int, *, groups: int = 0) -> Tokens:
    """The last `max_len` events of the requests' histories, as a feed would show them; nothing is told.

    Items without codes are left out first.
    """
    items = requests.items()
    kept = items.where(items.values < book.n_items).last(max_len)
    users = np.full(requests.n, -1) if requests.users is None else requests.users.astype(np.int64)
    signs = user_signs(users, groups) + book.n_tokens
    tokens, bounds = _rows(book.tokens[kept.values], kept.lengths, signs)
    nothing = np.empty(0, dtype=np.int64)
    empty = nothing.reshape(0, book.depth)
    longest = int(np.diff(bounds).max(initial=1))
    return Tokens(users, tokens, bounds, empty, np.zeros(requests.n + 1, dtype=np.int64), nothing, longest, 0)


def user_signs(users: NDArray[np.integer[Any]], groups: int) -> Ints:
    """The group of each user [B], `groups` for one that nobody knows (-1). Ref: Weinberger et al., arXiv:0902.2206."""
    if not groups:
        return np.zeros(len(users), dtype=np.int64)
    hashed = (mix(np.maximum(users, 0)) % np.uint64(groups)).astype(np.int64)
    return np.where(users < 0, groups, hashed)


def _rows(codes: Ints, lengths: Ints, signs: Ints) -> tuple[Ints, Ints]:
    """Tokens [N] and offsets [B + 1] of rows: a sign, then the codes [n, Q] of as many items as `lengths` says."""
    depth = codes.shape[1]
    bounds = np.concatenate([[0], np.cumsum(1 + lengths * depth)])
    tokens = np.empty(bounds[-1], dtype=np.int64)
    tokens[bounds[:-1]] = signs
    owners = np.repeat(np.arange(len(lengths)), lengths * depth)
    tokens[np.arange(codes.size) + owners + 1] = codes.ravel()
    return tokens, bounds
