"""Rows of features: a user, an item, the context in which they met, what the user chose before, and labels.

The same code makes the rows that are learnt from and those of candidates that are asked for, so what was learnt of a
field holds when it is read again. B rows, N events of their histories, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed
from tastemaker.feeds.feed import Rows as Numbers
from tastemaker.feeds.fields import Encoder, Floats, Ints
from tastemaker.feeds.labels import Labelled, Pasts, Task, drawn_labels
from tastemaker.feeds.matrix import cut_bags, interaction_matrix
from tastemaker.feeds.negatives import uniform
from tastemaker.types import Dataset, Requests, to_numpy

PAIRS = 4096  # rows that are asked for at once


@dataclass(frozen=True, eq=False)
class Rows:
    """B rows of features; numbers of users and items count from 1, and 0 is an unknown one.

    longest: length of the longest history

    Shapes:
        users, items: [B] int64
        categories: [B, Fc] int64, rows of the table of categories
        numbers: [B, Fn] float32, standardised
        bags: [M] int64, rows of the same table; bag_offsets: [B * Fb + 1], the bags of a row side by side
        history: [N, 1 + Fi] int64: the item of each earlier choice, and its categories, oldest first
        marks: [N, 1 + K] float32: 1, then whether its value reaches each of the K `behaviours` of the fields
        offsets: [B + 1] int64, row b has the history offsets[b]:offsets[b + 1]
        labels: [B, T] float32, NaN: none; no columns where something is asked
    """

    users: Any
    items: Any
    categories: Any
    numbers: Any
    bags: Any
    bag_offsets: Any
    history: Any
    marks: Any
    offsets: Any
    labels: Any
    longest: int

    def __len__(self) -> int:
        return len(self.users)

    @property
    def owners(self) -> Any:
        """The user of each row [B]; -1 an unknown one, who is none of those in training."""
        return self.users - 1

    def take(self, rows: slice) -> Rows:
        first, last, _ = rows.indices(len(self))
        last = max(first, last)
        width = (len(self.bag_offsets) - 1) // max(1, len(self))
        bag_offsets, bags = cut_bags(slice(first * width, last * width), self.bag_offsets, self.bags)
        offsets, history, marks = cut_bags(rows, self.offsets, self.history, self.marks)
        users, items, categories, numbers = (
            self.users[rows],
            self.items[rows],
            self.categories[rows],
            self.numbers[rows],
        )
        kept = users, items, categories, numbers, bags, bag_offsets, history, marks, offsets, self.labels[rows]
        return Rows(*kept, int((offsets[1:] - offsets[:-1]).max()) if len(offsets) > 1 else 0)


def rows(
    data: Dataset,
    encoder: Encoder,
    tasks: tuple[Task, ...],
    batch_size: int,
    *,
    negatives: int = 4,
    max_len: int = 0,
) -> RowFeed[Rows]:
    """Every row of a log that has a label, once an epoch, in random order; a batch is larger by what is drawn to it.

    Args:
        negatives: items beside each choice that was made outside a shown list, drawn among those the user did not
            choose; none where no task says that they count as 0.
        max_len: latest choices of a history that are read; 0: none are.
    """
    rows_of = Labelled.of(data, tasks)
    unseen = drawn_labels(tasks)
    n = negatives if rows_of.open.any() and not np.isnan(unseen).all() else 0
    sampler = uniform(interaction_matrix(data), n) if n else None
    codes, numbers = encoder.context({name: data.events[name] for name in data.schema.events}, data.n_events)
    pasts = Pasts.of(data) if max_len else None

    def make(picked: Numbers, rng: np.random.Generator) -> Rows:
        users, items, events = (part[picked] for part in (rows_of.users, rows_of.items, rows_of.events))
        labels = rows_of.labels[picked]
        if sampler is not None and (alone := rows_of.open[picked]).any():
            drawn = sampler(users[alone], rng)
            users = np.concatenate([users, np.repeat(users[alone], n)])
            items = np.concatenate([items, drawn.ravel()])
            events = np.concatenate([events, np.repeat(events[alone], n)])
            labels = np.concatenate([labels, np.tile(unseen, (drawn.size, 1))])
        past = (np.empty(0, np.int64), np.zeros(len(users) + 1, np.int64))
        values = np.empty(0, np.float32)
        if pasts is not None:
            places, offsets = pasts.of_events(events, max_len)
            past, values = (pasts.items[places], offsets), pasts.values[places]
        return _assembled(encoder, users, items, codes[events], numbers[events], *past, values, labels)

    return RowFeed(len(rows_of), batch_size, make)


def pairs(encoder: Encoder, requests: Requests, items: Any = None, *, max_len: int = 0) -> Iterator[Rows]:
    """Rows of each request with each of its items, request by request, in parts of bounded size.

    Shapes: items [B, C] item numbers, -1: an unknown one; None: the whole catalogue for each request.
    """
    f, n = encoder.fields, requests.n
    listed = None if items is None else to_numpy(items).astype(np.int64)
    width = f.n_items if listed is None else listed.shape[1]
    users = np.full(n, -1, np.int64) if requests.users is None else requests.users.astype(np.int64)
    codes, numbers = encoder.context({} if requests.context is None else requests.context, n)
    past, values, offsets = _histories(requests, f.n_items, max_len)
    for start in range(0, n * width, PAIRS):
        place = np.arange(start, min(start + PAIRS, n * width))
        of, column = np.divmod(place, width)
        asked = column if listed is None else listed[of, column]
        lengths = np.diff(offsets)[of]
        own = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        at = np.arange(own[-1]) + np.repeat(offsets[of] - own[:-1], lengths)
        labels = np.empty((len(place), 0), np.float32)
        yield _assembled(encoder, users[of], asked, codes[of], numbers[of], past[at], own, values[at], labels)


def _histories(requests: Requests, n_items: int, max_len: int) -> tuple[Ints, Floats, Ints]:
    """The latest known items of each history, their values (NaN: none), and offsets [B + 1]."""
    if not max_len or requests.history is None:
        return np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(requests.n + 1, np.int64)
    history = requests.history
    items = history.values["item"]
    known = (items >= 0) & (items < n_items)
    kept = (history if known.all() else history.where(known)).last(max_len)
    values = kept.values["value"] if "value" in kept.values else np.full(kept.values.n_rows, np.nan)
    return kept.values["item"].astype(np.int64), values.astype(np.float32), kept.offsets


def _assembled(
    encoder: Encoder,
    users: Ints,
    items: Ints,
    context_codes: Ints,
    context_numbers: Floats,
    past: Ints,
    offsets: Ints,
    values: Floats,
    labels: NDArray[np.float32],
) -> Rows:
    """Rows from numbers of users and items (-1, or past the end: unknown), coded context, and histories."""
    f = encoder.fields
    of_user = np.where((users >= 0) & (users < f.n_users), users + 1, 0)
    of_item = np.where((items >= 0) & (items < f.n_items), items + 1, 0)
    user, item = encoder.user_codes[of_user], encoder.item_codes[of_item]
    if not f.timed and len(past):  # without times nobody can tell the item's own event from an earlier one
        other = past != np.repeat(items, np.diff(offsets))
        offsets = np.concatenate([[0], np.cumsum(other)])[offsets]
        past, values = past[other], values[other]
    u, i = encoder.n_user_bags, encoder.n_item_bags
    bags = encoder.bags.take(
        np.concatenate(
            [
                of_user[:, None] * u + np.arange(u),
                (f.n_users + 1) * u + of_item[:, None] * i + np.arange(i),
            ],
            axis=1,
        ).ravel()
    )
    with np.errstate(invalid="ignore"):
        reached = [(values >= least) for least in f.behaviours]
    return Rows(
        user[:, 0],
        item[:, 0],
        np.concatenate([user[:, 1:], item[:, 1:], context_codes], axis=1),
        np.concatenate([encoder.user_numbers[of_user], encoder.item_numbers[of_item], context_numbers], axis=1),
        bags.values,
        bags.offsets,
        encoder.item_codes[past + 1],
        np.stack([np.ones(len(past)), *reached], axis=1).astype(np.float32),
        offsets,
        labels,
        int(np.diff(offsets).max(initial=0)),
    )
