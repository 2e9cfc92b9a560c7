"""Bundles may know different users and items: requests in a pipeline's numbers, lists in a system's, and back.

The maps are made once, from outside ids. Where two bundles share a vocabulary, which is the rule for systems fitted on
the same data, nothing is looked up at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import UNKNOWN, Columns, ItemFilter, Jagged, Requests, Slates, Vocabulary

Numbers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Translation:
    """Numbers of a pipeline to those of one of its systems.

    Shapes:
        users: [U] the system's number of each user of the pipeline, -1: it does not know the user; None: the same
        items: [I] likewise; None: the same
        back: [J] the pipeline's number of each item of the system; None: the same
    """

    users: Numbers | None
    items: Numbers | None
    back: Numbers | None

    @classmethod
    def between(
        cls, users: Vocabulary, items: Vocabulary, other_users: Vocabulary, other_items: Vocabulary
    ) -> Translation:
        same_users, same_items = users == other_users, items == other_items
        return cls(
            None if same_users else other_users.numbers(users.series),
            None if same_items else other_items.numbers(items.series),
            None if same_items else items.numbers(other_items.series),
        )

    @property
    def same(self) -> bool:
        """Whether nothing needs to be translated."""
        return self.users is None and self.items is None

    def requests(self, asked: Requests) -> Requests:
        """The same questions to the system: what it does not know is -1 (users) or left out (items)."""
        changes: dict[str, Any] = {}
        if asked.users is not None and self.users is not None:
            changes["users"] = look_up(self.users, asked.users)
        if self.items is not None:
            if asked.history is not None:
                changes["history"] = self._history(asked.history)
            for name in ("candidates", "exclude"):
                if (rows := getattr(asked, name)) is not None:
                    changes[name] = self._known(rows)
            if asked.filter is not None:
                assert self.back is not None
                allowed = asked.filter.allowed[:, np.maximum(self.back, 0)] & (self.back >= 0)
                changes["filter"] = ItemFilter(allowed, asked.filter.which)
        return asked.with_(**changes) if changes else asked

    def _history(self, history: Jagged[Columns]) -> Jagged[Columns]:
        """Events without an item stay; those with an item that the system does not know go."""
        assert self.items is not None
        items = history.values["item"]
        numbers = look_up(self.items, items)
        kept = (numbers >= 0) | (items < 0)
        moved = Jagged(history.values.with_columns(item=numbers), history.offsets)
        return moved if kept.all() else moved.where(kept)

    def _known(self, rows: Jagged[Numbers]) -> Jagged[Numbers]:
        assert self.items is not None
        numbers = look_up(self.items, rows.values)
        moved = Jagged(numbers, rows.offsets)
        return moved if (numbers >= 0).all() else moved.where(numbers >= 0)

    def items_to(self, items: Numbers) -> Numbers:
        """Numbers of items in the system, of any shape; -1 for those it does not know."""
        return items if self.items is None else look_up(self.items, items)

    def items_back(self, items: Numbers) -> Numbers:
        """Numbers of items in the pipeline, of any shape; -1 for those it does not know."""
        return items if self.back is None else look_up(self.back, items)

    def slates_to(self, slates: Slates) -> tuple[Slates, NDArray[np.bool_]]:
        """Lists in the system's numbers, closed up where it does not know an item, and which places those were [B, K].

        The system's answer for each place that is left goes, in order, to the places where the mask holds.
        """
        items = self.items_to(slates.items)
        known = items >= 0
        if self.items is None:
            return slates, known
        order = np.argsort(~known, axis=1, kind="stable")
        there = np.take_along_axis(known, order, axis=1)
        closed = np.where(there, np.take_along_axis(items, order, axis=1), UNKNOWN).astype(np.int32)
        scores = np.where(there, np.take_along_axis(slates.scores, order, axis=1), -np.inf).astype(np.float32)
        return Slates(closed, scores), known

    def rows(self, of_system: NDArray[Any], n_items: int) -> NDArray[Any]:
        """Rows of the system's items [J, ...] as rows of the pipeline's [I, ...]; 0 for those it does not know."""
        if self.items is None:
            return of_system
        rows = np.zeros((n_items, *of_system.shape[1:]), dtype=of_system.dtype)
        known = self.items >= 0
        rows[known] = of_system[self.items[known]]
        return rows


def look_up(table: Numbers, numbers: NDArray[Any]) -> Numbers:
    """Entries of a table by number, of any shape; -1 for numbers below 0 or past its end."""
    if not len(table):
        return np.full(numbers.shape, UNKNOWN, dtype=np.int32)
    inside = (numbers >= 0) & (numbers < len(table))
    return np.where(inside, table[np.where(inside, numbers, 0)], UNKNOWN).astype(np.int32, copy=False)
