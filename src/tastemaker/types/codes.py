"""Items as short tuples of codes, and the tree of all tuples that stand for an item.

I items, Q levels, N nodes of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types.errors import BundleError, UsageError
from tastemaker.types.random import mix

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trie:
    """All tuples as a tree in compressed rows. Nodes are numbered level by level, each level in the order of its
    tuples, and the root is 0; so the children of node n are the nodes 1 + e for e in starts[n]:starts[n + 1], and
    the items below a node lie side by side in `order`.

    Shapes:
        order: [I] int64, items in the order of their tuples; items of one tuple in the order of a fixed hash
        tokens: [N - 1] int64, the code that leads to node 1 + e
        starts: [N + 1] int64, the row of children of each node; leaves have none
        first, last: [N] int64, the items below node n are order[first[n]:last[n]]
        levels: [Q + 2] int64, nodes of level q (0: the root) are levels[q] to levels[q + 1] - 1
        widest: [Q], most children of a node of level 0, 1, ...
    """

    order: Ints
    tokens: Ints
    starts: Ints
    first: Ints
    last: Ints
    levels: Ints
    widest: tuple[int, ...]

    @classmethod
    def of(cls, codes: NDArray[np.integer[Any]]) -> Trie:
        """The tree of the tuples [I, Q]: one sort, then a pass over each level."""
        n, depth = codes.shape
        order = np.lexsort((mix(np.arange(n)), *codes.T[::-1])).astype(np.int64)
        rows = codes[order]
        new = np.ones(n, dtype=np.bool_)  # where a node of the level begins
        new[1:] = False
        starts_of = [np.zeros(1, dtype=np.int64)]
        tokens, counts, widest = [], [], []
        for level in range(depth):
            new[1:] |= rows[1:, level] != rows[:-1, level]
            begins = np.flatnonzero(new)
            parents = np.searchsorted(starts_of[-1], begins, side="right") - 1
            children = np.bincount(parents, minlength=len(starts_of[-1]))
            tokens.append(rows[begins, level])
            counts.append(children)
            widest.append(int(children.max(initial=0)))
            starts_of.append(begins)
        sizes = [len(level) for level in starts_of]
        counts.append(np.zeros(sizes[-1], dtype=np.int64))
        return cls(
            order,
            np.concatenate(tokens).astype(np.int64),
            _sums(np.concatenate(counts)),
            np.concatenate(starts_of),
            np.concatenate([np.append(level[1:], n) for level in starts_of]),
            _sums(sizes),
            tuple(widest),
        )

    @property
    def n_nodes(self) -> int:
        return len(self.first)

    @cached_property
    def keys(self) -> Ints:
        """Edges [N - 1] as one rising number each: parent times `base` plus code."""
        parents = np.repeat(np.arange(self.n_nodes), np.diff(self.starts))
        return parents * self.base + self.tokens

    @cached_property
    def base(self) -> int:
        return int(self.tokens.max(initial=0)) + 1

    def walk(self, codes: NDArray[np.integer[Any]]) -> Ints:
        """Nodes [.., Q] that tuples [.., Q] lead to, level by level; -1 from where no item has such a beginning."""
        nodes = np.empty(codes.shape, dtype=np.int64)
        at = np.zeros(codes.shape[:-1], dtype=np.int64)
        for level in range(codes.shape[-1]):
            code = codes[..., level].astype(np.int64)
            key = at * self.base + code
            place = np.searchsorted(self.keys, key)
            found = self.keys[np.minimum(place, len(self.keys) - 1)] == key if len(self.keys) else place < 0
            at = np.where(found & (at >= 0) & (code >= 0) & (code < self.base), place + 1, -1)
            nodes[..., level] = at
        return nodes

    def items_of(self, codes: NDArray[np.integer[Any]]) -> Ints:
        """The item of each tuple [..], -1 where there is none; the first of those that share it."""
        leaves = self.walk(codes)[..., -1]
        found: Ints = np.where(leaves < 0, -1, self.order[self.first[np.maximum(leaves, 0)]])
        return found


@dataclass(frozen=True, eq=False)
class Codebook:
    """The tuple of codes of every item. Codes of a level run from 0 to its size; items may share a tuple.

    version: raised by whoever changes codes, so that what was made with older ones is not taken for new

    Shapes: codes [I, Q] int64
    """

    codes: Ints
    sizes: tuple[int, ...]
    version: int = 0

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes, dtype=np.int64)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        if codes.ndim != 2 or codes.shape[1] != len(self.sizes) or not self.sizes:
            raise UsageError(f"codes are [items, levels], with {len(self.sizes)} levels, got {list(codes.shape)}")
        if codes.size and (codes.min() < 0 or (codes.max(axis=0) >= self.sizes).any()):
            raise UsageError(
                f"codes of levels of {self.sizes} run from 0; the largest are {codes.max(axis=0).tolist()}"
            )

    @property
    def n_items(self) -> int:
        return len(self.codes)

    @property
    def depth(self) -> int:
        """Q."""
        return len(self.sizes)

    @property
    def n_tokens(self) -> int:
        """Size of one vocabulary for the codes of all levels."""
        return sum(self.sizes)

    @cached_property
    def shifts(self) -> Ints:
        """Where each level's codes begin in that vocabulary [Q]."""
        return _sums(self.sizes)[:-1]

    @cached_property
    def tokens(self) -> Ints:
        """Codes as numbers of that vocabulary [I, Q]."""
        return self.codes + self.shifts

    @cached_property
    def trie(self) -> Trie:
        """The tree of the tuples; of another codebook it is another."""
        return Trie.of(self.codes)

    def changed(self, codes: NDArray[np.integer[Any]]) -> Codebook:
        """With other codes, a version on."""
        return Codebook(codes.astype(np.int64), self.sizes, self.version + 1)

    def extended(self, codes: NDArray[np.integer[Any]]) -> Codebook:
        """With the codes [n, Q] of further items, numbered on from the old end; those of old ones stay."""
        return self.changed(np.concatenate([self.codes, codes]))

    def export(self) -> dict[str, NDArray[Any]]:
        """As a bundle keeps it: each code in as few bytes as it needs."""
        small = np.uint8 if max(self.sizes) <= 256 else np.uint16 if max(self.sizes) <= 2**16 else np.int64
        facts = np.array([self.version, *self.sizes], dtype=np.int64)
        return {"codes": self.codes.astype(small), "codebook": facts}

    @classmethod
    def of(cls, state: Any, n_items: int, sizes: Sequence[int]) -> Codebook:
        """From what `export` gave; BundleError where it does not fit: it may come from a stranger."""
        try:
            codes, facts = state["codes"], state["codebook"]
        except KeyError as error:
            raise BundleError(f"a codebook keeps {error.args[0]!r}, which is not here") from error
        if (
            facts.shape != (1 + len(sizes),)
            or facts[1:].tolist() != list(sizes)
            or codes.shape != (n_items, len(sizes))
        ):
            raise BundleError(f"codes of {n_items} items in levels of {list(sizes)} were expected, got {codes.shape}")
        try:
            return cls(codes.astype(np.int64), tuple(sizes), int(facts[0]))
        except UsageError as error:
            raise BundleError(f"the codes are damaged: {error}") from error


def ranks(codes: NDArray[np.integer[Any]]) -> Ints:
    """How many items before it, in the order of their numbers, have the same tuple: [I] from codes [I, Q]."""
    order = np.lexsort(codes.T[::-1])
    rows = codes[order]
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    begins = np.flatnonzero(new)
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
    return found


def _sums(sizes: Any) -> Ints:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
