"""Reasons that rest on something: an item the user chose, or what a system itself says.

Where there is nothing to rest on, no reason is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.compose import kernels
from tastemaker.compose.columns import Likeness
from tastemaker.compose.translate import Translation
from tastemaker.types import Jagged, Reason, Requests, Slates, UsageError

Reasons = list[list[Reason | None]]


class Explainer(Protocol):
    """Says why items are in lists."""

    def explain(self, requests: Requests, slates: Slates) -> Reasons:
        """One reason a place [B][K], None where there is nothing to say."""
        ...


@dataclass(frozen=True, eq=False)
class BecauseOf:
    """Names the item of the history that is most like the one shown.

    titles: what items are called; ids: for items without a title
    """

    likeness: Likeness
    titles: pl.Series
    least: float
    last: int
    text: str

    def explain(self, requests: Requests, slates: Slates) -> Reasons:
        near, _ = self.nearest(requests, slates)
        named = self.titles.gather(pl.Series(np.maximum(near, 0).ravel(), dtype=pl.Int64)).to_list()
        shown = iter(zip(slates.items.ravel().tolist(), near.ravel().tolist(), named, strict=True))
        return [[self._reason(*next(shown)) for _ in range(slates.k)] for _ in range(len(slates))]

    def nearest(self, requests: Requests, slates: Slates) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Items of the histories that are most like those shown [B, K], -1 where none is, and how alike they are."""
        chosen: Jagged[NDArray[np.int32]] = Jagged.empty(requests.n)
        if requests.history is not None:
            chosen = requests.items().last(self.last)
        near = np.full(slates.items.shape, -1, dtype=np.int32)
        how = np.zeros(slates.items.shape, dtype=np.float32)
        past = np.ascontiguousarray(chosen.values, dtype=np.int32)
        shown = np.ascontiguousarray(slates.items)
        kernels.nearest_chosen(shown, past, chosen.offsets, *self.likeness.arrays, near, how)
        return np.where(how >= np.float32(self.least), near, -1).astype(np.int32), how

    def _reason(self, item: int, near: int, title: str) -> Reason | None:
        if item < 0 or near < 0:
            return None
        text = self.text
        if "{shared}" in text:
            text = text.replace("{shared}", ", ".join(self._shared(item, near)))
        return Reason(text.replace("{item}", title), (near,), source="because")

    def _shared(self, item: int, near: int) -> list[str]:
        sets = self.likeness.sets
        a, b = (set(sets.values[sets.offsets[i] : sets.offsets[i + 1]].tolist()) for i in (item, near))
        return [sets.names[code] for code in sorted(a & b)]


@dataclass(frozen=True, eq=False)
class ByBundle:
    """What a system says of items, in the pipeline's numbers; items that it does not know get no reason."""

    system: Any
    to: Translation
    name: str

    def explain(self, requests: Requests, slates: Slates) -> Reasons:
        closed, known = self.to.slates_to(slates)
        said = self.system.explain(self.to.requests(requests), closed)
        if len(said) != len(slates) or any(len(row) != closed.k for row in said):
            raise UsageError(f"{self.name} explains {len(slates)} lists of {closed.k} with another number of reasons")
        reasons: Reasons = []
        for row, where in zip(said, known, strict=True):
            left = iter(row)
            reasons.append([self._back(next(left)) if there else None for there in where.tolist()])
        return reasons

    def _back(self, reason: Reason | None) -> Reason | None:
        if reason is None or self.to.back is None or not reason.because_of:
            return reason
        numbers = self.to.items_back(np.array(reason.because_of, dtype=np.int64))
        return Reason(reason.text, tuple(n for n in numbers.tolist() if n >= 0), reason.source)


def titles_of(catalogue: pl.DataFrame) -> pl.Series:
    """What items are called: their title or name, their id where they have neither [I]."""
    shown = [pl.col(name).cast(pl.String) for name in ("title", "name") if name in catalogue.columns]
    return catalogue.select(pl.coalesce(*shown, pl.col("item").cast(pl.String)).alias("title")).to_series()
