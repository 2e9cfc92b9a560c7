"""Rows of shared tables that a session has a version of its own of, and steps of descent that move only those.

A session's rows are numbered: 0 its user, 1 + i item i, 1 + I + a attribute a. B sessions, D width, N pairs.

Ref: Lei et al., "Estimation-Action-Reflection", WSDM 2020, arXiv:2002.09102, section 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tastemaker.nn.draws import uniforms
from tastemaker.nn.questions import Talks
from tastemaker.types import Jagged, mix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
PAIRS = 32  # of a step
TRIES = 8  # draws before an item that was chosen or shown is taken after all


@dataclass(frozen=True, eq=False)
class Tables:
    """What all sessions share. Shapes: users [U, D], stranger [D], items [I, D], attributes [A, D]."""

    users: Floats
    stranger: Floats
    items: Floats
    attributes: Floats

    @property
    def width(self) -> int:
        """Numbers of rows that a session can have."""
        return 1 + len(self.items) + len(self.attributes)

    def rows(self, talks: Talks, owners: Ints, numbers: Ints) -> Floats:
        """Rows by session and number [n, D]: the session's own where it has one, else the shared."""
        out = np.empty((len(numbers), self.items.shape[1]), dtype=np.float32)
        n_items = len(self.items)
        at = numbers == 0
        who = talks.user[owners[at]]
        known = (who >= 0) & (who < len(self.users))
        out[at] = np.where(known[:, None], self.users[np.where(known, who, 0)], self.stranger)
        at = (numbers > 0) & (numbers <= n_items)
        out[at] = self.items[numbers[at] - 1]
        at = numbers > n_items
        out[at] = self.attributes[numbers[at] - 1 - n_items]
        if len(talks.moved.values):
            keys = talks.moved.rows * self.width + talks.moved.values
            place = np.minimum(np.searchsorted(keys, owners * self.width + numbers), len(keys) - 1)
            own = keys[place] == owners * self.width + numbers
            out[own] = talks.rows.values[place[own]]
        return out

    def members(self, talks: Talks) -> tuple[Ints, Ints, Floats]:
        """The user of each session and its confirmed attributes: owners [n], numbers [n], rows [n, D]."""
        rows, attributes = np.nonzero(talks.known)
        owners = np.concatenate([np.arange(len(talks)), rows])
        numbers = np.concatenate([np.zeros(len(talks), dtype=np.int64), attributes + 1 + len(self.items)])
        return owners, numbers, self.rows(talks, owners, numbers)

    def queries(self, talks: Talks) -> Floats:
        """The user's vector and those of what is confirmed, summed [B, D]."""
        owners, _, rows = self.members(talks)
        total = np.zeros((len(talks), rows.shape[1]), dtype=np.float32)
        np.add.at(total, owners, rows)
        return total

    def scores(self, talks: Talks) -> Floats:
        """What the machine says of all items [B, I]: u.v + sum over confirmed p of v.p; the rest no item changes."""
        queries = self.queries(talks)
        scores = queries @ self.items.T
        owners, numbers = talks.moved.rows, talks.moved.values
        at = (numbers > 0) & (numbers <= len(self.items))
        scores[owners[at], numbers[at] - 1] = np.einsum("nd,nd->n", queries[owners[at]], talks.rows.values[at])
        return scores


def reflected(
    tables: Tables, talks: Talks, refused: NDArray[np.bool_], *, lr: float, reg: float, passes: int, spread: bool
) -> Talks:
    """The sessions after some steps of descent in those that turned a list down.

    In each, items of the history are ranked above those of the list, given what is confirmed: the sum over pairs of
    -log sigmoid(score(of the history) - score(of the list)), and `reg` times the squared length of each row in use. A
    step moves the user's row, those of the confirmed attributes and those of the items, as this session has them.

    Args:
        spread: as many items drawn at random stand beside those of the history, and of the list (the authors' code).
    """
    chosen = np.flatnonzero(refused & (talks.past.lengths > 0) & (talks.shown >= 0).any(axis=1))
    if not len(chosen):
        return talks
    part = talks.take(chosen)
    good, bad = part.past.last(PAIRS), _listed(part.shown)
    if spread:
        good, bad = _spread(part, good, len(tables.items), 1), _spread(part, bad, len(tables.items), 2)
    n, width = len(part), tables.width
    owners, numbers, _ = tables.members(part)
    members = owners * width + numbers
    items = [rows.rows * width + 1 + rows.values for rows in (good, bad)]
    keys = np.unique(np.concatenate([members, *items]))
    rows = tables.rows(part, keys // width, keys % width).astype(np.float64)
    member = np.searchsorted(keys, members)
    places = [np.searchsorted(keys, one) for one in items]  # of each item among the rows
    pair = np.arange(PAIRS)
    owner = np.repeat(np.arange(n), PAIRS)
    for step in range(passes):
        luck = uniforms(mix(part.seed ^ mix(part.turn)[:, None], 11 + step), pair[None])
        left = places[0][good.offsets[:-1, None] + (pair + step * PAIRS)[None] % good.lengths[:, None]].ravel()
        right = places[1][bad.offsets[:-1, None] + (luck * bad.lengths[:, None]).astype(np.int64)].ravel()
        queries = np.zeros((n, rows.shape[1]))
        np.add.at(queries, owners, rows[member])
        apart = rows[left] - rows[right]
        pull = special.expit(-np.einsum("nd,nd->n", queries[owner], apart))[:, None]  # how wrong each pair is
        gradient = 2 * reg * rows
        np.add.at(gradient, left, -pull * queries[owner])
        np.add.at(gradient, right, pull * queries[owner])
        towards = -(pull * apart).reshape(n, PAIRS, -1).sum(axis=1)
        np.add.at(gradient, member, towards[owners])
        rows -= lr * gradient
    kept = ~np.isin(keys, (part.shown + 1 + np.arange(n)[:, None] * width)[part.shown >= 0])  # never scored again
    return _moved(talks, chosen[keys[kept] // width], keys[kept] % width, rows[kept].astype(np.float32), width)


def _listed(shown: NDArray[np.int32]) -> Jagged[NDArray[np.int32]]:
    there = shown >= 0
    return Jagged(shown[there], np.concatenate([[0], np.cumsum(there.sum(axis=1))]))


def _spread(talks: Talks, items: Jagged[Any], n_items: int, purpose: int) -> Jagged[Any]:
    """The rows of items, and as many more drawn among those that are neither in the history nor in the list."""
    owners = items.rows
    known = np.concatenate([talks.past.rows * n_items + talks.past.values, *_keys(talks.shown, n_items)])
    seeds = mix(talks.seed[owners, 0] ^ mix(talks.turn[owners]), 100 + purpose)
    slots = np.arange(len(owners)) - items.offsets[:-1][owners]
    drawn = np.zeros(len(owners), dtype=np.int64)
    again = np.ones(len(owners), dtype=np.bool_)
    for attempt in range(TRIES):
        luck = uniforms(seeds[again, None], slots[again, None], 2 * attempt)[:, 0]
        drawn[again] = (luck * n_items).astype(np.int64)
        again = np.isin(owners * n_items + drawn, known)
    every = np.concatenate([items.values, drawn.astype(items.values.dtype)])
    return Jagged.from_rows(np.concatenate([owners, owners]), every, len(items))


def _keys(shown: NDArray[np.int32], n_items: int) -> list[Ints]:
    return [(np.arange(len(shown))[:, None] * n_items + shown)[shown >= 0]]


def _moved(talks: Talks, owners: Ints, numbers: Ints, rows: Floats, width: int) -> Talks:
    """With these rows in the place of what the sessions had."""
    fresh = owners * width + numbers
    olds = talks.moved.rows * width + talks.moved.values
    stays = ~np.isin(olds, fresh)
    keys = np.concatenate([olds[stays], fresh])
    every = np.concatenate([talks.rows.values[stays], rows])
    order = np.argsort(keys)
    keys, every = keys[order], every[order]
    counts = np.bincount(keys // width, minlength=len(talks))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return replace(talks, moved=Jagged(keys % width, offsets), rows=Jagged(every, offsets))
