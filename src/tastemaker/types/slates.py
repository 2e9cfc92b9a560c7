"""B ordered lists of items, as answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types.errors import UsageError
from tastemaker.types.jagged import Columns

NO_ITEM = -1


@dataclass(frozen=True, eq=False)
class Slates:
    """B lists of at most K items, in the order of the answer.

    Shapes:
        items: [B, K] int32, -1 after the last item of a shorter list
        scores: [B, K] float32, -inf after the last item
        logp: [B, K] float32 or None, log-probability of each slot given the slots before it
        trace: Columns of B rows, logged with the slate and returned verbatim with its feedback
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    logp: NDArray[np.float32] | None = None
    trace: Columns | None = field(default=None)

    def __post_init__(self) -> None:
        items = np.asarray(self.items, dtype=np.int32)
        scores = np.asarray(self.scores, dtype=np.float32)
        object.__setattr__(self, "items", items)
        object.__setattr__(self, "scores", scores)
        if items.ndim != 2 or scores.shape != items.shape:
            raise UsageError(f"items and scores are both [B, K], got {list(items.shape)} and {list(scores.shape)}")
        if self.logp is not None:
            object.__setattr__(self, "logp", np.asarray(self.logp, dtype=np.float32))
            if self.logp.shape != items.shape:
                raise UsageError(f"logp is [B, K] as items are, got {list(self.logp.shape)}")
        if self.trace is not None and self.trace.n_rows != len(items):
            raise UsageError(f"a trace has one row a slate ({len(items)}), got {self.trace.n_rows}")
        if items.size and items.min() < NO_ITEM:
            raise UsageError(f"item numbers are at least -1, got {items.min()}")
        if items.shape[1] > 1 and ((items[:, :-1] < 0) & (items[:, 1:] >= 0)).any():
            raise UsageError("a list has no gaps: -1 comes only after its last item")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def k(self) -> int:
        return int(self.items.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of items of each list [B]."""
        return np.asarray((self.items >= 0).sum(axis=1))

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Slates:
        logp = None if self.logp is None else self.logp[rows]
        return Slates(self.items[rows], self.scores[rows], logp, None if self.trace is None else self.trace.take(rows))

    def head(self, k: int) -> Slates:
        logp = None if self.logp is None else self.logp[:, :k]
        return Slates(self.items[:, :k], self.scores[:, :k], logp, self.trace)
